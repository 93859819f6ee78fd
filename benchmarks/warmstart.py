"""Ten forward steps of a retrained booster, five ways: log loss on the next block, size, seconds.

    python benchmarks/warmstart.py [--bars FILE --news FILE]

Without files: the real file beside the clone (../shared/data) when it is there, else the embedded market, which does not drift.
The five ways are compared on XGBoost, as the original's warm start was; "cold" and "refresh" are also shown for the whole ensemble.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import xgboost as xgb

from trademl.cli.common import table
from trademl.learn.ensemble import Rounds, fit_ensemble, native_files
from trademl.learn.fits import Batch, Target, fit_scaler, fit_xgboost, xgb_parameters
from trademl.learn.refresh import continue_ensemble, refresh_xgboost
from trademl.market.recipe import signal_weights
from trademl.market.specs import CLASSES
from trademl.pipeline import market as pipeline
from trademl.pipeline.choice import SYNTHETIC, MarketFlags
from trademl.settings import load_settings

STEPS, STEP_ROWS, ROUNDS, MORE, CAP = 10, 3_500, 120, 30, 240
THREADS = 2
TARGET = Target("signal", CLASSES)


def rows_of(bars, news):
    """Labelled rows of a file, or of the embedded market: scaled features, classes, weights function, decision rows, name."""
    settings = load_settings()
    flags = MarketFlags(bars=str(bars), news=str(news), symbol="BTCUSD") if bars else MarketFlags(symbol=SYNTHETIC)
    choice = pipeline.choose_market(settings, flags)
    inputs = pipeline.load_inputs(settings, choice)
    rows = pipeline.make_rows(inputs, pipeline.make_features(inputs, settings), settings)
    return rows, np.flatnonzero(rows.end_s >= 0), choice.source


def files_of(bars, news):
    """The files given, or the real ones beside the clone, or (None, None): the embedded market."""
    shared = Path(__file__).resolve().parents[2] / "shared" / "data" / "market"
    found = sorted(shared.glob("btcusd*.csv.gz")), sorted(shared.glob("news*.csv.gz"))
    return (bars, news) if bars else (found[0][0], found[1][0]) if all(found) else (None, None)


def log_loss(p, y, w):
    """Weighted, of (n, 3) probabilities."""
    return float(np.average(-np.log(np.clip(p[np.arange(len(y)), y], 1e-9, 1)), weights=w))


def grow(booster, z, y, w, params, rounds):
    """`rounds` more on top of a booster, or a new one."""
    options = xgb_parameters(params, 3, seed=7, threads=THREADS)
    data = xgb.QuantileDMatrix(z, label=y, weight=w, max_bin=params.xgb_max_bin)
    return xgb.train(options, data, num_boost_round=rounds, xgb_model=booster)


def capped(booster, *data, params):
    """+30 rounds, and from nothing once the cap is reached."""
    full = booster.num_boosted_rounds() + MORE > CAP
    return grow(None if full else booster, *data, params, ROUNDS if full else MORE)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=Path)
    parser.add_argument("--news", type=Path)
    given = parser.parse_args()
    rows, known, source = rows_of(*files_of(given.bars, given.news))
    settings = load_settings()
    params, warm = settings.ensemble, settings.warmstart
    original = replace(params, xgb_max_depth=5, xgb_learning_rate=0.05)  # of the size that people use
    step = min(STEP_ROWS, len(known) // (2 * STEPS))
    begin, purge = len(known) - STEPS * step, rows.spec.horizon_bars
    z = fit_scaler(rows.x[known[: begin - purge]]).transform(rows.x)
    label = rows.labels.label

    def data(at):
        return Batch(z[at], label[at], signal_weights(rows, at, params))

    def fresh(at, chosen):
        return fit_xgboost(data(at), chosen, 3, seed=7, threads=THREADS, until=ROUNDS)

    def whole(at):
        return fit_ensemble(data(at), params, TARGET, seed=7, threads=THREADS, until=Rounds(ROUNDS, ROUNDS))

    def recent(at):
        return data(at[-warm.refresh_bars :])

    ways = {  # name -> (first fit, every later fit)
        "never retrain": (lambda at: fresh(at, original), lambda model, at: model),
        "cold": (lambda at: fresh(at, original), lambda model, at: fresh(at, original)),
        "warm: refresh leaves": (lambda at: fresh(at, original), lambda m, at: refresh_xgboost(m, recent(at), original, 3, seed=7)),
        f"warm: +{MORE} rounds, cap {CAP}": (lambda at: fresh(at, original), lambda m, at: capped(m, *data(at), params=original)),
        f"the original's: +{ROUNDS}, no cap": (lambda at: fresh(at, original), lambda m, at: grow(m, *data(at), original, ROUNDS)),
        "ensemble, never retrain": (whole, lambda model, at: model),
        "ensemble, cold": (whole, lambda model, at: whole(at)),
        "ensemble, warm": (whole, lambda m, at: continue_ensemble(m, data(at), params, warm, TARGET, seed=7, threads=THREADS)),
    }
    print(f"{source}: {len(known):,} labelled rows, {STEPS} steps of {step:,}; log loss on the block after each refit")
    lines, priors = [], []
    for name, (first, later) in ways.items():
        losses, seconds, model = [], 0.0, None
        for number in range(STEPS):
            end = begin + number * step
            past, block = known[: end - purge], known[end : end + step]
            start = time.perf_counter()
            model = first(past) if model is None else later(model, past)
            seconds += time.perf_counter() - start
            if hasattr(model, "tables"):
                p, size = model.model_probabilities(z[block]).mean(axis=1), sum(map(len, native_files(model, "x").values()))
            else:
                p, size = model.inplace_predict(z[block]), len(model.save_raw("ubj"))
            losses.append(log_loss(p, label[block], rows.labels.weight[block]))
            if len(priors) < STEPS:
                share = np.bincount(label[past], rows.labels.weight[past])
                priors.append(log_loss(np.tile(share / share.sum(), (len(block), 1)), label[block], rows.labels.weight[block]))
        lines.append((name, f"{np.mean(losses):.4f}", f"{np.mean(losses[-3:]):.4f}", f"{size / 1e6:.2f}", f"{seconds:.1f}"))
        print(f"  {name}: {np.mean(losses):.4f}, {seconds:.0f} s", flush=True)
    lines.append(("class prior", f"{np.mean(priors):.4f}", f"{np.mean(priors[-3:]):.4f}", "", ""))
    table(lines, ("way", "log loss", "last three", "MB", "seconds"))


if __name__ == "__main__":
    main()
