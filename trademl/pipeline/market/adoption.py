"""Whether a retrain takes the parameters that studies of its store chose."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace

from trademl.errors import LeakageError, RevisionError
from trademl.learn.space import SPACE, space_of
from trademl.market.tuning import Role
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.tuned import Tuned, is_number, read_tuned
from trademl.settings import Ensemble, Settings
from trademl.validate.lineage import Lineage

OWN = "settings.ini's parameters"


def with_tuned(case: Case) -> Case:
    """The case under the parameters that studies of this line chose, where they may be used; `tuned` says what was made of each.

    A used study becomes an ancestor of every fit of the recipe. A study that has seen what this run judges on is not used.
    """
    sections = {str(role): part for role in Role if (part := read_tuned(case.choice.models_dir).get(role)) is not None}
    recipe, ensemble = case.recipe, case.settings.ensemble
    used, why, fits = {}, {}, []
    for role in map(str, Role):
        why[role] = _why_not(sections.get(role), case)
        used[role] = not why[role]
        if not used[role]:
            continue
        section = sections[role]
        why[role] = _why(section)
        fits += _lineage(section).fits
        params = replace(ensemble, **section["values"])
        recipe = replace(recipe, ensemble=params) if role == Role.SIGNAL else replace(recipe, position_ensemble=params)
    if used[Role.SIGNAL] and not used[Role.POSITION]:
        recipe = replace(recipe, position_ensemble=ensemble)
    return replace(case, recipe=replace(recipe, studies=tuple(fits)), tuned=Tuned(used, why, sections))


def _lineage(section: Mapping) -> Lineage:
    return Lineage.from_json(json.dumps(section["lineage"]))


def _why(section: Mapping) -> str:
    losses = section["log_loss"]
    return (
        f"parameters of the study of {section['at'][:10]} (log loss on its tune window {losses['best']:.5f}, "
        f"settings.ini {losses['shipped']:.5f})"
    )


def _why_not(section: Mapping | None, case: Case) -> str:
    """Why a study cannot be used here; empty when it can."""
    if section is None:
        return f"{OWN}, no study has been made"
    if not case.settings.tuning.use:
        return f"{OWN}, tuning.use is off"
    made = f"{OWN}, the study of {section['at'][:10]}"
    if not section["adopted"]:
        return f"{made} found nothing better beyond noise, or had too few trials to tell"
    if other := _differences(section, case):
        return f"{made} was made under another {' and '.join(other)}; tune again"
    if unknown := _unsearched(section["values"], case.settings.ensemble):
        return f"{OWN}, the study chose {unknown}; tune again"
    try:
        _lineage(section).check(case.windows.span("select").start_s, case.windows.embargo_s)
    except (LeakageError, RevisionError) as refusal:
        return f"{OWN}, the study has seen what this run chooses and judges on: {refusal}"
    return ""


def _differences(section: Mapping, case: Case) -> list[str]:
    """What a study was made under that is not this case's."""
    asked = {
        "line": (section["line"], case.choice.line),
        "label spec": (section["label_spec"], case.rows.spec.hash),
        "feature hash": (section["feature_hash"], case.feature_hash),
        "[ensemble] or [position] settings": (section["settings_hash"], settings_hash(case.settings)),
    }
    return [name for name, (there, here) in asked.items() if there != here]


def _unsearched(values: Mapping, ensemble: Ensemble) -> str:
    """The first chosen value that this version's search space cannot give; empty when there is none."""
    dims = {dim.name: dim for model in SPACE for dim in space_of(model, ensemble)}
    if unknown := sorted(set(values) - set(dims)):
        return f"{', '.join(unknown)}, which this version does not search"
    for name, value in values.items():
        dim = dims[name]
        if not is_number(value) or not dim.low <= value <= dim.high or (dim.is_whole and not isinstance(value, int)):
            kind = "a whole number" if dim.is_whole else "a number"
            return f"{name} = {value!r}, not {kind} from {dim.low:g} to {dim.high:g}"
    return ""


def settings_hash(settings: Settings) -> str:
    """Hash of what a study takes from the settings besides windows and labels."""
    return digest_of({"ensemble": asdict(settings.ensemble), "position": asdict(settings.position), "tail": settings.tuning.tail_share})


def digest_of(record) -> str:
    """sha256 of a record as JSON, 64 hex."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
