"""How often the whole pipeline passes markets that hold nothing, and how often one that holds an edge.

    python benchmarks/canary.py [--seeds 10] [--first 1] [--jobs 1] [--bars FILE] [--kinds "no edge" "drift, no edge" ...]

Each market is a project of its own in a temporary folder, judged by the steps of the notebook `retrain`, up to the verdict. Of 100,
no edge and drift may pass 3 times each; the embedded market with its edge must pass 95 times.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor

from trademl.cli.common import table
from trademl.pipeline import market as pipeline
from trademl.pipeline.choice import MarketFlags
from trademl.pipeline.market.canary import Kind, Passes, passes_gate
from trademl.settings import load_settings


def judged(task):
    """(kind, whether it passed, seconds) of one market."""
    kind, seed, bars = task
    start = time.perf_counter()
    return kind, passes_gate(kind, seed, bars=bars), time.perf_counter() - start


def main():
    """Print one row per kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--bars")
    parser.add_argument("--kinds", nargs="+", type=Kind, default=[kind for kind in Kind if kind is not Kind.ROTATED])
    given, settings, bars = parser.parse_args(), load_settings(), None
    if given.bars:
        flags = MarketFlags(bars=given.bars, no_news=True)
        bars = pipeline.load_inputs(settings, pipeline.choose_market(settings, flags), flags)
    kinds = [*given.kinds, *([Kind.ROTATED] if bars and Kind.ROTATED not in given.kinds else [])]
    tasks = [
        (kind, seed, bars if kind is Kind.ROTATED else None) for kind in kinds for seed in range(given.first, given.first + given.seeds)
    ]
    with ProcessPoolExecutor(given.jobs) as pool:
        found = list(pool.map(judged, tasks))
    rows = []
    for kind in kinds:
        ours = [(passed, seconds) for its, passed, seconds in found if its is kind]
        count = Passes(kind, len(ours), sum(passed for passed, _ in ours), settings.gate.level)
        low, high = count.interval
        each = sum(seconds for _, seconds in ours) / len(ours)
        rows.append((kind, count.runs, count.passed, f"{count.expected:.2g}", f"{100 * low:.1f} to {100 * high:.1f} %", f"{each:.1f}"))
    table(rows, header=("market", "runs", "passed", "expected by chance at most", "95 % interval", "seconds each"))


if __name__ == "__main__":
    main()
