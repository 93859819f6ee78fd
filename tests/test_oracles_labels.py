"""The labels against two independent packages, bar by bar; each test prints how many agreed.

vectorbt walks brackets on highs and lows, stop first (OHLCSTX), and on closes only (BOLB). OHLCSTX knows no time-out: a column takes an
entry every `horizon + 1` bars, and what has not ended by the next has timed out. holdout-backtest knows what overlap does to a sample.
"""

import numpy as np
import pandas as pd
import pytest

from trademl.data.synthetic import synthetic_market
from trademl.market.labeling import label_bars
from trademl.market.specs import ExitReason, LabelSpec

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module", params=["synthetic", "real"])
def market(request):
    """Bars of a market that anyone has, and of the real one where it is there."""
    if request.param == "synthetic":
        return synthetic_market(10_000, edge=0.5, seed=11).bars
    path = request.getfixturevalue("shared_data") / "market" / "btcusd_m15_2024-04_2026-04.csv.gz"
    bars = pd.read_csv(path, index_col="time", parse_dates=["time"])
    return bars[["open", "high", "low", "close", "volume"]].astype(float)


def report(capsys, who, what, agreed):
    """Print how many agreed and insist on all of them."""
    with capsys.disabled():
        print(f"\n  {who}: {int(np.sum(agreed)):,} of {len(agreed):,} {what}")
    assert len(agreed) > 1000 and np.all(agreed)


def sides(labels):
    """Both outcomes with whether vectorbt has to look at them upside down."""
    return (("long", labels.long, False), ("short", labels.short, True))


@pytest.mark.parametrize(
    "spec", [LabelSpec(), LabelSpec(entry="close"), LabelSpec(tp_atr=0.8, sl_atr=1.0)], ids=["next_open", "close", "near"]
)
def test_vectorbt_agrees_on_highs_and_lows(market, spec, capsys):
    vectorbt = pytest.importorskip("vectorbt")
    labels = label_bars(market, spec)
    n, phases = len(market), spec.horizon_bars + 1
    known = np.flatnonzero(labels.label >= 0)
    base = market["close"].to_numpy() if spec.entry == "close" else np.append(market["open"].to_numpy()[1:], np.nan)
    entries = np.zeros((n, phases), bool)
    entries[known, known % phases] = True
    prices = {name: market[[name]].to_numpy() for name in ("high", "low", "close")}
    width = np.where(labels.label >= 0, labels.atr / base, np.nan)[:, None]
    for name, side, upside_down in sides(labels):
        run = vectorbt.OHLCSTX.run(
            entries, base[:, None], **prices, sl_stop=[spec.sl_atr * width], tp_stop=[spec.tp_atr * width], reverse=upside_down
        )
        bar, reason = np.full(n, -1), np.full(n, int(ExitReason.TIMEOUT))
        exits, kinds = run.exits.to_numpy(), run.stop_type.to_numpy()
        for phase in range(phases):
            ended = np.flatnonzero(exits[:, phase])
            entered = np.flatnonzero(entries[:, phase])
            entry = entered[np.searchsorted(entered, ended) - 1]  # the last entry before the exit
            bar[entry], reason[entry] = ended, np.where(kinds[ended, phase] == 0, ExitReason.SL, ExitReason.TP)
        bar = np.where(reason == ExitReason.TIMEOUT, np.arange(n) + spec.horizon_bars, bar)
        agreed = (side.reason == reason) & (side.exit_bar == bar)
        report(capsys, f"vectorbt {vectorbt.__version__} OHLCSTX, {name}", "labels agree in exit bar and reason", agreed[known])


def test_vectorbt_agrees_on_closes_only(market, capsys):
    vectorbt = pytest.importorskip("vectorbt")
    spec = LabelSpec(entry="close", price_path="close")
    labels = label_bars(market, spec)
    known, close = labels.label >= 0, market["close"].reset_index(drop=True)
    goal, risk = (np.nan_to_num(k * labels.atr / close.to_numpy()) for k in (spec.tp_atr, spec.sl_atr))
    for name, side, upside_down in sides(labels):
        up, down = (risk, goal) if upside_down else (goal, risk)
        first = vectorbt.BOLB.run(close, spec.horizon_bars, pos_th=[up], neg_th=[down]).labels.to_numpy().ravel()
        expected = np.select([first == 0, first == (-1 if upside_down else 1)], [ExitReason.TIMEOUT, ExitReason.TP], ExitReason.SL)
        report(
            capsys, f"vectorbt {vectorbt.__version__} BOLB, {name}", "closes-only labels agree in reason", (side.reason == expected)[known]
        )


def test_holdout_agrees_on_overlap(market, capsys):
    holdout = pytest.importorskip("holdout.uniqueness")
    labels = label_bars(market)
    start = np.flatnonzero(labels.label >= 0)
    end = labels.end_bar[start]
    weight = holdout.average_uniqueness(start, end)
    report(capsys, "holdout-backtest", "uniqueness weights agree", np.isclose(labels.weight[start], weight, rtol=1e-9, atol=0))
    overlap = holdout.concurrency(start, end)
    bars = np.arange(start[0], end.max() + 1)
    report(capsys, "holdout-backtest", "bars agree in concurrency", labels.concurrency[bars] == overlap.counts)
    assert labels.effective_n == pytest.approx(holdout.effective_sample_size(start, end), rel=1e-12)
    assert (labels.concurrency > 0).sum() == overlap.covered_bars
