"""The exported graphs, held against the native boosters on every trade and on rows with missing values."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from trademl import __version__
from trademl.learn.readers import from_xgboost
from trademl.learn.treetable import TreeTable
from trademl.pipeline.market.golden import golden_rows
from trademl.pipeline.trades.case import TradeCase
from trademl.pipeline.trades.looks import recipe_parts
from trademl.ship.export import chained_graph, check_parity, tree_graph
from trademl.ship.manifest import training_run_id
from trademl.ship.runtime import predict_onnx
from trademl.trades.models import TASKS, answers
from trademl.trades.registry import TradeModel
from trademl.trades.walkforward import Fitted

LEAST_ROWS = 256  # that a graph is compared on
HIDDEN = 0.2  # share of the values that are taken away in the second half of these rows


@dataclass(frozen=True, eq=False)
class ProvenTrades:
    """The graphs and how far they are from the boosters."""

    run_id: str  # `training_run_id`, written into each graph
    graphs: Mapping[TradeModel, bytes]
    tables: Mapping[TradeModel, TreeTable]
    parity: Mapping[TradeModel, dict]  # rows, max_abs
    golden: Mapping[str, np.ndarray]


def run_id_of(case: TradeCase) -> str:
    """`training_run_id`: 16 hex over data, recipe, seed and code version. Nothing random, no clock."""
    facts = {"records": case.inputs.report.source.sha256, "recipe": recipe_parts(case), "seed": case.recipe.seed, "version": __version__}
    return training_run_id(facts | {"unit": str(case.rows.unit), "assets": list(case.rows.assets)})


def parity_rows(x: np.ndarray, seed: int) -> np.ndarray:
    """Rows to compare on, float32: each trade as it is and with a fifth of its values missing, at least 256."""
    copies = np.resize(x, (max(len(x), LEAST_ROWS // 2), x.shape[1]))
    hidden = np.where(np.random.default_rng(seed).random(copies.shape) < HIDDEN, np.nan, copies)
    return np.concatenate([copies, hidden]).astype(np.float32)


def chained(case: TradeCase, fit: Fitted, table: TreeTable, x: np.ndarray, metadata: Mapping[str, str]) -> tuple[bytes, np.ndarray]:
    """The one graph of a sizing model that asks signal quality first, and what its booster sees of the rows x.

    The chance is taken from signal quality's own graph, itself held against its booster: one that lies a rounding away from a split
    would send the two boosters' chain down another branch.
    """
    names = [feature.name for feature in case.rows.features(fit.model)]
    columns = [names.index(feature.name) for feature in case.rows.features(fit.quality.model)]
    first = from_xgboost(fit.quality.booster)
    alone = tree_graph(first, metadata=metadata)
    check_parity(alone, x[:, columns], answers(fit.quality.model, fit.quality.booster, x[:, columns], np.ones(len(x))))
    seen = np.column_stack([x, predict_onnx(alone, x[:, columns])["output"]])
    return chained_graph(first, columns, table, metadata=metadata), seen


def prove_trades(case: TradeCase, shipped: Mapping[TradeModel, Fitted]) -> ProvenTrades:
    """Export every model and compare it with its booster. Raises ParityError: then nothing is stored."""
    run_id, graphs, tables, parity, golden = run_id_of(case), {}, {}, {}, {}
    for model, fit in shipped.items():
        names = [feature.name for feature in case.rows.features(model)]
        scaled = TASKS[model].scaled_by
        place = None if scaled is None else names.index(scaled)
        tables[model] = from_xgboost(fit.booster)
        metadata = {"role": str(model), "training_run_id": run_id, "features": json.dumps(names)}
        x = parity_rows(case.rows.inputs(model), case.recipe.seed)
        seen = x
        if fit.quality is None:
            graphs[model] = tree_graph(tables[model], scaled_by=place, metadata=metadata)
        else:
            graphs[model], seen = chained(case, fit, tables[model], x, metadata)
        native = answers(model, fit.booster, seen, np.ones(len(x)) if place is None else x[:, place].astype(np.float64))
        parity[model] = asdict(check_parity(graphs[model], x, native))
        whole = np.flatnonzero(~np.isnan(native).any(1))
        few = whole[golden_rows(len(whole))]
        golden |= {f"{model}_x": x[few], f"{model}_output": native[few].astype(np.float32)}
    return ProvenTrades(run_id, graphs, tables, parity, golden)
