"""Risk layer: replay and labels of one profile, ours against plain Python, and the marks of the specification.

Run: python benchmarks/risk.py [--trades 5000] [--repeat 5]. Medians; plain Python is timed on a part and scaled up (its cost is linear).
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import risk_reference as slow

from trademl.risk.growth import CANDIDATES, GROWTH
from trademl.risk.multiplier import train_heads
from trademl.risk.profiles import PROFILES
from trademl.risk.replay import BALANCES, LOTS, Objective, replay
from trademl.risk.trades import sequence_of

MARKS = {"wr_pf_sqrt_dd": 0.3, "constrained_growth": 15.0}


def median_seconds(work, repeat):
    """Median wall seconds of `repeat` runs."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def python_original(trades, profile, states=20):
    """Seconds of the reference for all states of all accounts, from `states` states of one account."""
    _, equities, peaks, *_ = slow.walk(trades, profile, BALANCES[0], LOTS)

    def work():
        for t in range(40, 40 + states):
            for m in CANDIDATES:
                slow.original_score(trades, profile, t, equities[t], peaks[t], m, LOTS)

    return median_seconds(work, 3) * (len(trades) - 59) / states * len(BALANCES)


def python_growth(trades, profile):
    """Seconds of the reference for all states, from one state; drawn once for all accounts, as ours."""
    seconds = median_seconds(
        lambda: slow.growth_scores(trades.net_r, profile.base_risk, profile.ceiling, 40, 0.0, CANDIDATES, GROWTH, 0), 1
    )
    return seconds * (len(trades) - 59)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trades", type=int, default=5000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    n = options.trades
    trades = sequence_of(np.where(rng.random(n) < 0.42, 1.875, -1.0), risk_distance=rng.uniform(80, 600, n))
    profile = PROFILES[0]
    print(
        f"{n:,} trades, {len(BALANCES)} balances, {len(CANDIDATES)} candidates, 20 ahead; growth: {GROWTH.draws} draws of {GROWTH.trades}"
    )
    print(f"{'':42}{'median s':>10}{'mark s':>8}{'Python s':>11}{'ratio':>9}")
    for objective, python in ((Objective.WR_PF_SQRT_DD, python_original), (Objective.CONSTRAINED_GROWTH, python_growth)):
        replay(trades.part(0, 80), profile, objective=objective)  # compile
        ours = median_seconds(lambda objective=objective: replay(trades, profile, objective=objective), options.repeat)
        theirs = python(trades, profile)
        print(f"replay and labels, {objective!s:23}{ours:10.3f}{MARKS[objective]:8.1f}{theirs:11.1f}{theirs / ours:8.0f}x")
    five = median_seconds(lambda: train_heads(trades), 1)
    print(f"{'five heads: replay, train, validate, judge':42}{five:10.2f}")


if __name__ == "__main__":
    main()
