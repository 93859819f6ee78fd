"""Whole commands as a person waits for them: start-up beside what an eager command would import, and the embedded retrain by stage.

Run: python benchmarks/commands.py [--repeat 5] [--retrains 1]. Medians of whole processes in a folder of their own; the first call of
each is not counted (it fills the caches of Python and of numba, and the doctor's probes).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MARKS = {"--help": 0.7, "models list": 0.7, "doctor": 3.0}
EAGER = "import numba, pandas, sklearn.ensemble, xgboost, lightgbm, optuna, plotly.graph_objects"
COLD_S, WARM_S = 90, 90  # marks of the embedded retrain


def run(*command: str, cwd: Path) -> tuple[float, str]:
    """Wall seconds and standard output of a process."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    return time.perf_counter() - began, done.stdout


def median_s(*command: str, cwd: Path, repeat: int) -> float:
    """Median of `repeat` runs after one that is not counted."""
    run(*command, cwd=cwd)
    return statistics.median(run(*command, cwd=cwd)[0] for _ in range(repeat))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--retrains", type=int, default=1)
    options = parser.parse_args()
    trademl = str(Path(sys.executable).with_name("trademl"))
    with tempfile.TemporaryDirectory() as folder:
        desk = Path(folder)
        os.environ["XDG_CACHE_HOME"] = str(desk / "cache")
        retrains(trademl, desk, options.retrains)
        eager = median_s(sys.executable, "-c", EAGER, cwd=desk, repeat=options.repeat)
        print(f"\n{'':34}{'median s':>10}{'mark s':>8}{'ratio':>8}")
        print(f"{'importing the training libraries':34}{eager:10.2f}")
        for words, mark in MARKS.items():
            ours = median_s(trademl, *words.split(), cwd=desk, repeat=options.repeat)
            print(f"{'trademl ' + words:34}{ours:10.2f}{mark:8.1f}{eager / ours:7.1f}x")


def retrains(trademl: str, desk: Path, count: int) -> None:
    """The embedded market: from nothing, then beside the active revision."""
    for name, mark in (("cold", COLD_S), ("beside its parent", WARM_S)):
        told = []
        for n in range(count):
            store = ("--models-dir", f"models{n}")
            told.append(json.loads(run(trademl, "retrain", "--json", *store, cwd=desk)[1]))
        total = statistics.median(one["total_seconds"] for one in told)
        print(f"embedded retrain, {name}: {total:.1f} s (mark {mark})")
        for stage in told[0]["seconds"]:
            print(f"  {stage:20}{statistics.median(one['seconds'][stage] for one in told):8.1f} s")


if __name__ == "__main__":
    main()
