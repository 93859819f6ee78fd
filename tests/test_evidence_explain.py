"""Explanations of the ensemble and of one decision: they add up, say how sure they are, and refuse what does not fit."""

from itertools import permutations

import numpy as np
import pytest
import xgboost as xgb
from sklearn.ensemble import RandomForestClassifier

from trademl.errors import UsageError
from trademl.evidence.decision_shap import decision_shap
from trademl.evidence.explain import (
    dependence,
    ensemble_shap,
    explanation,
    importance,
    importance_drift,
    noise_floor,
    top_interactions,
    with_shuffled_copies,
)
from trademl.evidence.treeshap import mean_interactions, tree_shap
from trademl.learn.readers import from_forest, from_xgboost
from trademl.learn.treetable import predict
from trademl.validate.calibration import Calibration, identity

pytestmark = pytest.mark.shap
RNG = np.random.default_rng(8)
X = RNG.normal(size=(700, 5)).astype(np.float32)
SCORE = X[:, 0] + X[:, 1] * X[:, 2] + 0.3 * RNG.normal(size=700)
Y3, Y2 = np.digitize(SCORE, [-0.7, 0.7]), (SCORE > 0).astype(int)
NOON_S = 1_700_000_000 // 86_400 * 86_400 + 43_200
XGB = {"nthread": 1, "max_depth": 4, "learning_rate": 0.8}  # steep: probabilities near 0 and 1


@pytest.fixture(scope="module")
def models():
    return {
        2: (
            from_forest(RandomForestClassifier(15, max_depth=4, random_state=0).fit(X, Y2)),
            from_xgboost(xgb.train(XGB | {"objective": "binary:logistic"}, xgb.DMatrix(X, Y2), 30)),
        ),
        3: (
            from_forest(RandomForestClassifier(15, max_depth=4, random_state=0).fit(X, Y3)),
            from_xgboost(xgb.train(XGB | {"objective": "multi:softprob", "num_class": 3}, xgb.DMatrix(X, Y3), 30)),
        ),
    }


# --- the ensemble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(0.3, 0.7), (0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_ensemble_adds_up_in_both_units(models, classes, weights):
    calibration = Calibration(scale=[1.3] * classes, shift=np.linspace(-0.2, 0.3, classes))
    mixed = sum(weight * predict(table, X) for weight, table in zip(weights, models[classes]))
    p = calibration.apply(mixed)
    for unit, answer in (("probability", p), ("margin", np.log(p / (1 - p)))):
        found = ensemble_shap(models[classes], weights, calibration, X, unit=unit)
        assert found.values.shape == (700, classes, 5)
        assert np.abs(found.base + found.values.sum(axis=2) - answer).max() < (1e-9 if unit == "probability" else 1e-7)


def test_a_forest_alone_is_its_own_tree_shap(models):
    forest = models[3][0]
    found = ensemble_shap([forest], [1.0], identity(3), X)
    np.testing.assert_allclose(found.values, tree_shap(forest, X), rtol=0, atol=1e-9)


def test_many_rows_and_none(models):
    rows = np.tile(X, (13, 1))  # more than one part
    found = ensemble_shap(models[2], [0.5, 0.5], identity(2), rows)
    few = ensemble_shap(models[2], [0.5, 0.5], identity(2), X)
    np.testing.assert_allclose(found.values[-700:], few.values, rtol=0, atol=1e-14)
    assert ensemble_shap(models[2], [0.5, 0.5], identity(2), X[:0]).values.shape == (0, 2, 5)


def test_parts_that_do_not_fit_are_refused(models):
    with pytest.raises(UsageError, match=r"models of \[3\] classes, a calibration of 2"):
        ensemble_shap(models[3][:1], [1.0], identity(2), X)
    with pytest.raises(UsageError, match="1 weights"):
        ensemble_shap(models[3], [1.0], identity(3), X)
    with pytest.raises(UsageError, match="unit = 'r' is not one of probability, margin"):
        ensemble_shap(models[3], [0.5, 0.5], identity(3), X, unit="r")
    quantiles = {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9], "nthread": 1}
    regression = from_xgboost(xgb.train(quantiles, xgb.DMatrix(X, SCORE), 2))
    with pytest.raises(UsageError, match="answers no probabilities"):
        ensemble_shap([regression], [1.0], identity(2), X)
    with pytest.raises(UsageError, match="same"):
        explanation(np.zeros((3, 5)), 0.0, X[:4], list("abcde"))


@pytest.mark.slow
def test_peoples_own_plots_work(models):
    import matplotlib

    matplotlib.use("Agg")
    import shap

    found = ensemble_shap(models[3], [0.5, 0.5], identity(3), X)
    of_top = explanation(found.values[:, 2], found.base[2], X, list("abcde"))
    for draw in (shap.plots.beeswarm, shap.plots.bar, lambda e, show: shap.plots.scatter(e[:, 0], show=show)):
        draw(of_top, show=False)
    shap.plots.waterfall(of_top[3], show=False)
    matplotlib.pyplot.close("all")


# --- ranking, floor, dependence, drift ------------------------------------------------------------------------------------


def test_importance_is_the_mean_size_and_its_interval_comes_from_days():
    time_s = NOON_S + 86_400 * (np.arange(400) // 20)  # 20 rows a day
    by_day = np.repeat(RNG.normal(size=20), 20)  # rows of a day are alike
    values = np.column_stack([by_day, np.full(400, -0.5)])
    found = importance(values, time_s, seed=3)
    assert np.allclose(found.mean, [np.abs(by_day).mean(), 0.5])
    assert (found.days, found.rows) == (20, 400)
    naive = 2 * 1.96 * np.abs(by_day).std() / np.sqrt(400)
    assert found.high[0] - found.low[0] > 2 * naive  # 20 days, not 400 rows
    assert np.allclose((found.low[1], found.high[1]), 0.5)
    both = importance(np.stack([values, 3 * values], axis=1), time_s, seed=3)
    assert np.allclose(both.mean, 2 * found.mean)
    short = importance(values[:80], time_s[:80], seed=3)
    assert short.days == 4 and np.isnan(short.low).all()
    for bad in (values[:0], values[:, 0]):
        with pytest.raises(UsageError, match="at least one row"):
            importance(bad, time_s, seed=3)


def test_shuffled_copies_rank_below_what_matters():
    wide = with_shuffled_copies(X, [0, 3], seed=1)
    assert wide.shape == (700, 7) and wide.dtype == np.float32
    assert np.array_equal(wide[:, :5], X)
    assert np.array_equal(np.sort(wide[:, 5]), np.sort(X[:, 0]))
    assert abs(np.corrcoef(wide[:, 5], X[:, 0])[0, 1]) < 0.2
    forest = from_forest(RandomForestClassifier(30, max_depth=4, random_state=0).fit(wide, Y3))
    found = importance(tree_shap(forest, wide), NOON_S + 900 * np.arange(700), seed=3)
    floor = noise_floor(found, copies=2)
    assert floor == max(found.high[-2:])
    assert (found.low[:3] > floor).all() and not (found.low[3:5] > floor).any()
    short = importance(tree_shap(forest, wide), np.full(700, NOON_S), seed=3)
    assert noise_floor(short, copies=2) == max(short.mean[-2:])  # no interval: the mean
    for copies in (0, 7):
        with pytest.raises(UsageError, match=f"copies = {copies}"):
            noise_floor(found, copies)


def test_dependence_of_ties_constants_and_missing_values():
    x = np.repeat([0.0, 1.0, np.nan], [60, 30, 10])
    phi = np.where(np.isnan(x), 5.0, 2 * x)
    curve = dependence(x, phi, bins=10)
    assert curve.value.tolist() == [0, 1] and curve.mean.tolist() == [0, 2] and curve.rows.tolist() == [60, 30]
    assert (curve.missing_rows, curve.missing_mean) == (10, 5.0)
    assert dependence(np.ones(5), np.arange(5.0)).mean.tolist() == [2.0]
    nothing = dependence(np.full(3, np.nan), np.ones(3))
    assert nothing.value.size == 0 and nothing.missing_rows == 3
    with pytest.raises(UsageError, match="one length"):
        dependence(x, phi[:-1])


def test_top_interactions_and_drift(models):
    sizes = mean_interactions(models[3][1], X)[2]
    pairs = top_interactions(sizes, list("abcde"), count=3)
    assert set(pairs[0][:2]) == {"b", "c"} and len(pairs) == 3
    assert pairs[0][2] == 2 * sizes[1, 2]
    drift = importance_drift([[3, 2, 1], [3, 2, 1], [1, 1, 1], [0, 0, 0]])
    assert drift.agreement[0] == pytest.approx(1) and np.isnan(drift.agreement[1:]).all()
    assert np.allclose(drift.shares.sum(axis=1), [1, 1, 1, 0])
    with pytest.raises(UsageError, match="folds, features"):
        importance_drift([1.0, 2.0])


# --- one decision ---------------------------------------------------------------------------------------------------------


def curved(rows):
    """A function that no tree made."""
    return np.tanh(rows[:, 0] * rows[:, 1]) + 0.3 * rows[:, 2] * rows[:, 0]


def every_order(row, background):
    """Shapley values by all orders and all background rows."""
    total = np.zeros(len(row))
    orders = list(permutations(range(len(row))))
    for order in orders:
        rows, before = background.copy(), curved(background)
        for j in order:
            rows[:, j] = row[j]
            after = curved(rows)
            total[j] += (after - before).mean()
            before = after
    return total / len(orders)


ROW, BACKGROUND = np.array([1.0, -0.8, 2.0, 0.5]), RNG.normal(size=(30, 4))


def test_one_decision_agrees_with_every_order_within_its_error():
    exact = every_order(ROW, BACKGROUND)
    found = [decision_shap(curved, ROW, BACKGROUND, rounds=8, seed=seed) for seed in range(20)]
    for one in found:
        assert one.base + one.values.sum() == pytest.approx(one.answer, abs=1e-12)
        assert one.pairs == 240
        assert one.values[3] == one.error[3] == 0  # it has no say
    estimates, errors = np.array([one.values for one in found]), np.array([one.error for one in found])
    assert (np.abs(estimates - exact)[:, :3] <= 4 * errors[:, :3]).all()
    assert (estimates.std(axis=0, ddof=1)[:3] <= 1.5 * errors.mean(axis=0)[:3]).all()  # every background row once: less chance than said
    again = decision_shap(curved, ROW, BACKGROUND, rounds=8, seed=0)
    assert np.array_equal(again.values, found[0].values)


@pytest.mark.parametrize(
    ("answer", "row", "background", "what"),
    [
        (curved, ROW[:3], BACKGROUND, r"row \(3,\)"),
        (curved, ROW, BACKGROUND[:0], "at least 1"),
        (curved, ROW, BACKGROUND[:1], "at least 2 pairs"),
        (lambda rows: rows, ROW, BACKGROUND, "as many finite numbers"),
        (lambda rows: np.full(len(rows), np.nan), ROW, BACKGROUND, "as many finite numbers"),
    ],
)
def test_a_decision_that_cannot_be_explained_is_refused(answer, row, background, what):
    with pytest.raises(UsageError, match=what):
        decision_shap(answer, row, background, rounds=1, seed=0)
