"""The exported graphs, held against the native libraries on every row."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from trademl import __version__
from trademl.errors import ParityError
from trademl.files import npz_bytes
from trademl.learn.ensemble import MODELS, Blend, FittedEnsemble, native_probabilities
from trademl.market.features import FEATURE_NAMES, feature_hash
from trademl.market.open_trade import POSITION_CLASSES, STATE_FEATURES
from trademl.market.recipe import MarketRows, Recipe
from trademl.market.specs import CLASSES
from trademl.market.walkforward import Judged, Shipped, position_inputs
from trademl.pipeline.market.inputs import Inputs
from trademl.settings import Settings
from trademl.ship.export import check_parity, ensemble_graph
from trademl.ship.manifest import training_run_id

GOLDEN_ROWS = 64


@dataclass(frozen=True)
class Proven:
    """The exported graphs, held against the native models on all rows."""

    graphs: Mapping[str, bytes]  # "signal.onnx", "position.onnx"
    parity: Mapping[str, dict]  # rows, max_abs, flips of each role
    golden: bytes  # a few rows with their answers, replayed wherever the revision is loaded

    def table(self) -> pd.DataFrame:
        """Rows compared, largest difference and flipped classes of each graph."""
        return pd.DataFrame(self.parity).T.astype({"rows": int, "flips": int, "ties": int})


def run_id_of(inputs: Inputs, rows: MarketRows, recipe: Recipe, settings: Settings, parent: str | None = None) -> str:
    """`training_run_id`: 16 hex over data, settings, seed, contracts, parent and code version. Nothing random, no clock."""
    return training_run_id(
        {
            "bars": inputs.bars_sha256,
            "news": inputs.news_sha256,
            "recipe": hashlib.sha256(repr(recipe_facts(recipe, continues=parent is not None)).encode()).hexdigest(),
            "features": feature_hash(round_step=settings.symbol(inputs.choice.symbol).round_step),
            "label_spec": rows.spec.hash,
            "costs": asdict(rows.costs),
            "windows": asdict(settings.windows),
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


def prove(rows: MarketRows, judged: Judged, shipped: Shipped, run_id: str) -> Proven:
    """Export both graphs and compare them with the native libraries on every row. Raises ParityError."""
    frozen = judged.frozen
    complete = np.flatnonzero(np.isfinite(rows.x).all(axis=1))
    held = position_inputs(rows, shipped.position_held)
    state = np.zeros(len(STATE_FEATURES)), np.ones(len(STATE_FEATURES))
    roles = {
        "signal": (shipped.signal, frozen.signal_blend, rows.x[complete], (frozen.scaler.mean, frozen.scaler.scale), CLASSES),
        "position": (
            shipped.position,
            frozen.position_blend,
            held,
            (np.concatenate([frozen.scaler.mean, state[0]]), np.concatenate([frozen.scaler.scale, state[1]])),
            POSITION_CLASSES,
        ),
    }
    graphs, parity, golden = {}, {}, {}
    for role, (fitted, blend, x, (mean, scale), classes) in roles.items():
        graphs[f"{role}.onnx"] = _graph(fitted, blend, mean, scale, classes, {"role": role, "training_run_id": run_id})
        native = native_probabilities(fitted, ((x - mean) / scale).astype(np.float32))
        answer = blend.probabilities(native)
        parity[role] = asdict(check_parity(graphs[f"{role}.onnx"], x, answer, native))
        if parity[role]["rows"] != len(x):
            raise ParityError(f"{role}.onnx was compared on {parity[role]['rows']:,} of {len(x):,} rows; all must be")
        few = np.linspace(0, len(x) - 1, min(GOLDEN_ROWS, len(x))).astype(int)
        golden |= {f"{role}_x": x[few], f"{role}_probabilities": answer[few]}
    return Proven(graphs, parity, npz_bytes(golden))


def _graph(fitted: FittedEnsemble, blend: Blend, mean, scale, classes, metadata: dict[str, str]) -> bytes:
    names = FEATURE_NAMES if metadata["role"] == "signal" else (*FEATURE_NAMES, *STATE_FEATURES)
    return ensemble_graph(
        mean,
        scale,
        fitted.tables,
        blend.weights,
        np.array(blend.calibration.scale),
        np.array(blend.calibration.shift),
        names=MODELS,
        classes=classes,
        metadata=metadata | {"features": json.dumps(names)},
    )
