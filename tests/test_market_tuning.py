"""Studies: what they may look at, what they are bound to, and that a killed one loses nothing but what it was busy with."""

import json
import multiprocessing
import re
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
from small_run import retrain

from trademl.errors import BadDataError, UsageError
from trademl.learn.space import SPACE, Dim, space_of, values_of
from trademl.learn.studies import Owner, open_search, run_trials, set_aside
from trademl.market.tuning import Role, judge_best, position_task, score_model, signal_task
from trademl.pipeline import market as pipeline
from trademl.pipeline.market import studies
from trademl.pipeline.market.tuned import read_tuned, tuned_file, write_tuned
from trademl.runs import Progress, read_events
from trademl.settings import load_settings
from trademl.validate.lineage import Fit, FitKind, Lineage

LINE = {"a": (Dim("x", -2, 2),), "b": (Dim("x", 0.1, 10, is_log=True), Dim("k", 1, 5, is_whole=True))}
ZERO = {"a": {"x": 1.5}, "b": {"x": 5.0, "k": 2}}
BINDING = {"bars": "1" * 64, "seed": "3"}


def search_at(path, trials=10, binding=BINDING, **more):
    return open_search(path, LINE, ZERO, binding, role="signal", trials=trials, seed=3, **more)


def parabola(model, values, look):
    return (values["x"] - 0.5) ** 2 + values.get("k", 0), None


def taken(search):
    """Settings of every trial that counts, in order."""
    return {
        model: [t.params for t in study.get_trials() if t.state.name in ("COMPLETE", "PRUNED")] for model, study in search.studies.items()
    }


# --- the journal ------------------------------------------------------------------------------------------------------------


@pytest.mark.fault
class TestJournal:
    def test_a_torn_last_line_is_cut_and_nothing_else_is_lost(self, tmp_path):
        path = tmp_path / "studies" / "signal.journal"
        run_trials(search_at(path, 3), parabola)
        whole = path.read_bytes()
        path.write_bytes(whole + b'{"op_code":4,"worker')
        again = search_at(path, 4)
        assert path.read_bytes() == whole
        run_trials(again, parabola)
        assert again.counts() == {"complete": 8, "pruned": 0, "fail": 0}

    @pytest.mark.parametrize("line", [b"\x00\x00\x00\n", b"[]\n", b'{"op": 1}\n', b"null\n"])
    def test_a_line_that_is_no_event_is_refused_and_the_next_step_is_named(self, tmp_path, line):
        path = tmp_path / "signal.journal"
        run_trials(search_at(path, 2), parabola)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:3], line, *lines[3:]]))
        with pytest.raises(BadDataError, match=r"signal\.journal line 4 .*--fresh"):
            search_at(path)

    @pytest.mark.parametrize("line", [b'{"op_code": 4, "study_id": 77}\n', b'{"op_code": 0}\n', b'{"op_code": "x"}\n'])
    def test_events_that_cannot_be_replayed_are_refused(self, tmp_path, line):
        path = tmp_path / "signal.journal"
        path.write_bytes(line)
        with pytest.raises(BadDataError, match=r"cannot be replayed.*--fresh"):
            search_at(path)

    def test_setting_aside_deletes_nothing(self, tmp_path):
        path = tmp_path / "signal.journal"
        for number in (1, 2):
            path.write_text(str(number))
            assert set_aside(path).read_text() == str(number)
        assert set_aside(path) is None
        assert sorted(p.name for p in tmp_path.iterdir()) == ["signal.journal.1", "signal.journal.2"]

    def test_a_study_of_other_data_is_refused_and_says_what_differs(self, tmp_path):
        path = tmp_path / "signal.journal"
        search_at(path)
        with pytest.raises(UsageError, match=r"bars: 1111111111111111 there, 2222222222222222 here.*--fresh") as refusal:
            search_at(path, binding=BINDING | {"bars": "2" * 64})
        assert "seed" not in str(refusal.value)
        with pytest.raises(UsageError, match="label spec: None there, x here"):
            search_at(path, binding=BINDING | {"label spec": "x"})


# --- the search -------------------------------------------------------------------------------------------------------------


class TestSearch:
    def test_the_settings_own_values_are_tried_first_and_counts_are_exact(self, tmp_path):
        search = search_at(tmp_path / "s.journal", 6)
        run_trials(search, parabola)
        assert {model: trials[0] for model, trials in taken(search).items()} == ZERO
        assert search.standing().done == search.standing().total == 6  # of each of the two, as a person asks for them
        assert search.counts()["complete"] == 12
        assert all(loss <= parabola(m, ZERO[m], None)[0] for m, (loss, _) in search.best().items())

    def test_the_best_so_far_stands_beside_the_progress(self, tmp_path):
        with Progress(tmp_path).stage("trials") as watched:
            run_trials(search_at(tmp_path / "s.journal", 2), parabola, lambda best: watched.update(best.done, best.total, str(best)))
        last = read_events(tmp_path)[-1]
        assert (last["done"], last["total"]) == (2, 2)
        assert last["note"].startswith("best so far: a ")
        assert str(search_at(tmp_path / "new").standing()) == "no trial has ended yet"

    def test_it_is_seeded(self, tmp_path):
        found = []
        for name in ("one", "two"):
            found.append(search_at(tmp_path / name))
            run_trials(found[-1], parabola)
        assert taken(found[0]) == taken(found[1])

    def test_a_resumed_search_proposes_what_an_uninterrupted_one_would_have(self, tmp_path):
        whole = search_at(tmp_path / "whole")
        run_trials(whole, parabola)
        calls = iter(range(100))

        def cut(model, values, look):
            if next(calls) in (5, 11):
                raise KeyboardInterrupt
            return parabola(model, values, look)

        path = tmp_path / "cut"
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run_trials(search_at(path), cut)
        resumed = search_at(path)
        run_trials(resumed, cut)
        assert resumed.counts() == {"complete": 20, "pruned": 0, "fail": 2}
        assert taken(resumed) == taken(whole)

    def test_asking_for_more_trials_goes_on(self, tmp_path):
        path = tmp_path / "s.journal"
        run_trials(search_at(path, 3), parabola)
        more = search_at(path, 5)
        run_trials(more, parabola)
        assert more.counts()["complete"] == 10
        run_trials(search_at(path, 2), parabola)  # fewer: nothing to do, nothing lost
        assert more.counts()["complete"] == 10

    def test_hopeless_trials_are_given_up_and_never_win(self, tmp_path):
        def watched(model, values, look):
            loss = parabola(model, values, look)[0]
            look(1, loss)
            return loss, 7

        search = search_at(tmp_path / "s.journal", 14, prune_after=3)
        run_trials(search, watched)
        counts = search.counts()
        assert counts["pruned"] > 0
        assert counts["complete"] + counts["pruned"] == 28
        for model, (loss, values) in search.best().items():
            assert loss == parabola(model, values, None)[0]

    def test_an_error_fails_its_trial_and_is_raised(self, tmp_path):
        def broken(model, values, look):
            raise ZeroDivisionError

        search = search_at(tmp_path / "s.journal")
        with pytest.raises(ZeroDivisionError):
            run_trials(search, broken)
        assert search.counts() == {"complete": 0, "pruned": 0, "fail": 1}


def work_when_told(path, told):
    """Run the study in another process; each trial is said as it begins and waits for a word, until that word is "all"."""
    word = "one"

    def slowly(model, values, look):
        nonlocal word
        told.send(model)
        if word == "one":
            word = told.recv()
        time.sleep(0.05)
        return parabola(model, values, look)

    run_trials(search_at(path), slowly)


def worker(path):
    """That process, and the end of the pipe at which it is told."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=work_when_told, args=(path, there))
    process.start()
    there.close()
    return process, here


@pytest.mark.fault
class TestSeveralProcesses:
    def test_killed_in_mid_trial_only_that_trial_is_lost_and_it_is_run_again(self, tmp_path):
        whole = search_at(tmp_path / "whole")
        run_trials(whole, parabola)
        path = tmp_path / "killed"
        process, trials = worker(path)
        for _ in range(4):
            trials.recv()
            trials.send("one")
        trials.recv()
        process.kill()
        process.join()
        search = search_at(path)
        assert search.standing().done == 2  # of ten; two models took turns
        run_trials(search, parabola)
        assert search.counts()["complete"] == 20
        assert search.counts()["fail"] <= 1
        assert taken(search) == taken(whole)
        assert not list(tmp_path.glob("*.alive"))

    def test_two_share_a_study_and_wait_for_each_other(self, tmp_path):
        path = tmp_path / "shared"
        other, trials = worker(path)
        trials.recv()
        mine = []

        def slowly(model, values, look):
            if not mine:
                trials.send("all")
            mine.append(model)
            time.sleep(0.05)
            return parabola(model, values, look)

        search = search_at(path)
        run_trials(search, slowly)
        assert search.counts() == {"complete": 20, "pruned": 0, "fail": 0}  # both are through when one returns
        other.join(30)
        assert other.exitcode == 0
        assert 0 < len(mine) < 20
        assert all(len({t.number for t in s.get_trials()}) == 10 for s in search.studies.values())

    def test_a_trial_of_a_living_owner_is_left_alone(self, tmp_path):
        path = tmp_path / "s.journal"
        alive, late = search_at(path), search_at(path)
        with alive.owner.living():
            alive.take()
            assert late.sweep() == 0
        assert late.sweep() == 1
        assert not Owner(path).is_alive(alive.owner.name)

    def test_killed_between_two_trials_its_file_goes_too(self, tmp_path):
        path = tmp_path / "s.journal"
        run_trials(search_at(path, 2), parabola)
        dead = path.with_name("s.journal.0123456789.alive")
        dead.touch()  # what a kill leaves of an owner that was busy with nothing
        run_trials(search_at(path, 2), parabola)
        assert not list(tmp_path.glob("*.alive"))

    def test_an_interrupted_owner_leaves_no_file(self, tmp_path):
        def interrupted(model, values, look):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_trials(search_at(tmp_path / "s.journal"), interrupted)
        assert not list(tmp_path.glob("*.alive"))

    def test_the_file_of_a_living_owner_is_never_removed(self, tmp_path):
        path = tmp_path / "s.journal"
        alive, late = Owner(path), Owner(path)
        with alive.living():
            late.sweep_files()
            assert late.is_alive(alive.name)
            assert len(list(tmp_path.glob("*.alive"))) == 1


# --- the space and the tasks ------------------------------------------------------------------------------------------------

SMALL = {
    "synthetic.bars": 7_000,
    "ensemble.rf_trees": 12,
    "ensemble.xgb_max_rounds": 40,
    "ensemble.lgb_max_rounds": 40,
    "backtest.bootstrap_draws": 200,
    "tuning.trials": 2,
    "run.threads": 1,
}


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return retrain(tmp_path_factory.mktemp("models"), SMALL, until="case").case


@pytest.fixture(scope="module")
def tasks(market):
    rows, windows, recipe = market.rows, market.windows, market.recipe
    return {
        role: make(rows, windows, recipe, tail_share=0.15) for role, make in ((Role.SIGNAL, signal_task), (Role.POSITION, position_task))
    }


def test_every_searched_setting_is_one_of_the_ensemble_and_holds_the_shipped_value():
    shipped = load_settings().ensemble
    for model in SPACE:
        assert values_of(model, shipped).items() <= asdict(shipped).items()
        for dim in space_of(model, shipped):
            assert dim.low < dim.high
            assert dim.low <= getattr(shipped, dim.name) <= dim.high
            assert dim.low > 0 or not dim.is_log


@pytest.mark.leakage
class TestTasks:
    @pytest.mark.parametrize("role", Role)
    def test_it_ends_before_the_select_window(self, market, tasks, role):
        windows = market.windows
        assert tasks[role].study.kind is FitKind.STUDY
        Lineage((tasks[role].study,)).check(windows.span("select").start_s, windows.embargo_s)
        tune = windows.span("tune")
        assert ((tasks[role].judged_time_s >= tune.start_s) & (tasks[role].judged_time_s < tune.end_s)).all()

    @pytest.mark.parametrize("role", Role)
    def test_what_comes_from_select_on_changes_nothing(self, market, tasks, role):
        rows, windows, recipe = market.rows, market.windows, market.recipe
        start = windows.bars("select")[0]
        x, label = rows.x.copy(), rows.labels.label.copy()
        x[start:] = np.random.default_rng(0).permutation(x[start:])
        label[start:] = np.where(label[start:] >= 0, 2 - label[start:], -1)
        bars = rows.bars.copy()
        bars.iloc[start:, :4] *= 1.5
        other = replace(rows, x=x, labels=replace(rows.labels, label=label), bars=bars)
        make = signal_task if role is Role.SIGNAL else position_task
        assert make(other, windows, recipe, tail_share=0.15).sha256 == tasks[role].sha256

    def test_the_tune_window_is_never_learned_from(self, market, tasks):
        """Other labels on tune: the same rows to fit and to stop on."""
        rows, windows, recipe = market.rows, market.windows, market.recipe
        tune = windows.bars("tune")
        label = rows.labels.label.copy()
        label[tune] = np.where(label[tune] >= 0, (label[tune] + 1) % 3, -1)
        other = signal_task(replace(rows, labels=replace(rows.labels, label=label)), windows, recipe, tail_share=0.15)
        for mine, theirs in zip((*tasks[Role.SIGNAL].fit, *tasks[Role.SIGNAL].stop), (*other.fit, *other.stop), strict=True):
            assert (mine == theirs).all()
        assert other.sha256 != tasks[Role.SIGNAL].sha256


def test_a_batch_without_a_class_is_refused(market):
    rows, windows, recipe = market.rows, market.windows, market.recipe
    label = np.where(rows.labels.label == 1, 2, rows.labels.label)
    with pytest.raises(BadDataError, match=r"signal study, the rows to learn from: .* BUY: 0, HOLD"):
        signal_task(replace(rows, labels=replace(rows.labels, label=label)), windows, recipe, tail_share=0.15)


class TestVerdict:
    def test_the_shipped_settings_are_not_better_than_themselves(self, market, tasks):
        params = market.settings.ensemble
        best = {model: values_of(model, params) for model in SPACE}
        verdict = judge_best(tasks[Role.SIGNAL], params, best, dict.fromkeys(best, 20), seed=7, threads=1, draws=200, level=0.95)
        assert not verdict.adopted
        assert verdict.value == verdict.shipped_value
        assert "shipped settings stay" in verdict.sentence("signal")

    @pytest.mark.parametrize("model", SPACE)
    def test_a_score_does_not_depend_on_threads_or_on_being_watched(self, market, tasks, model):
        params, seen = market.settings.ensemble, []
        one = score_model(tasks[Role.POSITION], model, params, seed=7, threads=1, look=lambda *told: seen.append(told))
        two = score_model(tasks[Role.POSITION], model, params, seed=7, threads=2)
        assert (one.probabilities == two.probabilities).all()
        assert seen
        assert one.probabilities.shape == (len(tasks[Role.POSITION].judged.y), 2)


# --- what a retrain reads ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def section(market):
    """What a study of two trials writes, taken as adopted, with one value that stands out."""
    study = studies.open_study(market, "signal")
    studies.run_study(study)
    _, section = studies.conclude(study)
    assert read_tuned(market.choice.models_dir)["signal"] == section
    return section | {"adopted": True, "values": section["values"] | {"xgb_max_depth": 4}}


@pytest.fixture
def verdict(market, section, tmp_path):
    """An adopted signal study in a store of its own: what `with_tuned` takes, and the section."""
    write_tuned(tmp_path, Role.SIGNAL, section)
    return replace(market, inputs=replace(market.inputs, choice=replace(market.choice, models_dir=str(tmp_path)))), section


class TestRetrainReads:
    def test_an_adopted_study_changes_the_recipe_and_becomes_an_ancestor(self, verdict, market):
        case = pipeline.with_tuned(verdict[0])
        recipe, tuned = case.recipe, case.tuned
        assert recipe.ensemble.xgb_max_depth == 4
        assert recipe.ensemble.rf_trees == market.settings.ensemble.rf_trees  # what is not searched stays
        assert recipe.position_ensemble == market.settings.ensemble  # the position model was not tuned
        assert tuned.used == {"signal": True, "position": False}
        assert [fit.kind for fit in recipe.studies] == [FitKind.STUDY]
        record = tuned.record()
        assert record["signal"]["study"]["values"]["xgb_max_depth"] == 4
        assert record["position"]["why"].endswith("no study has been made")
        json.dumps(record)

    def test_the_position_study_tunes_the_position_model_alone(self, verdict, market, tmp_path):
        case, section = verdict
        write_tuned(tmp_path, Role.SIGNAL, section | {"adopted": False})
        write_tuned(tmp_path, Role.POSITION, section)
        case = pipeline.with_tuned(case)
        assert case.recipe.ensemble == market.settings.ensemble
        assert case.recipe.position_ensemble.xgb_max_depth == 4
        assert "found nothing better beyond noise" in case.tuned.why["signal"]

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"line": "market-eurusd-15min"}, "another line; tune again"),
            ({"label_spec": "0" * 64}, "another label spec"),
            ({"feature_hash": "0" * 64}, "another feature hash"),
            ({"settings_hash": "0" * 64}, r"another \[ensemble\] or \[position\] settings"),
            ({"adopted": False}, "found nothing better"),
            ({"values": {"xgb_gamma": 1}}, "xgb_gamma, which this version does not search"),
            ({"values": {"xgb_max_depth": "deep"}}, "xgb_max_depth = 'deep', not a whole number from 1 to 4; tune again"),
            ({"values": {"xgb_max_depth": 3.0}}, "not a whole number"),
            ({"values": {"rf_max_samples": -0.1}}, "rf_max_samples = -0.1, not a number from 0.1 to 0.4"),
            ({"values": {"rf_max_samples": True}}, "rf_max_samples = True, not a number"),
            ({"lineage": []}, "lineage is empty"),
            ({"lineage": [{"kind": "study"}]}, "lineage cannot be read"),
        ],
    )
    def test_a_study_that_does_not_belong_is_ignored_and_why_is_said(self, verdict, market, tmp_path, change, why):
        case, section = verdict
        write_tuned(tmp_path, Role.SIGNAL, section | change)
        case = pipeline.with_tuned(case)
        assert (case.recipe.ensemble, case.recipe.studies) == (market.settings.ensemble, ())
        with pytest.raises(AssertionError, match=why):
            raise AssertionError(case.tuned.sentence)

    @pytest.mark.leakage
    def test_a_study_that_saw_the_select_window_is_ignored(self, verdict, market, tmp_path):
        case, section = verdict
        late = Fit(FitKind.STUDY, "signal study", None, market.windows.span("select").start_s, 100)
        write_tuned(tmp_path, Role.SIGNAL, section | {"lineage": json.loads(Lineage((late,)).to_json())})
        case = pipeline.with_tuned(case)
        assert not case.recipe.studies
        assert "has seen what this run chooses and judges on" in case.tuned.why["signal"]

    def test_it_can_be_switched_off(self, verdict, market):
        case, settings = verdict[0], market.settings
        off = replace(settings, tuning=replace(settings.tuning, use=False))
        assert not pipeline.with_tuned(replace(case, settings=off)).tuned.used["signal"]

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 9}', '{"schema": 1, "signal": {"adopted": true}}'])
    def test_a_file_that_cannot_be_read_is_refused(self, verdict, tmp_path, text):
        (tmp_path / "tuned.json").write_text(text)
        with pytest.raises(BadDataError, match=r"tuned\.json .*delete it.*trademl tune signal"):
            pipeline.with_tuned(verdict[0])

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"at": 5}, "signal.at = 5, expected str"),
            ({"adopted": "yes"}, "signal.adopted = 'yes', expected bool"),
            ({"log_loss": {}}, "signal.log_loss.best = None, expected a number"),
            ({"lineage": None}, "signal.lineage = None, expected list"),
        ],
    )
    def test_a_file_that_holds_something_else_is_refused_and_names_it(self, verdict, tmp_path, change, told):
        case, section = verdict
        (tmp_path / "tuned.json").write_text(json.dumps({"schema": 1, "signal": section | change}))
        with pytest.raises(BadDataError, match=f"{re.escape(told)}.*delete it"):
            pipeline.with_tuned(case)

    def test_after_it_was_deleted_the_study_writes_it_anew(self, verdict, market):
        """The next step that the refusal names."""
        tuned_file(market.choice.models_dir).unlink()
        _, section = studies.conclude(studies.open_study(market, "signal"))
        assert read_tuned(market.choice.models_dir)["signal"] == section

    def test_the_walk_forward_carries_the_study_among_its_ancestors(self, verdict):
        case = pipeline.with_tuned(verdict[0])
        assert set(case.recipe.studies) <= set(pipeline.judge_recipe(case).lineage.fits)
