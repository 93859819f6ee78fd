"""The forest's two engines: what the leaves hold, equal bytes, shared bins, a younger forest, and what SHAP makes of it."""

import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from trademl.device import Resolved
from trademl.errors import ParityError, UsageError
from trademl.evidence.treeshap import tree_base, tree_shap
from trademl.learn import fits
from trademl.learn.ensemble import Rounds, fit_ensemble, native_files, side_by_side
from trademl.learn.fits import Batch, Target, bins_of, fit_forest, fit_xgboost, forest_table, grow_forest
from trademl.learn.leaves import class_shares
from trademl.learn.readers import from_xgboost
from trademl.learn.refresh import renew_forest
from trademl.learn.treetable import Link, predict, reached_leaves
from trademl.settings import load_settings

RNG = np.random.default_rng(3)
N, F = 5_000, 6
Z = RNG.normal(size=(N, F)).astype(np.float32)
Y = np.clip(np.round(Z[:, 0] + 0.7 * RNG.normal(size=N)) + 1, 0, 2).astype(np.int8)
BATCH = Batch(Z, Y, RNG.uniform(0.5, 1.5, N))
PARAMS = replace(load_settings(environ={}).ensemble, rf_trees=12, rf_min_samples_leaf=40, lgb_min_data_in_leaf=20)
SIDES = Target("signal", ("SELL", "BUY", "HOLD"))
ONE = {"seed": 1, "threads": 1}


@pytest.fixture(scope="module")
def forest():
    return fit_forest(BATCH, PARAMS, 3, **ONE)


def test_each_leaf_holds_the_class_shares_of_all_rows_that_reach_it(forest):
    reached = reached_leaves(forest, Z)
    assert forest.link is Link.MEAN
    for tree in (0, 11):
        for leaf in np.unique(reached[tree]):
            here = reached[tree] == leaf
            share = np.bincount(Y[here], BATCH.weight[here], minlength=3) / BATCH.weight[here].sum()
            np.testing.assert_allclose(forest.value[leaf], share, rtol=1e-12)
            assert forest.cover[leaf] == pytest.approx(BATCH.weight[here].sum())
    leaves = forest.feature < 0
    assert forest.cover[leaves].min() >= PARAMS.rf_min_samples_leaf
    np.testing.assert_allclose(forest.value[leaves].sum(axis=1), 1, rtol=1e-12)
    inner = np.flatnonzero(~leaves)
    np.testing.assert_allclose(forest.cover[inner], forest.cover[forest.left[inner]] + forest.cover[forest.right[inner]])


def test_one_tree_on_all_rows_and_columns_asks_what_a_decision_tree_asks():
    """Features of few values, so that bins lose nothing: the squared error of one-hot classes is the Gini gain."""
    few = Batch(np.round(Z * 2), Y, np.ones(N))
    params = replace(PARAMS, rf_trees=1, rf_max_samples=1.0, rf_max_features=1.0, rf_max_depth=3, rf_min_samples_leaf=1, xgb_max_bin=256)
    exact = DecisionTreeClassifier(max_depth=3, random_state=0).fit(few.z, few.y)
    np.testing.assert_allclose(predict(fit_forest(few, params, 3, **ONE), few.z), exact.predict_proba(few.z), atol=1e-12)


def test_seeds_differ_and_threads_do_not(forest):
    assert fit_forest(BATCH, PARAMS, 3, seed=1, threads=2) == forest
    assert fit_forest(BATCH, PARAMS, 3, seed=2, threads=1) != forest


def test_two_classes_and_a_small_market():
    two = BATCH._replace(y=(Y == 2).astype(np.int8))
    table = fit_forest(two, PARAMS, 2, **ONE)
    assert table.n_outputs == 2
    tiny = two.take(slice(100))  # a leaf needs two rows of a hundred, not 40
    assert fit_forest(tiny, PARAMS, 2, **ONE).n_trees < len(fit_forest(tiny, PARAMS, 2, **ONE).feature)


def test_forest_and_booster_share_their_bins():
    fitted = fit_ensemble(BATCH, PARAMS, SIDES, until=Rounds(5, 5), **ONE)
    alone = fit_xgboost(BATCH, PARAMS, 3, until=5, **ONE)
    assert fitted.by_xgb.save_raw("ubj") == alone.save_raw("ubj")
    assert fitted.tables[0] == fit_forest(BATCH, PARAMS, 3, **ONE)


def test_scikit_learns_engine_stays():
    slow = replace(PARAMS, rf_engine="sklearn")
    fitted = fit_ensemble(BATCH, slow, SIDES, until=Rounds(5, 5), **ONE)
    assert fitted.tables[0] == fit_forest(BATCH, slow, 3, **ONE) != fit_forest(BATCH, PARAMS, 3, **ONE)


def test_a_gpu_that_fails_leaves_the_cpus_forest(monkeypatch):
    train = fits.xgb.train

    def full(options, *more, **keywords):
        if options.get("device") == "cuda":
            raise fits.xgb.core.XGBoostError("vector leaf: not on this device")
        return train(options, *more, **keywords)

    monkeypatch.setattr(fits.xgb, "train", full)
    gpu = Resolved("cuda", "cuda", "a pretended GPU")
    fell = fit_ensemble(BATCH, PARAMS, SIDES, until=Rounds(5, 5), devices={"rf": gpu}, **ONE)
    assert native_files(fell, "s") == native_files(fit_ensemble(BATCH, PARAMS, SIDES, until=Rounds(5, 5), **ONE), "s")
    assert fell.devices["rf"].resolved == "cpu"
    assert "not on this device" in fell.devices["rf"].reason


def test_a_younger_forest_keeps_the_newest_trees(forest):
    renewed = renew_forest(forest, BATCH.take(slice(1_000, None)), PARAMS, 0.25, **ONE)
    assert renewed.n_trees == 12
    kept = len(forest.feature) - forest.roots[3]
    assert np.array_equal(renewed.value[:kept], forest.value[forest.roots[3] :])
    assert renewed == renew_forest(forest, BATCH.take(slice(1_000, None)), PARAMS, 0.25, seed=1, threads=2)


def test_shap_adds_up(forest):
    rows = Z[:200]
    np.testing.assert_allclose(tree_base(forest) + tree_shap(forest, rows).sum(axis=2), predict(forest, rows), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(tree_base(forest), np.bincount(Y, BATCH.weight) / BATCH.weight.sum(), rtol=1e-9)  # cover is of all rows


def test_trees_that_are_not_the_librarys_are_refused(monkeypatch):
    booster = grow_forest(bins_of(BATCH, PARAMS, 1), BATCH, PARAMS, 3, **ONE)
    monkeypatch.setattr(fits, "from_xgboost", lambda given: replace(read, threshold=read.threshold + np.float32(0.1)))
    read = from_xgboost(booster)
    with pytest.raises(ParityError, match="XGBoost's own answer"):
        forest_table(booster, BATCH, PARAMS, 3)


@pytest.mark.parametrize(("y", "weight"), [([0, 3], [1, 1]), ([0, -1], [1, 1]), ([0], [1, 1]), ([0, 1], [1])])
def test_rows_that_do_not_fit_are_refused(forest, y, weight):
    with pytest.raises(UsageError, match="classes from 0 to 2"):
        class_shares(forest, Z[:2], y, weight, n_classes=3, min_weight=1)


def test_side_by_side_keeps_the_order_and_ends_at_the_first_error():
    started = []

    def work(item):
        started.append(item)
        if item == 2:
            raise ValueError("two")
        time.sleep(0.2 if item > 2 else 0)  # on a busy machine the reader may need a second to hear of the error
        return -item

    made = side_by_side(work, range(50), threads=2)
    assert [next(made), next(made)] == [0, -1]
    with pytest.raises(ValueError, match="two"):
        next(made)
    assert len(started) < 20
    assert list(side_by_side(abs, [-3, -1], threads=0)) == [3, 1]
    assert list(side_by_side(abs, [], threads=0)) == []
