"""A stored trade revision: its store, its section, and what its graphs say."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trademl.errors import RevisionError
from trademl.files import canonical_json, digest
from trademl.pipeline.choice import store_of
from trademl.settings import Settings
from trademl.ship.revision import Revision
from trademl.ship.runtime import predict_onnx
from trademl.ship.store import Store
from trademl.trades.advice import AdviceRule
from trademl.trades.registry import TradeModel
from trademl.trades.rows import TradeRows, trade_rows

if TYPE_CHECKING:
    from trademl.pipeline.trades.case import TradeCase


def trade_store(settings: Settings, models_dir: str | None = None) -> Store:
    """The store of the trade-record line, under the keys that the settings name."""
    return store_of(settings, models_dir or str(Path(settings.paths.models) / "trades"))


def section_of(revision: Revision) -> Mapping:
    """What the manifest says of a trade revision alone."""
    return revision.manifest["trades"]


def newest_tuning(revisions: Iterable[Revision]) -> dict | None:
    """When parameters were last searched, and on how many trades: what the newest revision that knows of it says. Newest first."""
    return next(filter(None, (section_of(revision).get("last_tuning") for revision in revisions)), None)


def rule_of(revision: Revision) -> AdviceRule:
    """What it advises by."""
    return AdviceRule.of(section_of(revision)["advice"])


def registry_hash(rows: TradeRows, model: TradeModel | str) -> str:
    """Hash of a model's features, their sources, codes and lags, in the order of its input."""
    return digest(canonical_json({"features": [repr(feature) for feature in rows.features(model)]}))


def answers_of(revision: Revision, case: "TradeCase", at: np.ndarray) -> dict[TradeModel, np.ndarray]:
    """What its graphs say of the trades `at` of a case, by model, (m, columns). RevisionError when they read other features."""
    section = section_of(revision)
    rows = trade_rows(case.inputs.columns, case.rows.unit, section["assets"], is_chained=section.get("is_chained", False))
    for model in revision.manifest["models"]:
        name, theirs, ours = model["name"], model["feature_hash"], registry_hash(rows, model["name"])
        if theirs != ours:
            raise RevisionError(
                f"revision {revision.name}: {name} was trained on another feature registry (feature_hash {theirs[:12]}, here {ours[:12]})"
            )
    files = {model["name"]: model["file"] for model in revision.manifest["models"]}
    return {TradeModel(name): predict_onnx(revision.read(file), rows.inputs(name)[at])["output"] for name, file in files.items()}
