"""The null canary: what it sends through the pipeline, what it makes of the passes, and that it leaves nothing behind."""

import json
import sys

import numpy as np
import pytest
from bars_files import lines, market, write

from trademl.cli import main
from trademl.commands.canary import run_canary
from trademl.data.synthetic import synthetic_market
from trademl.errors import BadDataError
from trademl.pipeline import market as pipeline
from trademl.pipeline.choice import MarketFlags
from trademl.pipeline.market import canary
from trademl.pipeline.market.canary import Kind, Passes, count_passes, passes_gate, rotated
from trademl.pipeline.market.replay import LOOKBACK
from trademl.settings import load_settings

pytestmark = pytest.mark.canary


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def judged(monkeypatch):
    """Takes the pipeline's place: the markets that were asked about; those of seed 1 pass, and every one with a drift."""
    asked = []

    def passes(kind, seed, overrides, bars):
        asked.append((kind, seed))
        return seed == 1 or kind is Kind.DRIFT

    monkeypatch.setattr(canary, "passes_gate", passes)
    return asked


@pytest.mark.parametrize(
    ("runs", "passed", "low", "high", "alive"),
    [
        (10, 0, 0.0, 0.3085, True),
        (10, 1, 0.0025, 0.4450, True),
        (10, 2, 0.0252, 0.5561, False),
        (100, 3, 0.0062, 0.0852, True),
        (100, 5, 0.0164, 0.1128, False),
        (2, 2, 0.1581, 1.0, False),
    ],
)
def test_passes_beyond_chance_are_told_from_bad_luck(runs, passed, low, high, alive):
    found = Passes(Kind.NO_EDGE, runs, passed, level=0.01)
    assert found.interval == pytest.approx((low, high), abs=1e-4)
    assert (found.is_alive, found.expected) == (alive, runs * 0.01)


def test_rotated_rows_keep_their_order_and_clear_of_their_own_bars():
    x = np.column_stack([np.arange(9_000.0), np.ones(9_000)])
    x[:1_900] = np.nan
    moved = rotated(x, horizon_bars=48, rng=np.random.default_rng(5))
    assert np.isnan(moved[:1_900]).all()
    away = moved[1_900:, 0] - x[1_900:, 0]
    assert set(np.unique(away)) == {shift := away.max(), shift - 7_100}
    assert min(shift, 7_100 - shift) >= LOOKBACK + 2 * 48
    assert not np.array_equal(moved, rotated(x, 48, np.random.default_rng(6)), equal_nan=True)
    with pytest.raises(BadDataError, match="5,000 bars are too few to rotate their outcomes: 5,961 are needed"):
        rotated(x[:5_000], 48, np.random.default_rng(5))


def test_each_kind_is_the_market_that_it_says():
    settings = load_settings(canary.SMALL | {"synthetic.bars": 3_000})
    closes = {kind: canary._inputs(kind, 4, settings, None).bars["close"] for kind in Kind if kind is not Kind.ROTATED}
    still = synthetic_market(3_000, edge=0.0, seed=4).bars["close"]
    assert closes[Kind.NO_EDGE].equals(still) and closes[Kind.EDGE].equals(still)  # an edge is in the volume alone
    rise = np.log(closes[Kind.DRIFT].iloc[-1] / still.iloc[-1])
    assert rise == pytest.approx(0.0145 * 3_000 / 96, rel=0.01)
    assert np.log(closes[Kind.REGIMES]).diff().std() != pytest.approx(np.log(still).diff().std(), rel=0.05)


def test_the_user_s_bars_are_a_part_of_them_in_a_store_of_its_own(folder):
    flags = MarketFlags(bars=str(write(folder / "a.csv", lines(market(20_000)))), no_news=True)
    settings = load_settings(canary.SMALL)
    bars = pipeline.load_inputs(settings, pipeline.choose_market(settings, flags), flags)
    own = load_settings({"paths.models": "elsewhere"})
    parts = [canary._inputs(Kind.ROTATED, seed, own, bars) for seed in (1, 2)]
    assert [len(part.bars) for part in parts] == [canary.ROTATED_BARS] * 2
    assert parts[0].bars_sha256 != parts[1].bars_sha256
    assert (parts[0].choice.models_dir, parts[0].choice.symbol) == ("elsewhere", "BTCUSD")


def test_passes_are_counted_and_progress_is_told(judged):
    told = []
    found = count_passes(Kind.NO_EDGE, 3, progress=lambda *step: told.append(step))
    assert (found.passed, found.level) == (1, load_settings().gate.level)
    assert told == [(0, 3, "0 passed"), (1, 3, "1 passed"), (2, 3, "1 passed")]


def test_the_command_says_how_many_passed_and_how_many_may(folder, judged, monkeypatch, capsys):
    def doctor(*words):
        monkeypatch.setattr(sys, "argv", ["trademl", "doctor", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return (int(end.value.code or 0), *capsys.readouterr())

    code, out, err = doctor("--canary", "4")
    assert code == 1
    assert [line.split() for line in out.splitlines()[1:3]] == [
        ["no", "edge", "4", "1", "0.04", "0.6", "to", "80.6", "%"],
        ["drift,", "no", "edge", "4", "4", "0.04", "39.8", "to", "100.0", "%"],
    ]
    assert "drift, no edge (4 of 4 passed, at most 0.04 expected): skill is found where there is none" in out
    assert "left out: your own bars" in out
    assert [line.split(":")[0] for line in err.splitlines()] == ["no edge", "drift, no edge", "volatility regimes, no edge"]
    write(folder / "bars.csv", lines(market()))
    code, out, err = doctor("--canary", "1", "--bars", "bars.csv", "--quiet", "--json")
    told = json.loads(out)
    assert (code, told["exit"], told["left_out"], err) == (1, 1, None, "")
    assert told["markets"][-1]["market"] == "your bars, outcomes rotated"
    assert {path.name for path in folder.iterdir()} == {"bars.csv"}, "nothing is left behind"
    code, _, err = doctor("--bars", "bars.csv")
    assert code == 2 and "belong to --canary N" in err


def test_bad_luck_is_not_a_fault(folder, monkeypatch):
    monkeypatch.setattr(canary, "passes_gate", lambda kind, seed, *_: kind is Kind.DRIFT and seed == 3)
    found = run_canary(10, quiet=True)
    assert (found["exit"], found["status"]) == (0, "done")
    assert found["sentence"] == "1 passed, at most 0.3 expected: the pipeline finds no more in these markets than chance allows"


def test_the_whole_pipeline_passes_where_there_is_an_edge_and_leaves_nothing(folder):
    less = {"synthetic.bars": 14_000, "windows.refit_every_days": 100, "ensemble.rf_trees": 4, "ensemble.xgb_max_rounds": 15}
    assert passes_gate(Kind.EDGE, 1, less | {"ensemble.lgb_max_rounds": 15})
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Kind.NO_EDGE, Kind.DRIFT, Kind.REGIMES])
def test_ten_markets_without_an_edge(folder, kind):
    found = count_passes(kind, 10)
    assert found.is_alive, f"{found.passed} of 10 passed"


@pytest.mark.slow
def test_the_real_bars_with_their_outcomes_rotated(folder, shared_data):
    flags = MarketFlags(bars=str(shared_data / "market/btcusd_m15_2024-04_2026-04.csv.gz"), no_news=True)
    settings = load_settings()
    bars = pipeline.load_inputs(settings, pipeline.choose_market(settings, flags), flags)
    assert count_passes(Kind.ROTATED, 5, bars=bars).is_alive
