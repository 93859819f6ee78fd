"""TreeSHAP is exact: by its definition on random trees, beside the libraries on real ones, and refused where it could be wrong."""

from dataclasses import replace
from itertools import combinations
from math import factorial

import lightgbm as lgb
import numpy as np
import pytest
import shap
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor

from trademl.errors import UsageError
from trademl.evidence import treeshap
from trademl.evidence.treeshap import mean_interactions, tree_base, tree_interactions, tree_shap, tree_shap_parts
from trademl.evidence.treeshap_kernel import MAX_DEPTH
from trademl.learn.readers import from_forest, from_xgboost
from trademl.learn.treetable import Link, TreeTable, assemble, raw, replace_oldest

pytestmark = pytest.mark.shap
RNG = np.random.default_rng(5)
N, F = 1_500, 7
X = RNG.normal(size=(N, F)).astype(np.float32)
X[:, ::2] = X[:, ::2].round(1)  # rows lie exactly on thresholds
HOLES = X.copy()
HOLES[RNG.random(X.shape) < 0.1] = np.nan
SCORE = X[:, 0] + X[:, 1] * X[:, 2] + RNG.normal(size=N)
Y3, Y2 = np.digitize(SCORE, [-0.7, 0.7]), (SCORE > 0).astype(int)
ROWS = np.vstack([X[:70], HOLES[:70]])  # more than two blocks of the kernel
XGB = {"nthread": 1, "max_depth": 5, "subsample": 0.7, "seed": 1}
LGB = {"num_threads": 1, "verbose": -1, "num_leaves": 24, "deterministic": True, "force_row_wise": True}


def answer(table: TreeTable, rows: np.ndarray) -> np.ndarray:
    """What a table's SHAP values must add up to."""
    return raw(table, rows) / (table.n_trees if table.link is Link.MEAN else 1)


def agree(mine: np.ndarray, theirs: np.ndarray, bound: float = 1e-5) -> None:
    """Equal to `bound` of the largest value."""
    assert mine.shape == theirs.shape
    assert np.abs(mine - theirs).max() <= bound * np.abs(theirs).max()


# --- by the definition ----------------------------------------------------------------------------------------------------


def known(table: TreeTable, row: np.ndarray, features: frozenset, node: int) -> np.ndarray:
    """Expected value of a subtree when only some features of the row are known."""
    if table.feature[node] < 0:
        return table.value[node]
    left = table.left[node]
    if table.feature[node] in features:
        x = row[table.feature[node]]
        goes_left = table.missing_left[node] if np.isnan(x) else x <= table.threshold[node]
        return known(table, row, features, left if goes_left else left + 1)
    weight = table.cover[left] + table.cover[left + 1]
    share = table.cover[left] / weight if weight else 0.5
    return share * known(table, row, features, left) + (1 - share) * known(table, row, features, left + 1)


def games(table: TreeTable, row: np.ndarray) -> dict[frozenset, np.ndarray]:
    """The whole ensemble's expected answer (outputs,) for every set of known features."""
    sets = [frozenset(c) for size in range(table.n_features + 1) for c in combinations(range(table.n_features), size)]
    out = {}
    for features in sets:
        total = table.base.copy()
        for root, output in zip(table.roots, table.tree_output):
            value = known(table, row, features, root)
            total[slice(None) if output < 0 else output] += value if output < 0 else value[0]
        out[features] = total / (table.n_trees if table.link is Link.MEAN else 1)
    return out


def by_definition(table: TreeTable, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shapley values (outputs, features) and SHAP interactions (outputs, features, features), set by set."""
    v, m, k = games(table, row), table.n_features, table.n_outputs
    phi, pairs = np.zeros((k, m)), np.zeros((k, m, m))
    for s in v:
        for i in set(range(m)) - s:
            phi[:, i] += factorial(len(s)) * factorial(m - len(s) - 1) / factorial(m) * (v[s | {i}] - v[s])
            for j in set(range(m)) - s - {i}:
                weight = factorial(len(s)) * factorial(m - len(s) - 2) / (2 * factorial(m - 1))
                pairs[:, i, j] += weight * (v[s | {i, j}] - v[s | {i}] - v[s | {j}] + v[s])
    for i in range(m):
        pairs[:, i, i] = phi[:, i] - pairs[:, i].sum(axis=1)
    return phi, pairs


def random_table(seed: int) -> TreeTable:
    """Some trees of any shape: features asked again and again, nodes that no weight reached, single leaves."""
    rng = np.random.default_rng(seed)
    features, outputs, is_forest = int(rng.integers(2, 5)), int(rng.integers(1, 4)), bool(rng.integers(2))
    nodes = {name: [] for name in ("feature", "threshold", "left", "right", "missing_left", "value", "cover")}
    roots, columns = [], outputs if is_forest else 1

    def grow(depth: int, cover: float) -> int:
        at, is_leaf = len(nodes["left"]), depth == 0 or rng.random() < 0.2
        for name, value in (("feature", rng.integers(features)), ("threshold", rng.integers(3)), ("left", -1), ("right", -1)):
            nodes[name].append(int(value))
        nodes["missing_left"].append(bool(rng.integers(2)))
        nodes["value"].append(rng.normal(size=columns))
        nodes["cover"].append(cover)
        if not is_leaf:
            share = rng.choice([0.0, 1.0, rng.random()], p=[0.1, 0.1, 0.8])
            nodes["left"][at], nodes["right"][at] = grow(depth - 1, share * cover), grow(depth - 1, (1 - share) * cover)
        return at

    for _ in range(int(rng.integers(1, 4))):
        roots.append(grow(int(rng.integers(0, 6)), 10.0))
    of = [-1] * len(roots) if is_forest else [int(rng.integers(outputs)) for _ in roots]
    link = "mean" if is_forest else "identity"
    return assemble(nodes | {"roots": roots, "tree_output": of}, base=rng.normal(size=outputs), link=link, n_features=features)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_trees_by_the_definition(seed):
    table = random_table(seed)
    rows = np.random.default_rng(seed).choice([0.0, 1.0, 1.5, 2.0, 3.0, np.nan], (3, table.n_features)).astype(np.float32)
    phi, pairs = tree_shap(table, rows), tree_interactions(table, rows)
    for i, row in enumerate(rows):
        expected, expected_pairs = by_definition(table, row)
        np.testing.assert_allclose(phi[i], expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(pairs[i], expected_pairs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(tree_base(table) + phi.sum(axis=2), answer(table, rows), rtol=0, atol=1e-12)


# --- beside the libraries -------------------------------------------------------------------------------------------------


FORESTS = {
    "classifier": (RandomForestClassifier(12, max_depth=9, random_state=0), Y3),
    "binary": (RandomForestClassifier(12, min_samples_leaf=5, max_samples=0.25, random_state=0), Y2),
    "extra trees": (ExtraTreesClassifier(10, max_depth=7, random_state=0), Y3),
    "regressor": (RandomForestRegressor(6, random_state=0), SCORE),
    "one leaf": (RandomForestClassifier(3, min_samples_leaf=800, random_state=0), Y3),
}
XGB_CASES = {
    "binary": ({"objective": "binary:logistic", "base_score": 0.2}, Y2),
    "multi": ({"objective": "multi:softprob", "num_class": 3}, Y3),
    "forests": ({"objective": "multi:softprob", "num_class": 3, "num_parallel_tree": 3, "colsample_bynode": 0.5}, Y3),
    "quantiles": ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]}, SCORE),
    "shallow": ({"objective": "reg:squarederror", "max_depth": 1}, SCORE + 5),
    "leaf-wise": ({"objective": "binary:logistic", "grow_policy": "lossguide", "max_leaves": 40, "max_depth": 0}, Y2),
}
LGB_CASES = {
    "binary": ({"objective": "binary"}, Y2),
    "multi": ({"objective": "multiclass", "num_class": 3}, Y3),
    "regression": ({"objective": "regression"}, SCORE + 5),
    "dart": ({"objective": "binary", "boosting": "dart", "drop_rate": 0.5}, Y2),  # its trees are stored as they answer
}


@pytest.mark.oracle
@pytest.mark.parametrize("case", FORESTS)
def test_forests_beside_shap(case):
    model, y = FORESTS[case]
    model.fit(X, y)
    explainer = shap.TreeExplainer(model)
    theirs = np.asarray(explainer.shap_values(X[:70])).reshape(70, F, -1).transpose(0, 2, 1)
    mine = tree_shap(model, X[:70])
    if theirs.any():
        agree(mine, theirs, 1e-12)
    else:
        assert not mine.any()
    agree(tree_base(model), np.atleast_1d(explainer.expected_value), 1e-12)
    agree(tree_base(model) + mine.sum(axis=2), answer(from_forest(model), X[:70]), 1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("case", XGB_CASES)
def test_xgboost_beside_pred_contribs(case):
    params, y = XGB_CASES[case]
    booster, rows = xgb.train(XGB | params, xgb.DMatrix(HOLES, y), 12), xgb.DMatrix(ROWS)
    contribs = booster.predict(rows, pred_contribs=True, strict_shape=True)
    mine, base = tree_shap(booster, ROWS), tree_base(booster)
    agree(mine, contribs[:, :, :-1])
    agree(base, contribs[0, :, -1])
    margin = answer(from_xgboost(booster), ROWS)
    np.testing.assert_allclose(base + mine.sum(axis=2), margin, rtol=1e-9, atol=1e-9)


@pytest.mark.oracle
@pytest.mark.parametrize("case", ["binary", "multi", "shallow"])
def test_xgboost_beside_pred_interactions(case):
    params, y = XGB_CASES[case]
    booster = xgb.train(XGB | params, xgb.DMatrix(HOLES, y), 8)
    theirs = booster.predict(xgb.DMatrix(ROWS), pred_interactions=True, strict_shape=True)[:, :, :-1, :-1]
    mine = tree_interactions(booster, ROWS)
    agree(mine, theirs)
    agree(mean_interactions(booster, ROWS), np.abs(theirs).mean(axis=0))
    agree(mine.sum(axis=3), tree_shap(booster, ROWS), 1e-12)
    assert np.array_equal(mine, mine.transpose(0, 1, 3, 2))


@pytest.mark.oracle
@pytest.mark.parametrize("case", LGB_CASES)
def test_lightgbm_beside_pred_contrib(case):
    params, y = LGB_CASES[case]
    booster = lgb.train(LGB | params, lgb.Dataset(HOLES.astype(float), y), 12)
    contrib = booster.predict(ROWS.astype(float), pred_contrib=True).reshape(len(ROWS), -1, F + 1)
    mine, base = tree_shap(booster, ROWS), tree_base(booster)
    agree(mine, contrib[:, :, :-1], 1e-10)
    agree(base, contrib[0, :, -1], 1e-10)
    margin = booster.predict(ROWS.astype(float), raw_score=True).reshape(len(ROWS), -1)
    np.testing.assert_allclose(base + mine.sum(axis=2), margin, rtol=1e-9, atol=1e-9)


def test_a_forest_has_interactions_of_every_output():
    model = RandomForestClassifier(8, max_depth=6, random_state=0).fit(X, Y3)
    matrices = tree_interactions(model, X[:100])
    agree(matrices.sum(axis=3), tree_shap(model, X[:100]), 1e-12)
    agree(mean_interactions(model, X[:100]), np.abs(matrices).mean(axis=0), 1e-12)
    agree(matrices[:, [1]], tree_interactions(of_one_class(model, 1), X[:100]), 1e-12)


def of_one_class(forest, output: int) -> TreeTable:
    """The forest's table with the leaves of one class alone."""
    table = from_forest(forest)
    return replace(table, value=table.value[:, output : output + 1], base=table.base[output : output + 1], n_outputs=1)


# --- estimators and warm starts -------------------------------------------------------------------------------------------


def test_an_estimator_that_stopped_early_is_explained_as_it_predicts():
    held_out = [(X[:300], 2 - Y3[:300])]  # learns the opposite: the first round is the best
    model = xgb.XGBClassifier(n_estimators=30, n_jobs=1, early_stopping_rounds=3).fit(X, Y3, eval_set=held_out, verbose=False)
    margin = model.predict(ROWS, output_margin=True)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    np.testing.assert_allclose(tree_base(model) + tree_shap(model, ROWS).sum(axis=2), margin, rtol=1e-5, atol=1e-5)
    light = lgb.LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1).fit(X, Y3)
    assert np.array_equal(tree_shap(light, ROWS), tree_shap(light.booster_, ROWS))


def test_refreshed_boosters_and_renewed_forests():
    old = xgb.train(XGB | {"objective": "binary:logistic", "max_depth": 7, "min_child_weight": 0}, xgb.DMatrix(X, Y2), 10)
    refresh = {"process_type": "update", "updater": "refresh", "refresh_leaf": True, "objective": "binary:logistic", "nthread": 1}
    few = xgb.DMatrix(X[:60], Y2[:60])  # most nodes see no row
    booster = xgb.train(refresh, few, 10, xgb_model=old)
    table = from_xgboost(booster)
    assert (table.cover[table.feature >= 0] == 0).any()
    np.testing.assert_allclose(tree_base(booster) + tree_shap(booster, ROWS).sum(axis=2), raw(table, ROWS), rtol=1e-9, atol=1e-9)

    first, second = (RandomForestClassifier(6, max_depth=5, random_state=seed).fit(X, Y3) for seed in (0, 1))
    renewed = replace_oldest(from_forest(first), from_forest(second), 6)
    assert np.array_equal(tree_shap(renewed, ROWS), tree_shap(from_forest(second), ROWS))
    first.set_params(n_estimators=9, warm_start=True).fit(X, Y3)
    agree(tree_shap(first, X[:70]), np.asarray(shap.TreeExplainer(first).shap_values(X[:70])).transpose(0, 2, 1), 1e-12)


# --- edges ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def booster():
    return xgb.train(XGB | {"objective": "multi:softprob", "num_class": 3}, xgb.DMatrix(HOLES, Y3), 10)


def test_no_row_one_row_many_rows_and_any_threads_give_the_same_bits(booster):
    rows = np.vstack([X, HOLES])  # three parts of threads
    whole = tree_shap(booster, rows, threads=1)
    assert tree_shap(booster, rows[:0]).shape == (0, 3, F)
    assert np.array_equal(tree_shap(booster, rows[77:78])[0], whole[77])
    assert np.array_equal(tree_shap(booster, rows, threads=3), whole)
    assert np.array_equal(np.concatenate([values for _, values in tree_shap_parts(booster, rows, rows=999)]), whole)
    assert tree_interactions(booster, rows[:0]).shape == (0, 3, F, F)
    assert not mean_interactions(booster, rows[:0]).any()
    assert np.array_equal(mean_interactions(booster, rows, threads=1), mean_interactions(booster, rows, threads=3))


def test_rows_of_nan_and_infinity_add_up(booster):
    rows = np.full((3, F), np.nan, np.float32)
    rows[1], rows[2] = np.inf, -np.inf
    margin = raw(from_xgboost(booster), rows)
    np.testing.assert_allclose(tree_base(booster) + tree_shap(booster, rows).sum(axis=2), margin, rtol=1e-9, atol=1e-9)


def test_a_constant_column_has_no_value():
    columns = np.column_stack([X, np.ones(N, np.float32)])
    model = xgb.train(XGB | {"objective": "binary:logistic"}, xgb.DMatrix(columns, Y2), 8)
    assert not tree_shap(model, columns[:100])[:, :, F].any()
    assert not tree_interactions(model, columns[:100])[:, :, F].any()


def test_trees_without_a_split_say_their_base():
    table = from_forest(RandomForestClassifier(3, min_samples_leaf=800, random_state=0).fit(X, Y3))
    assert not tree_shap(table, ROWS).any()
    assert not tree_interactions(table, ROWS).any()
    agree(np.tile(tree_base(table), (len(ROWS), 1)), answer(table, ROWS), 1e-12)


def chain(depth: int) -> TreeTable:
    """One tree that asks `depth` times, always deeper on the right."""
    n = 2 * depth + 1
    inner = np.arange(n) % 2 == 0
    inner[-1] = False
    left = np.where(inner, np.arange(n) + 1, -1)
    nodes = {
        "feature": np.arange(n) // 2 % 40, "threshold": np.zeros(n), "left": left, "right": np.where(inner, left + 1, -1),
        "missing_left": inner, "value": np.linspace(-1, 1, n), "cover": np.linspace(n, 1, n), "roots": [0], "tree_output": [0],
    }  # fmt: skip
    return assemble(nodes, base=[0.5], link="identity", n_features=40)


def test_the_deepest_tree_is_exact_and_a_deeper_one_is_refused():
    rows = np.abs(np.random.default_rng(0).normal(size=(5, 40))).astype(np.float32)  # all the way down
    rows[1:, 7] *= -1
    deepest = chain(MAX_DEPTH)
    np.testing.assert_allclose(tree_base(deepest) + tree_shap(deepest, rows).sum(axis=2), raw(deepest, rows), rtol=0, atol=1e-9)
    agree(tree_interactions(deepest, rows).sum(axis=3), tree_shap(deepest, rows), 1e-9)
    with pytest.raises(UsageError, match=rf"tree 0 is {MAX_DEPTH + 1} levels deep.*{MAX_DEPTH}"):
        tree_shap(chain(MAX_DEPTH + 1), rows)


# --- refusals -------------------------------------------------------------------------------------------------------------


def categorical_xgboost():
    codes = np.column_stack([X[:, 0], RNG.integers(0, 6, N)])
    data = xgb.DMatrix(codes, Y2, feature_types=["float", "c"], enable_categorical=True)
    return xgb.train({"objective": "binary:logistic", "max_cat_to_onehot": 1, "nthread": 1}, data, 5)


def categorical_lightgbm():
    codes = np.column_stack([X[:, 0], RNG.integers(0, 6, N)]).astype(float)
    y = (codes[:, 1] % 2 == 0).astype(int)
    return lgb.train(LGB | {"objective": "binary", "min_data_per_group": 1}, lgb.Dataset(codes, y, categorical_feature=[1]), 5)


@pytest.mark.parametrize(
    ("make", "what", "way_out"),
    [
        (categorical_xgboost, "categorical splits", "pred_contribs=True"),
        (categorical_lightgbm, "categorical splits", r"pred_contrib=True"),
        (lambda: xgb.train({"booster": "dart", "objective": "binary:logistic"}, xgb.DMatrix(X, Y2), 3), "dart", "pred_contribs=True"),
        (lambda: RandomForestRegressor(2).fit(X, np.column_stack([SCORE, SCORE])), "2 targets", "TreeExplainer"),
        (RandomForestClassifier, "not fitted", "call fit"),
        (xgb.XGBClassifier, "not fitted", "call fit"),
        (lgb.LGBMClassifier, "not fitted", "call fit"),
        (lambda: GradientBoostingClassifier(n_estimators=2).fit(X, Y2), "GradientBoostingClassifier", "forest"),
        (lambda: None, "NoneType", "TreeTable"),
    ],
)
def test_a_model_that_cannot_be_explained_exactly_is_refused_by_name(make, what, way_out):
    model = make()
    for ask in (lambda: tree_shap(model, X), lambda: tree_base(model), lambda: mean_interactions(model, X)):
        with pytest.raises(UsageError) as refused:
            ask()
        assert what in str(refused.value)
        assert way_out in str(refused.value)


def test_rows_that_cannot_be_explained_exactly_are_refused(booster, monkeypatch):
    with pytest.raises(UsageError, match=r"X row 1, column 2: .*0\.1.* is not a float32 value"):
        tree_shap(booster, np.array([[0.5] * F, [0.5, 0.5, 0.1, *[0.5] * (F - 3)]]))
    with pytest.raises(UsageError, match=r"shape \(3, 2\)"):
        tree_shap(booster, X[:3, :2])
    with pytest.raises(UsageError, match="not a matrix of numbers"):
        tree_shap(booster, [["long"] * F])
    with pytest.raises(UsageError, match="rows = 0"):
        next(tree_shap_parts(booster, X, rows=0))
    monkeypatch.setattr(treeshap, "_MOST_BYTES", 10 * 3 * F * F * 8)
    assert len(tree_interactions(booster, X[:10])) == 10
    with pytest.raises(UsageError, match="ask for 10 at a time"):
        tree_interactions(booster, X[:11])
