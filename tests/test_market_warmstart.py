"""A retrain that continues a model: new leaves, every refusal, and that nobody can report what an ancestor has seen."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_run import SMALL, retrain

from trademl.errors import BadDataError, LeakageError, RevisionError, UsageError
from trademl.files import canonical_json, npz_bytes
from trademl.learn.ensemble import MODELS, Rounds, fit_ensemble, native_files
from trademl.learn.fits import Batch, Scaler, Target
from trademl.learn.refresh import Spread, continue_ensemble
from trademl.market import walkforward
from trademl.market.walkforward import unwatched
from trademl.market.warmstart import COLD, Choice, Start, Terms, parameters_of, read_signal, unlike, why_not_warm
from trademl.pipeline import market as pipeline
from trademl.pipeline.market import Conditions
from trademl.pipeline.market.alarms import answers
from trademl.pipeline.market.parent import read_parent, terms_of
from trademl.pipeline.stored import Stored
from trademl.settings import load_settings
from trademl.ship.contents import JUDGED_ROWS, SHAP_SUMMARY
from trademl.ship.manifest import differences
from trademl.ship.store import Store
from trademl.validate.lineage import Fit, FitKind, Lineage

SETTINGS = load_settings()
BARE = replace(SETTINGS.ensemble, rf_trees=12, rf_min_samples_leaf=5, lgb_min_data_in_leaf=5)
SIDES = Target("signal", ("SELL", "BUY", "HOLD"))
WARM = replace(SETTINGS.warmstart, refresh_bars=1_000)


def noise(rows, seed=11, columns=6):
    """Features that say nothing, three classes, equal weights."""
    rng = np.random.default_rng(seed)
    return Batch(rng.normal(size=(rows, columns)).astype(np.float32), rng.integers(0, 3, rows).astype(np.int8), np.ones(rows))


@pytest.fixture(scope="module")
def base():
    """A fitted ensemble on noise."""
    return fit_ensemble(noise(2_000), BARE, SIDES, seed=1, threads=1, until=Rounds(15, 15))


def hashes(model):
    return [table.content_hash() for table in model.tables]


class TestContinue:
    def test_the_same_bytes_and_content_for_one_and_two_threads(self):
        data = noise(3_000)
        first = [fit_ensemble(data, BARE, SIDES, seed=1, threads=n, until=Rounds(15, 15)) for n in (1, 2)]
        then = [continue_ensemble(model, data, BARE, WARM, SIDES, seed=1, threads=n) for model, n in zip(first, (1, 2), strict=True)]
        for one, two in (first, then):
            assert hashes(one) == hashes(two)
            assert native_files(one, "signal") == native_files(two, "signal")
        assert set(hashes(first[0])).isdisjoint(hashes(then[0]))

    def test_trees_keep_their_structure_and_number(self, base):
        before = native_files(base, "signal")
        then = continue_ensemble(base, noise(2_500, 12), BARE, WARM, SIDES, seed=1, threads=1)
        assert then.rounds == base.rounds
        for old, new in zip(base.tables[1:], then.tables[1:], strict=True):
            assert (old.feature == new.feature).all()
            assert (old.threshold == new.threshold).all()
            assert (old.value != new.value).any()
        assert native_files(base, "signal") == before  # the parent stays as it was

    def test_a_quarter_of_the_forest_is_replaced_the_oldest_first(self, base):
        data = noise(2_500, 12)
        then = continue_ensemble(base, data, BARE, WARM, SIDES, seed=1, threads=1)
        old, new = base.tables[0], then.tables[0]
        kept = slice(old.roots[3], None)
        assert new.n_trees == old.n_trees == 12
        assert (new.threshold[: len(old.threshold[kept])] == old.threshold[kept]).all()
        again = continue_ensemble(then, data, BARE, WARM, SIDES, seed=1, threads=1).tables[0]
        last = [table.threshold[table.roots[9] :] for table in (new, again)]
        assert len(last[0]) != len(last[1]) or (last[0] != last[1]).any()  # another generation, other bootstraps

    def test_what_leaves_learn_comes_from_the_newest_rows(self, base):
        data = noise(3_000, 12)
        older = data._replace(y=np.where(np.arange(3_000) < 2_000, 0, data[1]).astype(np.int8))
        one, other = (continue_ensemble(base, rows, BARE, WARM, SIDES, seed=1, threads=1) for rows in (data, older))
        assert hashes(one)[1:] == hashes(other)[1:]  # boosters look at the last 1,000
        assert hashes(one)[0] != hashes(other)[0]

    def test_newest_rows_without_a_class_are_refused(self, base):
        z, y, w = noise(3_000, 12)
        advised = Target("warm start", SIDES.classes, "Raise warmstart.refresh_bars, or train with --no-warmstart")
        with pytest.raises(BadDataError, match=r"warm start: 1,000 rows hold classes.*refresh_bars, or train with --no-warmstart"):
            continue_ensemble(base, Batch(z, np.where(np.arange(3_000) >= 2_000, y % 2, y), w), BARE, WARM, advised, seed=1, threads=1)
        with pytest.raises(BadDataError, match=r"signal.*every one of the 3 must occur"):
            fit_ensemble(Batch(z, np.full(3_000, 2), w), BARE, SIDES, seed=1, threads=1, until=Rounds(5, 5))  # all HOLD

    def test_another_width_is_refused(self, base):
        with pytest.raises(BadDataError, match="6 features"):
            continue_ensemble(base, noise(2_000, columns=5), BARE, WARM, SIDES, seed=1, threads=1)

    def test_constant_columns_do_no_harm(self):
        z, y, w = noise(2_000)
        z[:, 2] = 1.0
        model = fit_ensemble(Batch(z, y, w), BARE, SIDES, seed=1, threads=1, until=Rounds(10, 10))
        then = continue_ensemble(model, Batch(z, y, w), BARE, WARM, SIDES, seed=1, threads=1)
        assert np.isfinite(then.model_probabilities(z)).all()
        assert all(2 not in table.feature for table in then.tables)


@pytest.mark.leakage
def test_continued_on_its_own_past_a_model_still_knows_what_its_parent_saw():
    """Noise, so that whatever rises above a third is memory: the child's own rows are clean, its ancestry is not."""
    z, y, w = noise(3_000, 17, columns=12)
    y = np.repeat(y[::5], 5)
    everything = Batch(z, y, w)
    deep = replace(BARE, rf_trees=40, rf_max_depth=14, rf_max_samples=0.9, lgb_num_leaves=31, lgb_learning_rate=0.2, xgb_max_depth=6)
    end_s = 1_700_000_000 + np.arange(3_000) * 900
    own, seen, judged = np.arange(2_000), np.arange(2_400), np.arange(2_050, 2_400)

    def fit(rows):
        return fit_ensemble(everything.take(rows), deep, SIDES, seed=1, threads=1, until=Rounds(40, 40))

    def accuracy(model):
        return float((model.model_probabilities(z[judged]).mean(axis=1).argmax(axis=1) == y[judged]).mean())

    clean, parent = fit(own), fit(seen)
    leaked = continue_ensemble(parent, everything.take(own), deep, WARM, SIDES, seed=1, threads=1)
    assert abs(accuracy(clean) - 1 / 3) < 0.09
    assert accuracy(leaked) > accuracy(clean) + 0.15
    notes = Lineage((Fit.of_rows(FitKind.TREES, "signal", own, end_s),))
    notes.check(int(end_s[2_050]), 48 * 900)
    inherited = notes.merge(Lineage((Fit.of_rows(FitKind.TREES, "signal", seen, end_s),)).named("parent"))
    with pytest.raises(LeakageError, match="trees 'signal' of revision parent"):
        inherited.check(int(end_s[2_050]), 48 * 900)


# ---------------------------------------------------------------- the choice


def probabilities(y, sharpness):
    """(n, 3) that give the true class this much more than a third, row by row."""
    p = np.full((len(y), 3), (1 - (1 / 3 + sharpness)[:, None]) / 2)
    p[np.arange(len(y)), y] = 1 / 3 + sharpness
    return p


@pytest.mark.parametrize(
    ("shift", "warm", "said"),
    [
        (0.02, True, r"^warm: log loss on select 0\.\d+ warm, 0\.\d+ cold \(difference -0\.\d+ \[-0\.\d+, -0\.\d+\] at 95 %\)"),
        (0.001, False, r"^cold: .*\(difference -0\.\d+ \[-0\.\d+, \+0\.\d+\] at 95 %, a tie\)"),
        (0.0, False, r"^cold: .*\(difference [-+]0\.0000 \[[-+]0\.0000, [-+]0\.0000\] at 95 %, a tie\)"),
        (-0.02, False, r"^cold: .*\(difference \+0\.\d+ \[\+0\.\d+, \+0\.\d+\] at 95 %\)"),
    ],
)
def test_warm_wins_only_beyond_noise(monkeypatch, shift, warm, said):
    n, rng = 20 * 96, np.random.default_rng(3)
    y, noise = rng.integers(0, 3, n), np.repeat(rng.normal(0, 0.02, 20), 96)  # good and bad days for each
    noise -= noise.mean()
    rows = SimpleNamespace(labels=SimpleNamespace(label=y, weight=np.ones(n)), time_s=1_704_067_200 + 900 * np.arange(n))
    windows = SimpleNamespace(rows=lambda _: np.arange(n))
    cold = SimpleNamespace(model_probabilities=probabilities(y, np.full(n, 0.1)))
    other = SimpleNamespace(model_probabilities=probabilities(y, 0.1 + shift + (noise if shift else 0 * noise)))
    monkeypatch.setattr(walkforward, "_blend", lambda *_: SimpleNamespace(probabilities=lambda raw: raw))
    start = Start(SimpleNamespace(revision="a1b2", generation=0), "may be continued")
    choice = walkforward.choose_start(rows, windows, cold, other, start, SimpleNamespace(bootstrap_draws=400, seed=7))
    assert choice.chosen == warm
    assert re.search(said, choice.sentence()), choice.sentence()
    on = choice.log_loss["select"]
    assert choice.gain.point == pytest.approx(on["warm"] - on["cold"], abs=1e-12)
    assert choice.record()["gain"]["blocks"] == 20


# ---------------------------------------------------------------- the pipeline


@pytest.fixture(scope="module")
def family(small_run, tmp_path_factory):
    """The shared small run in a store of its own, made active by hand, and a warm child five days later. Select is overruled."""
    models_dir = tmp_path_factory.mktemp("family") / "models"
    shutil.copytree(small_run.choice.models_dir, models_dir)
    store = Store(models_dir)
    store.activate(small_run.stored.name, "a test")
    parent = SimpleNamespace(**vars(small_run) | {"stored": Stored(store.open(small_run.stored.name))})
    decide = walkforward.choose_start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walkforward, "choose_start", lambda *given: replace(decide(*given), chosen=True))
        child = retrain(models_dir)
    return SimpleNamespace(parent=parent, child=child, settings=child.settings, start=child.judged.choice.start)


def quickly(case):
    """The case with a few small trees: for what holds of any model."""
    few = replace(case.recipe.ensemble, rf_trees=4, xgb_max_rounds=6, lgb_max_rounds=6)
    return replace(case, recipe=replace(case.recipe, ensemble=few))


class TestChild:
    def test_the_first_of_a_line_is_cold_and_says_so(self, family):
        record = family.parent.stored.revision.manifest["market"]["warmstart"]
        assert record["start"] == "cold"
        assert "no approved revision is active" in record["why"]
        assert family.parent.stored.revision.manifest["parent"] is None

    def test_the_models_that_a_warm_walk_keeps_are_those_that_judged(self, family):
        judged, final = family.child.judged, family.child.judged.windows.rows("final")
        np.testing.assert_array_equal(answers(judged, family.child.rows.x[final]), judged.signal.model_probabilities[final])

    def test_a_warm_child_names_its_parent_and_what_was_decided(self, family):
        name, manifest = family.parent.stored.revision.name, family.child.stored.revision.manifest
        assert manifest["parent"] == manifest["market"]["warmstart"]["candidate"] == name
        assert manifest["market"]["warmstart"]["start"] == "warm"
        assert manifest["market"]["warmstart"]["generation"] == 1
        assert manifest["market"]["warmstart"]["rounds_added"] == 0
        assert manifest["market"]["warmstart"]["gain"]["low"] < manifest["market"]["warmstart"]["gain"]["high"]
        assert {w: set(both) for w, both in manifest["market"]["warmstart"]["log_loss"].items()} == {
            w: {"cold", "warm"} for w in ("select", "final")
        }
        assert manifest["trained_together"] != family.parent.proven.run_id
        assert manifest["market"]["devices"]["signal"]["xgb"] == {
            "requested": "auto",
            "resolved": "cpu",
            "reason": "a warm start works on the CPU",
        }

    def test_newest_rows_without_a_class_make_the_run_cold_not_failed(self, family):
        child, start = family.child, Start(read_parent(family.parent.stored), "may be continued")
        recipe = replace(child.case.recipe, warm=replace(child.case.recipe.warm, refresh_bars=2))
        _, scaler, choice = walkforward._judge_both(child.case.rows, child.case.windows, recipe, unwatched, start)
        assert not choice.chosen and choice.parent is None
        assert re.search(r"cold: revision \w{16} cannot be continued: .*2 rows hold classes", choice.sentence())
        assert (scaler.mean != start.parent.scaler.mean).any()

    def test_its_signal_is_the_parents_a_step_later(self, family):
        old, new = (getattr(family, who).shipped.signal for who in ("parent", "child"))
        assert old.rounds == new.rounds
        assert (old.tables[1].threshold == new.tables[1].threshold).all()
        sizes = [len(run.stored.revision.read("native/signal_xgb.ubj")) for run in (family.parent, family.child)]
        assert sizes[0] == sizes[1]

    def test_it_keeps_the_scaler_and_its_graph_proves_parity(self, family):
        old, new = (getattr(family, who).judged.frozen.scaler for who in ("parent", "child"))
        assert (old.mean == new.mean).all()
        assert family.child.proven.parity["signal"]["flips"] == 0
        assert family.child.proven.parity["signal"]["max_abs"] <= 1e-5
        assert family.child.proven.parity["signal"]["rows"] == np.isfinite(family.child.case.rows.x).all(axis=1).sum()
        assert all(check.ok for check in family.child.stored.revision.verify())

    def test_native_files_read_back_are_the_models_of_the_manifest(self, family):
        for run in (family.parent, family.child):
            told = next(m["content_hash"] for m in run.stored.revision.manifest["models"] if m["role"] == "signal")
            back = read_parent(run.stored).signal
            assert [told[name] for name in MODELS] == hashes(back) == hashes(run.shipped.signal)

    def test_models_diff_shows_warm_and_cold(self, family):
        found = {
            key: values for key, *values in differences(*(getattr(family, who).stored.revision.manifest for who in ("parent", "child")))
        }
        assert found["market.warmstart.start"] == ["cold", "warm"]
        assert found["parent"] == [None, family.parent.stored.revision.name]
        assert "models.signal.content_hash.xgb" in found
        name, own = family.parent.stored.revision.name, family.child.judged.windows
        assert found[f"lineage.shipped signal of {name}.revision"] == [None, name]  # its ancestor's fit stands beside its own
        assert found["lineage.shipped signal.label_end_s"][1] > own.span("final").start_s

    def test_select_decides_and_a_cold_child_owes_its_parent_nothing(self, family):
        run = family.child
        free = walkforward.choose_start(run.case.rows, run.case.windows, *([run.judged.signal] * 2), family.start, run.case.recipe)
        assert not free.chosen  # a tie is cold
        assert "is not continued" in free.sentence()
        case = quickly(run.case)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(walkforward, "choose_start", lambda *given: Choice(family.start, False, free.log_loss))
            cold = pipeline.judge_recipe(case, family.start)
        alone = pipeline.judge_recipe(case)
        assert np.array_equal(cold.probabilities, alone.probabilities, equal_nan=True)
        assert cold.lineage == alone.lineage
        assert cold.parent is None


@pytest.mark.leakage
class TestAncestry:
    def test_everything_that_the_parent_saw_is_in_the_childs_lineage(self, family):
        name = family.parent.stored.revision.name
        inherited = {fit for fit in family.child.shipped.lineage.fits if fit.revision == name}
        assert inherited == set(family.parent.stored.lineage.named(name).fits)
        assert family.child.stored.lineage == family.child.shipped.lineage.add(*family.child.heads.fits())

    def test_the_shipped_child_cannot_be_scored_on_final_and_the_parent_is_named(self, family):
        run, name = family.child, family.parent.stored.revision.name
        with pytest.raises(LeakageError, match=f"trees 'shipped signal' of revision {name}"):
            run.shipped.lineage.check(run.case.windows.span("final").start_s, run.case.windows.embargo_s)
        run.judged.lineage.check(run.case.windows.span("final").start_s, run.case.windows.embargo_s)

    def test_the_judged_figures_never_asked_the_parents_trees(self, family):
        run = family.child
        blind = Start(replace(family.start.parent, signal=None), "no trees")  # would fail if anybody asked them
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(walkforward, "choose_start", lambda *given: replace(run.judged.choice, start=blind))
            judged = pipeline.judge_recipe(run.case, blind)
        assert np.array_equal(judged.probabilities, run.judged.probabilities, equal_nan=True)

    def test_a_scaler_that_saw_the_final_window_stops_the_judgement(self, family):
        run = family.child
        everything = Fit.of_rows(FitKind.SCALER, "scaler", np.flatnonzero(run.case.rows.end_s >= 0), run.case.rows.end_s, "feedbeef")
        leaky = Start(replace(family.start.parent, lineage=Lineage((everything,))), "")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(walkforward, "choose_start", lambda *given: Choice(leaky, True, {}))
            with pytest.raises(LeakageError, match="scaler 'scaler' of revision feedbeef"):
                pipeline.judge_recipe(quickly(run.case), leaky)

    def test_bars_that_only_an_ancestor_saw_are_not_out_of_sample(self, family):
        """The evaluator reads the ancestry, not the child's own cut-off."""
        run, revision = family.child, family.child.stored.revision
        far = Fit(FitKind.TREES, "shipped signal", "feedbeef", int(run.case.rows.time_s[-1]) + 900, 10)
        lineage = json.loads(run.stored.lineage.add(far).to_json())
        inherited = Stored(replace(revision, manifest=revision.manifest | {"lineage": lineage}))
        with pytest.raises(UsageError, match=r"trees 'shipped signal' of revision feedbeef.*nothing here is out of sample"):
            pipeline.replay_bars(inherited, run.inputs, family.settings, Conditions.of(inherited, family.settings), "a-test")


def signal(manifest, **changes):
    """The manifest's models, the signal's entry changed."""
    return {"models": [model | changes if model["role"] == "signal" else model for model in manifest["models"]]}


def section(manifest, **changes):
    """The manifest's market section, changed."""
    return {"market": manifest["market"] | changes}


def ordered(manifest, order):
    """The signal's features in another order."""
    return [manifest["models"][0]["features"][at] for at in order]


SWAPPED = [1, 0, *range(2, 55)]
DOCTORED = {
    "54 features": (
        lambda m: signal(m, features=ordered(m, range(54)), input=m["models"][0]["input"] | {"shape": ["N", 54]}) | section(m, scaler=None),
        "it has 54 features, this code makes 55",
    ),
    "columns in another order": (
        lambda m: signal(m, features=ordered(m, SWAPPED)),
        "its column 0 is atr_expansion, this code's is atr_pct",
    ),
    "other definitions": (lambda m: signal(m, feature_hash="0" * 64), "other definitions or another price grid"),
    "another class list": (
        lambda m: signal(m, classes=["BUY", "SELL", "HOLD"]),
        "its classes are BUY, SELL, HOLD, this run's SELL, BUY, HOLD",
    ),
    "another label spec": (
        lambda m: section(m, label_spec=m["market"]["label_spec"] | {"tp_atr": 2.0, "hash": "1" * 64}),
        r"another label spec \(tp_atr 2.0 there, 1.5 here\): it answers another question",
    ),
    "a label spec that is not its hash": (
        lambda m: section(m, label_spec=m["market"]["label_spec"] | {"tp_atr": 2.0}),
        "rules that this code does not know",
    ),
    "a fit of an unknown kind": (lambda m: {"lineage": [m["lineage"][0] | {"kind": "guess"}]}, "lineage cannot be read"),
}
# A scaler of another width, or another one than the manifest binds, and a manifest without lineage cannot be stored at all:
# tests/test_ship_store.py, tests/test_ship_fuzz.py.


def in_store(case, models_dir):
    """The case, its revisions in another folder."""
    return replace(case, inputs=replace(case.inputs, choice=replace(case.choice, models_dir=str(models_dir))))


class TestDoctored:
    """The active revision is whole, every hash is right, and it is not what this run could go on with."""

    def start(self, family, models_dir, files, changes):
        revision = family.parent.stored.revision
        kept = {name: revision.read(name) for name in revision.files() if name not in (JUDGED_ROWS, SHAP_SUMMARY)}
        manifest = {key: value for key, value in revision.manifest.items() if key not in ("files", "explained")}
        stored = Store(models_dir).write(kept | files, manifest | changes)
        pointer = canonical_json(stored.compat | {"activation": {}})  # `activate` would refuse some of these
        (models_dir / "model_compat.json").write_bytes(pointer)
        return Stored(stored), pipeline.find_start(in_store(family.child.case, models_dir))

    def test_untouched_it_may_be_continued(self, family, tmp_path):
        assert self.start(family, tmp_path, {}, {})[1].parent is not None

    @pytest.mark.parametrize("what", DOCTORED)
    def test_the_run_goes_cold_and_says_why(self, family, tmp_path, what):
        change, says = DOCTORED[what]
        revision, found = self.start(family, tmp_path, {}, change(family.parent.stored.revision.manifest))
        assert found.parent is None
        assert re.match(f"revision {revision.name} cannot be continued: .*{says}", found.reason)

    @pytest.mark.parametrize(
        ("name", "data", "says"),
        [
            ("native/signal_lgb.txt", lambda data: data[: len(data) // 2], "native/signal_lgb.txt cannot be read"),
            ("native/signal_xgb.ubj", lambda data: b"nonsense", "native/signal_xgb.ubj cannot be read"),
            ("native/spread.npz", lambda data: b"", "native/spread.npz cannot be read"),
            ("golden.npz", lambda data: npz_bytes({"signal_x": np.zeros((3, 54))}), "golden"),
            ("signal.onnx", lambda data: data[:100], "signal.onnx: graph: not a readable ONNX file"),
        ],
    )
    def test_a_file_that_cannot_be_read(self, family, tmp_path, name, data, says):
        files = {name: data(family.parent.stored.revision.read(name))}
        revision, found = self.start(family, tmp_path, files, {})
        assert found.parent is None
        assert re.match(f"revision {revision.name} cannot be continued: .*{says}", found.reason)

    @pytest.mark.parametrize("what", ["54 features", "columns in another order", "other definitions", "another class list"])
    def test_nor_is_it_asked_about_new_bars(self, family, tmp_path, what):
        stored, _ = self.start(family, tmp_path, {}, DOCTORED[what][0](family.parent.stored.revision.manifest))
        conditions = Conditions.of(stored, family.settings)
        with pytest.raises(RevisionError, match=f"revision {stored.name} was trained on .*retrain"):
            pipeline.replay_bars(stored, family.child.inputs, family.settings, conditions, "a-test", in_sample=True)

    @pytest.mark.parametrize("what", ["another label spec", "a label spec that is not its hash"])
    def test_nor_are_its_trades_replayed_under_a_contract_that_was_not_its_own(self, family, tmp_path, what):
        manifest = family.parent.stored.revision.manifest
        other = section(manifest, label_spec=manifest["market"]["label_spec"] | {"hash": "1" * 64})
        changes = other if what == "another label spec" else DOCTORED[what][0](manifest)
        stored, _ = self.start(family, tmp_path, {}, changes)
        with pytest.raises(RevisionError, match=r"its label spec is .* and its fields make .* here.*retrain"):
            pipeline.reread_evidence(stored, family.settings)

    def test_nor_without_knowing_what_it_saw(self, family, tmp_path):
        stored, _ = self.start(family, tmp_path, {}, {})
        stored = replace(stored, revision=replace(stored.revision, manifest=stored.revision.manifest | {"lineage": []}))
        with pytest.raises(LeakageError, match="keeps no lineage"):
            pipeline.replay_bars(stored, family.child.inputs, family.settings, Conditions.of(stored, family.settings), "a-test")

    def test_an_out_of_sample_table_that_cannot_be_read(self, family, tmp_path):
        stored, _ = self.start(family, tmp_path, {"oos.parquet": b"PAR1"}, {})
        with pytest.raises(RevisionError, match=r"oos.parquet cannot be read.*retrain"):
            pipeline.reread_evidence(stored, family.settings)


class TestRefusals:
    def start(self, family, settings=None, models_dir=None):
        case = family.child.case if models_dir is None else in_store(family.child.case, models_dir)
        if settings is not None:
            case = replace(case, settings=settings, recipe=pipeline.recipe_of(settings))
        return pipeline.find_start(case)

    def why(self, family, parent=None, ours=None, **changed):
        run = family.child
        mine, windows, rows = read_parent(family.parent.stored), run.case.windows, run.case.rows
        facts = {"select_start_s": windows.span("select").start_s, "newest_label_s": int(rows.end_s.max()), "embargo_s": windows.embargo_s}
        warm = changed.pop("warm", family.settings.warmstart)
        newest = changed.pop("newest", rows.x[np.isfinite(rows.x).all(axis=1)][-2_880:])
        return why_not_warm(replace(mine, **(parent or {})), replace(mine.terms, **(ours or {})), newest, warm, **(facts | changed))

    def test_a_fitting_parent_has_no_reason_against_it(self, family):
        assert self.why(family) == ""

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            (lambda t: {"features": t.features[:54]}, "55 features, this code makes 54"),
            (lambda t: {"features": (t.features[1], t.features[0], *t.features[2:])}, "another order"),
            (lambda t: {"feature_hash": "0" * 64}, "other definitions"),
            (lambda t: {"label_spec": "0" * 64}, "label spec"),
            (lambda t: {"classes": ("BUY", "SELL", "HOLD")}, "classes are"),
            (lambda t: {"parameters": dict(t.parameters) | {"xgb_max_depth": 9}}, "xgb_max_depth.*tuned"),
        ],
    )
    def test_other_terms(self, family, changed, reason):
        terms = terms_of(family.parent.stored)
        assert re.search(reason, self.why(family, ours=changed(terms)))

    def test_a_scaler_of_another_width(self, family):
        assert "scaler has 3 columns" in self.why(family, parent={"scaler": Scaler(np.zeros(3), np.ones(3))})

    def test_too_many_generations(self, family):
        assert "max_generations" in self.why(family, parent={"generation": 10})

    @pytest.mark.leakage
    def test_a_scaler_or_models_that_have_seen_too_much(self, family):
        assert "its scaler has seen" in self.why(family, select_start_s=0)
        assert "its scaler has seen" in self.why(family, parent={"lineage": Lineage()})
        assert "later bars" in self.why(family, newest_label_s=1_700_000_000)

    def test_strong_drift_skips_the_candidate(self, family):
        moved = family.child.case.rows.x[-2_880:] * 3 + 1
        assert "the market has moved" in self.why(family, newest=moved)
        assert "the market has moved" in self.why(family, newest=np.full((5, 55), np.nan), warm=replace(WARM, max_drift_psi=0.0))

    def test_as_asked_or_without_a_parent(self, family, tmp_path):
        off = replace(family.settings, warmstart=replace(family.settings.warmstart, enabled=False))
        assert self.start(family, settings=off) == COLD
        assert self.start(family, models_dir=tmp_path).reason == "no approved revision is active here"

    def test_tuned_parameters_start_from_nothing(self, family):
        tuned = load_settings(SMALL | {"ensemble.xgb_max_depth": 3})
        found = self.start(family, settings=tuned)
        assert found.parent is None
        assert "other ensemble parameters (xgb_max_depth)" in found.reason

    def test_an_altered_file_or_pointer_is_noticed_before_anything_is_parsed(self, family, tmp_path):
        copy = tmp_path / "models"
        shutil.copytree(family.child.choice.models_dir, copy)
        assert self.start(family, models_dir=copy).parent is not None
        name = family.parent.stored.revision.name
        native = copy / "revisions" / name / "native" / "signal_lgb.txt"
        native.parent.chmod(0o755)
        native.chmod(0o644)
        native.write_text(native.read_text().replace("version=v4", "version=v5"))
        assert "sha256 differs" in self.start(family, models_dir=copy).reason
        (copy / "model_compat.json").write_text("{")
        assert "the active revision cannot be continued" in self.start(family, models_dir=copy).reason

    @pytest.mark.parametrize(
        ("name", "data", "says"),
        [
            ("signal_xgb.ubj", b"no booster", "cannot be read"),
            ("signal_lgb.txt", b"tree\nversion=v4\nnum_class=3\n", r"cannot be read \(not a whole LightGBM model"),
            ("signal_lgb.txt", b"\xff\xfe", "cannot be read"),
            ("signal_rf.npz", b"PK no archive", r"cannot be read \(not a readable .npz: no zip archive"),
            ("signal_rf.npz", npz_bytes({"feature": np.zeros(3)}), "arrays .* are missing"),
            ("scaler.npz", npz_bytes({"mean": np.zeros(4), "scale": np.ones(4)}), r"mean has shape \(4,\), expected \(55,\)"),
            ("scaler.npz", npz_bytes({"mean": np.float64(0), "scale": np.float64(1)}), r"mean has shape \(\), expected"),
            ("scaler.npz", npz_bytes({"mean": np.zeros(55), "scale": np.zeros(55)}), "a scale is not above 0"),
            ("scaler.npz", npz_bytes({"mean": np.zeros(55)}), "cannot be read"),
            ("spread.npz", npz_bytes({"edges": np.zeros((4, 9)), "shares": np.ones((4, 10))}), r"edges has shape \(4, 9\)"),
            ("spread.npz", npz_bytes({"edges": np.zeros(55), "shares": np.ones(55)}), r"edges has shape \(55,\)"),
        ],
    )
    def test_native_files_that_are_something_else(self, family, name, data, says):
        revision = family.parent.stored.revision
        with pytest.raises(RevisionError, match=rf"^native/{re.escape(name)}.*{says}"):
            read_signal(lambda asked: data if asked == f"native/{name}" else revision.read(asked), 55, 3)

    @pytest.mark.parametrize("name", ["signal_xgb.ubj", "signal_lgb.txt", "signal_rf.npz", "scaler.npz", "spread.npz"])
    @pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97])
    def test_native_files_that_were_cut_short(self, family, name, share):
        revision = family.parent.stored.revision
        data = revision.read(f"native/{name}")
        with pytest.raises(RevisionError, match=rf"^native/{re.escape(name)} cannot be read"):
            read_signal(lambda asked: data[: int(share * len(data))] if asked == f"native/{name}" else revision.read(asked), 55, 3)

    @pytest.mark.parametrize("what", ["features", "classes"])
    def test_whole_native_files_of_another_width_or_class_list(self, family, what):
        """What scikit-learn and LightGBM would take without a word."""
        revision = family.parent.stored.revision
        columns, classes = (54, 3) if what == "features" else (55, 2)
        z, y, w = noise(400, columns=columns)
        files = native_files(
            fit_ensemble(Batch(z, y % classes, w), BARE, Target("signal", SIDES.classes[:classes]), seed=1, threads=1, until=Rounds(2, 2)),
            "signal",
        )
        for name in files:
            with pytest.raises(RevisionError, match=rf"^{re.escape(name)} has trees for {columns} features and {classes} classes"):
                read_signal(lambda asked, name=name: (files if asked == name else {}).get(asked) or revision.read(asked), 55, 3)

    def test_whole_native_files_of_another_model(self, family, monkeypatch):
        """Right hashes, right widths, and not what the graph holds."""
        other = native_files(family.child.shipped.signal, "signal")
        read = type(family.parent.stored.revision).read
        monkeypatch.setattr("trademl.ship.store.Revision.read", lambda self, name: other.get(name) or read(self, name))
        with pytest.raises(RevisionError, match="differ from its own graph"):
            read_parent(family.parent.stored)


def test_terms_are_compared_as_a_manifest_keeps_them():
    ours = Terms(("a",), "f", "l", ("SELL",), parameters_of(SETTINGS.ensemble))
    assert unlike(replace(ours, parameters=json.loads(json.dumps(parameters_of(SETTINGS.ensemble)))), ours) == ""


def test_drift_against_an_obvious_reference():
    rng = np.random.default_rng(2)
    was, now = rng.normal(size=(5_000, 1)), rng.normal(0.3, 1.2, size=(2_000, 1))
    edges = np.quantile(was, np.arange(1, 10) / 10)
    shares = [np.histogram(x, [-np.inf, *edges, np.inf])[0] / len(x) for x in (was, now)]
    slow = sum((b - a) * np.log(b / a) for a, b in zip(*shares, strict=True))
    assert Spread.of(was).drift(now) == pytest.approx(slow, rel=1e-9)
    assert Spread.of(was).drift(was) == pytest.approx(0)
