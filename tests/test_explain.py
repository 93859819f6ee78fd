"""What a retrain says of itself: whose answers, on which rows, beside which noise; what a revision keeps of it, and what is refused."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from trademl.bot.policy import Policy
from trademl.cli import app
from trademl.cli.common import RETRAIN_KEYS
from trademl.clock import epoch_seconds, iso_z
from trademl.errors import LooksError, RevisionError, UsageError
from trademl.evidence.explain import ensemble_shap
from trademl.evidence.shap_summary import ALL, Whose, subject_words
from trademl.pipeline import market as pipeline
from trademl.pipeline.market import decision as decisions
from trademl.pipeline.market import explain
from trademl.pipeline.market.decision import explain_decision
from trademl.pipeline.market.replay import out_of_sample
from trademl.pipeline.market.shap_pages import NONE_KEPT, ShapPages
from trademl.pipeline.stored import Stored
from trademl.ship.contents import JUDGED_ROWS, SHAP_SUMMARY
from trademl.ship.store import Store

pytestmark = pytest.mark.shap


@pytest.fixture(scope="module")
def kept(small_run):
    """Files and manifest of the small run's revision."""
    stored = small_run.stored
    manifest = {key: value for key, value in stored.revision.manifest.items() if key != "files"}
    return {file.name: stored.read(file.name) for file in stored.files}, manifest


@pytest.fixture(scope="module")
def described(small_run):
    """The shipped models' own explanation."""
    return pipeline.explain_shipped(small_run.stored, small_run.settings)


@pytest.fixture(scope="module")
def bought(small_run):
    """The first bar of final that was bought at the time, explained."""
    oos = out_of_sample(small_run.stored)
    bar = int(np.flatnonzero((oos.entries.side > 0) & (oos.frame["window"] == 2))[0])
    return explain_decision(small_run.stored, iso_z(epoch_seconds(oos.frame.index)[bar] + 900))


class TestRecipe:
    def test_each_fold_is_explained_by_the_models_that_answered_it(self, small_run):
        judged, summary = small_run.judged, small_run.explained.summary
        z, blend = judged.frozen.scaler.transform(small_run.case.rows.x), judged.frozen.signal_blend
        sizes, count = 0, 0
        for fold, model in zip(judged.signal.folds, judged.signal.models, strict=True):
            found = ensemble_shap(model.tables, blend.weights, blend.calibration, z[fold.test_rows])
            answer = found.base + found.values.sum(axis=2)
            assert np.abs(answer - judged.probabilities[fold.test_rows]).max() < 1e-9
            sizes, count = sizes + np.abs(found.values).sum(axis=0), count + len(fold.test_rows)
        signal = summary.subject("signal")
        assert (summary.whose, signal.rows, signal.rows_asked) == (Whose.RECIPE, count, count)
        assert [fold.rows for fold in signal.drift.folds] == [len(fold.test_rows) for fold in judged.signal.folds]
        for number, output in enumerate(signal.outputs):
            ranked = {feature.name: feature.mean for feature in signal.ranking(output, "probability").features}
            np.testing.assert_allclose([ranked[name] for name in signal.features], sizes[number] / count, rtol=1e-5)

    def test_it_finds_the_planted_edge_above_the_noise(self, small_run):
        ranking = small_run.explained.summary.subject("signal").ranking()
        assert (ranking.output, ranking.unit) == (ALL, "probability")
        assert ranking.features[0].name == "volume_surge" and ranking.features[0].is_above_noise
        assert 0 < len(ranking.above_noise) < len(ranking.features) / 2
        assert "volume_surge" in subject_words(small_run.explained.summary.subject("signal"))

    def test_position_and_risk_heads_are_explained_too(self, small_run):
        summary = small_run.explained.summary
        assert [subject.name for subject in summary.subjects] == ["signal", "position", *(f"risk_p{p}" for p in range(1, 6))]
        position = summary.subject("position")
        assert position.rankings[0].output == "EXIT"
        assert position.rows <= explain.POSITION_ROWS + len(small_run.judged.signal.folds) < position.rows_asked
        assert {len(subject.features) for subject in summary.subjects} == {55, 59, 7}

    def test_the_look_comes_first(self, small_run):
        start_s = small_run.judged.windows.span("final").start_s
        with pytest.raises(LooksError, match="look_at_final"):
            pipeline.explain_recipe(small_run.case, small_run.judged, replace(small_run.look, end_s=start_s))

    @pytest.mark.slow
    def test_the_number_of_threads_changes_nothing(self, small_run):
        case = replace(small_run.case, recipe=replace(small_run.case.recipe, threads=2))
        again = pipeline.explain_recipe(case, small_run.judged, small_run.look, small_run.heads)
        assert again.files() == small_run.explained.files()


class TestRevision:
    def test_it_keeps_the_judged_rows_and_the_summary(self, small_run):
        stored, rows = small_run.stored, small_run.stored.judged_rows
        bars = np.concatenate([fold.test_rows for fold in small_run.judged.signal.folds])
        np.testing.assert_array_equal(rows.x, small_run.case.rows.x[bars].astype(np.float32))
        np.testing.assert_array_equal(rows.time_s, small_run.case.rows.time_s[bars])
        final = small_run.judged.windows.span("final")
        assert (rows.time_s[rows.window == 2] >= final.start_s).all() and (rows.time_s[rows.window == 1] < final.start_s).all()
        assert stored.shap_summary == small_run.explained.summary
        assert stored.revision.manifest["explained"] == {"rows": len(bars), "schema": 1}
        checks = {check.name: check.detail for check in stored.revision.verify(graphs=False)}
        assert checks["explanation"] == f"{len(bars):,} judged rows and the SHAP summary"

    @pytest.mark.parametrize("says", [{"explained": None}, {}])
    def test_one_without_them_loads_and_says_so(self, kept, tmp_path, says):
        files, manifest = kept
        fewer = {name: data for name, data in files.items() if name not in (JUDGED_ROWS, SHAP_SUMMARY)}
        before = {key: value for key, value in manifest.items() if key != "explained"} | says
        stored = Stored(Store(tmp_path).write(fewer, before))
        assert not stored.is_explained
        for asked in ("judged_rows", "shap_summary"):
            with pytest.raises(RevisionError, match=r"made with --no-shap or by an earlier trademl; a plain `trademl retrain`"):
                getattr(stored, asked)

    @pytest.mark.parametrize(
        ("files", "says", "refusal"),
        [
            ({SHAP_SUMMARY: None}, {}, "holds judged_rows.npz of"),
            ({}, {"explained": None}, "its manifest says None"),
            ({SHAP_SUMMARY: None, JUDGED_ROWS: None}, {}, "holds neither of"),
            ({}, {"explained": {"rows": 3, "schema": 1}}, r"holds \(\d+, 55\).*manifest says \(3, 55\)"),
            ({SHAP_SUMMARY: b'{"schema": 2}'}, {}, "is of schema 2"),
            ({SHAP_SUMMARY: b"no JSON"}, {}, "what explains it is not readable"),
            ({JUDGED_ROWS: b"PK no archive"}, {}, "what explains it is not readable"),
            ({}, {"explained": {"rows": "all", "schema": 1}}, "explained = .* is not of the expected kind"),
        ],
    )
    def test_what_does_not_fit_together_is_not_stored(self, kept, tmp_path, files, says, refusal):
        changed = {name: data for name, data in (kept[0] | files).items() if data is not None}
        with pytest.raises(RevisionError, match=refusal):
            Store(tmp_path).write(changed, kept[1] | says)

    def test_a_summary_of_another_shape_is_refused(self, kept, tmp_path):
        record = json.loads(kept[0][SHAP_SUMMARY])
        record["subjects"][0]["rankings"][0]["features"][3]["mean"] = "much"
        stored = Stored(Store(tmp_path).write(kept[0] | {SHAP_SUMMARY: json.dumps(record).encode()}, kept[1]))
        with pytest.raises(RevisionError, match=r"subjects\[0\]: rankings\[0\]: features\[3\]: mean: 'much' is not float"):
            _ = stored.shap_summary


class TestShipped:
    def test_the_shipped_models_are_described_on_the_kept_rows(self, small_run, described):
        summary, stored = described, small_run.stored
        recipe = stored.shap_summary
        assert summary.whose is Whose.SHIPPED and "have seen" in summary.words
        signal = summary.subject("signal")
        assert signal.drift is None and signal.rows == len(stored.judged_rows.x)
        assert signal.ranking().noise_floor == recipe.subject("signal").ranking().noise_floor
        assert signal.ranking().features[0].name == "volume_surge"
        assert summary.subject("position").rows == len(stored.judged_rows.position_row)
        assert summary.subject("risk_p3") == recipe.subject("risk_p3")  # a head is trained once


PICTURES = ("ranking", "dependence", "drift", "pairs")


class TestPages:
    def test_each_picture_says_how_many_rows_stand_behind_it(self, small_run):
        pages, rows = ShapPages(small_run.stored), small_run.explained.summary.subject("signal").rows
        figures = {name: getattr(pages, name)() for name in PICTURES}
        assert all(figure.data for figure in figures.values())
        said = {name: figure.layout.title.subtitle.text for name, figure in figures.items()}
        assert all(f"{rows:,} rows" in said[name] for name in ("ranking", "dependence", "drift")) and "1,024 rows" in said["pairs"]
        floor = pages.stored.shap_summary.subject("signal").ranking().noise_floor
        assert figures["ranking"].layout.shapes[0].x1 == floor
        assert "the noise floor lies at" in pages.sentence() and "had not seen" in pages.sentence()
        assert list(pages.classes().columns) == ["SELL", "BUY", "HOLD"] and len(pages.others()) == 6

    def test_a_revision_without_an_explanation_says_so_in_each_place(self, kept, tmp_path):
        files = {name: data for name, data in kept[0].items() if name not in (JUDGED_ROWS, SHAP_SUMMARY)}
        pages = ShapPages(Stored(Store(tmp_path).write(files, kept[1] | {"explained": None})))
        assert pages.sentence() == NONE_KEPT
        assert {getattr(pages, name)() for name in (*PICTURES, "classes", "others")} == {None}

    def test_a_summary_without_a_row_says_so_once(self, small_run):
        signal, *others = small_run.explained.summary.subjects
        empty = replace(small_run.explained.summary, subjects=(replace(signal, rankings=()), *others))
        pages = ShapPages(SimpleNamespace(is_explained=True, shap_summary=empty))
        assert pages.sentence().startswith("No row was explained")
        assert pages.ranking() is None


def test_rows_are_shared_out_to_the_last():
    assert explain._shares([100, 100, 100], 200) == [67, 67, 66]
    assert explain._shares([3, 900, 97], 100) == [1, 90, 10]
    assert explain._shares([1, 0, 1_000], 10) == [1, 0, 10]
    assert explain._shares([5, 0, 4], 10) == [5, 0, 4]
    assert explain._shares([], 10) == []


def called(small_run, *words):
    """A command on the small run's store; its refusal is raised."""
    done = CliRunner().invoke(app, [*words, "--models-dir", str(small_run.choice.models_dir)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


class TestCommand:
    def test_it_says_what_the_evidence_hangs_on_and_what_is_only_described(self, small_run, described, monkeypatch):
        monkeypatch.setattr(pipeline, "explain_shipped", lambda stored, settings: described)
        told = called(small_run, "explain")
        recipe, shipped = told.index("had not seen"), told.index("which they have seen: a description, not evidence")
        assert told.startswith(f"revision {small_run.stored.name}") and recipe < shipped
        assert told.count("hangs on volume_surge") == 2 and told.count("The noise floor lies at") == 2

    def test_shap_only_is_the_same_of_the_newest_and_takes_nothing_beside_it(self, small_run, monkeypatch):
        monkeypatch.setattr(pipeline, "explain_shipped", lambda stored, settings: stored.shap_summary)
        told = json.loads(called(small_run, "retrain", "--shap-only", "--json"))
        assert told["recipe"] == small_run.explained.summary.to_json() == told["shipped"]
        assert set(RETRAIN_KEYS) <= set(told) and (told["revision"], told["status"]) == (small_run.stored.name, "done")
        for words, named in (
            (("--bars", "x.csv"), "--bars"),
            (("--no-shap",), "--no-shap"),
            (("--risk",), "--risk"),
            (("--seed", "3"), "--seed"),
        ):
            with pytest.raises(UsageError, match=f"--shap-only alone .* Without effect beside it: {named}"):
                called(small_run, "retrain", "--shap-only", *words)
        with pytest.raises(UsageError, match=r"--risk alone .* Without effect beside it: --no-shap"):
            called(small_run, "retrain", "--risk", "--no-shap")

    def test_a_bar_that_was_not_judged_is_refused(self, small_run):
        with pytest.raises(UsageError, match="no decision 99999"):
            called(small_run, "explain", "--decision", "99999")


class TestDecision:
    def test_it_adds_up_to_the_expected_r_that_the_rule_decided_by(self, bought):
        assert (bought.side, bought.explained_side, bought.judged_side, bought.window) == ("BUY", "BUY", "BUY", "final")
        assert bought.expected_r > bought.margin_r
        assert bought.base_r + sum(reason.contribution_r for reason in bought.reasons) == pytest.approx(bought.expected_r, abs=1e-9)
        assert bought.reasons[0].feature == "volume_surge" and 0 < bought.reasons[0].error_r < 0.1 * bought.reasons[0].contribution_r
        assert "have seen this bar" in bought.words() and "volume_surge = " in bought.words()

    def test_a_bar_without_a_feature_has_no_decision(self, small_run):
        stored, rows = Stored(small_run.stored.revision), small_run.stored.judged_rows
        x = rows.x.copy()
        x[5, 3] = np.nan
        stored.__dict__["judged_rows"] = replace(rows, x=x)
        with pytest.raises(UsageError, match=f"nothing is decided at {iso_z(rows.time_s[5])}: {stored.feature_names[3]} has no value"):
            explain_decision(stored, "5")

    def test_votes_ask_for_no_expected_r(self, small_run, monkeypatch):
        monkeypatch.setattr(decisions.Policy, "of", partial(Policy.of, rule="votes"))
        found = explain_decision(small_run.stored, "-1")
        assert (found.rule, found.margin_r) == ("votes", None)
        assert "but the models' votes decide" in found.words() and "are asked" not in found.words()

    def test_the_same_is_said_twice(self, small_run, bought):
        assert explain_decision(small_run.stored, bought.time_utc) == bought
