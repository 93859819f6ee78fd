"""Whether this run may continue the active revision's signal, and if not, why."""

from dataclasses import asdict

import numpy as np

from trademl.errors import RevisionError
from trademl.files import read_npz
from trademl.learn.ensemble import FittedEnsemble
from trademl.learn.fits import Scaler
from trademl.market.features import FEATURE_NAMES
from trademl.market.specs import CLASSES
from trademl.market.warmstart import COLD, NEWEST_ROWS, Parent, Start, Terms, parameters_of, read_signal, unlike, why_not_warm
from trademl.pipeline.choice import store_of
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.seen import why_seen
from trademl.pipeline.stored import Stored
from trademl.ship.manifest import TOLERANCE
from trademl.ship.runtime import predict_onnx
from trademl.validate.splits import Span


def find_start(case: Case) -> Start:
    """The active revision as a parent, or the reason for starting from nothing. Raises nothing that a parent could cause."""
    if not case.settings.warmstart.enabled:
        return COLD
    ours, name = terms_of_case(case), "the active revision"
    try:
        revision = store_of(case.settings, case.choice.models_dir).active()
        if revision is None:
            return Start(None, "no approved revision is active here")
        stored, name = Stored(revision), f"revision {revision.name}"
        reason = unlike(terms_of(stored), ours)  # before a file of a stranger is parsed
        parent = None if reason else read_parent(stored)
    except (RevisionError, ValueError) as refusal:
        return Start(None, f"{name} cannot be continued: {str(refusal).removeprefix(f'{name}: ')}")
    if reason := reason or _why_not_warm(parent, ours, case) or _seen_before(stored, case):
        return Start(None, f"{name} cannot be continued: {reason}")
    return Start(parent, f"{name} may be continued; the select window decides")


def _why_not_warm(parent: Parent, ours: Terms, case: Case) -> str:
    rows = case.rows
    return why_not_warm(
        parent,
        ours,
        rows.x[np.isfinite(rows.x).all(axis=1)][-NEWEST_ROWS:],
        case.settings.warmstart,
        select_start_s=case.windows.span("select").start_s,
        newest_label_s=int(rows.end_s.max()),
        embargo_s=case.windows.embargo_s,
    )


def _seen_before(stored: Stored, case: Case) -> str:
    """That the parent knows prices of the judged days, whatever their stamps."""
    judged = Span(case.windows.span("select").start_s, case.windows.span("final").end_s)
    said = why_seen(stored, case.rows.bars, judged)
    return said and f"it knows prices of the judged days: {said}"


def terms_of_case(case: Case) -> Terms:
    """What a signal of this case is trained under."""
    spec = case.rows.spec
    return Terms(tuple(FEATURE_NAMES), case.feature_hash, spec.hash, tuple(CLASSES), parameters_of(case.recipe.ensemble), asdict(spec))


def terms_of(stored: Stored) -> Terms:
    """What a stored signal was trained under."""
    return Terms(
        stored.feature_names, stored.feature_hash, stored.label_spec_hash, stored.classes, stored.parameters, stored.label_spec_fields
    )


def read_parent(stored: Stored) -> Parent:
    """A stored revision as a parent, after every check of `Revision.verify`; RevisionError when something is not what it should be."""
    terms, generation = terms_of(stored), stored.start.generation
    _ = stored.label_spec  # refused where this code reads another one out of the manifest
    stored.revision.verify()
    if generation < 0:
        raise RevisionError(f"its manifest's warmstart.generation = {generation!r} is not a number of warm starts")
    scaler, signal, spread = read_signal(stored.read, len(terms.features), len(terms.classes))
    _check_graph(stored, scaler, signal)
    return Parent(stored.name, terms, scaler, signal, stored.lineage.named(stored.name), generation, spread)


def _check_graph(stored: Stored, scaler: Scaler, signal: FittedEnsemble) -> None:
    """The native files must say what the revision's own graph says on its golden rows."""
    x = read_npz(stored.read(stored.golden_file))["signal_x"]
    served = predict_onnx(stored.read("signal.onnx"), x)["model_probabilities"]
    off = np.abs(signal.model_probabilities(scaler.transform(x)).reshape(len(x), -1) - served).max()
    if not off <= TOLERANCE:
        raise RevisionError(f"its native files differ from its own graph by {off:.2g} (allowed: {TOLERANCE:g})")
