"""Studies of a market: what they are bound to, how they run, and where a retrain finds what they chose.

A store's `studies/<role>.journal` holds the trials, its `tuned.json` the verdicts, one section per role.
"""

import hashlib
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
from filelock import FileLock

from trademl import __version__
from trademl.clock import iso_z, utc_now
from trademl.errors import BadDataError, LeakageError, RevisionError, StageError, UsageError
from trademl.learn.ensemble import MODELS
from trademl.learn.space import SPACE, space_of, values_of
from trademl.learn.studies import Best, Search, courses, importances, open_search, run_trials, set_aside
from trademl.market.features import feature_hash
from trademl.market.recipe import MarketRows, Recipe, windows_of
from trademl.market.tuning import FOREST_SHARE, Role, TuneTask, Verdict, judge_best, position_task, score_model, signal_task
from trademl.pipeline.market.choice import recipe_of
from trademl.pipeline.market.inputs import Inputs
from trademl.report import study_course, study_importance
from trademl.runs import jsonable, write_json
from trademl.settings import Ensemble, Settings
from trademl.validate.lineage import Lineage
from trademl.validate.metrics import log_loss
from trademl.validate.splits import Windows

SCHEMA = 1
TUNED = "tuned.json"


def journal_of(models_dir: str | Path, role: Role) -> Path:
    """Where a role's trials are kept."""
    return Path(models_dir) / "studies" / f"{Role(role)}.journal"


def tuned_file(models_dir: str | Path) -> Path:
    """Where the verdicts are, for the next retrain."""
    return Path(models_dir) / TUNED


# ---------------------------------------------------------------- a study


@dataclass(frozen=True)
class Study:
    """A search that is open, and everything that its verdict needs."""

    role: Role
    task: TuneTask
    params: Ensemble  # the settings' own: what is searched around
    settings: Settings
    inputs: Inputs
    spec_hash: str
    windows: Windows
    search: Search
    options: Mapping[str, object]  # what `open_search` was called with: a second process opens the same

    def __repr__(self):
        return f"{self.role} study in {self.search.path.parent.name}/{self.search.path.name}"


def open_study(inputs: Inputs, rows: MarketRows, settings: Settings, role: str, *, fresh: bool = False) -> Study:
    """Open or continue the role's study on these rows. `fresh` sets its journal aside first."""
    role, windows = _role(role), windows_of(rows, settings.windows)
    recipe, _ = with_tuned(recipe_of(settings), inputs, rows, windows, settings)
    make = signal_task if role is Role.SIGNAL else position_task
    base = recipe if role is Role.POSITION else replace(recipe, ensemble=settings.ensemble)
    task = make(rows, windows, base, tail_share=settings.tuning.tail_share)
    path = journal_of(inputs.choice.models_dir, role)
    if fresh:
        set_aside(path)
    options = {
        "spaces": {model: space_of(model, settings.ensemble) for model in MODELS},
        "shipped": {model: values_of(model, settings.ensemble) for model in MODELS},
        "binding": binding_of(inputs, rows, windows, task, settings),
        "role": str(role),
        "trials": settings.tuning.trials,
        "seed": settings.run.seed,
        "prune_after": settings.tuning.prune_after,
    }
    search = open_search(path, **options)
    return Study(role, task, settings.ensemble, settings, inputs, rows.spec.hash, windows, search, options)


def _role(role: str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise UsageError(f"role {role!r} is not one of {', '.join(Role)}") from None


def binding_of(inputs: Inputs, rows: MarketRows, windows: Windows, task: TuneTask, settings: Settings) -> dict[str, str]:
    """What two processes must agree on to add to one study; the names stand in the refusal."""
    return {
        "line": inputs.choice.line,
        "bars": inputs.bars_sha256,
        "calendar": inputs.news_sha256 or "none",
        "label spec": rows.spec.hash,
        "features": feature_hash(round_step=settings.symbol(inputs.choice.symbol).round_step),
        "tune window": str(windows.span("tune")),
        "settings of [ensemble] and [position]": settings_hash(settings),
        "search space": _digest(jsonable(SPACE)),
        "seed": str(settings.run.seed),
        "rows": task.sha256,
    }


def settings_hash(settings: Settings) -> str:
    """Hash of what a study takes from the settings besides windows and labels."""
    return _digest({"ensemble": asdict(settings.ensemble), "position": asdict(settings.position), "tail": settings.tuning.tail_share})


def _digest(record) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def run_study(study: Study, progress: Callable = lambda done, total, note: None) -> None:
    """Run the trials that are missing, here and in `tuning.workers` - 1 further processes. `progress(done, total, best so far)`."""
    workers = max(1, study.settings.tuning.workers)
    threads = study.settings.run.threads or max(1, (os.cpu_count() or 1) // workers)
    given = (study.task, study.params, study.search.path, dict(study.options), study.settings.run.seed, threads)
    spawn = multiprocessing.get_context("spawn").Process
    others = [spawn(target=_work, args=(*given, os.getpid()), daemon=True) for _ in range(workers - 1)]

    def told(best: Best) -> None:
        progress(best.done, best.total, str(best))

    try:
        for other in others:
            other.start()
        run_trials(study.search, _scorer(study.task, study.params, study.settings.run.seed, threads), told)
        for other in others:
            other.join()
    finally:
        for other in others:
            if other.is_alive():
                other.terminate()
    if broken := [other.exitcode for other in others if other.exitcode]:
        raise StageError(f"{len(broken)} of {workers} workers ended with exit code {broken[0]}; kernel.log holds their last words")


def _work(task, params, path, options, seed, threads, parent: int) -> None:
    """A further process: adds trials until none is missing, or its parent is gone."""
    run_trials(open_search(path, **options), _scorer(task, params, seed, threads), is_wanted=lambda: os.getppid() == parent)


def _scorer(task: TuneTask, params: Ensemble, seed: int, threads: int) -> Callable:
    def score(model, values, look):
        options = {"seed": seed, "threads": threads, "look": look, "forest_share": FOREST_SHARE}
        scored = score_model(task, model, replace(params, **values), **options)
        return log_loss(scored.probabilities, task.judged[1], task.judged[2]), scored.rounds

    return score


def conclude(study: Study) -> tuple[Verdict, dict]:
    """Compare the best settings with the shipped ones, and write the verdict where the next retrain reads it."""
    settings = study.settings
    best = {model: values for model, (_, values) in study.search.best().items()}
    options = {"draws": settings.backtest.bootstrap_draws, "level": settings.tuning.level}
    verdict = judge_best(study.task, study.params, best, seed=settings.run.seed, threads=settings.run.threads, **options)
    choice, tune = study.inputs.choice, study.windows.span("tune")
    section = {
        "adopted": verdict.adopted,
        "why": verdict.sentence(study.role),
        "values": dict(verdict.values),
        "shipped": {name: value for model in MODELS for name, value in values_of(model, study.params).items()},
        "log_loss": {"best": verdict.value, "shipped": verdict.shipped_value, "prior": verdict.prior_value},
        "gain": asdict(verdict.gain),
        "rounds": dict(verdict.rounds),
        "trials": study.search.counts(),
        "line": choice.line,
        "label_spec": study.spec_hash,
        "feature_hash": study.options["binding"]["features"],
        "settings_hash": settings_hash(settings),
        "data": {"sha256": study.inputs.bars_sha256, "news_sha256": study.inputs.news_sha256, "source": choice.source},
        "tune_window": {"start_s": tune.start_s, "end_s": tune.end_s},
        "lineage": json.loads(Lineage((study.task.study,)).to_json()),
        "journal": f"studies/{study.search.path.name}",
        "seed": settings.run.seed,
        "at": iso_z(utc_now()),
        "trademl_version": __version__,
    }
    return verdict, write_tuned(choice.models_dir, study.role, section)


def course_picture(study: Study):
    """Every trial of each model, the best so far, and the settings' own values."""
    return study_course({model: (c.number, c.loss, c.shipped) for model, c in courses(study.search).items()})


def importance_picture(study: Study):
    """Which settings mattered; a sentence when there are too few trials to tell."""
    shares, counts = importances(study.search), study.search.counts()
    if not shares:
        return f"{counts['complete']} complete trials: too few to say which settings mattered"
    return study_importance(shares, n=counts["complete"])


def settings_table(section: Mapping) -> pd.DataFrame:
    """Each searched setting: its shipped and its best value."""
    found, shipped = section["values"], section["shipped"]
    rows = [(name, f"{shipped[name]:.4g}", f"{found.get(name, shipped[name]):.4g}") for name in shipped]
    return pd.DataFrame(rows, columns=["setting", "settings.ini", "best found"]).set_index("setting")


# ---------------------------------------------------------------- what a retrain reads


def write_tuned(models_dir: str | Path, role: Role, section: Mapping) -> dict:
    """Put a role's verdict into the store's `tuned.json`, the other role's stays; returns the section as written."""
    path = tuned_file(models_dir)
    with FileLock(path.parent / "studies" / "tuned.flock"):
        record = read_tuned(models_dir) | {"schema": SCHEMA, str(role): jsonable(section)}
        write_json(path, record)
    return record[str(role)]


def read_tuned(models_dir: str | Path) -> dict:
    """The store's `tuned.json`; {} when there is none. BadDataError when it cannot be read."""
    path = tuned_file(models_dir)
    try:
        record = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadDataError(f"{path} cannot be read ({error}); {_MEND}") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise BadDataError(f"{path} is not what `trademl tune` of this version writes; {_MEND}")
    for role in Role:
        if record.get(role) is not None and (wrong := _misshapen(record[role])):
            raise BadDataError(f"{path} is not what `trademl tune` of this version writes ({role}.{wrong}); {_MEND}")
    return record


def _misshapen(part) -> str:
    """The first thing that a role's section lacks or holds in another kind; empty when it is whole."""
    if not isinstance(part, dict):
        return f" holds {type(part).__name__}"
    for name, kind in _NEEDED.items():
        if not isinstance(part.get(name), kind):
            return f"{name} = {part.get(name)!r}, expected {kind.__name__}"
    loss = part["log_loss"]
    lacking = [name for name in ("best", "shipped") if not _is_number(loss.get(name))]
    return f"log_loss.{lacking[0]} = {loss.get(lacking[0])!r}, expected a number" if lacking else ""


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_MEND = (
    "delete it: a retrain then takes the settings' own parameters, and `trademl tune signal` and `trademl tune position` write it anew "
    "from the trials that they have"
)
_NEEDED = {"adopted": bool, "why": str, "values": dict, "line": str, "label_spec": str, "feature_hash": str} | {
    "settings_hash": str, "lineage": list, "at": str, "log_loss": dict, "data": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Tuned:
    """What a retrain made of the store's studies: per role whether it is used, and why."""

    used: Mapping[str, bool]
    why: Mapping[str, str]
    sections: Mapping[str, Mapping]

    @property
    def sentence(self) -> str:
        """One line for the output."""
        return "; ".join(f"{role}: {self.why[role]}" for role in self.why)

    def record(self) -> dict:
        """For the manifest's key `tuning`."""
        kept = ("values", "log_loss", "gain", "trials", "data", "tune_window", "lineage", "seed", "at")
        return {
            role: {"used": self.used[role], "why": self.why[role]}
            | ({"study": {key: self.sections[role].get(key) for key in kept}} if role in self.sections else {})
            for role in self.why
        }


def with_tuned(recipe: Recipe, inputs: Inputs, rows: MarketRows, windows: Windows, settings: Settings) -> tuple[Recipe, Tuned]:
    """The recipe under the parameters that studies of this line chose, where they may be used, and what was made of each study.

    A used study becomes an ancestor of every fit of the recipe. A study that has seen what this run judges on is not used.
    """
    sections = {str(role): part for role in Role if (part := read_tuned(inputs.choice.models_dir).get(role)) is not None}
    used, why, fits = {}, {}, []
    for role in Role:
        notes, reason = _usable(sections.get(role), inputs, rows, windows, settings)
        used[str(role)], why[str(role)] = not reason, reason
        if reason:
            continue
        part = sections[role]
        losses = part["log_loss"]
        why[str(role)] = (
            f"parameters of the study of {part['at'][:10]} (log loss on its tune window {losses['best']:.5f}, "
            f"settings.ini {losses['shipped']:.5f})"
        )
        fits += notes.fits
        params = replace(settings.ensemble, **part["values"])
        recipe = replace(recipe, ensemble=params) if role is Role.SIGNAL else replace(recipe, position_ensemble=params)
    if used[Role.SIGNAL] and not used[Role.POSITION]:
        recipe = replace(recipe, position_ensemble=settings.ensemble)
    return replace(recipe, studies=tuple(fits)), Tuned(used, why, sections)


def _usable(part, inputs, rows, windows, settings) -> tuple[Lineage, str]:
    """The study's lineage, and why it cannot be used here (empty when it can)."""
    own, none = "settings.ini's parameters", Lineage()
    if part is None:
        return none, f"{own}, no study has been made"
    if not settings.tuning.use:
        return none, f"{own}, tuning.use is off"
    if not part["adopted"]:
        return none, f"{own}, the study of {part['at'][:10]} found nothing better beyond noise"
    asked = {
        "line": (part["line"], inputs.choice.line),
        "label spec": (part["label_spec"], rows.spec.hash),
        "feature hash": (part["feature_hash"], feature_hash(round_step=settings.symbol(inputs.choice.symbol).round_step)),
        "[ensemble] or [position] settings": (part["settings_hash"], settings_hash(settings)),
    }
    other = [name for name, (there, here) in asked.items() if there != here]
    if other:
        return none, f"{own}, the study of {part['at'][:10]} was made under another {' and '.join(other)}; tune again"
    dims = {dim.name: dim for model in SPACE for dim in space_of(model, settings.ensemble)}
    unknown = sorted(set(part["values"]) - set(dims))
    if unknown:
        return none, f"{own}, the study chose {', '.join(unknown)}, which this version does not search; tune again"
    for name, value in part["values"].items():
        dim = dims[name]
        if not _is_number(value) or not dim.low <= value <= dim.high or (dim.is_whole and not isinstance(value, int)):
            kind = "a whole number" if dim.is_whole else "a number"
            return none, f"{own}, the study chose {name} = {value!r}, not {kind} from {dim.low:g} to {dim.high:g}; tune again"
    try:
        notes = Lineage.from_json(json.dumps(part["lineage"]))
        notes.check(windows.span("select").start_s, windows.embargo_s)
    except (LeakageError, RevisionError) as refusal:
        return none, f"{own}, the study has seen what this run chooses and judges on: {refusal}"
    return notes, ""
