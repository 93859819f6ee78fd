"""Opening a graph: what is looked at before onnxruntime may see it, and how it is run.

Needs numpy; onnxruntime is loaded on first use. A bot imports this, so nothing else may be.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trademl.errors import MissingExtraError, RevisionError

DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
_CHUNK = 4096  # rows, whole lanes
_LANES = 4  # rows; onnxruntime takes the logarithm of what is left over of four floats by other instructions: other last bits
ROWS, INDEPENDENT = "rows", "independent"  # metadata of a graph that sees to that itself
_DTYPES = {"tensor(double)": np.float64, "tensor(float)": np.float32}

# Field numbers of onnx.proto, as far as they are looked at.
_MODEL = {"graph": 7, "opset_import": 8, "training_info": 20, "functions": 25}
_GRAPH = {"node": 1, "initializer": 5, "sparse_initializer": 15}
_NODE = {"op_type": 4, "attribute": 5, "domain": 7}
_ATTRIBUTE = {"t": 5, "g": 6, "tensors": 10, "graphs": 11, "sparse_tensor": 22, "sparse_tensors": 23}
_TENSOR = {"external_data": 13, "data_location": 14}
_TREES = {b"TreeEnsembleRegressor", b"TreeEnsembleClassifier"}  # their attributes hold numbers only, hundreds of thousands of them


def check_graph(data: bytes) -> None:
    """Raises RevisionError when an ONNX file points outside itself or asks for more than the standard operators.

    External data would be read from wherever the process stands, before anybody checked it.
    """
    try:
        problem = next(_problems(data), None)
    except (ValueError, IndexError) as refusal:
        raise RevisionError(f"graph: not a readable ONNX file ({refusal})") from refusal
    if problem:
        raise RevisionError(f"graph: {problem}")


def session(model: bytes):
    """An onnxruntime session on one CPU thread."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("running a graph needs the package onnxruntime; pip install 'trademl[bot]'") from None

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True, eq=False)
class Graph:
    """An open graph, and what it says of itself: asked once, since a bot runs one row at a time and asking takes a third as long."""

    session: object  # of onnxruntime
    input: str
    dtype: type
    outputs: tuple[str, ...]
    lanes: int  # rows are run in whole multiples of this

    @classmethod
    def of(cls, model) -> "Graph":
        """From bytes or a `session`. RevisionError for another number of inputs than one, or another type."""
        runner = session(model) if isinstance(model, bytes) else model
        inputs = runner.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _DTYPES:
            raise RevisionError(f"graph: takes {[(one.name, one.type) for one in inputs]}, expected one input of {' or '.join(_DTYPES)}")
        outputs = tuple(output.name for output in runner.get_outputs())
        lanes = 1 if runner.get_modelmeta().custom_metadata_map.get(ROWS) == INDEPENDENT else _LANES
        return cls(runner, inputs[0].name, _DTYPES[inputs[0].type], outputs, lanes)

    def run(self, features: np.ndarray, outputs: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """The outputs of these names (none: every one), each (n, ...), for features (n, n_in) in any float dtype.

        A row's answer is the same to the last bit whatever rows stand beside it, so a bot that asks for one gets what the replay of
        thousands got.
        """
        names = outputs or self.outputs
        rows = np.ascontiguousarray(features, self.dtype)
        missing = -len(rows) % self.lanes
        whole = np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows
        columns = self._chunked(names, whole) if len(whole) > _CHUNK else self.session.run(names, {self.input: whole})
        return {name: column[: len(rows)] for name, column in zip(names, columns)}

    def _chunked(self, names: Sequence[str], rows: np.ndarray) -> Iterator[np.ndarray]:
        parts = [self.session.run(names, {self.input: rows[at : at + _CHUNK]}) for at in range(0, len(rows), _CHUNK)]
        return map(np.concatenate, zip(*parts))


def predict_onnx(model, features: np.ndarray) -> dict[str, np.ndarray]:
    """Every output of a graph by its name, as `Graph.run`. `model` is bytes or a `session`; who asks more than once keeps a `Graph`."""
    return Graph.of(model).run(features)


def _problems(model: bytes) -> Iterator[str]:
    for field, value in _fields(model):
        if field in (_MODEL["functions"], _MODEL["training_info"]):
            yield "functions and training parts are not allowed"
        elif field == _MODEL["opset_import"]:
            yield from _domain(next((v for f, v in _fields(value) if f == 1), b""))
        elif field == _MODEL["graph"]:
            yield from _graph(value)


def _domain(name: bytes) -> Iterator[str]:
    if name.decode("utf-8") not in DOMAINS:
        yield f"operators of the domain {name.decode('utf-8')!r}; only the standard ones are allowed"


def _graph(graph: bytes, depth: int = 0) -> Iterator[str]:
    if depth > 8:
        yield "graphs nested more than 8 deep"
        return
    for field, value in _fields(graph):
        if field == _GRAPH["initializer"]:
            yield from _tensor(value)
        elif field == _GRAPH["sparse_initializer"]:
            yield "sparse constants are not allowed"
        elif field == _GRAPH["node"]:
            yield from _node(value, depth)


def _node(node: bytes, depth: int) -> Iterator[str]:
    parts = list(_fields(node))
    yield from (problem for field, value in parts if field == _NODE["domain"] for problem in _domain(value))
    if any(field == _NODE["op_type"] and value in _TREES for field, value in parts):
        return
    for attribute in (value for field, value in parts if field == _NODE["attribute"]):
        for field, value in _fields(attribute):
            if field in (_ATTRIBUTE["t"], _ATTRIBUTE["tensors"]):
                yield from _tensor(value)
            elif field in (_ATTRIBUTE["g"], _ATTRIBUTE["graphs"]):
                yield from _graph(value, depth + 1)
            elif field in (_ATTRIBUTE["sparse_tensor"], _ATTRIBUTE["sparse_tensors"]):
                yield "sparse constants are not allowed"


def _tensor(tensor: bytes) -> Iterator[str]:
    for field, value in _fields(tensor):
        if field == _TENSOR["external_data"] or (field == _TENSOR["data_location"] and value):
            yield "data outside the file is not allowed"


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Field numbers and raw values of one protobuf message; fixed-width values are passed over as 0."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        elif kind in (1, 5):
            value, at = 0, at + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"wire type {kind}")
        if at > end:
            raise ValueError("cut short")
        yield field, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number that is too long")
