"""Made records: reproducible, shaped like the bot's, and exactly as predictable as the dials say."""

import json
import sys

import numpy as np
import pytest

from trademl.cli import main
from trademl.data.record_maker import MadeRecords, make_records, write_records
from trademl.data.record_truth import EARLY_R, LEVEL_R, STOP_R, TARGET_R, Edges
from trademl.data.records import read_records
from trademl.errors import UsageError

pytestmark = pytest.mark.trades
N = 6_000
DIALS = ("quality", "sizing", "tp", "sl")


def only(dial: str) -> Edges:
    return Edges(**{name: float(name == dial) for name in DIALS})


@pytest.fixture(scope="module")
def made() -> dict[str, MadeRecords]:
    return {dial: make_records(N, only(dial), seed=11) for dial in DIALS} | {"none": make_records(N, 0.0, seed=11)}


@pytest.fixture(scope="module")
def report(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "features_2025-01-01_1.jsonl"
    write_records(made["none"], path)
    return read_records(path)


def drivers(one: MadeRecords) -> dict[str, np.ndarray]:
    """What each dial follows, traded records only."""
    seen = {"quality": -one.seen["crowd"], "sizing": one.seen["strength"], "tp": one.seen["confidence"], "sl": -one.seen["rsi"]}
    return {dial: values[one.is_traded] for dial, values in seen.items()}


def effects(one: MadeRecords) -> dict[str, np.ndarray]:
    """What each dial moves, NaN where it cannot be seen."""
    ended, traded = one.outcomes, one.is_traded
    made = {
        "quality": ended.is_win.astype(float),
        "sizing": np.where(ended.is_win, np.nan, ended.is_early),
        "tp": np.where(ended.is_win, ended.level, np.nan),
        "sl": np.where(ended.is_win, ended.adverse_pct / one.truth.stop_pct, np.nan),
    }
    return {dial: values[traded] for dial, values in made.items()}


def link(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation in standard errors."""
    known = ~np.isnan(y)
    return float(np.corrcoef(x[known], y[known])[0, 1] * np.sqrt(known.sum()))


@pytest.mark.parametrize("dial", DIALS)
def test_each_dial_moves_its_own_outcome_and_no_other(made, dial):
    seen, moved = drivers(made[dial]), effects(made[dial])
    assert link(seen[dial], moved[dial]) > 10
    others = [link(seen[a], moved[b]) for a in DIALS for b in DIALS if (a, b) != (dial, dial)]
    assert max(map(abs, others)) < 4.5


def test_without_an_edge_nothing_is_to_be_found(made):
    seen, moved = drivers(made["none"]), effects(made["none"])
    assert max(abs(link(seen[a], moved[b])) for a in DIALS for b in DIALS) < 4
    truth = made["none"].truth
    assert np.ptp(truth.win) == np.ptp(truth.early) == np.ptp(truth.levels, axis=0).max() == np.ptp(truth.depth) == 0
    assert (truth.expected_r < 0).all()  # what is left is the fee


@pytest.mark.parametrize("dial", [*DIALS, "none"])
def test_the_truth_is_what_the_outcomes_average_to(made, dial):
    one = made[dial]
    net = one.outcomes.r - 0.05 / one.truth.stop_pct
    for low in (True, False):
        for driver in (one.seen["crowd"], one.seen["strength"], one.seen["confidence"]):
            half = (driver < 0) == low
            error = net[half] - one.truth.expected_r[half]
            assert abs(error.mean()) < 4 * error.std() / np.sqrt(half.sum())
    survived = one.outcomes.adverse_pct[one.outcomes.is_win] <= one.truth.winner_adverse_q95[one.outcomes.is_win]
    assert abs(survived.mean() - 0.95) < 0.02


def test_a_trade_holds_together(report):
    frame = report.records[report.records["outcome_realizedPnl"].notna()]
    stop, notional = frame["exec_stopLossDistancePct"], frame["exec_positionSizeUsd"]
    r = (frame["outcome_realizedPnl"] + frame["outcome_feesUsd"]) / (stop / 100 * notional)
    assert set(np.round(r, 4)) == {*LEVEL_R, EARLY_R, STOP_R}
    side = np.where(frame["signal_direction"] == "long", 1, -1)
    moved = side * (frame["outcome_exitPrice"] / frame["exec_entryPrice"] - 1) / stop * 100
    assert np.allclose(moved, r, atol=1e-3)
    adverse, favorable = (100 * frame[f"outcome_max{name}Excursion"] / notional for name in ("Adverse", "Favorable"))
    assert (adverse >= -moved * stop - 1e-3).all()
    assert (favorable >= moved * stop - 1e-3).all()
    assert (frame["outcome_exitReason"] == "stop_loss").sum() == (np.round(r, 4) == STOP_R).sum()
    targets = frame[[f"exec_takeProfitDistancePct_{level}" for level in (1, 2, 3)]].to_numpy()
    assert np.allclose(targets, stop.to_numpy()[:, None] * TARGET_R, atol=1e-3)
    assert np.array_equal((favorable.to_numpy()[:, None] >= 0.9 * targets).sum(1), frame["outcome_partialProfitsTaken"])


def test_the_log_looks_like_the_bots(report):
    assert report.is_usable
    assert {issue.kind for issue in report.issues} == {"avoided"}
    frame = report.records
    filled = frame.notna().mean()
    assert 0.66 < filled["exec_entryPrice"] < 0.74
    assert 0.1 < filled["market_bookImbalance"] < 0.22
    assert filled["market_dvol"] < 0.25
    assert filled["news_etfFlowBtc"] == filled["regime_sentiment"] == 0
    constant = ("market_priceChange1h", "signal_conflictingCount", "regime_oiCapRisk", "signal_strategyName")
    assert all(frame[name].nunique() == 1 for name in constant)
    assert set(frame["asset"]) == {"BTC", "ETH", "SOL", "HYPE"}
    assert frame["id"].is_unique


def test_equal_arguments_give_equal_bytes(tmp_path):
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl")]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        write_records(make_records(50, 0.5, seed), path)
    first, same, other = (path.read_bytes() for path in paths)
    assert first == same != other


@pytest.mark.parametrize(("generation", "unit"), [("live", "usd"), ("live", "pct"), ("older", "pct"), ("older", "usd"), ("mixed", "usd")])
def test_both_forms_and_both_units(tmp_path, generation, unit):
    made = make_records(400, 0.5, seed=1, unit=unit, generation=generation)
    write_records(made, tmp_path / "f.jsonl")
    frame = read_records(tmp_path / "f.jsonl").records
    older = {"live": 0, "older": 400, "mixed": 200}[generation]
    assert frame["has_factors"].sum() == older
    assert frame["signal_source_count"].isna().sum() == older
    assert frame["decision_drivers"].notna().all()
    traded = frame["outcome_realizedPnl"].notna().to_numpy()
    scale = frame["exec_positionSizeUsd"][traded] / 100 if unit == "usd" else 1.0
    assert np.allclose(frame["outcome_maxAdverseExcursion"][traded], made.outcomes.adverse_pct[traded] * scale, atol=1e-5)


def test_refusals():
    with pytest.raises(UsageError, match="edge of tp = 2"):
        Edges(tp=2)
    with pytest.raises(UsageError, match="n = 0 must be a whole number"):
        make_records(0)
    with pytest.raises(UsageError, match="generation = 'new' is not one of live, older, mixed"):
        make_records(5, generation="new")


def test_data_sample_writes_records(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["trademl", "data", "sample", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    code, out, _ = run("--records", "60", "--edge", "0", "--seed", "3", "--output", "bot/features_1.jsonl", "--json")
    told = json.loads(out)
    assert (code, told["rows"], told["edge"], told["excursion_unit"]) == (0, 60, 0, "usd")
    assert len((tmp_path / "bot" / "features_1.jsonl").read_text().splitlines()) == 60
    assert read_records(tmp_path / "bot").source.kept == 60
    assert run("--records", "60", "--output", "x.jsonl", "--dry-run")[0] == 0
    assert not (tmp_path / "x.jsonl").exists()
    assert "must end in .jsonl" in run("--records", "60", "--output", "x.csv")[2]
    assert "give one of them" in run("--records", "60", "--bars", "60", "--output", "x.jsonl")[2]
    assert "give --records N" in run("--generation", "older", "--output", "x.csv")[2]
