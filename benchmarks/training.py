"""One fit of the signal ensemble on all labelled rows: at the shipped settings and at the size that people begin with.

    python benchmarks/training.py [--bars FILE --news FILE]

Without files: the real file beside the clone (../shared/data) when it is there, else the embedded market. Each fit runs in a process
of its own; memory is that process's peak, data and libraries included. At the shipped settings the boosters'
rounds are found on the last tenth of the rows and the whole is fitted again, as a retrain does; at the usual size they run 300.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
from defaults import USUAL
from warmstart import files_of, rows_of

from trademl.cli.common import table
from trademl.learn.ensemble import MODELS, Rounds, fit_ensemble
from trademl.learn.fits import Batch, Target, fit_scaler
from trademl.market.recipe import signal_weights
from trademl.market.specs import CLASSES
from trademl.settings import load_settings

MARK = "mark: 30 s and 1,024 MiB for the shipped settings"


def fit(size, bars, news):
    """What one fit took: rows, wall and CPU seconds, peak MiB, rounds."""
    rows, known, source = rows_of(bars, news)
    params, split = load_settings().ensemble, int(0.9 * len(known))
    z, label = fit_scaler(rows.x[known]).transform(rows.x[known]), rows.labels.label[known]
    weight = signal_weights(rows, known, params)
    batch, common = Batch(z, label, weight), {"seed": 7, "threads": 0}
    target = Target("signal", CLASSES)
    start, busy = time.perf_counter(), time.process_time()
    if size == "shipped":
        made = fit_ensemble(batch.take(slice(split)), params, target, until=batch.take(slice(split, None)), **common)
        made = fit_ensemble(batch, params, target, until=made.rounds, **common)  # as a retrain does: found once, then reused
    else:
        usual = replace(params, **{name: value for model in MODELS for name, value in USUAL[model].items()})
        made = fit_ensemble(batch, usual, target, until=Rounds(300, 300), **common)
    took = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size_mb = sum(sum(np.asarray(a).nbytes for a in t.to_arrays().values()) for t in made.tables) / 1e6
    return {"source": source, "rows": len(known), "wall": took[0], "cpu": took[1], "peak": peak, "mb": size_mb}


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars")
    parser.add_argument("--news")
    parser.add_argument("--only", choices=["shipped", "usual"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(fit(given.only, *files_of(given.bars, given.news))))
        return
    lines, first = [], None
    for size in ("shipped", "usual"):
        command = [sys.executable, __file__, *sys.argv[1:], "--only", size]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        first = first or found
        took = (f"{found['wall']:.1f}", f"{found['cpu']:.1f}", f"{found['peak']:,.0f}", f"{found['mb']:.1f}")
        lines.append((size, *took, f"{found['wall'] / first['wall']:.1f}x"))
    print(f"{first['source']}: {first['rows']:,} rows x 55, {os.cpu_count()} cores; {MARK}")
    table(lines, ("settings", "wall s", "CPU s", "peak MiB", "trees MB", "against shipped"))


if __name__ == "__main__":
    main()
