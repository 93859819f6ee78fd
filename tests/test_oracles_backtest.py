"""The bracket, trade by trade, against two independent backtesters; each test prints how many trades agreed.

Neither has a time-out, a spread or lots: those are checked by hand tables and by the slow reference. So the horizon is out of reach here,
costs are zero, and trades end by target, stop or (backtesting.py) by a model exit at the next open.
"""

import numpy as np
import pandas as pd
import pytest

from trademl.data.synthetic import synthetic_market
from trademl.market.backtest import Decisions, prepare, run_backtest
from trademl.market.specs import AccountSpec, ExitReason, LabelSpec

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::Warning:backtesting"),
    pytest.mark.filterwarnings("ignore:Some trades remain"),
]
RICH = AccountSpec(balance=1e9, leverage=1e6, risk_pct=1e-6, lot_step=1e-9, min_lot=1e-9, max_lot=1e9, margin_call_pct=0)
ENDLESS = 10**6  # bars


@pytest.fixture(params=["synthetic", "real"])
def market(request):
    """Bars of a market that anyone has, and of the real one where it is there."""
    if request.param == "synthetic":
        return synthetic_market(20_000, edge=0.5, seed=11).bars
    path = request.getfixturevalue("shared_data") / "market" / "btcusd_m15_2024-04_2026-04.csv.gz"
    bars = pd.read_csv(path, index_col="time", parse_dates=["time"])
    bars.index = pd.DatetimeIndex(bars.index, tz="UTC") if bars.index.tz is None else bars.index.tz_convert("UTC")
    return bars[["open", "high", "low", "close", "volume"]].astype(float)


def signals(n, share=0.25, seed=5):
    """Random sides, int8 (n,)."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(n) < share, rng.choice(np.array([-1, 1], np.int8), n), np.int8(0))


def ours(prepared, decisions):
    """Trades that ended within the data: entry bar, exit bar, exit price."""
    trades = run_backtest(prepared, decisions, prepared.spec, account=RICH).trades
    return trades[trades.reason != ExitReason.END]


def report(capsys, who, mine, theirs):
    """Print the share of trades that agree and insist on all of them. Prices agree to the rounding of a float (1e-12)."""
    assert len(mine) > 1000
    same = len(mine) == len(theirs) and (mine[:, :2] == theirs[:, :2]).all() and np.allclose(mine[:, 2], theirs[:, 2], rtol=1e-12, atol=0)
    both = min(len(mine), len(theirs))
    agreed = (mine[:both, :2] == theirs[:both, :2]).all(axis=1) & np.isclose(mine[:both, 2], theirs[:both, 2], rtol=1e-12, atol=0)
    with capsys.disabled():
        print(f"\n  {who}: {int(agreed.sum()):,} of {max(len(mine), len(theirs)):,} trades agree in entry bar, exit bar and exit price")
    assert same


def test_backtesting_py_agrees_on_next_open_entries(market, capsys):
    backtesting = pytest.importorskip("backtesting")
    spec = LabelSpec(horizon_bars=ENDLESS)
    prepared = prepare(market, spec)
    n = len(market)
    side = signals(n)
    leave = np.where((side != 0) & (np.random.default_rng(6).random(n) < 0.3), np.arange(n) + 3, -1)  # some leave at the close of bar t + 3
    leave[leave >= n] = -1
    side[: np.flatnonzero(prepared.atr > 0)[0]] = 0
    base, risk, target = prepared.prices.base, prepared.prices.risk, prepared.prices.target

    class Bracket(backtesting.Strategy):
        def init(self):
            self.leave_at = -1

        def next(self):
            t = len(self.data) - 1
            if self.position and t == self.leave_at:
                self.position.close()
            elif self.position:
                return
            if side[t] and t + 1 < n:
                order = self.buy if side[t] > 0 else self.sell
                order(size=1, sl=base[t] - side[t] * risk[t], tp=base[t] + side[t] * target[t])
                self.leave_at = leave[t]

    frame = market.rename(columns=str.capitalize).tz_localize(None)
    run = backtesting.Backtest(frame, Bracket, cash=1e9, margin=1 / 500, commission=0, finalize_trades=False)
    theirs = run.run()["_trades"].sort_values(["EntryBar", "ExitBar"])[["EntryBar", "ExitBar", "ExitPrice"]].to_numpy()
    report(
        capsys,
        f"backtesting.py {backtesting.__version__}",
        np.array(ours(prepared, Decisions(side, leave))[["entry_bar", "exit_bar", "exit_price"]]),
        theirs,
    )


def one_signal_a_bar(prepared, side):
    """Decisions without those that re-enter on the bar of an exit: vectorbt sees one signal per bar, and the stop is it."""
    while True:
        trades = ours(prepared, Decisions(side))
        again = np.intersect1d(trades.decision_bar, trades.exit_bar)
        if not len(again):
            return side
        side = side.copy()
        side[again] = 0


def test_vectorbt_agrees_on_close_entries(market, capsys):
    vectorbt = pytest.importorskip("vectorbt")
    spec = LabelSpec(horizon_bars=ENDLESS, entry="close")
    prepared = prepare(market, spec)
    side = signals(len(market))
    side[: np.flatnonzero(prepared.atr > 0)[0]] = 0
    side = one_signal_a_bar(prepared, side)
    close = market["close"].to_numpy()
    portfolio = vectorbt.Portfolio.from_signals(
        **{name: market[name].reset_index(drop=True) for name in ("open", "high", "low", "close")},
        price=close,
        entries=side > 0,
        short_entries=side < 0,
        sl_stop=np.nan_to_num(prepared.prices.risk / close, nan=0.5),
        tp_stop=np.nan_to_num(prepared.prices.target / close, nan=0.5),
        stop_entry_price="FillPrice",
        stop_exit_price="StopLimit",
        upon_opposite_entry="ignore",
        size=1.0,
        init_cash=1e9,
    )
    closed = portfolio.trades.records[portfolio.trades.records["status"] == 1]
    theirs = closed[["entry_idx", "exit_idx", "exit_price"]].to_numpy()
    report(
        capsys,
        f"vectorbt {vectorbt.__version__}",
        np.array(ours(prepared, Decisions(side))[["entry_bar", "exit_bar", "exit_price"]]),
        theirs,
    )
