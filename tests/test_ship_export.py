"""The shipped graph answers as the native libraries do on every row, and a wrong graph never passes."""

from dataclasses import replace

import lightgbm as lgb
import numpy as np
import onnx
import pytest
import xgboost as xgb
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from trademl.errors import ParityError, UsageError
from trademl.learn.readers import from_forest, from_lightgbm, from_xgboost
from trademl.learn.treetable import TreeTable, predict, replace_oldest
from trademl.ship.export import check_parity, ensemble_graph, regressor_graph
from trademl.ship.runtime import predict_onnx, session

N, F = 6_000, 9
NAMES = ("rf", "xgb", "lgb")


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


class Case:
    """Three fitted libraries, their tables, and what they answer themselves."""

    def __init__(self, k):
        rng = np.random.default_rng(k)
        self.k, self.classes = k, ("SELL", "BUY", "HOLD")[:k]
        self.x = rng.normal(2.0, 3.0, size=(N, F))
        self.x[:, 0] = self.x[:, 0].round()  # many rows on one threshold
        self.x[:, 1] = 50_000 + 0.01 * self.x[:, 1]  # a price: float32 before scaling would lose it
        y = np.digitize(self.x[:, 0] + self.x[:, 2] + rng.normal(size=N) * 3 + (self.x[:, 1] - 50_000) * 100, [0, 8][: k - 1])
        self.mean, self.scale = self.x.mean(axis=0), self.x.std(axis=0)
        self.z = z = ((self.x - self.mean) / self.scale).astype(np.float32)
        forest = RandomForestClassifier(25, max_depth=6, max_samples=0.5, random_state=0).fit(z, y)
        kind = {"objective": "binary:logistic"} if k == 2 else {"objective": "multi:softprob", "num_class": k}
        xgbooster = xgb.train(kind | {"nthread": 1, "max_depth": 4}, xgb.DMatrix(z, y), 25)
        kind = {"objective": "binary"} if k == 2 else {"objective": "multiclass", "num_class": k}
        doubles = z.astype(np.float64)
        lgbooster = lgb.train(kind | {"num_threads": 1, "verbose": -1, "num_leaves": 15}, lgb.Dataset(doubles, y), 25)
        answers = forest.predict_proba(z), xgbooster.predict(xgb.DMatrix(z)), lgbooster.predict(doubles)
        self.parts = np.stack([np.column_stack([1 - a, a]) if a.ndim == 1 else a for a in answers], axis=1)
        self.tables = [from_forest(forest), from_xgboost(xgbooster), from_lightgbm(lgbooster)]
        self.weights, self.slope, self.shift = np.array([0.5, 0.3, 0.2]), np.full(k, 0.7), np.linspace(-0.2, 0.3, k)
        mean_p = np.tensordot(self.parts, self.weights, axes=(1, 0))
        self.q = softmax(self.slope * np.log(np.maximum(mean_p, 1e-7)) + self.shift)

    def graph(self, **changes):
        parts = {name: getattr(self, name) for name in ("mean", "scale", "tables", "weights", "slope", "shift", "classes")} | changes
        scaler = parts.get("scaler", (parts["mean"], parts["scale"]))
        metadata = {"training_run_id": "0123456789abcdef", "features": "a,b"}
        return ensemble_graph(
            scaler,
            parts["tables"],
            parts["weights"],
            (parts["slope"], parts["shift"]),
            names=parts.get("names", NAMES),
            classes=parts["classes"],
            metadata=metadata,
        )


@pytest.fixture(scope="module", params=[3, 2], ids=["3 classes", "binary"])
def case(request):
    return Case(request.param)


@pytest.fixture(scope="module")
def three():
    return Case(3)


@pytest.mark.oracle
def test_graph_agrees_with_the_libraries_on_every_row(case):
    parity = check_parity(case.graph(), case.x, case.q, case.parts)
    assert parity.rows == N
    assert parity.max_abs < 2e-6
    assert parity.flips == parity.ties == 0


def test_graph_is_valid_and_has_the_promised_face(case):
    model = onnx.load_from_string(case.graph())
    onnx.checker.check_model(model, full_check=True)
    runner = session(case.graph())
    assert [(i.name, i.type, i.shape) for i in runner.get_inputs()] == [("features", "tensor(double)", ["N", F])]
    assert [(o.name, o.type, o.shape) for o in runner.get_outputs()] == [
        ("probabilities", "tensor(float)", ["N", case.k]),
        ("model_probabilities", "tensor(float)", ["N", 3 * case.k]),
        ("label", "tensor(int64)", ["N"]),
    ]
    assert not {"ZipMap", "TreeEnsembleClassifier"} & {node.op_type for node in model.graph.node}
    assert {entry.domain for entry in model.opset_import} == {"", "ai.onnx.ml"}
    assert runner.get_modelmeta().custom_metadata_map == {
        "training_run_id": "0123456789abcdef",
        "features": "a,b",
        "models": "rf,xgb,lgb",
        "classes": ",".join(case.classes),
        "rows": "independent",
    }
    assert [entry.key for entry in model.metadata_props] == sorted(entry.key for entry in model.metadata_props)


def test_equal_arguments_give_equal_bytes(case):
    again = [TreeTable.from_arrays(table.to_arrays()) for table in case.tables]
    assert case.graph() == case.graph(tables=again)
    assert case.graph() != case.graph(shift=case.shift + 1e-3)


def test_answers_hold_together(case):
    answer = predict_onnx(case.graph(), case.x)
    assert np.allclose(answer["probabilities"].sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(answer["label"], answer["probabilities"].argmax(axis=1))
    assert {name: len(column) for name, column in predict_onnx(case.graph(), case.x[:0]).items()} == dict.fromkeys(answer, 0)
    one = predict_onnx(case.graph(), case.x[:1])
    assert np.abs(one["probabilities"] - answer["probabilities"][:1]).max() < 1e-6


@pytest.mark.leakage
def test_a_rows_answer_does_not_depend_on_the_rows_beside_it(case):
    """A bot asks for one row, the replay for thousands: the same bits, whatever the number of rows and the place among them."""
    runner = session(case.graph())
    whole = predict_onnx(runner, case.x[:1_000])
    for rows in (1, 2, 3, 4, 5, 7, 31):
        for start in range(0, 120, 7):
            part = predict_onnx(runner, case.x[start : start + rows])
            for name, values in whole.items():
                assert part[name].tobytes() == values[start : start + rows].tobytes()
    assert predict_onnx(runner, case.x[:0])["probabilities"].shape == (0, case.k)


def test_missing_values_take_the_same_side(three):
    x = three.x.copy()
    x[np.random.default_rng(5).random(x.shape) < 0.2] = np.nan
    z = ((x - three.mean) / three.scale).astype(np.float32)
    served = predict_onnx(three.graph(), x)["model_probabilities"]
    expected = np.hstack([predict(table, z) for table in three.tables])
    assert np.abs(served - expected).max() < 2e-6


def test_a_probability_of_zero_does_not_break_the_calibration(three):
    forest = RandomForestClassifier(3, max_depth=2, random_state=0).fit(three.z, np.repeat([0, 1, 2], N // 3))
    arrays = {k: np.array(v) for k, v in from_forest(forest).to_arrays().items()}
    arrays["value"][:, 0] = 0.0  # the first class is never seen
    graph = three.graph(tables=[TreeTable.from_arrays(arrays)], weights=[1.0], names=("rf",))
    q = predict_onnx(graph, three.x)["probabilities"]
    assert np.isfinite(q).all()
    assert (q[:, 0] > 0).all()


# What goes wrong with stock converters, built on purpose. Each passes a look at the shapes and at most rows.


def thresholds_up(table):
    """The table with its thresholds one float32 step up: what rounding a double to the nearest does to half of them."""
    return replace(table, threshold=np.where(table.feature >= 0, np.nextafter(table.threshold, np.float32(np.inf)), 0))


def float32_scaler(case):
    model = onnx.load_from_string(case.graph())
    nodes = {node.output[0]: node for node in model.graph.node}
    for tensor in model.graph.initializer:
        if tensor.name in ("mean", "scale"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    cast, sub, div = nodes["z"], nodes["centred"], nodes["scaled"]
    cast.input[0], cast.output[0] = "features", "x32"
    sub.input[0], div.output[0] = "x32", "z"
    kept = [node for node in model.graph.node if node.op_type not in ("Cast", "Sub", "Div")]
    del model.graph.node[:]
    model.graph.node.extend([cast, sub, div, *kept])
    return model.SerializeToString()


def one_wrong_leaf(case):
    table = case.tables[2]
    leaf = int(np.flatnonzero(table.feature < 0)[0])
    arrays = {k: np.array(v) for k, v in table.to_arrays().items()}
    arrays["value"][leaf] += 0.01
    return case.graph(tables=[*case.tables[:2], TreeTable.from_arrays(arrays)])


WRONG = {
    "thresholds rounded up": lambda c: c.graph(tables=[thresholds_up(t) for t in c.tables]),
    "scaler in float32": float32_scaler,
    "one leaf": one_wrong_leaf,
    "one tree lost": lambda c: c.graph(tables=[from_forest_without_last(c.tables[0]), *c.tables[1:]]),
    "base score lost": lambda c: c.graph(tables=[c.tables[0], replace(c.tables[1], base=np.zeros(3)), c.tables[2]]),
    "two features swapped": lambda c: c.graph(mean=swap(c.mean), scale=swap(c.scale)),
    "classes permuted": lambda c: c.graph(shift=c.shift[::-1]),
    "models permuted": lambda c: c.graph(tables=c.tables[::-1]),
    "weights": lambda c: c.graph(weights=[0.5, 0.2, 0.3]),
    "temperature": lambda c: c.graph(slope=c.slope * 1.001),
}


def from_forest_without_last(table):
    return replace_oldest(table, table, drop=table.n_trees - 1)


def swap(a):
    return a[[1, 0, *range(2, len(a))]]


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_graph_never_passes(three, what):
    graph = WRONG[what](three)
    assert predict_onnx(graph, three.x)["probabilities"].shape == (N, 3)  # what a smoke test looks at
    with pytest.raises(ParityError, match=r"rows differ|labels differ"):
        check_parity(graph, three.x, three.q, three.parts)


def test_a_wrong_leaf_is_invisible_on_a_few_rows(three):
    graph = one_wrong_leaf(three)
    right = np.abs(predict_onnx(graph, three.x)["probabilities"] - three.q).max(axis=1) < 1e-5
    assert 0.5 < right.mean() < 1
    check_parity(graph, three.x[right], three.q[right])  # so a sample proves nothing
    with pytest.raises(ParityError):
        check_parity(graph, three.x, three.q)


def test_not_a_number_is_not_parity(three):
    broken = three.q.copy()
    broken[17, 1] = np.nan
    with pytest.raises(ParityError, match="row 17, column 1"):
        check_parity(three.graph(), three.x, broken)
    with pytest.raises(ParityError, match="shape"):
        check_parity(three.graph(), three.x, three.q[:, :2])
    with pytest.raises(ParityError, match="shape"):
        check_parity(three.graph(), three.x, three.q, three.parts[:, :2])


def test_a_flip_within_the_tolerance_is_refused_and_a_tie_is_counted(three):
    served = predict_onnx(three.graph(), three.x)["probabilities"].astype(np.float64)
    close = served.copy()
    top, second = np.argsort(served, axis=1)[:, ::-1][:, :2].T
    row = int(np.argmin(served.max(axis=1) - np.sort(served, axis=1)[:, 1]))
    gap = served[row, top[row]] - served[row, second[row]]
    close[row, second[row]] += gap + 5e-6  # the natives prefer the other class by 5e-6
    with pytest.raises(ParityError, match="1 of 6,000 labels differ"):
        check_parity(three.graph(), three.x, close, tolerance=gap + 1e-5)
    close[row, second[row]] -= 4.5e-6  # by 5e-7: less than float32 can carry through the graph
    assert check_parity(three.graph(), three.x, close, tolerance=gap + 1e-5).ties == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weights": [0.5, 0.5, 0.5]}, "sum to 1"),
        ({"weights": [1.2, -0.2, 0.0]}, ">= 0"),
        ({"names": ("rf", "rf", "lgb")}, "different names"),
        ({"scale": np.zeros(F)}, "scale > 0"),
        ({"mean": np.full(F, np.nan)}, "finite"),
        ({"scaler": np.zeros(F)}, f"{F} parts; pass it as .mean, scale."),
        ({"mean": np.zeros(F + 1), "scale": np.ones(F + 1)}, f"from {F + 1} features"),
        ({"classes": ("A", "B")}, "calibration"),
        ({"slope": np.array([1, np.inf, 1])}, "finite"),
    ],
)
def test_parts_that_do_not_fit_are_refused(three, changes, says):
    with pytest.raises(UsageError, match=says):
        three.graph(**changes)


def test_metadata_must_be_text(three):
    with pytest.raises(UsageError, match="rows = 5"):
        regressor_graph(from_xgboost(xgb.train({"nthread": 1}, xgb.DMatrix(three.z, three.x[:, 2]), 1)), clip=None, metadata={"rows": 5})


@pytest.mark.oracle
@pytest.mark.parametrize("clip", [None, (0.1, 1.25)])
def test_regressor_graph_agrees_with_the_libraries(three, clip):
    x = three.z.astype(np.float64)  # risk heads take their few features unscaled
    target = np.abs(three.x[:, 2]) / 3
    booster = xgb.train({"objective": "reg:squarederror", "nthread": 1, "max_depth": 4}, xgb.DMatrix(three.z, target), 20)
    quantiles = xgb.train({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9], "nthread": 1}, xgb.DMatrix(three.z, target), 9)
    forest = RandomForestRegressor(10, max_depth=6, random_state=0).fit(three.z, target)
    for table, native in (
        (from_xgboost(booster), booster.predict(xgb.DMatrix(three.z))),
        (from_xgboost(quantiles), quantiles.predict(xgb.DMatrix(three.z))),
        (from_forest(forest), forest.predict(three.z)),
    ):
        expected = native if clip is None else np.clip(native, *clip)
        graph = regressor_graph(table, clip=clip, metadata={})
        onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
        assert check_parity(graph, x, expected).max_abs < 5e-6
        with pytest.raises(ParityError):
            check_parity(graph, x, expected + 1e-4)
    assert graph == regressor_graph(table, clip=clip, metadata={})


def test_a_regressor_refuses_probabilities_and_an_empty_range(three):
    with pytest.raises(UsageError, match="ensemble_graph"):
        regressor_graph(three.tables[1], clip=None, metadata={})
    with pytest.raises(UsageError, match="lower bound"):
        regressor_graph(three.tables[0], clip=(1.0, 1.0), metadata={})
