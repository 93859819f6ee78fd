"""The exported graphs, held against the native libraries on every row."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from trademl import __version__
from trademl.errors import ParityError
from trademl.learn.ensemble import MODELS, Blend, FittedEnsemble, native_probabilities, side_by_side
from trademl.learn.fits import Scaler
from trademl.market.features import FEATURE_NAMES
from trademl.market.open_trade import POSITION_CLASSES, STATE_FEATURES, position_input
from trademl.market.recipe import Recipe
from trademl.market.specs import CLASSES
from trademl.market.walkforward import Judged, Shipped
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.golden import golden_rows
from trademl.ship.export import Parity, check_parity, ensemble_graph
from trademl.ship.manifest import training_run_id


@dataclass(frozen=True)
class Proven:
    """The exported graphs, held against the native models on all rows."""

    run_id: str  # `training_run_id`, written into each graph
    graphs: Mapping[str, bytes]  # "signal.onnx", "position.onnx"
    parity: Mapping[str, dict]  # rows, max_abs, flips of each role
    golden: Mapping[str, np.ndarray]  # a few rows of each with their answers

    def table(self) -> pd.DataFrame:
        """Rows compared, largest difference and flipped classes of each graph."""
        return pd.DataFrame(self.parity).T.astype({"rows": int, "flips": int, "ties": int})


def run_id_of(case: Case, parent: str | None = None) -> str:
    """`training_run_id`: 16 hex over data, settings, seed, contracts, parent and code version. Nothing random, no clock."""
    return training_run_id(
        {
            "bars": case.inputs.bars_sha256,
            "news": case.inputs.news_sha256,
            "recipe": hashlib.sha256(repr(recipe_facts(case.recipe, continues=parent is not None)).encode()).hexdigest(),
            "features": case.feature_hash,
            "label_spec": case.rows.spec.hash,
            "costs": asdict(case.rows.costs),
            "windows": asdict(case.settings.windows),
            "parent": parent,
            "version": __version__,
        }
    )


def recipe_facts(recipe: Recipe, *, continues: bool = False) -> dict:
    """What of a recipe changes its models: neither the number of threads nor what was asked of a machine without a GPU,
    and how a warm start works only where it `continues` a parent."""
    idle = {"threads", "devices"} | (set() if continues else {"warm"})
    facts = {k: v for k, v in asdict(recipe).items() if k not in idle}
    elsewhere = {model: where.resolved for model, where in recipe.devices.items() if where.resolved != "cpu"}
    return facts | ({"devices": elsewhere} if elsewhere else {})


@dataclass(frozen=True)
class Candidate:
    """What one graph is exported from, and the rows that it must answer as its native models do."""

    role: str
    fitted: FittedEnsemble
    blend: Blend
    scaler: Scaler
    features: tuple[str, ...]  # in the order of the columns
    classes: tuple[str, ...]
    x: np.ndarray  # raw features, float64 (rows, features)

    def native(self) -> np.ndarray:
        """Each model's own probabilities, (rows, models, classes)."""
        return native_probabilities(self.fitted, self.scaler.transform(self.x))

    def graph(self, run_id: str) -> bytes:
        """The candidate as one ONNX graph."""
        return ensemble_graph(
            (self.scaler.mean, self.scaler.scale),
            self.fitted.tables,
            self.blend.weights,
            (self.blend.calibration.scale, self.blend.calibration.shift),
            names=MODELS,
            classes=self.classes,
            metadata={"role": self.role, "training_run_id": run_id, "features": json.dumps(self.features)},
        )


def prove(case: Case, judged: Judged, shipped: Shipped) -> Proven:
    """Export both graphs and compare them with the native libraries on every row. Raises ParityError."""
    run_id = run_id_of(case, judged.parent)
    graphs, parity, golden = {}, {}, {}
    candidates = _candidates(case, judged, shipped)
    found = side_by_side(lambda candidate: _proven(candidate, run_id), candidates, case.recipe.threads)
    for candidate, (graph, compared, answered) in zip(candidates, found, strict=True):
        graphs[f"{candidate.role}.onnx"], parity[candidate.role] = graph, asdict(compared)
        golden |= answered
    return Proven(run_id, graphs, parity, golden)


def _proven(candidate: Candidate, run_id: str) -> tuple[bytes, Parity, dict[str, np.ndarray]]:
    """A candidate's graph, how it compares, and a few rows with their answers."""
    role, native, graph = candidate.role, candidate.native(), candidate.graph(run_id)
    answer, few = candidate.blend.probabilities(native), golden_rows(len(candidate.x))
    golden = {f"{role}_x": candidate.x[few], f"{role}_probabilities": answer[few]}
    golden[f"{role}_model_probabilities"] = native[few].reshape(len(few), -1)
    return graph, _compared(candidate, graph, answer, native), golden


def _candidates(case: Case, judged: Judged, shipped: Shipped) -> tuple[Candidate, Candidate]:
    frozen, x = judged.frozen, case.rows.x[np.isfinite(case.rows.x).all(axis=1)]
    beside_state = Scaler(
        np.concatenate([frozen.scaler.mean, np.zeros(len(STATE_FEATURES))]),
        np.concatenate([frozen.scaler.scale, np.ones(len(STATE_FEATURES))]),
    )
    held = position_input(case.rows.x[shipped.position_held.bar], shipped.position_held.state)
    return (
        Candidate("signal", shipped.signal, frozen.signal_blend, frozen.scaler, FEATURE_NAMES, CLASSES, x),
        Candidate(
            "position", shipped.position, frozen.position_blend, beside_state, (*FEATURE_NAMES, *STATE_FEATURES), POSITION_CLASSES, held
        ),
    )


def _compared(candidate: Candidate, graph: bytes, answer: np.ndarray, native: np.ndarray) -> Parity:
    """The graph's parity with its native models, on every row."""
    parity = check_parity(graph, candidate.x, answer, native)
    if parity.rows != len(candidate.x):
        raise ParityError(f"{candidate.role}.onnx was compared on {parity.rows:,} of {len(candidate.x):,} rows; all must be")
    return parity
