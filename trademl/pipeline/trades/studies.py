"""Parameters and features that are searched on a log's first half, before the rest of it is judged."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from trademl import __version__
from trademl.errors import BadDataError
from trademl.files import canonical_json, digest, jsonable
from trademl.pipeline.trades.case import Studies, TradeCase
from trademl.pipeline.trades.looks import recipe_parts
from trademl.pipeline.trades.stored import newest_tuning, trade_store
from trademl.trades.registry import TradeModel
from trademl.trades.selection import Selected, chosen_features, eliminate
from trademl.trades.tuning import (
    StudyWindows,
    Tuned,
    guard_gain,
    search_loss,
    searched_values,
    space_around,
    study_windows,
    too_few_to_search,
    usable_folds,
)
from trademl.trades.walkforward import Recipe

if TYPE_CHECKING:
    from trademl.learn.studies import Search

Tell = Callable[[float, float, str], None]  # done, total, what is best so far


def with_studies(case: TradeCase, tell: Tell = lambda done, total, note: None) -> TradeCase:
    """The case under what its flags ask to search for, where that beats the defaults on later trades by more than noise.

    Blocks that a study has seen are then not judged. Where the defaults stay, the case is judged as if nothing had been searched.
    """
    flags, trades = case.inputs.flags, case.recipe.teaching(case.rows)
    if not (flags.tune_hyperparams or flags.select_features):
        return case
    if off := too_few_to_search(trades):
        return replace(case, studies=Studies(off=off))
    windows = study_windows(case.rows, case.recipe)
    recipe, failed = case.recipe, obstacles(case, windows)
    models = [model for model in TradeModel if model not in failed]
    tuned = tune_models(case, windows, models, tell) if flags.tune_hyperparams else {}
    for model, found in tuned.items():
        recipe = changed(recipe, model, found.values, trades) if found.is_used else recipe
    selected = {model: select_features(case, recipe, model, windows) for model in models} if flags.select_features else {}
    kept = {model: found.kept for model, found in selected.items() if found.is_used}
    studies = Studies("", tuned, selected, failed, windows.seen)
    recipe = replace(recipe, kept=kept, judged_from=windows.judged_from if studies.is_used else 0)
    return replace(case, recipe=recipe, studies=studies)


def obstacles(case: TradeCase, windows: StudyWindows) -> dict[TradeModel, str]:
    """The models that nothing can be searched for, and why."""
    found = {}
    for model in TradeModel:
        try:
            usable_folds(case.rows, model, case.recipe, windows)
        except BadDataError as refusal:
            found[model] = str(refusal)
    return found


# ---------------------------------------------------------------- parameters


def changed(recipe: Recipe, model: TradeModel, values: Mapping[str, float], trades: int) -> Recipe:
    """The recipe with other values of what is searched for a model."""
    return replace(recipe, params={**recipe.params, model: replace(recipe.grown(model, trades), **values)})


def tune_models(case: TradeCase, windows: StudyWindows, models: list[TradeModel], tell: Tell) -> dict[TradeModel, Tuned]:
    """A study of each model. Its trials are in `<store>/studies`: a run that was killed goes on where it was."""
    from trademl.learn.studies import Best, complete_trials, courses, run_trials  # optuna: only where something is searched for

    rows, recipe, machine, trades = case.rows, case.recipe, case.machine(), case.recipe.teaching(case.rows)

    def score(model: str, values: Mapping[str, float], look: Callable) -> tuple[float, None]:
        model = TradeModel(model)
        return search_loss(rows, model, changed(recipe, model, values, trades), windows, machine, look), None

    def report_best(best: Best) -> None:
        tell(best.done, best.total, str(best).replace("log loss", "loss"))

    search = open_trials(case, models)
    run_trials(search, score, report_best)
    best, counted, ran = search.best(), complete_trials(search), courses(search)
    found = {}
    for model in models:
        loss, values = best[model]
        pair = recipe, changed(recipe, model, values, trades)
        gain = guard_gain(rows, model, pair, windows, level=case.settings.tuning.level, machine=machine)
        default = ran[model].shipped
        if default is None:  # a run that was stopped in its first trial, and went on with the others
            default = search_loss(rows, model, recipe, windows, machine)
        found[model] = Tuned(values, loss, default, gain, counted[model])
    return found


def open_trials(case: TradeCase, models: list[TradeModel]) -> "Search":
    """The trials of this log, recipe and number of trials; another one has a journal of its own."""
    from trademl.learn.studies import open_search

    settings, trials = case.settings, case.inputs.flags.trials
    defaults = {model: case.recipe.grown(model, case.recipe.teaching(case.rows)) for model in models}
    spaces = {str(model): space_around(model, defaults[model]) for model in models}
    binding = {
        "records": case.inputs.report.source.sha256,
        "excursion unit": str(case.rows.unit),
        "recipe": digest(canonical_json(recipe_parts(case))),
        "search space": digest(canonical_json(jsonable(spaces))),
        "trials": str(trials),
        "seed": str(case.recipe.seed),
        "version": __version__,
    }
    folder = trade_store(settings, case.inputs.flags.models_dir).models_dir / "studies"
    shipped = {str(model): searched_values(spaces[model], defaults[model]) for model in models}
    options = {"role": "trades", "trials": trials, "seed": case.recipe.seed, "prune_after": settings.tuning.prune_after}
    return open_search(folder / f"trades-{digest(canonical_json(binding))[:16]}.journal", spaces, shipped, binding, **options)


# ---------------------------------------------------------------- features


def select_features(case: TradeCase, recipe: Recipe, model: TradeModel, windows: StudyWindows) -> Selected:
    """Recursive elimination for one model, under the parameters that it is grown by."""
    rows, machine = case.rows, case.machine()
    steps = eliminate(rows, model, recipe, windows, machine)
    best, kept = chosen_features(steps, [feature.name for feature in rows.features(model)])
    pair = recipe, replace(recipe, kept={model: kept})
    return Selected(kept, steps, best, guard_gain(rows, model, pair, windows, level=case.settings.tuning.level, machine=machine))


# ---------------------------------------------------------------- records


def studies_record(case: TradeCase) -> dict:
    """What was searched, for the report and the command's summary; {} where nothing was asked for."""
    studies = case.studies
    if studies is None:
        return {}
    if studies.off:
        return {"status": "off", "reason": studies.off}
    record = {"status": "searched", "judged_from_block": case.recipe.judged_from + 1, "trades_seen": len(studies.seen)}
    record["failed"] = {str(model): {"status": "failed", "reason": why} for model, why in studies.failed.items()}
    if studies.tuned:
        record["hyperparameters"] = {str(model): _tuned_record(found) for model, found in studies.tuned.items()}
    if studies.selected:
        record["features"] = {str(model): _selected_record(found) for model, found in studies.selected.items()}
    return record


def _tuned_record(found: Tuned) -> dict:
    plain = {"loss": found.loss, "default_loss": found.default_loss, "gain": asdict(found.gain), "trials": found.trials}
    return {"status": "used" if found.is_used else "defaults", "reason": found.sentence, "values": dict(found.values), **plain}


def _selected_record(found: Selected) -> dict:
    steps = [{"features": step.count, "loss": step.loss, "overlap": step.overlap} for step in found.steps]
    plain = {"kept": list(found.kept), "votes": found.best.votes(), "overlap": found.best.overlap, "gain": asdict(found.gain)}
    return {"status": "used" if found.is_used else "all", "reason": found.sentence, **plain, "steps": steps}


def last_tuning(case: TradeCase, trained_at: str) -> dict | None:
    """When parameters were last searched for this line, and on how many trades: now, or as the stored revisions say."""
    if case.studies is not None and case.studies.tuned:
        return {"at": trained_at, "trades": len(case.rows)}
    return newest_tuning(trade_store(case.settings, case.inputs.flags.models_dir).revisions())
