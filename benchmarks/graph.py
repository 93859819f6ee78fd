"""The fused graph against the libraries: load time, one row, agreement on all rows.

python benchmarks/graph.py [ROWS]     (needs the extra `lab`; one thread)
"""

import statistics
import sys
import time
import warnings

import lightgbm as lgb
import numpy as np
import xgboost as xgb
from sklearn.ensemble import RandomForestClassifier

from trademl.learn.readers import from_forest, from_lightgbm, from_xgboost
from trademl.ship.export import check_parity, ensemble_graph
from trademl.ship.runtime import predict_onnx, session


def median_us(call, repeats=200) -> float:
    """Median wall time of a call, microseconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e6 * statistics.median(seconds)


def train(z, y, k):
    """The three models as the libraries hold them, at the sizes of a large ensemble."""
    forest = RandomForestClassifier(200, max_depth=8, min_samples_leaf=20, max_samples=0.25, random_state=0, n_jobs=2).fit(z, y)
    forest.n_jobs = 1
    kind = {"objective": "binary:logistic"} if k == 2 else {"objective": "multi:softprob", "num_class": k}
    xgbooster = xgb.train(kind | {"max_depth": 4, "nthread": 2, "eta": 0.05}, xgb.DMatrix(z, y), 150)
    xgbooster.set_param("nthread", 1)
    kind = {"objective": "binary"} if k == 2 else {"objective": "multiclass", "num_class": k}
    data = lgb.Dataset(z.astype(np.float64), y)
    return forest, xgbooster, lgb.train(kind | {"num_leaves": 15, "num_threads": 2, "learning_rate": 0.05, "verbose": -1}, data, 150)


def native(models, x, mean, scale) -> np.ndarray:
    """(n, 3, k) probabilities by the libraries themselves."""
    z = ((x - mean) / scale).astype(np.float32)
    forest, xgbooster, lgbooster = models
    answers = [forest.predict_proba(z), xgbooster.inplace_predict(z), lgbooster.predict(z.astype(np.float64), num_threads=1)]
    return np.stack([np.column_stack([1 - a, a]) if a.ndim == 1 else a for a in answers], axis=1)


def measure(k, rows) -> None:
    """One line of the table."""
    rng = np.random.default_rng(k)
    x = rng.normal(2.0, 3.0, size=(rows, 55))
    y = np.digitize(x[:, 0] + x[:, 1] * x[:, 2] / 3 + rng.normal(size=rows) * 6, np.quantile(x[:, 0], np.arange(1, k) / k))
    mean, scale = x.mean(axis=0), x.std(axis=0)
    models = train(((x - mean) / scale).astype(np.float32), y, k)
    tables = [read(model) for read, model in zip((from_forest, from_xgboost, from_lightgbm), models)]
    weights, slope, shift = np.array([0.5, 0.3, 0.2]), np.full(k, 1.3), np.linspace(-0.1, 0.1, k)
    start = time.perf_counter()
    graph = ensemble_graph(
        (mean, scale), tables, weights, (slope, shift), names=("rf", "xgb", "lgb"), classes=[str(c) for c in range(k)], metadata={}
    )
    written = time.perf_counter() - start
    start = time.perf_counter()
    runner = session(graph)
    loaded = time.perf_counter() - start
    parts = native(models, x, mean, scale)
    logits = slope * np.log(np.maximum(np.tensordot(parts, weights, axes=(1, 0)), 1e-7)) + shift
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    parity = check_parity(graph, x, expected, parts)
    ours = median_us(lambda: runner.run(None, {"features": x[:1]}))
    theirs = median_us(lambda: native(models, x[:1], mean, scale), 30)
    many = median_us(lambda: predict_onnx(runner, x[:1000]), 10) / 1e3
    print(
        f"{k:7} {len(graph) / 1e6:6.1f} {written:7.2f} {loaded:6.2f} {ours:9.0f} {theirs:14.0f} {theirs / ours:6.0f} {many:9.1f} "
        f"{parity.rows:7,} {parity.max_abs:9.1e} {parity.flips:5} {parity.ties:4}"
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    print("classes     MB write s load s 1 row us  libraries us  ratio 1000 r ms    rows   max abs flips ties")
    for classes in (3, 2):
        measure(classes, int(sys.argv[1]) if len(sys.argv) > 1 else 14_000)
