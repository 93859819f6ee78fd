"""The shipped graph: raw features in, calibrated probabilities out, one ONNX file per role.

The trees are written node by node from a `TreeTable`, so the graph takes the branches that the table takes; no stock
converter is involved. What the graph computes, in this order:

    features (N, n_in) float64 -> (features - mean) / scale in float64 -> float32 -> each ensemble -> its link
    -> model_probabilities (N, m*k) -> weighted mean -> softmax(scale * log(max(p, 1e-7)) + shift) -> probabilities (N, k), label (N,)

onnxruntime takes a logarithm of four floats at a time, and of what is left over by other instructions, with other last bits. Spare
rows stand behind the caller's where that is so, and the metadata say `rows` = `independent`: one row alone gets what it gets in a batch.

Equal arguments give equal bytes: node and tensor names are fixed, metadata is sorted, nothing names a version or a time.
Every export must be followed by `check_parity` on all rows: a wrong graph agrees on most of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trademl.errors import MissingExtraError, ParityError, UsageError
from trademl.learn.treetable import Link, TreeTable
from trademl.ship.manifest import TOLERANCE
from trademl.ship.runtime import INDEPENDENT, ROWS, predict_onnx
from trademl.validate.metrics import PROBABILITY_FLOOR  # below it the logarithm of the calibration is cut off, there and here

RAW_INPUT = "input"  # of a graph that takes float32 features as they are
INPUT = "features"  # the name of the input of every graph that is written here; a reader takes it from the manifest
OPSET, ML_OPSET, IR_VERSION = 17, 3, 8  # old enough for every onnxruntime that the `bot` extra allows
SPARE = 8  # rows: with two columns they fill the widest lanes of a processor, 16 floats
TIE = 1e-6  # native top two closer than this are a tie in float32: either label is right


@dataclass(frozen=True)
class Parity:
    """How far a graph is from its native twin."""

    rows: int
    max_abs: float  # largest difference of any output
    flips: int  # rows whose label differs although the native top two are not a tie
    ties: int  # rows whose label differs and whose native top two lie within TIE


def ensemble_graph(
    scaler: tuple[np.ndarray, np.ndarray],  # mean and scale, each (n_in,) float64; every scale > 0
    tables: Sequence[TreeTable],  # m ensembles on the same n_in features, each answering k probabilities
    weights: np.ndarray,  # (m,) >= 0, sum 1
    calibration: tuple[np.ndarray, np.ndarray],  # scale and shift, each (k,)
    *,
    names: Sequence[str],  # (m,) short names of the ensembles, such as rf, xgb, lgb
    classes: Sequence[str],  # (k,) in the order of the columns
    metadata: Mapping[str, str],  # becomes metadata_props, beside `models`, `classes` and `rows` which are written here
) -> bytes:
    """One fused ONNX graph. Raises UsageError when the parts do not fit together."""
    mean, scale = _two_arrays("scaler", scaler, "mean, scale")
    slope, shift = _two_arrays("calibration", calibration, "scale, shift")
    share = np.asarray(weights, np.float64)
    _check_parts(mean, scale, tables, share, slope, shift, names, classes)
    graph = _Graph()
    graph.constant("mean", mean)
    graph.constant("scale", scale)
    graph.node("Sub", [INPUT, "mean"], "centred")
    graph.node("Div", ["centred", "scale"], "scaled")
    graph.node("Cast", ["scaled"], "z", to=graph.float32)
    parts = []
    for name, table, weight in zip(names, tables, share):
        graph.probabilities(name, table)
        graph.constant(f"{name}_weight", np.float32(weight))
        graph.node("Mul", [f"{name}_p", f"{name}_weight"], f"{name}_share")
        parts.append(name)
    graph.node("Concat", [f"{name}_p" for name in parts], "model_probabilities", axis=1)
    graph.node("Sum", [f"{name}_share" for name in parts], "mean_p")
    graph.constant("floor", np.float32(PROBABILITY_FLOOR))
    graph.constant("slope", slope.astype(np.float32))
    graph.constant("shift", shift.astype(np.float32))
    graph.node("Max", ["mean_p", "floor"], "floored")
    graph.in_lanes("Log", "floored", "log_p", len(classes))
    graph.node("Mul", ["log_p", "slope"], "sloped")
    graph.node("Add", ["sloped", "shift"], "calibrated")
    graph.node("Softmax", ["calibrated"], "probabilities", axis=1)
    graph.node("ArgMax", ["probabilities"], "label", axis=1, keepdims=0)
    outputs = {"probabilities": len(classes), "model_probabilities": len(classes) * len(names), "label": None}
    own = {"models": ",".join(names), "classes": ",".join(classes), ROWS: INDEPENDENT}
    return graph.serialize(len(mean), outputs, own | dict(metadata))


def regressor_graph(
    table: TreeTable,  # identity or mean link
    *,
    clip: tuple[float, float] | None,  # bounds of the answer, such as (0.10, 1.25)
    metadata: Mapping[str, str],
) -> bytes:
    """One ensemble as a graph: features (N, n) float64 -> float32 -> trees -> clip -> value (N, k) float32."""
    if table.link not in (Link.MEAN, Link.IDENTITY):
        raise UsageError(f"a regressor's link is mean or identity, not {table.link}; probabilities go through ensemble_graph")
    graph = _Graph()
    graph.node("Cast", [INPUT], "z", to=graph.float32)
    graph.trees("trees", table, "value" if clip is None else "unclipped")
    if clip is not None:
        if not clip[0] < clip[1]:
            raise UsageError(f"clip = {clip}: the lower bound must lie below the upper one")
        graph.constant("low", np.float32(clip[0]))
        graph.constant("high", np.float32(clip[1]))
        graph.node("Clip", ["unclipped", "low", "high"], "value")
    return graph.serialize(table.n_features, {"value": table.n_outputs}, dict(metadata))


def tree_graph(
    table: TreeTable,  # any link but mean
    *,
    scaled_by: int | None = None,  # a column of the input that the answer is multiplied by
    metadata: Mapping[str, str],
) -> bytes:
    """One ensemble on raw float32 features with missing values: input (N, n) float32 -> trees -> link -> output (N, k) float32.

    A sigmoid's answer is the one probability of the positive class, not a pair.
    """
    last = {Link.SIGMOID: "Sigmoid", Link.SOFTMAX: "Softmax", Link.IDENTITY: "Identity"}.get(table.link)
    if last is None or (scaled_by is not None and not 0 <= scaled_by < table.n_features):
        raise UsageError(
            f"link {table.link} with scaled_by = {scaled_by} of {table.n_features} features cannot be exported as one ensemble"
        )
    graph = _Graph()
    graph.node("Identity", [RAW_INPUT], "z")
    graph.trees("trees", table, "margin")
    answer = "output" if scaled_by is None else "unscaled"
    graph.node(last, ["margin"], answer, **({"axis": 1} if table.link is Link.SOFTMAX else {}))
    if scaled_by is not None:
        graph.constant("column", np.array([scaled_by], np.int64))
        graph.node("Gather", [RAW_INPUT, "column"], "scale", axis=1)
        graph.node("Mul", [answer, "scale"], "output")
    return graph.serialize(table.n_features, {"output": table.n_outputs}, dict(metadata), raw=True)


def chained_graph(
    first: TreeTable,  # sigmoid link: a probability
    columns: Sequence[int],  # of the input that `first` takes
    second: TreeTable,  # identity link, on the whole input and that probability behind it
    *,
    metadata: Mapping[str, str],
) -> bytes:
    """Two ensembles as one graph: input (N, n) float32 -> first -> probability -> second on both -> output (N, k) float32."""
    n_in = second.n_features - 1
    if first.link is not Link.SIGMOID or second.link is not Link.IDENTITY or len(columns) != first.n_features or max(columns) >= n_in:
        raise UsageError(
            f"links {first.link} and {second.link}, {len(columns)} of {n_in} columns for {first.n_features} features cannot be chained"
        )
    graph = _Graph()
    graph.constant("columns", np.array(columns, np.int64))
    graph.node("Gather", [RAW_INPUT, "columns"], "first_z", axis=1)
    graph.trees("first", first, "first_margin", of="first_z")
    graph.node("Sigmoid", ["first_margin"], "chance")
    graph.node("Concat", [RAW_INPUT, "chance"], "z", axis=1)
    graph.trees("trees", second, "margin")
    graph.node("Identity", ["margin"], "output")
    return graph.serialize(n_in, {"output": second.n_outputs}, dict(metadata), raw=True)


def check_parity(
    model: bytes,
    features: np.ndarray,  # (n, n_in) float64: all rows that there are, not a sample
    probabilities: np.ndarray,  # (n, k): calibrated, from the native libraries; for a regressor its values
    model_probabilities: np.ndarray | None = None,  # (n, m*k) or (n, m, k)
    *,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Compare a graph with its native twin on all rows. Raises ParityError above `tolerance` or at any flip.

    Two labels may differ only where the native top two lie within TIE (1e-6, ten float32 steps): there no float32
    answer can tell them apart. Such rows are counted as `ties`.
    """
    served = predict_onnx(model, features)
    first = next(name for name in ("probabilities", "value", "output") if name in served)
    native = {first: np.asarray(probabilities, np.float64)}
    if model_probabilities is not None:
        native["model_probabilities"] = np.asarray(model_probabilities, np.float64).reshape(len(features), -1)
    worst = 0.0
    for name, expected in native.items():
        expected = expected[:, None] if expected.ndim == 1 else expected
        if served[name].shape != expected.shape:
            raise ParityError(f"graph output {name} has shape {served[name].shape}, the native models give {expected.shape}")
        difference = np.abs(served[name] - expected)
        difference[np.isnan(served[name]) & np.isnan(expected)] = 0.0  # a missing answer that the native models miss too
        if difference.size:
            row, column = np.unravel_index(int(np.argmax(np.where(np.isnan(difference), np.inf, difference))), difference.shape)
            if not difference[row, column] <= tolerance:
                bad = int((~(difference <= tolerance)).any(axis=1).sum())
                raise ParityError(
                    f"graph output {name}, row {row}, column {column}: {served[name][row, column]:.9g} against {expected[row, column]:.9g} "
                    f"from the native models; {bad:,} of {len(features):,} rows differ by more than {tolerance:g}. Nothing is stored"
                )
            worst = max(worst, float(difference[row, column]))
    flips, ties = _label_differences(served, native) if "label" in served else (0, 0)
    if flips:
        raise ParityError(
            f"graph: {flips} of {len(features):,} labels differ from the native models' beyond a tie of {TIE:g}. Nothing is stored"
        )
    return Parity(rows=len(features), max_abs=worst, flips=flips, ties=ties)


def _label_differences(served, native) -> tuple[int, int]:
    expected = native["probabilities"]
    differs = served["label"] != expected.argmax(axis=1)
    if not differs.any():
        return 0, 0
    top = np.sort(expected[differs], axis=1)
    tie = top[:, -1] - top[:, -2] <= TIE
    return int((~tie).sum()), int(tie.sum())


def _two_arrays(name, pair, parts):
    if len(pair) != 2:
        raise UsageError(f"{name} has {len(pair)} parts; pass it as ({parts})")
    return [np.asarray(part, np.float64) for part in pair]


def _check_parts(mean, scale, tables, share, slope, shift, names, classes):
    k = len(classes)
    if not len(tables) == len(names) == len(share) or len(set(names)) != len(names) or not len(tables):
        raise UsageError(f"{len(tables)} ensembles, {len(share)} weights and names {list(names)} must be as many, with different names")
    if mean.ndim != 1 or mean.shape != scale.shape or not np.isfinite(mean).all() or not (np.isfinite(scale) & (scale > 0)).all():
        raise UsageError(f"scaler of shapes {mean.shape} and {scale.shape}: two finite arrays (n_in,), every scale > 0")
    if slope.shape != (k,) or shift.shape != (k,) or not np.isfinite(np.concatenate([slope, shift])).all():
        raise UsageError(f"calibration of shapes {slope.shape} and {shift.shape}: two finite arrays ({k},), one number for each class")
    if not (share >= 0).all() or abs(share.sum() - 1) > 1e-9:
        raise UsageError(f"weights {share.tolist()} must be >= 0 and sum to 1")
    for name, table in zip(names, tables):
        if table.link is Link.IDENTITY or table.n_columns != k or table.n_features != len(mean):
            raise UsageError(
                f"ensemble {name}: link {table.link}, {table.n_columns} columns, {table.n_features} features; "
                f"expected probabilities of {k} classes from {len(mean)} features"
            )


class _Graph:
    """Collects nodes and constants; the names are given by the caller and never generated."""

    def __init__(self):
        try:
            import onnx
        except ImportError:
            raise MissingExtraError("writing ONNX needs the package onnx; pip install 'trademl[lab]'") from None
        self.onnx, self.float32 = onnx, onnx.TensorProto.FLOAT
        self.nodes, self.constants = [], []

    def node(self, kind: str, inputs: Sequence[str], output: str, *, domain: str = "", **attributes):
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], name=f"make_{output}", domain=domain, **attributes))

    def constant(self, name: str, value):
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))

    def in_lanes(self, kind: str, value: str, output: str, width: int):
        """A node on (N, width) floats that computes each of the N rows by the same instructions, however few they are."""
        for name, constant in (("first", np.array([0])), ("last", np.array([-SPARE])), ("spare", np.ones((SPARE, width), np.float32))):
            if all(one.name != name for one in self.constants):
                self.constant(name, constant)
        self.node("Concat", [value, "spare"], f"{value}_and_spare", axis=0)
        self.node(kind, [f"{value}_and_spare"], f"{output}_and_spare")
        self.node("Slice", [f"{output}_and_spare", "first", "last", "first"], output)

    def trees(self, name: str, table: TreeTable, output: str, *, of: str = "z"):
        """A TreeEnsembleRegressor whose float32 sums are `raw(table, z)`, or the mean over the trees for forests."""
        self.node("TreeEnsembleRegressor", [of], output, domain="ai.onnx.ml", **_tree_attributes(table))

    def probabilities(self, name: str, table: TreeTable):
        """(N, k) probabilities of one ensemble as the tensor `<name>_p`."""
        if table.link is Link.MEAN:
            self.trees(name, table, f"{name}_p")
            return
        self.trees(name, table, f"{name}_margin")
        if table.link is Link.SOFTMAX:
            self.node("Softmax", [f"{name}_margin"], f"{name}_p", axis=1)
            return
        self.node("Neg", [f"{name}_margin"], f"{name}_opposite")
        self.node("Concat", [f"{name}_opposite", f"{name}_margin"], f"{name}_margins", axis=1)
        self.in_lanes("Sigmoid", f"{name}_margins", f"{name}_p", 2)  # not 1 - p: a small probability keeps its digits

    def serialize(self, n_in: int, outputs: Mapping[str, int | None], metadata: Mapping[str, str], *, raw: bool = False) -> bytes:
        helper, proto = self.onnx.helper, self.onnx.TensorProto
        name, dtype = (RAW_INPUT, proto.FLOAT) if raw else (INPUT, proto.DOUBLE)
        inputs = [helper.make_tensor_value_info(name, dtype, ["N", n_in])]
        answers = [
            helper.make_tensor_value_info(name, proto.INT64 if width is None else proto.FLOAT, ["N"] if width is None else ["N", width])
            for name, width in outputs.items()
        ]
        graph = helper.make_graph(self.nodes, "trademl", inputs, answers, self.constants)
        imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        model = helper.make_model(graph, producer_name="trademl", opset_imports=imports, ir_version=IR_VERSION)
        for key, value in sorted(metadata.items()):
            model.metadata_props.add(key=key, value=_text(key, value))
        return model.SerializeToString(deterministic=True)


def _text(key: str, value: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"metadata {key} = {value!r} must be a string")
    return value


def _tree_attributes(table: TreeTable) -> dict[str, Iterable]:
    """The attributes of a TreeEnsembleRegressor (ai.onnx.ml 3): parallel lists, one entry a node and one a leaf weight."""
    sizes = np.diff(np.append(table.roots, len(table.feature)))
    tree = np.repeat(np.arange(table.n_trees), sizes)
    number = np.arange(len(tree)) - table.roots[tree]
    leaf = table.feature < 0
    root = table.roots[tree]
    scale = 1.0 / table.n_trees if table.link is Link.MEAN else 1.0
    at = np.flatnonzero(leaf)
    if table.tree_output[0] < 0:  # every leaf adds to every output
        width = table.n_outputs
        target, value = np.tile(np.arange(width), len(at)), table.value[at].ravel()
        at = np.repeat(at, width)
    else:
        target, value = table.tree_output[tree[at]], table.value[at, 0]
    return {
        "nodes_treeids": tree.tolist(),
        "nodes_nodeids": number.tolist(),
        "nodes_featureids": np.where(leaf, 0, table.feature).tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_values": table.threshold.tolist(),
        "nodes_truenodeids": np.where(leaf, 0, table.left - root).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, table.right - root).tolist(),
        "nodes_missing_value_tracks_true": table.missing_left.astype(int).tolist(),
        "target_treeids": tree[at].tolist(),
        "target_nodeids": number[at].tolist(),
        "target_ids": target.tolist(),
        "target_weights": (value * scale).astype(np.float32).tolist(),
        "base_values": (table.base * scale).astype(np.float32).tolist(),
        "n_targets": table.n_outputs,
        "aggregate_function": "SUM",
        "post_transform": "NONE",
    }
