"""One registry: the training row, the live vector, the manifest and the tables are the same thing."""

import json
import re
import sys

import numpy as np
import pytest

from trademl.cli import main
from trademl.data.record_columns import record_columns
from trademl.data.record_fields import FIELDS, Known
from trademl.data.record_maker import make_records, write_records
from trademl.data.records import read_records
from trademl.errors import UsageError
from trademl.trades.features import earlier_rows, serving_row, trade_matrix
from trademl.trades.registry import (
    Feature,
    TradeModel,
    asset_features,
    features_of,
    features_table,
    manifest,
    positions,
    registry,
    typescript_table,
)

pytestmark = pytest.mark.trades
ASSETS = ("BTC", "ETH", "HYPE", "SOL")
LATER = {"execution": ("streakMultiplier",), "wtt": ("primary", "alignment", "edge", "payoffShape", "timingForgiveness")}


def live(record: dict) -> dict:
    """The record as a bot has it when it decides: without what was not known yet."""
    kept = {name: value for name, value in record.items() if name not in ("outcome", "labels", "execution", "wtt")}
    known = {name: {key: value for key, value in record.get(name, {}).items() if key in keys} for name, keys in LATER.items()}
    return kept | {name: section for name, section in known.items() if section}


@pytest.fixture(scope="module")
def log() -> list[dict]:
    """A log with both forms of the record, theses, unseen words and holes."""
    rng = np.random.default_rng(5)
    rows = list(make_records(240, 0.5, seed=5, generation="mixed").records())
    for number, row in enumerate(rows):
        if number % 7 == 0:
            row["wtt"] = {"primary": True, "alignment": 4, "edge": None, "invalidateHit": number % 2 == 0}
        if number % 11 == 0:
            row["regime"] = {"marketRegime": "sideways"}
        if number % 13 == 0:
            del row["market"]["rsi14"]
        if number % 17 == 0:
            row["news"] = [{"title": "x", "sentiment": float(rng.integers(-50, 50))}]
    return rows


def test_the_live_vector_is_the_training_row_of_every_stored_record(log, tmp_path):
    """Part 7, defect 5: trained on raw units, served normalised."""
    path = tmp_path / "features_1.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in log))
    features = list(registry(ASSETS).values())  # every input of any model
    trained = trade_matrix(features, read_records(path).records)
    served = np.concatenate([serving_row(features, live(row), [live(old) for old in log[:n]]) for n, row in enumerate(log)])
    assert trained.dtype == np.float32
    assert trained.shape == (len(log), len(features))
    assert np.array_equal(trained, served, equal_nan=True)


def test_lags_are_those_of_a_slow_loop(log):
    columns = record_columns(log).values
    matrix = trade_matrix(features_of("sl_optimizer", ASSETS), columns)
    place = positions(ASSETS)
    seen: dict[str, list[float]] = {}
    for row, record in enumerate(log):
        before = seen.setdefault(record["asset"], [])
        for lag in (1, 2, 3):
            due = before[-lag] if len(before) >= lag else np.nan
            assert np.array_equal(matrix[row, place[f"market_rsi14_lag{lag}"]["sl_optimizer"]], np.float32(due), equal_nan=True)
        known = [value for value in before[-3:] if not np.isnan(value)]
        due = np.mean(known) if known else np.nan
        assert np.allclose(matrix[row, place["market_rsi14_roll3"]["sl_optimizer"]], due, rtol=1e-6, equal_nan=True)
        before.append(record["market"].get("rsi14", np.nan))


def test_missing_stays_missing(log):
    record = live(log[0]) | {"market": {"price": 5.0}, "signal": {"direction": "long"}, "regime": {}, "news": {}, "session": {}}
    record.pop("execution", None), record.pop("wtt", None)
    for model in TradeModel:
        features = features_of(model, ASSETS)
        row = serving_row(features, record, [])[0]
        told = {feature.name for feature, value in zip(features, row, strict=True) if not np.isnan(value)}
        assert told <= {"signal_direction_num", *(f"asset_{name}" for name in ASSETS)}


def test_an_unseen_asset_has_its_indicators_at_zero(log):
    features = features_of("signal_quality", ASSETS)
    row = serving_row(features, log[0] | {"asset": "DOGE"}, log[1:5])[0]
    names = [feature.name for feature in features]
    assert [row[names.index(f"asset_{name}")] for name in ASSETS] == [0.0] * 4
    assert np.isnan(row[names.index("market_atrPct_lag1")])  # other assets' history is not its own


def test_a_faulty_live_record_is_refused_and_a_faulty_old_one_is_not(log):
    features = features_of("tp_optimizer", ASSETS)
    bad = log[50] | {"market": log[50]["market"] | {"rsi14": 400}}
    with pytest.raises(UsageError, match=r"market\.rsi14 400: must lie in 0 to 100"):
        serving_row(features, bad, [])
    serving_row(features, log[51], [bad])


def test_records_out_of_order_are_refused(log):
    with pytest.raises(UsageError, match="record 2 is earlier than the one before it"):
        trade_matrix(features_of("tp_optimizer"), record_columns(log[1::-1]).values)


def test_earlier_rows_of_nothing():
    assert earlier_rows(np.array([], object)).shape == (3, 0)


# --- the registry -----------------------------------------------------------------------------------------------------------


@pytest.mark.leakage
@pytest.mark.parametrize("entry", [entry for entry in FIELDS if entry.known != Known.DECISION], ids=lambda entry: entry.path)
def test_what_is_known_later_cannot_be_a_feature(entry):
    """Part 7, defect 19: `wtt.invalidateHit` was one."""
    with pytest.raises(UsageError, match=f"known at {entry.known} only"):
        Feature("x", entry.path, codes=(("a", 1.0),) if entry.kind == "text" else ())


@pytest.mark.leakage
def test_no_feature_moves_when_the_future_changes(log):
    """Nothing of execution, outcome or labels reaches a feature, whatever stands there."""
    later = [row | {"outcome": {"realizedPnl": 1e6}, "labels": {"rMultiple": 99.0}} for row in log]
    for row in later:
        if "wtt" in row:
            row["wtt"] = row["wtt"] | {"invalidateHit": not row["wtt"]["invalidateHit"]}
    features = list(registry(ASSETS).values())
    now, then = (trade_matrix(features, record_columns(rows).values) for rows in (log, later))
    assert np.array_equal(now, then, equal_nan=True)


@pytest.mark.contract
def test_names_of_the_format():
    """The spec's lists (records-spec 2 and 3), less the look-ahead column."""
    quality = [feature.name for feature in features_of("signal_quality", ASSETS)]
    assert quality[:13] == [
        "market_priceChange24h",
        "market_volumeRatio",
        "market_fundingPercentile",
        "market_longShortRatio",
        "signal_strength",
        "signal_confidence",
        "signal_source_count",
        "signal_hasCascadeSignal",
        "signal_hasFundingExtreme",
        "signal_hasWhaleSignal",
        "session_isWeekend",
        "session_isOpenWindow",
        "session_utcHour",
    ]
    assert [feature.name for feature in features_of("position_sizing")][:6] == [
        "signal_strength",
        "signal_confidence",
        "signal_source_count",
        "session_isWeekend",
        "exec_streakMultiplier",
        "market_atrPct",
    ]
    exits = ["signal_direction_num", "market_atrPct", "signal_strength", "signal_confidence"]
    for model in ("tp_optimizer", "sl_optimizer"):
        names = [feature.name for feature in features_of(model)]
        assert names[:4] == exits
        assert {"volatility_level", "market_regime_num"} <= set(names)
    shared = [
        "market_dvol",
        "market_rsi14",
        "market_oiChange24h",
        "market_fundingDelta",
        "market_bookImbalance",
        "market_bidAskSpread",
        "market_priceVsSma20",
        "signal_hasOICap",
        "signal_xSentimentScore",
        "wtt_primary",
        "wtt_alignment",
        "wtt_edge",
        "wtt_payoffShape",
        "wtt_timingForgiveness",
        "signal_avg_sentiment",
        "news_avg_sentiment",
        "news_nasdaqChange",
        "news_etfFlowBtc",
        "news_etfFlowEth",
        "news_macro_risk_on",
        "news_macro_risk_off",
    ]
    for model in TradeModel:
        names = [feature.name for feature in features_of(model, ASSETS)]
        assert set(shared) <= set(names)
        assert len(names) == len(set(names))
        assert "wtt_invalidateHit" not in names
        assert names[-32:] == [
            f"market_{key}_{end}"
            for key in ["priceChange24h", "volumeRatio", "fundingPercentile", "longShortRatio", "atrPct", "rsi14", "oiChange24h", "dvol"]
            for end in ("lag1", "lag2", "lag3", "roll3")
        ]
        assert names[-36:-32] == [f"asset_{name}" for name in ASSETS]
    assert asset_features(["BTC", "BTC"]) == ()


@pytest.mark.contract
def test_every_table_says_the_same():
    table = typescript_table(ASSETS)
    rows = [json.loads(line.strip().rstrip(",")) for line in table.splitlines() if line.startswith("  {")]
    assert [row["column"] for row in rows] == list(registry(ASSETS))
    for model in TradeModel:
        told = manifest(model, ASSETS)
        placed = sorted((row["input"][model], row["column"]) for row in rows if model in row["input"])
        assert [place for place, _ in placed] == list(range(told["n_features"]))
        assert [name for _, name in placed] == told["features"] == [feature.name for feature in features_of(model, ASSETS)]
    written = re.findall(r"^\| `([^`]+)`", features_table(ASSETS), re.MULTILINE)
    assert written == list(registry(ASSETS))


def test_two_features_of_one_name_are_refused(monkeypatch):
    twin = Feature("market_atrPct", "market.rsi14")
    monkeypatch.setattr("trademl.trades.registry.OPTIONAL", (twin,))
    with pytest.raises(UsageError, match="two features are called market_atrPct"):
        registry()


# --- commands ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs `trademl trades ...` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["trademl", "trades", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return call


def test_features_command(run):
    assert "| `market_dvol_roll3` | `market.dvol`, mean of 3 back |" in run("features")[1]
    assert run("features", "--typescript", "--asset", "BTC", "--asset", "ETH")[1].strip() == typescript_table(["BTC", "ETH"])
    told = json.loads(run("features", "--json")[1])
    assert told["models"] == [manifest(model) for model in TradeModel]
    assert run("features", "--json", "--typescript")[0] == 2


def test_doctor_of_a_made_log(run, tmp_path):
    write_records(make_records(600, 0.5, seed=2), tmp_path / "features_1.jsonl")
    code, out, _ = run("doctor", tmp_path)
    assert code == 0
    assert "excursions are in usd" in out
    assert "never change: market.priceChange1h (0), " in out
    assert "the file divides by the leverage a second time" in out
    assert "the file compares dollars with percent" in out
    told = json.loads(run("doctor", tmp_path, "--json")[1])
    assert (told["status"], told["exit"], told["records"]) == ("done", 0, 600)
    assert {column["path"] for column in told["columns"]["dead"]} >= {"news.etfFlowBtc", "regime.sentiment"}
    assert {column["path"] for column in told["columns"]["sparse"]} >= {"market.bookImbalance", "market.bidAskSpread"}
    assert [rows["model"] for rows in told["models"]] == [model.value for model in TradeModel]
    assert {rows["obstacle"] for rows in told["models"]} == {""}


@pytest.mark.fault
def test_doctor_refuses_what_training_would(run, tmp_path):
    path = tmp_path / "features_1.jsonl"
    write_records(make_records(300, 0.5, seed=2), path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, "{", "{", "{", "{"]) + "\n")
    code, out, _ = run("doctor", path)
    assert code == 4
    assert "features_1.jsonl line 301" in out
    assert "must not be trained on: 4 of 304 lines are bad" in out
    assert json.loads(run("doctor", path, "--json")[1])["exit"] == 4
    code, _, err = run("doctor", tmp_path / "none.jsonl")
    assert (code, "no such file or folder" in err) == (4, True)
    assert run("doctor", path, "--excursion-unit", "points")[0] == 2
    path.write_text("\n".join(lines).replace('"realizedPnl":-', '"realizedPnl":') + "\n")
    code, out, _ = run("doctor", path, "--excursion-unit", "usd")
    assert code == 4
    assert re.search(r"must not be trained on: all \d+ trades are profitable: one class only", out)


def test_doctor_of_the_real_sample(run, shared_data):
    sample = shared_data / "records" / "features_sample.jsonl"
    code, out, _ = run("doctor", sample)
    assert code == 4
    for words in ("0% fit dollars and 78% percent", "--excursion-unit usd or pct", "SOL is priced around", "session.utcHour is not"):
        assert words in out
    assert re.search(r"outcome\.maxFavorableExcursion -[\d.]+ is below zero", out)
    assert "looks like a fraction" in out
    assert run("doctor", sample, "--excursion-unit", "pct")[0] == 0
