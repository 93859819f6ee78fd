"""Tree tables answer exactly as the libraries do, on every row, also on thresholds and on NaN."""

import contextlib
import json
from dataclasses import replace
from functools import cache

import lightgbm as lgb
import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor

from trademl.errors import RevisionError, UsageError
from trademl.files import npz_bytes, read_npz
from trademl.learn.readers import check_lightgbm_text, check_xgboost_ubj, from_forest, from_lightgbm, from_xgboost
from trademl.learn.treetable import TreeTable, assemble, below32, floor32, predict, raw, replace_oldest

RNG = np.random.default_rng(11)
N, F = 3_000, 8
Z = RNG.normal(size=(N, F)).astype(np.float32)
Z[:, ::2] = Z[:, ::2].round(1)  # every second column repeats values: rows lie exactly on thresholds
HOLES = Z.copy()
HOLES[RNG.random(Z.shape) < 0.1] = np.nan
SIGNAL = Z[:, 0] + Z[:, 1] * Z[:, 2] + RNG.normal(size=N)
Y3 = np.digitize(SIGNAL, [-0.7, 0.7])
Y2 = (SIGNAL > 0.3).astype(int)
XGB = {"nthread": 1, "max_depth": 4, "subsample": 0.7, "seed": 1}
LGB = {"num_threads": 1, "verbose": -1, "num_leaves": 15, "deterministic": True, "force_row_wise": True}

XGB_CASES = {
    "binary": ({"objective": "binary:logistic"}, Y2),
    "binary, base score 0.2": ({"objective": "binary:logistic", "base_score": 0.2}, Y2),
    "binary, weighted": ({"objective": "binary:logistic", "scale_pos_weight": 3.0}, Y2),
    "multi": ({"objective": "multi:softprob", "num_class": 3}, Y3),
    "multi, base score 0.5": ({"objective": "multi:softprob", "num_class": 3, "base_score": 0.5}, Y3),
    "multi, forests": ({"objective": "multi:softprob", "num_class": 3, "num_parallel_tree": 4, "colsample_bynode": 0.5}, Y3),
    "one random forest": ({"objective": "binary:logistic", "num_parallel_tree": 20, "learning_rate": 1.0}, Y2),
    "multi, vector leaves": ({"objective": "multi:softprob", "num_class": 3, "multi_strategy": "multi_output_tree"}, Y3),
    "forest, vector leaves": ({"multi_strategy": "multi_output_tree", "num_parallel_tree": 5, "colsample_bynode": 0.5}, np.eye(3)[Y3]),
    "vector leaves, no split": ({"multi_strategy": "multi_output_tree", "gamma": 1e9}, np.eye(3)[Y3]),
    "regression": ({"objective": "reg:squarederror"}, SIGNAL + 5),
    "absolute error": ({"objective": "reg:absoluteerror"}, SIGNAL),
    "one quantile": ({"objective": "reg:quantileerror", "quantile_alpha": 0.9}, SIGNAL),
    "three quantiles": ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, SIGNAL),
    "pruned": ({"objective": "binary:logistic", "gamma": 2.0, "tree_method": "exact", "max_depth": 6}, Y2),
    "loss-guided": ({"objective": "multi:softprob", "num_class": 3, "grow_policy": "lossguide", "max_leaves": 9, "max_depth": 0}, Y3),
}
LGB_CASES = {
    "binary": ({"objective": "binary"}, Y2),
    "binary, steep": ({"objective": "binary", "sigmoid": 2.0, "boost_from_average": False}, Y2),
    "multi": ({"objective": "multiclass", "num_class": 3}, Y3),
    "regression": ({"objective": "regression"}, SIGNAL + 5),
    "quantile": ({"objective": "quantile", "alpha": 0.9}, SIGNAL),
    "rf": ({"objective": "multiclass", "num_class": 3, "boosting": "rf", "bagging_fraction": 0.6, "bagging_freq": 1}, Y3),
    "rf binary": ({"objective": "binary", "boosting": "rf", "bagging_fraction": 0.6, "bagging_freq": 1}, Y2),
    "one class never splits": ({"objective": "multiclass", "num_class": 3, "min_data_in_leaf": 1_400}, Y3),
}
FORESTS = {
    "classifier": (RandomForestClassifier(15, max_depth=6, random_state=0), Y3),
    "binary": (RandomForestClassifier(15, min_samples_leaf=5, max_samples=0.25, random_state=0), Y2),
    "extra trees": (ExtraTreesClassifier(15, max_depth=8, random_state=0), Y3),
    "regressor": (RandomForestRegressor(10, max_depth=9, random_state=0), SIGNAL),
    "one leaf": (RandomForestClassifier(3, max_depth=1, min_samples_leaf=1_600, random_state=0), Y3),
}


def columns(answer) -> np.ndarray:
    """A library's answer with one column per output; a single probability becomes [1 - p, p]."""
    answer = np.asarray(answer, np.float64)
    return answer[:, None] if answer.ndim == 1 else answer


@pytest.mark.oracle
@pytest.mark.parametrize("train_on", ["whole", "holes"])
@pytest.mark.parametrize("case", XGB_CASES)
def test_xgboost_agrees_on_every_row(case, train_on):
    params, y = XGB_CASES[case]
    booster = xgb.train(XGB | params, xgb.DMatrix(HOLES if train_on == "holes" else Z, y), 12)
    table = from_xgboost(booster)
    for rows in (Z, HOLES):
        data = xgb.DMatrix(rows)
        margin = columns(booster.predict(data, output_margin=True))
        assert np.abs(raw(table, rows) - margin).max() < 2e-6 * max(1.0, np.abs(margin).max())
        answer = columns(booster.predict(data))
        mine = predict(table, rows)[:, -answer.shape[1] :]  # a sigmoid's second column is the library's one
        assert np.abs(mine - answer).max() < 2e-6 * max(1.0, np.abs(answer).max())


@pytest.mark.oracle
@pytest.mark.parametrize("train_on", ["whole", "holes"])
@pytest.mark.parametrize("case", LGB_CASES)
def test_lightgbm_agrees_on_every_row(case, train_on):
    params, y = LGB_CASES[case]
    matrix = (HOLES if train_on == "holes" else Z).astype(np.float64)
    booster = lgb.train(LGB | params, lgb.Dataset(matrix, y), 12)
    table = from_lightgbm(booster)
    for rows in (Z, HOLES):
        answer = columns(booster.predict(rows.astype(np.float64)))
        assert np.abs(predict(table, rows)[:, -answer.shape[1] :] - answer).max() < 1e-12


def test_lightgbm_trained_on_unrounded_doubles_agrees_on_float32_rows():
    doubles = RNG.normal(size=(N, F))
    booster = lgb.train(LGB | {"objective": "binary"}, lgb.Dataset(doubles, Y2), 30)
    rows = doubles.astype(np.float32)
    assert np.abs(predict(from_lightgbm(booster), rows)[:, 1] - booster.predict(rows.astype(np.float64))).max() < 1e-12


def test_lightgbm_stops_where_its_own_predict_stops():
    booster = lgb.train(LGB | {"objective": "binary"}, lgb.Dataset(Z.astype(float), Y2), 12)
    booster.best_iteration = 5  # what early stopping sets
    assert from_lightgbm(booster).n_trees == 5
    assert np.abs(predict(from_lightgbm(booster), Z)[:, 1] - booster.predict(Z.astype(float))).max() < 1e-12


@pytest.mark.oracle
@pytest.mark.parametrize("case", FORESTS)
def test_forest_agrees_on_every_row(case):
    forest, y = FORESTS[case]
    forest.fit(Z, y)
    native = forest.predict_proba if hasattr(forest, "predict_proba") else forest.predict
    assert np.abs(predict(from_forest(forest), Z) - columns(native(Z))).max() < 1e-12


def test_forest_trained_on_nan_sends_nan_where_scikit_learn_does():
    forest = RandomForestClassifier(10, max_depth=7, random_state=0).fit(HOLES, Y3)
    assert np.abs(predict(from_forest(forest), HOLES) - forest.predict_proba(HOLES)).max() < 1e-12


def slow_raw(table: TreeTable, z: np.ndarray) -> np.ndarray:
    """The rule, read aloud: one row, one tree, one node at a time."""
    out = np.repeat(table.base[None, :], len(z), axis=0)
    for i, row in enumerate(z):
        for root, output in zip(table.roots, table.tree_output):
            node = root
            while table.feature[node] >= 0:
                x = row[table.feature[node]]
                left = bool(table.missing_left[node]) if np.isnan(x) else bool(x <= table.threshold[node])
                node = table.left[node] if left else table.right[node]
            if output < 0:
                out[i] += table.value[node]
            else:
                out[i, output] += table.value[node, 0]
    return out


def test_kernel_equals_the_slow_reference_to_the_bit():
    booster = xgb.train(XGB | {"objective": "multi:softprob", "num_class": 3}, xgb.DMatrix(HOLES, Y3), 5)
    forest = RandomForestClassifier(5, max_depth=5, random_state=0).fit(Z, Y3)
    for table, rows in ((from_xgboost(booster), HOLES[:300]), (from_forest(forest), Z[:300])):
        assert np.array_equal(raw(table, rows), slow_raw(table, rows))


def test_an_answer_does_not_depend_on_the_rows_beside_it():
    table = from_forest(RandomForestClassifier(9, max_depth=6, random_state=0).fit(Z, Y3))
    whole = predict(table, Z)
    for start, stop in ((0, 1), (5, 134), (127, 129), (2_999, 3_000), (0, 0)):
        assert np.array_equal(predict(table, Z[start:stop]), whole[start:stop])
    assert np.array_equal(predict(table, np.asfortranarray(Z)), whole)


bits = st.integers(0, 2**32 - 1).map(lambda i: np.uint32(i).view(np.float32)).filter(np.isfinite)


@settings(max_examples=300, deadline=None)
@given(x=bits, nudge=st.sampled_from([-1.0, -0.5, -1e-3, 0.0, 1e-3, 0.5, 1.0]))
def test_rounded_thresholds_keep_every_float32_on_its_side(x, nudge):
    t = float(x) + nudge * float(np.spacing(np.abs(x)))  # at x, or inside the gap beside it
    for probe in (x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf))):
        assert (float(probe) <= t) == bool(probe <= floor32(t))
        assert bool(probe < x) == bool(probe <= below32(x))


@pytest.mark.parametrize("t", [1e300, -1e300, 0.0, -0.0, 1e-46, -1e-46, float(np.finfo(np.float32).max), np.inf, -np.inf])
def test_rounded_thresholds_at_the_ends_of_the_range(t):
    for probe in np.array([0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 3.4e38, -3.4e38], np.float32):
        assert (float(probe) <= t) == bool(probe <= floor32(t))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), decimals=st.integers(0, 2))
def test_thresholds_on_data_values_give_the_same_branches_as_the_library(seed, decimals):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(300, 3)).round(decimals).astype(np.float32)
    y = rng.integers(0, 2, 300)
    forest = RandomForestClassifier(2, random_state=0).fit(z, y)
    assert np.abs(predict(from_forest(forest), z) - forest.predict_proba(z)).max() < 1e-12
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1, "tree_method": "exact"}, xgb.DMatrix(z, y), 2)
    assert np.abs(predict(from_xgboost(booster), z)[:, 1] - booster.predict(xgb.DMatrix(z))).max() < 2e-6


class OlderBooster:
    """A booster whose vector leaves lie elsewhere."""

    def __init__(self, booster):
        self.booster = booster

    def save_raw(self, kind):
        return self.booster.save_raw(kind).replace(b'"leaf_weights"', b'"elsewhere"')


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (lambda: xgb.train({"booster": "dart", "objective": "binary:logistic", "nthread": 1}, xgb.DMatrix(Z, Y2), 1), "dart"),
        (lambda: xgb.train({"booster": "gblinear", "nthread": 1}, xgb.DMatrix(Z, Y2), 1), "gblinear"),
        (lambda: xgb.train({"objective": "count:poisson", "nthread": 1}, xgb.DMatrix(Z, Y2), 1), "count:poisson"),
        (lambda: OlderBooster(xgb.train(XGB | {"multi_strategy": "multi_output_tree"}, xgb.DMatrix(Z, np.eye(3)[Y3]), 1)), "3.2 on"),
        (
            lambda: xgb.train(
                {"objective": "binary:logistic", "nthread": 1, "max_cat_to_onehot": 1},
                xgb.DMatrix(RNG.integers(0, 9, (N, 1)).astype(np.float32), Y2, feature_types=["c"], enable_categorical=True),
                1,
            ),
            "categorical",
        ),
    ],
)
def test_xgboost_models_that_a_table_cannot_hold_are_refused(model, says):
    with pytest.raises(UsageError, match=says):
        from_xgboost(model())


@pytest.mark.parametrize(
    ("params", "data", "says"),
    [
        ({"objective": "poisson"}, {}, "poisson"),
        ({"objective": "regression", "reg_sqrt": True}, {}, "sqrt"),
        ({"objective": "binary", "zero_as_missing": True}, {}, "zero_as_missing"),
        ({"objective": "binary", "linear_tree": True}, {}, "linear"),
        ({"objective": "binary"}, {"categorical_feature": [0]}, "categorical"),
    ],
)
def test_lightgbm_models_that_a_table_cannot_hold_are_refused(params, data, says):
    z = np.abs(Z.round()).astype(np.float64)
    booster = lgb.train(LGB | params, lgb.Dataset(z, Y2, params=LGB | params, **data), 3)
    with pytest.raises(UsageError, match=says):
        from_lightgbm(booster)


def lightgbm_texts():
    """Saved models of every shape that we make: grown, refitted, and one whose trees never split."""
    params = {"objective": "multiclass", "num_class": 3, "num_leaves": 5, "num_threads": 1, "verbose": -1, "seed": 1}
    grown = lgb.train(params, lgb.Dataset(Z.astype(np.float64), Y3), 8)
    flat = lgb.train(params, lgb.Dataset(np.zeros((len(Z), F)), Y3, params={"feature_pre_filter": False}), 2)
    return [grown.model_to_string(), grown.refit(Z.astype(np.float64), Y3).model_to_string(), flat.model_to_string()]


class TestSavedLightGBM:
    """LightGBM reads on behind the end of a text that was cut, and follows any child number: it ended the process in trials."""

    def test_whole_models_pass(self):
        for text in lightgbm_texts():
            check_lightgbm_text(text)
            check_lightgbm_text(lgb.Booster(model_str=text).model_to_string())

    @settings(max_examples=60)
    @given(st.integers(0, 2), st.floats(0, 0.98))
    def test_cut_anywhere_it_is_refused(self, which, share):
        text = lightgbm_texts_once()[which]
        with pytest.raises(RevisionError, match="LightGBM model"):
            check_lightgbm_text(text[: int(share * text.index("end of parameters"))])

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            ("\nTree=3\n", "\nTree=4\n", "tree 3 of 24 does not begin where the sizes say"),
            ("left_child=1", "left_child=0", "its nodes do not form a tree"),
            ("left_child=1", "left_child=9", "its nodes do not form a tree"),
            ("right_child=", "right_child=1 ", "right_child holds 5 numbers, expected 4 finite ones|does not begin"),
            ("max_feature_idx=", "max_feature_idx=-", "outside 0 to"),
            ("num_leaves=5", "num_leaves=6", "split_feature holds 4 numbers, expected 5"),
            ("num_leaves=5", "num_leaves=0", "LightGBM model"),
            ("leaf_value=", "leaf_valve=", "KeyError: 'leaf_value'"),
            ("tree_sizes=", "tree_sizes=0 ", "tree 0 of 25 does not begin where the sizes say"),
            ("tree_sizes=", "tree_sizes=x ", "ValueError"),
            ("end of trees\n", "end of threes\n", "trees are not followed by an end"),
            ("Tree=0\n", "", "no tree in it"),
            ("num_class", "n\u00fcm_class", "not plain text"),
        ],
    )
    def test_altered_it_is_refused(self, old, new, says):
        text = lightgbm_texts_once()[0]
        assert old in text
        with pytest.raises(RevisionError, match=says):
            check_lightgbm_text(text.replace(old, new, 1))


@cache
def xgboost_bytes():
    data = xgb.DMatrix(Z, Y3)
    grown = xgb.train(XGB | {"objective": "multi:softprob", "num_class": 3, "nthread": 1}, data, 5)
    return [bytes(grown.save_raw("ubj")), bytes(grown[:2].save_raw("ubj"))]


class TestSavedXGBoost:
    """XGBoost ended the process at some cuts of its file."""

    def test_whole_models_pass(self):
        for data in xgboost_bytes():
            check_xgboost_ubj(data)
            check_xgboost_ubj(bytes(xgb.Booster(model_file=bytearray(data)).save_raw("ubj")))

    @settings(max_examples=200)
    @given(st.integers(0, 1), st.floats(0, 1, exclude_max=True))
    def test_cut_anywhere_it_is_refused(self, which, share):
        data = xgboost_bytes()[which]
        with pytest.raises(RevisionError, match="XGBoost model"):
            check_xgboost_ubj(data[: int(share * len(data))])

    @given(st.binary(max_size=60))
    def test_anything_is_refused_or_passed_with_one_kind_of_error(self, tail):
        for data in (tail, b"{" + tail):
            with contextlib.suppress(RevisionError):  # any other error fails the test
                check_xgboost_ubj(data)
                assert data[:1] == b"{"  # a whole object, however small
        with pytest.raises(RevisionError, match="XGBoost model"):
            check_xgboost_ubj(xgboost_bytes()[0] + tail + b"}")  # whole, and more

    def test_an_empty_object_is_whole(self):
        check_xgboost_ubj(b"{}")

    @pytest.mark.parametrize(
        "data", [b"{" + b"L" + (1).to_bytes(8, "big") + b"a" + b"[" * 200, b"{L" + (-1).to_bytes(8, "big", signed=True)]
    )
    def test_depth_and_sizes_are_bounded(self, data):
        with pytest.raises(RevisionError, match="ValueError"):
            check_xgboost_ubj(data)


@cache
def lightgbm_texts_once():
    return lightgbm_texts()


def test_a_forest_of_two_targets_is_refused():
    with pytest.raises(UsageError, match="2 targets"):
        from_forest(RandomForestRegressor(2, max_depth=2).fit(Z, np.column_stack([SIGNAL, SIGNAL])))


@pytest.mark.parametrize("z", [Z.astype(np.float64), Z[:, :-1], Z[0], Z.tolist()])
def test_rows_of_another_type_or_width_are_refused(z):
    table = from_forest(RandomForestClassifier(2, max_depth=2).fit(Z, Y2))
    with pytest.raises(UsageError, match="float32"):
        predict(table, z)


def forest_table(seed=0, trees=6, y=Y3):
    return from_forest(RandomForestClassifier(trees, max_depth=4, random_state=seed).fit(Z, y))


def test_round_trip_through_bytes_keeps_every_bit():
    table = forest_table()
    data = npz_bytes(table.to_arrays())
    back = TreeTable.from_arrays(read_npz(data))
    assert back == table
    assert hash(back) == hash(table)
    assert npz_bytes(back.to_arrays()) == data
    assert np.array_equal(predict(back, Z), predict(table, Z))


def test_the_bytes_do_not_depend_on_order_layout_or_clock():
    arrays = {"b": np.arange(6.0).reshape(2, 3), "a": np.array("text"), "c": np.array(True)}
    twin = {"c": np.array(True), "a": np.array("text"), "b": np.asfortranarray(np.arange(6.0).reshape(2, 3)).astype(">f8")}
    assert npz_bytes(arrays) == npz_bytes(twin)
    assert np.array_equal(read_npz(npz_bytes(twin))["b"], arrays["b"])
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        npz_bytes({"x": np.array([{}], dtype=object)})


def test_a_pickle_inside_an_npz_is_refused(tmp_path):
    np.savez(tmp_path / "evil.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        read_npz((tmp_path / "evil.npz").read_bytes())


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04 nonsense", npz_bytes({"x": np.arange(9)})[:-30], npz_bytes({"x": np.arange(9)})[20:], b"\x93NUMPY"]
)
def test_damaged_bytes_are_refused_with_one_kind_of_error(data):
    with pytest.raises(ValueError):
        read_npz(data)


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_no_array(at, bit):
    arrays = {"x": np.arange(9.0), "y": np.array("text")}
    data = bytearray(npz_bytes(arrays))
    data[at % len(data)] ^= 1 << bit
    try:
        read = read_npz(bytes(data))
    except ValueError:
        return
    for name in arrays.keys() & read.keys():
        assert np.array_equal(read[name], arrays[name])


def test_the_same_model_gives_the_same_table_at_any_number_of_threads():
    one = RandomForestClassifier(6, max_depth=5, random_state=0, n_jobs=1).fit(Z, Y3)
    two = RandomForestClassifier(6, max_depth=5, random_state=0, n_jobs=2).fit(Z, Y3)
    assert from_forest(one).content_hash() == from_forest(two).content_hash()
    boosters = [xgb.train(XGB | {"objective": "binary:logistic", "nthread": n}, xgb.DMatrix(Z, Y2), 6) for n in (1, 2)]
    assert from_xgboost(boosters[0]).content_hash() == from_xgboost(boosters[1]).content_hash()


def test_a_table_does_not_share_memory_and_cannot_be_written():
    arrays = {k: np.array(v) for k, v in forest_table().to_arrays().items()}
    table = TreeTable.from_arrays(arrays)
    before = table.content_hash()
    arrays["value"][:] = 0
    assert table.content_hash() == before
    with pytest.raises(ValueError, match="read-only"):
        table.value[0] = 1


def broken(name, index, value):
    arrays = {k: np.array(v) for k, v in forest_table().to_arrays().items()}
    arrays[name][index] = value
    return arrays


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [
        ("left", 0, 0),  # a cycle
        ("left", 0, 10**6),  # outside
        ("right", 0, -1),
        ("feature", 0, F),
        ("feature", 0, -2),
        ("threshold", 0, np.nan),
        ("value", (0, 0), np.inf),
        ("roots", 1, 0),
        ("roots", 0, 1),
        ("tree_output", 0, 5),
        ("tree_output", 0, 0),
    ],
)
def test_arrays_that_are_no_trees_are_refused_before_the_kernel_sees_them(name, index, value):
    with pytest.raises(RevisionError, match="tree table"):
        TreeTable.from_arrays(broken(name, index, value))


def test_missing_arrays_and_wrong_shapes_are_refused():
    arrays = forest_table().to_arrays()
    with pytest.raises(RevisionError, match="cover"):
        TreeTable.from_arrays({k: v for k, v in arrays.items() if k != "cover"})
    with pytest.raises(RevisionError, match="base has shape"):
        TreeTable.from_arrays(arrays | {"base": np.zeros(2)})
    with pytest.raises(RevisionError, match="sigmoid takes one output"):
        TreeTable.from_arrays(arrays | {"link": np.array("sigmoid")})


def test_assemble_leaves_out_what_no_root_reaches_and_refuses_a_cycle():
    nodes = {
        "feature": [1, 0, 0, 0],
        "threshold": [0.5, 0, 0, 0],
        "left": [3, -1, -1, -1],
        "right": [1, -1, -1, -1],
        "missing_left": [False] * 4,
        "value": [0, 1.0, 99.0, 2.0],
        "cover": [3, 1, 9, 2],
    }
    nodes |= {"roots": [0], "tree_output": [0]}
    table = assemble(nodes, base=[0.0], link="identity", n_features=2)
    assert table.value.ravel().tolist() == [0, 2, 1]
    assert table.cover.tolist() == [3, 2, 1]
    rows = np.array([[9, 0.5], [9, 0.6], [9, np.nan]], np.float32)
    assert predict(table, rows).ravel().tolist() == [2, 1, 1]
    with pytest.raises(RevisionError, match="cycle"):
        assemble(nodes | {"left": [0, -1, -1, -1]}, base=[0.0], link="identity", n_features=2)


def test_cover_is_the_weight_that_reached_the_node():
    booster = xgb.train(XGB | {"objective": "reg:squarederror", "subsample": 1.0}, xgb.DMatrix(Z, SIGNAL), 2)
    for table in (from_xgboost(booster), forest_table(), from_lightgbm(lgb.train(LGB, lgb.Dataset(Z.astype(float), SIGNAL), 2))):
        inner = table.feature >= 0
        assert np.allclose(table.cover[inner], table.cover[table.left[inner]] + table.cover[table.right[inner]])
        assert table.cover[table.roots[0]] == pytest.approx(N)


def test_replacing_the_oldest_trees_is_dropping_and_appending():
    old, new = forest_table(0), forest_table(1, trees=2)
    member = RandomForestClassifier(6, max_depth=4, random_state=0).fit(Z, Y3)
    mixed = replace_oldest(old, new, drop=2)
    assert mixed.n_trees == 6
    expected = (sum(m.predict_proba(Z) for m in member.estimators_[2:]) + raw(new, Z)) / 6
    assert np.abs(predict(mixed, Z) - expected).max() < 1e-12
    assert replace_oldest(old, new, drop=6) == new
    with pytest.raises(UsageError, match="drop = 7"):
        replace_oldest(old, new, drop=7)
    with pytest.raises(UsageError, match="differ"):
        replace_oldest(old, forest_table(y=Y2), drop=1)
    with pytest.raises(UsageError, match="boosters"):
        replace_oldest(replace(old, link="softmax"), new, drop=1)


def rewritten(booster, base_score):
    """The same booster under another library version's spelling of the base score."""
    model = json.loads(booster.save_raw("json"))
    model["learner"]["learner_model_param"]["base_score"] = base_score

    class Saved:
        def save_raw(self, _):
            return json.dumps(model)

    return Saved()


@pytest.mark.parametrize("spelling", ["5E-1", "[5E-1]", "0.5", "[5E-1,5E-1,5E-1]"])
def test_every_spelling_of_the_base_score_is_read(spelling):
    booster = xgb.train(XGB | {"objective": "multi:softprob", "num_class": 3, "base_score": 0.5}, xgb.DMatrix(Z, Y3), 2)
    assert from_xgboost(rewritten(booster, spelling)).base.tolist() == [0.5] * 3
    with pytest.raises(UsageError, match="base_score has 2 values"):
        from_xgboost(rewritten(booster, "[1,2]"))
