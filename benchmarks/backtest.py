"""Backtest: ours beside vectorbt (both engines) and backtesting.py, on the same bars and signals.

Run: python benchmarks/backtest.py [--bars 70000] [--share 0.12] [--repeat 15]. Medians of wall time.
A peer that is not installed is left out. vectorbt is given plain arrays: with a DatetimeIndex it takes ten times as long.
Ours carries spread, slippage, commission, swap, lots, margin, pause and halt; the peers carry none of them.
"""

import argparse
import contextlib
import io
import platform
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version

import numba
import numpy as np

from trademl.data.synthetic import synthetic_market
from trademl.market.account import money_of, room, run_account
from trademl.market.backtest import Decisions, _wanted, prepare, run_backtest
from trademl.market.rotation import entries_made, rotate
from trademl.market.specs import AccountSpec, CostSpec

COSTS = CostSpec(spread=16.95, commission=1, slippage=1, swap_long=-5, swap_short=-3)
ACCOUNT = AccountSpec(balance=1e9, leverage=500, risk_pct=0.01, max_lot=1e6, max_total_drawdown_pct=99.9, weekly_pause_pct=99)
COLD = """
import time; start = time.perf_counter()
import numpy as np, pandas as pd
from trademl.market.backtest import Decisions, run_backtest
imported = time.perf_counter()
t = pd.date_range("2024-01-01", periods=50, freq="15min", tz="UTC")
run_backtest(pd.DataFrame(dict(open=1e3, high=1e3 + 5, low=995.0, close=1e3), t), Decisions(np.ones(50)))
print(imported - start, time.perf_counter() - imported)
"""


def median_seconds(work, repeat):
    """Median wall seconds of `repeat` runs, after one that does not count."""
    work()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def with_vectorbt(bars, prepared, side, engine):
    """A call of vectorbt's simulation on plain arrays, stops as a share of the close."""
    import vectorbt

    close = bars["close"].to_numpy()
    columns = {name: bars[name].to_numpy() for name in ("open", "high", "low", "close")}
    stops = {"sl_stop": prepared.prices.risk / close, "tp_stop": prepared.prices.target / close}
    stops = {name: np.nan_to_num(value, nan=0.5) for name, value in stops.items()}
    fixed = {
        "stop_entry_price": "FillPrice",
        "stop_exit_price": "StopLimit",
        "upon_opposite_entry": "ignore",
        "size": 1.0,
        "init_cash": 1e9,
    }
    return lambda: vectorbt.Portfolio.from_signals(
        **columns, price=close, entries=side > 0, short_entries=side < 0, **stops, **fixed, engine=engine
    )


def with_backtesting(bars, prepared, side):
    """A call of backtesting.py's run."""
    import backtesting

    base, risk, target, n = prepared.prices.base, prepared.prices.risk, prepared.prices.target, len(bars)

    class Bracket(backtesting.Strategy):
        def init(self):
            pass

        def next(self):
            t = len(self.data) - 1
            if side[t] and t + 1 < n and not self.position:
                order = self.buy if side[t] > 0 else self.sell
                order(size=1, sl=base[t] - side[t] * risk[t], tp=base[t] + side[t] * target[t])

    frame = bars.rename(columns=str.capitalize).tz_localize(None)
    return backtesting.Backtest(frame, Bracket, cash=1e9, margin=1 / 500).run


def main():
    """Print the table."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=70_000)
    parser.add_argument("--share", type=float, default=0.12, help="share of bars with a signal")
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    n, rng = options.bars, np.random.default_rng(0)
    bars = synthetic_market(n, edge=0.5).bars
    prepared = prepare(bars)
    side = np.where(rng.random(n) < options.share, rng.choice(np.array([-1, 1], np.int8), n), np.int8(0))
    side[: np.flatnonzero(prepared.atr > 0)[0]] = 0
    decisions, shifts = Decisions(side), rng.integers(1, n, 1000)
    entries = entries_made(prepared, decisions, COSTS)

    def run(of=prepared):
        return run_backtest(of, decisions, costs=COSTS, account=ACCOUNT)

    wanted, made = _wanted(decisions, 0, n), room(n, int((side != 0).sum()))
    of_a_run = (prepared.prices, prepared.market, prepared.exits(COSTS.spread), prepared.rules, money_of(COSTS, ACCOUNT), wanted, made)
    rows = [("kernel: a whole account, prepared bars (mark 0.5 ms)", lambda: run_account(*of_a_run), 5 * options.repeat)]
    rows += [("1,000 rotations of its entries (mark 1,000 ms)", lambda: rotate(prepared, entries, shifts, COSTS, start=0, stop=n), 3)]
    rows += [("run_backtest, prepared bars: table, marks, counts", run, options.repeat)]
    rows += [("run_backtest, bars frame: checks and ATR too", lambda: run(bars), options.repeat)]
    peers = [("vectorbt", "rust", with_vectorbt), ("vectorbt", "numba", with_vectorbt), ("backtesting", "", with_backtesting)]
    for name, engine, make in peers:
        try:
            label = f"{name} {version(name)} {engine}".strip()
            rows += [(label, make(bars, prepared, side, *([engine] if engine else [])), 3 if name == "backtesting" else options.repeat)]
        except (ImportError, PackageNotFoundError) as absent:
            print(f"left out: {name} ({absent})")
    print(
        f"{n:,} bars, {len(run().trades):,} trades; Python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}"
    )
    print(f"{'':52}{'median ms':>12}{'to run_backtest':>17}{'to kernel':>15}")
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        seconds = [(label, median_seconds(work, repeat)) for label, work, repeat in rows]
    bare, _, full = (took for _, took in seconds[:3])
    for label, took in seconds:
        print(f"{label:52}{took * 1e3:12.2f}{took / full:16.1f}x{took / bare:14.1f}x")
    imported, first = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=True).stdout.split()
    print(f"fresh process, kernels cached: import {float(imported):.2f} s, first run {float(first):.2f} s (mark 2 s)")


if __name__ == "__main__":
    main()
