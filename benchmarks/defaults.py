"""How the shipped settings of [ensemble] were chosen: one change at a time, learned on train, stopped on its tail, scored on tune.

    python benchmarks/defaults.py [--role signal|position] [--bars FILE --news FILE | --embedded] [--forests | --rates]

Without files: the real file beside the clone (../shared/data) when it is there, else the embedded market (TRADEML_SYNTHETIC_EDGE,
_SEED). Log loss is weighted by each
label's uniqueness; "over prior" is log loss minus that of the class shares (below zero: the model knows something). The windows that
a retrain chooses and judges on are not looked at. `--forests` compares the two engines of the forest only, over four seeds, on
one thread, and on the final windows of five embedded markets without an edge; `--rates` the boosters' learning rates, over four seeds.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
from warmstart import files_of, rows_of

from trademl.cli.common import table
from trademl.learn.fits import Batch, fit_forest, fit_lightgbm, fit_scaler, fit_xgboost
from trademl.learn.readers import from_lightgbm, from_xgboost
from trademl.learn.treetable import predict
from trademl.market.recipe import signal_weights, windows_of
from trademl.market.tuning import position_task, score_model, signal_task
from trademl.pipeline import market as pipeline
from trademl.pipeline.choice import SYNTHETIC, MarketFlags
from trademl.pipeline.market.parameters import recipe_of
from trademl.settings import load_settings
from trademl.validate.metrics import class_prior, log_loss, log_loss_difference, prior_log_loss

EDGELESS = 5  # embedded markets
RATES, SEEDS = (0.03, 0.05, 0.07, 0.1), range(1, 5)

USUAL = {  # what people begin with; boosters run 300 rounds and stop for nothing
    "rf": {"rf_engine": "sklearn", "rf_trees": 300, "rf_max_depth": 12, "rf_min_samples_leaf": 1, "rf_max_samples": 1.0}
    | {"rf_max_features": 0.135},
    "xgb": {"xgb_max_depth": 6, "xgb_learning_rate": 0.1, "xgb_min_child_weight": 1, "xgb_subsample": 1.0, "xgb_colsample": 1.0}
    | {"xgb_reg_lambda": 1, "xgb_max_bin": 256},
    "lgb": {"lgb_num_leaves": 63, "lgb_learning_rate": 0.1, "lgb_min_data_in_leaf": 20, "lgb_subsample": 1.0, "lgb_colsample": 1.0}
    | {"lgb_reg_lambda": 0, "lgb_max_bin": 255},
}
CHANGES = {  # setting: other values
    "rf": {
        "engine": ("sklearn",),
        "max_depth": (3, 8),
        "min_samples_leaf": (50, 500),
        "max_samples": (1.0,),
        "max_features": (0.15, 0.3, 0.8),
        "trees": (300,),
    },
    "xgb": {"max_depth": (1, 4), "learning_rate": (0.03, 0.1), "min_child_weight": (5,), "subsample": (1.0,), "colsample": (1.0,)}
    | {"reg_lambda": (1,), "max_bin": (256,)},
    "lgb": {"num_leaves": (4, 31), "learning_rate": (0.03, 0.1), "min_data_in_leaf": (50,), "subsample": (1.0,), "colsample": (1.0,)}
    | {"reg_lambda": (1,), "max_bin": (255,)},
}


def usual(task, model, params, seed, threads):
    """Probabilities of a model at the usual size."""
    if model == "rf":
        return score_model(task, "rf", params, seed=seed, threads=threads).probabilities
    fit, read = (fit_xgboost, from_xgboost) if model == "xgb" else (fit_lightgbm, from_lightgbm)
    return predict(read(fit(task.fit, params, task.n_classes, until=300, seed=seed, threads=threads)), task.judged[0])


def forests(task, params):
    """Both engines over four seeds."""
    _, y, w = task.judged
    lines = []
    for engine in ("hist", "sklearn"):
        losses, busy = [], time.process_time()
        for seed in SEEDS:
            p = score_model(task, "rf", replace(params, rf_engine=engine), seed=seed, threads=1).probabilities
            losses.append(log_loss(p, y, w) - task.prior_log_loss)
        took = (time.process_time() - busy) / len(losses)
        lines.append((engine, f"{np.mean(losses):+.4f}", f"{min(losses):+.4f} to {max(losses):+.4f}", f"{took:.1f}"))
    table(lines, ("engine", "over prior", "four seeds", "CPU s"))


def rates(task, params):
    """The mean of the three models at each learning rate of the boosters."""
    _, y, w = task.judged
    forests = [score_model(task, "rf", params, seed=seed, threads=1).probabilities for seed in SEEDS]
    lines = []
    for rate in RATES:
        one, losses, busy = replace(params, xgb_learning_rate=rate, lgb_learning_rate=rate), [], time.process_time()
        for seed, forest in zip(SEEDS, forests, strict=True):
            boosters = [score_model(task, model, one, seed=seed, threads=1).probabilities for model in ("xgb", "lgb")]
            losses.append(log_loss(np.mean([forest, *boosters], axis=0), y, w) - task.prior_log_loss)
        took = (time.process_time() - busy) / len(losses)
        lines.append((rate, f"{np.mean(losses):+.4f}", f"{np.std(losses):.4f}", f"{took:.1f}"))
    table(lines, ("learning rate", "mean of the three over prior", "deviation of four seeds", "CPU s of both boosters"))


def without_edge(params):
    """Both engines on the last fifth of embedded markets in which there is nothing to find."""
    lines = []
    for seed in range(1, EDGELESS + 1):
        settings = load_settings({"synthetic.bars": 20_000, "synthetic.edge": 0, "synthetic.seed": seed})
        inputs = pipeline.load_inputs(settings, pipeline.choose_market(settings, MarketFlags(symbol=SYNTHETIC)))
        rows = pipeline.make_rows(inputs, pipeline.make_features(inputs, settings), settings)
        windows = windows_of(rows, settings.windows)
        final = windows.rows("final")
        known = np.flatnonzero((rows.end_s >= 0) & (rows.end_s + windows.embargo_s <= windows.span("final").start_s))
        z, label, weight = fit_scaler(rows.x[known]).transform(rows.x), rows.labels.label, rows.labels.weight
        batch = Batch(z[known], label[known], signal_weights(rows, known, params))
        prior = prior_log_loss(class_prior(batch.y, 3, batch.weight), label[final], weight[final])
        grown = [fit_forest(batch, replace(params, rf_engine=engine), 3, seed=7, threads=1) for engine in ("hist", "sklearn")]
        lines.append((seed, *(f"{log_loss(predict(forest, z[final]), label[final], weight[final]) - prior:+.4f}" for forest in grown)))
    table(lines, ("market without an edge", "hist", "sklearn"))


def main():
    """Print one table per model, and the mean of the three at both sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--role", choices=["signal", "position"], default="signal")
    parser.add_argument("--bars")
    parser.add_argument("--news")
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--forests", action="store_true")
    parser.add_argument("--rates", action="store_true")
    given, settings = parser.parse_args(), load_settings()
    rows, _, source = rows_of(*((None, None) if given.embedded else files_of(given.bars, given.news)))
    shipped, run = settings.ensemble, {"seed": settings.run.seed, "threads": settings.run.threads}
    make = signal_task if given.role == "signal" else position_task
    task = make(rows, windows_of(rows, settings.windows), recipe_of(settings), tail_share=settings.tuning.tail_share)
    _, y, w = task.judged
    prior = task.prior_log_loss
    sizes = f"{len(task.fit[1]):,} rows to learn from, {len(task.stop[1]):,} to stop on, {len(y):,} of tune"
    print(f"{source}, {given.role}: {sizes}; class prior {prior:.4f}")
    if given.forests:
        forests(task, shipped)
        without_edge(shipped)
        return
    if given.rates:
        rates(task, shipped)
        return
    means = {}
    for model, changes in CHANGES.items():
        lines = []
        others = {f"{model}_{name} {value}": {f"{model}_{name}": value} for name, values in changes.items() for value in values}
        for name, change in {"shipped": {}, "usual size": USUAL[model], **others}.items():
            start, params = time.perf_counter(), replace(shipped, **change)
            if name == "usual size":
                p, rounds = usual(task, model, params, **run), "" if model == "rf" else 300
            else:
                scored = score_model(task, model, params, **run)
                p, rounds = scored.probabilities, scored.rounds
            took = time.perf_counter() - start
            means.setdefault(name, []).append(p)
            loss = log_loss(p, y, w)
            lines.append((name, f"{loss:.4f}", f"{loss - prior:+.4f}", rounds or "", f"{took:.1f}"))
            print(f"  {model}, {name}: {loss - prior:+.4f}", flush=True)
        table(lines, (model, "log loss", "over prior", "rounds", "seconds"))
    both = [np.mean(means[name], axis=0) for name in ("shipped", "usual size")]
    gain = log_loss_difference(both[0], y, task.judged_time_s, both[1], w, draws=2000, level=0.95, seed=settings.run.seed)
    for name, p in zip(("shipped", "usual size"), both, strict=True):
        print(f"mean of the three, {name}: {log_loss(p, y, w):.4f}, over prior {log_loss(p, y, w) - prior:+.4f}")
    print(f"shipped minus usual: {gain.point:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")


if __name__ == "__main__":
    main()
