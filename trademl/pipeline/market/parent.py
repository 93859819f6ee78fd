"""Whether this run may continue the active revision's signal, and if not, why."""

import json
from dataclasses import asdict

import numpy as np

from trademl.errors import RevisionError
from trademl.files import read_npz
from trademl.learn.ensemble import FittedEnsemble, Scaler
from trademl.market.features import FEATURE_NAMES, feature_hash
from trademl.market.recipe import MarketRows, Recipe
from trademl.market.specs import CLASSES
from trademl.market.warmstart import COLD, NEWEST_ROWS, Parent, Start, Terms, parameters_of, read_signal, unlike, why_not_warm
from trademl.pipeline.market.evidence import contract_of
from trademl.pipeline.market.inputs import Inputs
from trademl.settings import Settings
from trademl.ship.revision import Revision
from trademl.ship.runtime import predict_onnx
from trademl.ship.store import Store
from trademl.validate.lineage import Lineage
from trademl.validate.splits import Windows

PARITY = 1e-5  # between a parent's native files and its own graph


def find_start(inputs: Inputs, rows: MarketRows, windows: Windows, recipe: Recipe, settings: Settings) -> Start:
    """The active revision as a parent, or the reason for starting from nothing. Raises nothing that a parent could cause."""
    if not settings.warmstart.enabled:
        return COLD
    step = settings.symbol(inputs.choice.symbol).round_step
    ours = Terms(
        tuple(FEATURE_NAMES),
        feature_hash(round_step=step),
        rows.spec.hash,
        tuple(CLASSES),
        parameters_of(recipe.ensemble),
        asdict(rows.spec),
    )
    revision = None
    try:
        revision = Store(inputs.choice.models_dir).active()
        if revision is None:
            return Start(None, "no approved revision is active here")
        why = unlike(terms_of(revision), ours)  # before a file of a stranger is parsed
        parent = None if why else read_parent(revision)
    except (RevisionError, ValueError) as refusal:
        name = "the active revision" if revision is None else f"revision {revision.name}"
        return Start(None, f"{name} cannot be continued: {str(refusal).removeprefix(f'{name}: ')}")
    why = why or why_not_warm(
        parent,
        ours,
        rows.x[np.isfinite(rows.x).all(axis=1)][-NEWEST_ROWS:],
        settings.warmstart,
        select_start_s=windows.span("select").start_s,
        newest_label_s=int(rows.end_s.max()),
        embargo_s=windows.embargo_s,
    )
    if why:
        return Start(None, f"revision {revision.name} cannot be continued: {why}")
    return Start(parent, f"revision {parent.revision} may be continued; the select window decides")


def terms_of(revision: Revision) -> Terms:
    """What a stored signal was trained under. RevisionError when its manifest does not say."""
    manifest = revision.manifest
    classes = next((model["classes"] for model in manifest["models"] if model["role"] == "signal"), None)
    if not isinstance(manifest.get("ensemble"), dict) or classes is None:
        raise RevisionError("its manifest does not say with which parameters a signal was trained (an older trademl wrote it)")
    names = tuple(feature["name"] for feature in manifest["features"])
    contract = {key: value for key, value in manifest["label_spec"].items() if key not in ("hash", "dynamic_sltp_required")}
    return Terms(names, manifest["feature_hash"], manifest["label_spec"]["hash"], tuple(classes), manifest["ensemble"], contract)


def read_parent(revision: Revision) -> Parent:
    """A stored revision as a parent, after every check of `Revision.verify`; RevisionError when something is not what it should be."""
    manifest, terms = revision.manifest, terms_of(revision)
    contract_of(revision)
    revision.verify()
    record = manifest.get("warmstart", {"generation": 0})
    generation = record.get("generation") if isinstance(record, dict) else None
    if type(generation) is not int or generation < 0:
        raise RevisionError(f"its manifest's warmstart.generation = {generation!r} is no number of warm starts")
    scaler, signal, spread = read_signal(revision.read, len(terms.features), len(terms.classes))
    _prove(revision, scaler, signal)
    lineage = Lineage.from_json(json.dumps(manifest["lineage"])).named(revision.name)
    return Parent(revision.name, terms, scaler, signal, lineage, generation, spread)


def _prove(revision: Revision, scaler: Scaler, signal: FittedEnsemble) -> None:
    """The native files must say what the revision's own graph says on its golden rows."""
    x = read_npz(revision.read(revision.manifest["golden"]["file"]))["signal_x"]
    told = predict_onnx(revision.read("signal.onnx"), x)["model_probabilities"]
    off = np.abs(signal.model_probabilities(scaler.transform(x)).reshape(len(x), -1) - told).max()
    if not off <= PARITY:
        raise RevisionError(f"its native files differ from its own graph by {off:.2g} (allowed: {PARITY:g})")
