"""Labels: ours beside vectorbt's closes-only labeler (both engines), on the same bars.

Run: python benchmarks/kernels.py [--bars 70000 1000000] [--repeat 5]. Medians; ratios are of CPU time, which leaves out what others do
on this machine. A peer that is not installed is left out. Ours walks highs and lows for both sides, with exits, R, excursions, the tie
flag, ATR and uniqueness; vectorbt (BOLB, once a side) gives a class on closes, from thresholds that are handed to it.
The backtest is in benchmarks/backtest.py.
"""

import argparse
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
from trademl.market.barriers import _outputs, _walk, prices_of
from trademl.market.labeling import LabelSpec, label_bars

SPEC = LabelSpec()
CLOSES = LabelSpec(entry="close", price_path="close")
MARKS = {"kernel": 40, "label_bars": 100}  # ms for a million bars
COLD = """
import time; start = time.perf_counter()
import numpy as np, pandas as pd
from trademl.market.labeling import label_bars
imported = time.perf_counter()
t = pd.date_range("2024-01-01", periods=90, freq="15min", tz="UTC")
label_bars(pd.DataFrame(dict(open=1e3, high=1e3 + 5, low=995.0, close=1e3), t))
print(imported - start, time.perf_counter() - imported)
"""
GROWTH = """
import sys
from trademl.data.synthetic import synthetic_market
from trademl.market.labeling import label_bars
status = lambda key: 1024 * int(next(x for x in open("/proc/self/status") if x.startswith(key)).split()[1])
bars = synthetic_market(int(sys.argv[1])).bars
label_bars(bars.iloc[:200])
open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
before = status("VmRSS")
labels = label_bars(bars)
high = status("VmHWM")
size = bars.memory_usage().sum()
print((status("VmRSS") - before) / size, (high - before) / size)
"""


def medians_ms(work, repeat):
    """(wall, CPU) median milliseconds of `repeat` runs, after one that does not count."""
    work()
    wall, cpu = [], []
    for _ in range(repeat):
        start, busy = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    return 1e3 * statistics.median(wall), 1e3 * statistics.median(cpu)


def kernel(bars):
    """A call of the bare kernel on arrays that are there already."""
    prices, _ = prices_of(bars, SPEC)
    n, columns = len(bars), [tuple(vars(_outputs(len(bars))).values()) for _ in range(2)]
    return lambda: _walk(0.0, n - SPEC.horizon_bars, SPEC.horizon_bars, False, SPEC.tp_atr / SPEC.sl_atr, prices, *columns)


def with_vectorbt(bars, labels, engine):
    """A call of BOLB for both sides; its thresholds are shares of the close."""
    import vectorbt

    close = bars["close"].to_numpy()
    goal, risk = (np.nan_to_num(k * labels.atr / close) for k in (SPEC.tp_atr, SPEC.sl_atr))

    def both():
        return [
            vectorbt.BOLB.run(close, SPEC.horizon_bars, pos_th=[up], neg_th=[down], engine=engine)
            for up, down in ((goal, risk), (risk, goal))
        ]

    return both


def table(n, repeat):
    """Print the lines of one size."""
    bars = synthetic_market(n).bars
    labels = label_bars(bars)
    rows = [
        ("kernel: both sides, every output", kernel(bars)),
        ("label_bars: checks, ATR, uniqueness too", lambda: label_bars(bars)),
    ]
    rows += [("label_bars, closes only", lambda: label_bars(bars, CLOSES))]
    for engine in ("rust", "numba"):
        try:
            make = f"vectorbt {version('vectorbt')} BOLB x 2, {engine}, closes only", with_vectorbt(bars, labels, engine)
            rows.append(make)
        except (ImportError, PackageNotFoundError) as absent:
            print(f"left out: vectorbt {engine} ({absent})")
    took = [(name, *medians_ms(work, repeat)) for name, work in rows]
    for name, wall, cpu in took:
        mark = f"mark {MARKS[name.split(':')[0]]} ms" if n == 10**6 and name.split(":")[0] in MARKS else ""
        print(f"{n:>10,}  {name:50}{wall:9.1f}{cpu:9.1f}{cpu / took[0][2]:9.2f}x{cpu / took[1][2]:9.2f}x  {mark}")


def main():
    """Print the table."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, nargs="+", default=[70_000, 1_000_000])
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}, horizon {SPEC.horizon_bars} bars, one core"
    )
    print(f"{'bars':>10}  {'':50}{'wall ms':>9}{'CPU ms':>9}{'to kernel':>10}{'to ours':>10}")
    for n in options.bars:
        table(n, options.repeat)
    imported, first = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=True).stdout.split()
    print(f"fresh process, kernels cached: import {float(imported):.2f} s, first labels {float(first):.2f} s (mark 2 s)")
    if sys.platform == "linux":
        grown = subprocess.run(
            [sys.executable, "-c", GROWTH, str(max(options.bars))], capture_output=True, text=True, check=True
        ).stdout.split()
        print(f"memory of {max(options.bars):,} bars: {float(grown[0]):.1f}x the input kept, {float(grown[1]):.1f}x at the peak (mark 3x)")


if __name__ == "__main__":
    main()
