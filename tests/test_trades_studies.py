"""What is searched before anything is judged: windows apart, a guard, a log of its own, and the same input vector afterwards."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small_trades import train

from trademl.errors import UsageError
from trademl.learn.studies import Course
from trademl.pipeline import trades as pipeline
from trademl.pipeline.trades.looks import recipe_parts
from trademl.pipeline.trades.revision import lineage_of
from trademl.pipeline.trades.studies import last_tuning, studies_record
from trademl.trades.models import ENOUGH, TreeParams
from trademl.trades.registry import TradeModel
from trademl.trades.tuning import search_loss, study_windows
from trademl.trades.walkforward import Recipe, folds_of, judge_model, ship_model
from trademl.validate.bootstrap import Interval
from trademl.validate.lineage import FitKind

pytestmark = pytest.mark.trades
MODELS = (TradeModel.SIGNAL_QUALITY, TradeModel.POSITION_SIZING)
OTHERS = {TradeModel.TP_OPTIMIZER: "too few targets", TradeModel.SL_OPTIMIZER: "too few winners"}


def asked(case, **flags):
    """The case under other flags."""
    return replace(case, inputs=replace(case.inputs, flags=replace(case.inputs.flags, **flags)))


def test_trials_without_a_search_are_refused():
    with pytest.raises(UsageError, match="--optuna-trials without --tune-hyperparams"):
        pipeline.TradeFlags("log.jsonl", optuna_trials=20)
    with pytest.raises(UsageError, match="at least 2"):
        pipeline.TradeFlags("log.jsonl", tune_hyperparams=True, optuna_trials=1)
    assert pipeline.TradeFlags("log.jsonl", tune_hyperparams=True).trials == 50


def test_below_three_hundred_trades_nothing_is_searched(small_trades):
    assert len(small_trades.case.rows) < ENOUGH
    case = pipeline.with_studies(
        asked(small_trades.case, tune_hyperparams=True, select_features=True), lambda *said: pytest.fail("searched")
    )
    assert case.recipe == small_trades.case.recipe
    assert "300 are needed: the defaults stay" in studies_record(case)["reason"]
    assert not list((small_trades.store).glob("studies/*"))


def test_nothing_is_searched_unless_it_is_asked_for(small_trades):
    assert pipeline.with_studies(small_trades.case) is small_trades.case
    assert "studies" not in json.loads((small_trades.folder / "out" / "improvement_report.json").read_text())
    assert json.loads((small_trades.folder / "out" / "training_metadata.json").read_text())["last_tuning"] is None


def test_a_study_never_sees_what_is_judged(small_trades):
    rows = small_trades.case.rows
    windows = study_windows(rows, Recipe())
    first = folds_of(rows, 5)[windows.judged_from]
    assert rows.end_s[windows.search].max() <= rows.time_s[windows.guard].min()
    assert rows.end_s[windows.seen].max() <= first.start_s
    assert not np.intersect1d(windows.search, windows.guard).size
    assert {*first.fit_rows} >= {*windows.seen}  # the judged model may learn from what the study saw


def test_a_feature_that_is_not_kept_is_never_split_on(small_trades):
    rows, model = small_trades.case.rows, TradeModel.SIGNAL_QUALITY
    names = [feature.name for feature in rows.features(model)]
    fit = ship_model(rows, model, Recipe(kept={model: ("signal_strength", "market_volumeRatio")}))
    assert {names[int(used[1:])] for used in fit.booster.get_score()} == {"signal_strength", "market_volumeRatio"}
    assert fit.booster.num_features() == len(names)  # the vector that a bot sends stays whole


def test_a_recipe_that_a_study_chose_is_another_recipe_judged_behind_it(small_trades):
    case, model = small_trades.case, TradeModel.SIGNAL_QUALITY
    chosen = replace(case, recipe=replace(case.recipe, params={model: TreeParams(max_depth=3)}))
    fewer = replace(case, recipe=replace(case.recipe, kept={model: ("signal_strength",)}))
    assert len({json.dumps(recipe_parts(one)) for one in (case, chosen, fewer)}) == 3  # each a look of its own
    assert "kept" not in recipe_parts(case)  # what was judged before this could be searched keeps its id
    judged = judge_model(case.rows, model, replace(case.recipe, judged_from=2))
    assert judged.at.min() >= folds_of(case.rows, 5)[2].test_rows[0]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A small log whose parameters and features were searched, before and after; the guard is told what to find."""
    run = train(tmp_path_factory.mktemp("searched"), records=640)
    case = asked(run.case, tune_hyperparams=True, optuna_trials=3, select_features=True)
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trademl.pipeline.trades.studies.obstacles", lambda case, windows: OTHERS)
        patch.setattr("trademl.pipeline.trades.studies.guard_gain", guard_of(0.1))
        used = pipeline.with_studies(case, lambda *said: told.append(said))
        patch.setattr("trademl.pipeline.trades.studies.guard_gain", guard_of(-0.1))
        unused = pipeline.with_studies(case, lambda *said: told.append(said))
    return run, used, unused, told


def guard_of(low: float):
    """A guard that finds an interval from `low` on."""
    return lambda *args, **options: Interval(low, low + 1, low + 0.5, 100, 1_000, "told")


@pytest.mark.slow
def test_what_passes_the_guard_is_used_and_recorded(searched):
    """Part 7, defect 3: a search crashed all four fits."""
    run, used, _, told = searched
    record = studies_record(used)
    assert record["status"] == "searched"
    assert used.recipe.judged_from == 2
    for model in MODELS:
        found = record["hyperparameters"][model]
        assert (found["status"], found["trials"]) == ("used", 2)
        assert used.recipe.params[model] == replace(run.case.recipe.grown(model, len(run.case.rows)), **found["values"])
        assert found["loss"] <= found["default_loss"]
        windows = study_windows(run.case.rows, run.case.recipe)
        assert found["default_loss"] == search_loss(run.case.rows, model, run.case.recipe, windows, run.case.machine())
    assert told[-1][0] == told[-1][1] == 3
    assert last_tuning(used, "2026-01-02T00:00:00Z") == {"at": "2026-01-02T00:00:00Z", "trades": len(run.case.rows)}
    assert record["failed"]["tp_optimizer"] == {"status": "failed", "reason": "too few targets"}
    lineage = lineage_of(replace(run.parts, case=used))
    (study,) = [fit for fit in lineage.fits if fit.kind is FitKind.STUDY]
    assert study.label_end_s <= folds_of(used.rows, 5)[2].start_s


@pytest.mark.slow
def test_what_does_not_pass_leaves_everything_as_it_was(searched):
    run, _, unused, _ = searched
    assert unused.recipe == run.case.recipe
    assert recipe_parts(unused) == recipe_parts(run.case)  # not even another look
    assert {one["status"] for one in studies_record(unused)["hyperparameters"].values()} == {"defaults"}
    assert {one["status"] for one in studies_record(unused)["features"].values()} == {"all"}


@pytest.mark.slow
def test_a_search_that_was_finished_is_not_searched_again(searched, monkeypatch):
    run, used, *_ = searched
    monkeypatch.setattr("trademl.pipeline.trades.studies.obstacles", lambda case, windows: OTHERS)
    monkeypatch.setattr("trademl.pipeline.trades.studies.guard_gain", guard_of(0.1))
    scored = []
    monkeypatch.setattr("trademl.pipeline.trades.studies.search_loss", lambda *args: scored.append(args) or 0.5)
    case = asked(run.case, tune_hyperparams=True, optuna_trials=3)
    again = pipeline.with_studies(case)
    assert again.recipe.params == used.recipe.params
    assert again.studies.tuned == used.studies.tuned
    assert not scored
    missing = dict.fromkeys(MODELS, Course((), (), shipped=None))  # a run that was stopped in its first trial
    monkeypatch.setattr("trademl.learn.studies.courses", lambda search: missing)
    assert {found.default_loss for found in pipeline.with_studies(case).studies.tuned.values()} == {0.5}
    assert len(scored) == len(MODELS)
    assert len(list(run.store.glob("studies/*.journal"))) == 1
