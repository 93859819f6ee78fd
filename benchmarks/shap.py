"""SHAP values of the three models: ours beside shap.TreeExplainer (forest), XGBoost's pred_contribs and LightGBM's pred_contrib.

    python benchmarks/shap.py [--size shipped usual] [--bars FILE --news FILE] [--share 1.0]

Without files: the real file beside the clone (../shared/data) when it is there, else the embedded market. "shipped" is the settings'
ensemble, its rounds found on the last tenth of the rows; "usual" is a forest of 300 trees of depth 12, XGBoost with 300 rounds of depth
6 and LightGBM with 300 of 63 leaves. Times are milliseconds of CPU for a row, on one thread, medians of alternating runs; the libraries
get fewer rows because they are slow. --share 0.2 trains a fifth of the trees and multiplies both sides by five: quicker, same ratio.
"""

import sys

sys.path.append(sys.path.pop(0))  # the libraries first: this script's name is one of theirs

import argparse
import os
import resource
import statistics
import time
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import shap
import xgboost as xgb
from defaults import USUAL
from sklearn.ensemble import RandomForestClassifier
from warmstart import files_of, rows_of

from trademl.cli.common import table
from trademl.evidence.decision_shap import decision_shap
from trademl.evidence.treeshap import mean_interactions, tree_shap, tree_shap_parts
from trademl.learn.ensemble import MODELS
from trademl.learn.fits import Batch, fit_lightgbm, fit_scaler, fit_xgboost
from trademl.learn.readers import from_forest, from_lightgbm, from_xgboost
from trademl.market.recipe import signal_weights
from trademl.settings import load_settings
from trademl.ship.export import ensemble_graph
from trademl.ship.runtime import predict_onnx, session

OURS, REPEAT = 4_096, 3  # rows, runs
THEIRS = {"shipped": {"rf": 200, "xgb": 2_000, "lgb": 1_000}, "usual": {"rf": 20, "xgb": 300, "lgb": 150}}
MARKS = {"shipped": 10, "usual": 25}


def fitted(size, batch, share):
    """A forest as scikit-learn holds it, and two Boosters."""
    params, common, k = load_settings().ensemble, {"seed": 7, "threads": 0}, len(np.unique(batch.y))
    split = int(0.9 * len(batch.y))
    if size == "usual":
        params = replace(params, **{name: value for model in MODELS for name, value in USUAL[model].items()})
    forest = RandomForestClassifier(
        max(1, round(share * params.rf_trees)), max_depth=params.rf_max_depth, min_samples_leaf=params.rf_min_samples_leaf,
        max_samples=params.rf_max_samples if params.rf_max_samples < 1 else None, max_features=params.rf_max_features,
        n_jobs=-1, random_state=7,
    )  # fmt: skip
    until = round(share * 300) if size == "usual" else batch.take(slice(split, None))
    learn = batch if size == "usual" else batch.take(slice(split))
    boosters = [fit(learn, params, k, until=until, **common) for fit in (fit_xgboost, fit_lightgbm)]
    return dict(zip(MODELS, (forest.fit(batch.z, batch.y, batch.weight), *boosters), strict=True))


def by_library(name, model, z):
    """A call of the library's own route on these rows, on one thread, answering (rows, outputs, features)."""
    if name == "rf":
        explainer = shap.TreeExplainer(model)
        return lambda: explainer.shap_values(z).transpose(0, 2, 1)
    if name == "xgb":
        model.set_param({"nthread": 1})
        return lambda: model.predict(xgb.DMatrix(z, nthread=1), pred_contribs=True)[:, :, :-1]
    width = z.shape[1] + 1
    return lambda: model.predict(z.astype(np.float64), pred_contrib=True, num_threads=1).reshape(len(z), -1, width)[:, :, :-1]


def cpu_ms(work, rows):
    """CPU milliseconds for a row, and the answer."""
    busy = time.process_time()
    answer = work()
    return 1e3 * (time.process_time() - busy) / rows, answer


def compare(name, model, z, rows):
    """(library ms, ours ms, ratio, largest difference in shares of the largest value) of one model."""
    picked = np.random.default_rng(1).choice(len(z), OURS, replace=False)
    mine, theirs = z[picked], z[picked[:rows]]
    library, took = by_library(name, model, theirs), []
    tree_shap(model, mine[:64], threads=1)
    for _ in range(REPEAT):
        slow, expected = cpu_ms(library, rows)
        quick, found = cpu_ms(lambda: tree_shap(model, mine, threads=1), OURS)
        took.append((slow, quick, slow / quick))
    return *(statistics.median(column) for column in zip(*took, strict=True)), np.abs(found[:rows] - expected).max() / np.abs(
        expected
    ).max()


def everything(models, z):
    """(wall, CPU) seconds of all rows and all models, part by part, on all cores."""
    start, busy = time.perf_counter(), time.process_time()
    for model in models.values():
        sum(np.abs(values).sum(axis=0) for _, values in tree_shap_parts(model, z))
    return time.perf_counter() - start, time.process_time() - busy


def interactions(models, z):
    """Print the boosters' interactions: all rows by ours, a few by XGBoost."""
    for name in ("xgb", "lgb"):
        start, busy = time.perf_counter(), time.process_time()
        mean_interactions(models[name], z)
        took = time.perf_counter() - start, time.process_time() - busy
        print(f"interactions of {name}, {len(z):,} rows: {took[0]:.1f} s wall, {took[1]:.1f} s CPU (mark for both: 15 s)")
    slow, _ = cpu_ms(lambda: models["xgb"].predict(xgb.DMatrix(z[:4], nthread=1), pred_interactions=True), 4)
    print(f"  XGBoost's own: {slow:.0f} ms of CPU a row, {slow * len(z) / 3.6e6:.1f} h for all rows (computed from 4)")


def one_decision(models, z):
    """Print what it takes to share out expected R of one bar, through a graph of the three models as the bot would run it."""
    tables = [read(models[name]) for name, read in zip(MODELS, (from_forest, from_xgboost, from_lightgbm), strict=True)]
    unscaled = np.zeros(z.shape[1]), np.ones(z.shape[1])
    even = np.full(3, 1 / 3), (np.ones(3), np.zeros(3))
    graph = session(ensemble_graph(unscaled, tables, *even, names=MODELS, classes=["0", "1", "2"], metadata={}))
    payoff, picked = np.array([-1.0, 0.0, 1.5]), np.random.default_rng(1).choice(len(z), 17, replace=False)
    rows = z[picked].astype(np.float64)

    def expected_r(asked):
        return predict_onnx(graph, asked)["probabilities"].astype(np.float64) @ payoff

    took = []
    for seed in range(REPEAT):
        start = time.perf_counter()
        why = decision_shap(expected_r, rows[0], rows[1:], rounds=2, seed=seed)
        took.append(1e3 * (time.perf_counter() - start))
    asked, size = why.pairs * 2 * (z.shape[1] + 1), np.abs(why.values).max()
    print(
        f"one decision, 16 background rows x 2 rounds ({asked:,} answers): {statistics.median(took):.0f} ms wall; "
        f"largest contribution {size:.4f} R, median error {np.median(why.error):.5f} R (aim 50 ms)"
    )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=list(THEIRS), default=list(THEIRS))
    parser.add_argument("--bars")
    parser.add_argument("--news")
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual models' trees that is trained")
    given = parser.parse_args()
    rows, known, source = rows_of(*files_of(given.bars, given.news))
    z = fit_scaler(rows.x[known]).transform(rows.x[known])
    batch = Batch(z, rows.labels.label[known], signal_weights(rows, known, load_settings().ensemble))
    versions = ", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "shap", "xgboost", "lightgbm", "numba"))
    print(f"{source}: {len(z):,} rows x {z.shape[1]}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {versions}")
    for size in given.size:
        share = given.share if size == "usual" else 1.0
        models = fitted(size, batch, share)
        found = {name: compare(name, model, z, THEIRS[size][name]) for name, model in models.items()}
        lines = [(n, f"{a / share:.3f}", f"{b / share:.4f}", f"{r:.0f}x", f"{d:.0e}") for n, (a, b, r, d) in found.items()]
        slow, quick = (sum(row[i] / share for row in found.values()) for i in (0, 1))
        table(
            [*lines, ("all", f"{slow:.3f}", f"{quick:.4f}", f"{slow / quick:.0f}x", "")],
            (size, "library ms", "ours ms", "ratio", "difference"),
        )
        wall, cpu = everything(models, z)
        print(f"{size}, all rows and models: {wall / share:.1f} s wall, {cpu / share:.1f} s CPU; ratio's mark {MARKS[size]}x, shipped 5 s")
        if size == "shipped":
            interactions(models, z)
            one_decision(models, z)
    print(f"peak memory of this process, data and fits included: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()
