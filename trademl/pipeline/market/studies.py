"""Studies of a market: what they are bound to, how they run, and how they end. The trials are in `studies/<role>.journal` of the store."""

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from trademl import __version__
from trademl.clock import iso_z, utc_now
from trademl.errors import StageError, choose
from trademl.files import jsonable
from trademl.learn.ensemble import MODELS
from trademl.learn.space import SPACE, space_of, values_of
from trademl.learn.studies import Best, Search, complete_trials, courses, importances, open_search, run_trials, set_aside
from trademl.market.tuning import FOREST_SHARE, Role, TuneTask, Verdict, judge_best, position_task, score_model, signal_task
from trademl.pipeline.market.adoption import digest_of, settings_hash, with_tuned
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.tuned import write_tuned
from trademl.report import study_course, study_importance
from trademl.settings import Ensemble, Settings
from trademl.validate.lineage import Lineage
from trademl.validate.metrics import log_loss


def journal_of(models_dir: str | Path, role: Role) -> Path:
    """Where a role's trials are kept."""
    return Path(models_dir) / "studies" / f"{Role(role)}.journal"


@dataclass(frozen=True)
class Study:
    """A search that is open, and everything that its verdict needs."""

    role: Role
    task: TuneTask
    case: Case
    search: Search
    options: Mapping[str, object]  # what `open_search` was called with: a second process opens the same

    @property
    def params(self) -> Ensemble:
        """The settings' own: what is searched around."""
        return self.settings.ensemble

    @property
    def settings(self) -> Settings:
        """The settings of the case."""
        return self.case.settings

    def __repr__(self):
        return f"{self.role} study in {self.search.path.parent.name}/{self.search.path.name}"


def open_study(case: Case, role: str, *, fresh: bool = False) -> Study:
    """Open or continue the role's study on this case. `fresh` sets its journal aside first."""
    role, settings = choose(Role, role, "role"), case.settings
    recipe = with_tuned(case).recipe
    make = signal_task if role is Role.SIGNAL else position_task
    base = recipe if role is Role.POSITION else replace(recipe, ensemble=settings.ensemble)
    task = make(case.rows, case.windows, base, tail_share=settings.tuning.tail_share)
    path = journal_of(case.choice.models_dir, role)
    if fresh:
        set_aside(path)
    options = {
        "spaces": {model: space_of(model, settings.ensemble) for model in MODELS},
        "shipped": {model: values_of(model, settings.ensemble) for model in MODELS},
        "binding": binding_of(case, task),
        "role": str(role),
        "trials": settings.tuning.trials,
        "seed": settings.run.seed,
        "prune_after": settings.tuning.prune_after,
    }
    return Study(role, task, case, open_search(path, **options), options)


def binding_of(case: Case, task: TuneTask) -> dict[str, str]:
    """What two processes must agree on to add to one study; the names stand in the refusal."""
    return {
        "line": case.choice.line,
        "bars": case.inputs.bars_sha256,
        "calendar": case.inputs.news_sha256 or "none",
        "label spec": case.rows.spec.hash,
        "features": case.feature_hash,
        "tune window": str(case.windows.span("tune")),
        "settings of [ensemble] and [position]": settings_hash(case.settings),
        "search space": digest_of(jsonable(SPACE)),
        "seed": str(case.settings.run.seed),
        "rows": task.sha256,
    }


@dataclass(frozen=True)
class Scorer:
    """Log loss of a model's trial on the tune window. It travels to other processes."""

    task: TuneTask
    params: Ensemble
    seed: int
    threads: int

    def __call__(self, model: str, values: Mapping, look: Callable) -> tuple[float, object]:
        """(log loss, rounds) of a model under these values; `look` watches it and may give it up."""
        options = {"seed": self.seed, "threads": self.threads, "look": look, "forest_share": FOREST_SHARE}
        scored = score_model(self.task, model, replace(self.params, **values), **options)
        return log_loss(scored.probabilities, self.task.judged[1], self.task.judged[2]), scored.rounds


def run_study(study: Study, progress: Callable = lambda done, total, note: None) -> None:
    """Run the trials that are missing, here and in `tuning.workers` - 1 further processes. `progress(done, total, best so far)`."""
    settings = study.settings
    workers = max(1, settings.tuning.workers)
    threads = settings.run.threads or max(1, (os.cpu_count() or 1) // workers)
    scorer = Scorer(study.task, study.params, settings.run.seed, threads)
    spawn = multiprocessing.get_context("spawn").Process
    shared = (study.search.path, dict(study.options), scorer, os.getpid())
    others = [spawn(target=_work, args=shared, daemon=True) for _ in range(workers - 1)]

    def report_best(best: Best) -> None:
        progress(best.done, best.total, str(best))

    try:
        for other in others:
            other.start()
        run_trials(study.search, scorer, report_best)
        for other in others:
            other.join()
    finally:
        for other in others:
            if other.is_alive():
                other.terminate()
    if broken := [other.exitcode for other in others if other.exitcode]:
        raise StageError(f"{len(broken)} of {workers} workers ended with exit code {broken[0]}; kernel.log holds their last words")


def _work(path: Path, options: Mapping, scorer: Scorer, parent: int) -> None:
    """A further process: adds trials until none is missing, or its parent is gone."""
    run_trials(open_search(path, **options), scorer, is_wanted=lambda: os.getppid() == parent)


def conclude(study: Study) -> tuple[Verdict, dict]:
    """Compare the best settings with the shipped ones, and write the verdict where the next retrain reads it."""
    settings = study.settings
    best = {model: values for model, (_, values) in study.search.best().items()}
    options = {"draws": settings.backtest.bootstrap_draws, "level": settings.tuning.level}
    trials, common = complete_trials(study.search), {"seed": settings.run.seed, "threads": settings.run.threads}
    verdict = judge_best(study.task, study.params, best, trials, **common, **options)
    return verdict, write_tuned(study.case.choice.models_dir, study.role, _section(study, verdict))


def _section(study: Study, verdict: Verdict) -> dict:
    """The role's section of `tuned.json`."""
    case, tune = study.case, study.case.windows.span("tune")
    return {
        "adopted": verdict.adopted,
        "why": verdict.sentence(study.role),
        "values": dict(verdict.values),
        "shipped": {name: value for model in MODELS for name, value in values_of(model, study.params).items()},
        "log_loss": {"best": verdict.value, "shipped": verdict.shipped_value, "prior": verdict.prior_value},
        "gain": asdict(verdict.gain),
        "rounds": dict(verdict.rounds),
        "trials": study.search.counts(),
        "line": case.choice.line,
        "label_spec": case.rows.spec.hash,
        "feature_hash": case.feature_hash,
        "settings_hash": settings_hash(case.settings),
        "data": {"sha256": case.inputs.bars_sha256, "news_sha256": case.inputs.news_sha256, "source": case.choice.source},
        "tune_window": {"start_s": tune.start_s, "end_s": tune.end_s},
        "lineage": json.loads(Lineage((study.task.study,)).to_json()),
        "journal": f"studies/{study.search.path.name}",
        "seed": case.settings.run.seed,
        "at": iso_z(utc_now()),
        "trademl_version": __version__,
    }


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
