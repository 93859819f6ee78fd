"""What a bot waits for: a fresh process up to its first decision, a decision from 2,000 bars, and the models beside the libraries.

Run: python benchmarks/bot.py [MODELS_DIR]     (a store whose newest revision is of the embedded market; default: one is trained first)

The libraries' line is the same ensemble: the revision's own XGBoost and LightGBM files, and a scikit-learn forest of as many trees and
leaves (a revision keeps its forest as arrays). The bars are a random walk; the revision is loaded unsigned, in shadow. A decision is
timed as a bot asks for it: each on the 2,000 bars up to the next close.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from trademl.bot import AccountState, Bars, Calendar, Expect, load_approved
from trademl.files import npz_bytes
from trademl.market.features import last_row
from trademl.market.warmstart import read_signal

REPEATS, PROCESSES = 1_000, 5
MARKS = {"fresh process, s": 1.2, "its memory, MiB": 150, "decision p50, ms": 3, "decision p99, ms": 10, "models p50, ms": 0.1}
FRESH = """
import time
began = time.perf_counter()
import sys
from datetime import UTC, datetime
import numpy as np
from trademl.bot import AccountState, Bars, Calendar, Expect, load_approved
predictor = load_approved(sys.argv[1], None, profile=3, expect=Expect("SYNTH"), mode="shadow")
kept = np.load(sys.argv[2])
bars = Bars(*(kept[name] for name in Bars._fields))
last = int(bars.time[-1])
account = AccountState.opened(predictor.line, 3, 10_000.0)
predictor.predict(bars, Calendar(kept["news"], (), last + 10**6), account, now=datetime.fromtimestamp(last + 901, UTC))
seconds = time.perf_counter() - began
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))  # ru_maxrss would count the parent's
print(seconds, int(peak) / 1024)
"""


def walk(n) -> tuple[Bars, np.ndarray]:
    """A random walk of M15 bars, and a calendar."""
    rng = np.random.default_rng(0)
    time_s = 1_760_400_000 // 900 * 900 + 900 * np.arange(n)
    close = 60_000 * np.exp(np.cumsum(rng.standard_t(4, n) * 0.0012))
    open_ = np.append(60_000.0, close[:-1])
    shadow = np.abs(rng.normal(0, 5e-4, (2, n)))
    high, low = np.maximum(open_, close) * (1 + shadow[0]), np.minimum(open_, close) * (1 - shadow[1])
    return Bars(time_s, open_, high, low, close, rng.lognormal(4, 1, n)), time_s[::160]


def quantiles_ms(call, given=((),) * REPEATS) -> tuple[float, float]:
    """Median and 99th percentile of a call, milliseconds; once for each of the arguments `given`."""
    call(*given[0])
    spent = []
    for arguments in given:
        began = time.perf_counter()
        call(*arguments)
        spent.append(1e3 * (time.perf_counter() - began))
    return statistics.median(spent), float(np.quantile(spent, 0.99))


def libraries(revision, x):
    """The signal's ensemble on one row, by scikit-learn, XGBoost and LightGBM."""
    from sklearn.ensemble import RandomForestClassifier

    scaler, fitted, _ = read_signal(revision.read, x.shape[1], 3)
    rng, table = np.random.default_rng(0), fitted.tables[0]
    leaves = int((np.asarray(table.left) < 0).sum() / len(table.roots))
    forest = RandomForestClassifier(len(table.roots), max_leaf_nodes=leaves, n_jobs=1, random_state=0)
    forest.fit(rng.normal(size=(5_000, x.shape[1])), rng.integers(0, 3, 5_000))
    fitted.by_xgb.set_param("nthread", 1)

    def answer():
        z = scaler.transform(x)
        forest.predict_proba(z)
        fitted.by_xgb.inplace_predict(z)
        fitted.by_lgb.predict(z.astype(np.float64), num_threads=1)

    return answer


def fresh(models_dir: Path, folder: Path, bars: Bars, news: np.ndarray) -> tuple[float, float]:
    """Median seconds and MiB of processes that import, load, verify and decide once."""
    (folder / "bars.npz").write_bytes(npz_bytes(bars._asdict() | {"news": news}))
    command = [sys.executable, "-c", FRESH, str(models_dir), str(folder / "bars.npz")]
    told = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(PROCESSES + 1)][1:]
    return tuple(statistics.median(float(row[k]) for row in told) for k in (0, 1))


def main(models_dir: Path, folder: Path) -> None:
    """Print the table."""
    long, news = walk(2_000 + REPEATS)
    tails = [(Bars(*(column[at : at + 2_000] for column in long)),) for at in range(REPEATS)]
    ((bars,), calendar) = tails[0], Calendar(news, (), int(long.time[-1]) + 10**6)
    predictor = load_approved(models_dir, None, profile=3, expect=Expect("SYNTH"), mode="shadow")
    account = AccountState.opened(predictor.line, 3, 10_000.0)
    x, policy = last_row(bars, news)[None], predictor.loaded.policy

    def decide(tail):
        return predictor.predict(tail, calendar, account, now=datetime.fromtimestamp(int(tail.time[-1]) + 901, UTC))

    seconds, memory = fresh(models_dir, folder, bars, news)
    decision = quantiles_ms(decide, tails)
    ours, theirs = (quantiles_ms(call)[0] for call in (lambda: policy.probabilities(x), libraries(policy.revision, x)))
    measured = dict(zip(MARKS, (seconds, memory, *decision, ours), strict=True))
    print(f"{'':44}{'measured':>10}{'mark':>8}")
    for what, value in measured.items():
        print(f"{what:44}{value:10.3f}{MARKS[what]:8g}")
    print(f"{'of the decision: last_row p50, ms':44}{quantiles_ms(lambda tail: last_row(tail, news), tails)[0]:10.3f}")
    print(f"{'models through the libraries p50, ms':44}{theirs:10.3f}{'':8}{theirs / ours:8.0f}x ours")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        if len(sys.argv) < 2:
            trademl = Path(sys.executable).with_name("trademl")
            store = ["--symbol", "SYNTH", "--models-dir", str(Path(made, "models"))]
            if subprocess.run([trademl, "retrain", *store], cwd=made, stdout=subprocess.DEVNULL, check=False).returncode not in (0, 3):
                raise SystemExit("the embedded market could not be trained")
        main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(made, "models")), Path(made))
