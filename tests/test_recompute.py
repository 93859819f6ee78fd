"""A verdict is believed only where it follows from the trades that the revision keeps, and prices only once."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from small_run import SMALL, first_bars, retrain
from typer.testing import CliRunner

from trademl.cli import app
from trademl.errors import LeakageError, RevisionError
from trademl.evidence.chain import read_chain
from trademl.evidence.looks import records_of
from trademl.pipeline import market as pipeline
from trademl.pipeline.market.recompute import check_verdict, derived_verdict
from trademl.pipeline.market.seen import refuse_repeats, why_seen
from trademl.pipeline.stored import Stored
from trademl.settings import load_settings
from trademl.ship.store import Store
from trademl.validate.splits import Span

pytestmark = pytest.mark.leakage


@pytest.fixture(scope="module")
def chain(small_run):
    return Store(small_run.choice.models_dir).models_dir / "looks.jsonl"


def changed(stored, *path, value):
    """The revision with one value of its manifest changed, and everything else as it is."""
    manifest = copy.deepcopy(dict(stored.revision.manifest))
    part = manifest
    for name in path[:-1]:
        part = part[name]
    assert part[path[-1]] != value
    part[path[-1]] = value
    return Stored(SimpleNamespace(manifest=manifest, read=stored.revision.read, name=stored.name, folder=stored.revision.folder))


def test_the_verdict_of_a_run_follows_from_its_trades(small_run, chain):
    assert "the chain of looks holds the same" in check_verdict(small_run.stored, chain)
    derived, said = derived_verdict(small_run.stored), small_run.finding.verdict
    assert (derived.passed, derived.sentence, derived.reasons) == (said.passed, said.sentence, said.reasons)
    assert small_run.stored.headline.endswith(said.sentence)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("gate", "passed"), False, "gate.passed is False, but its own trades give True"),
        (("gate", "reasons"), ["bad luck"], "gate.reasons"),
        (("gate", "sentence"), "Gate passed at 1 %.", "gate.sentence"),
        (("gate", "level"), 0.05, "gate.level"),
        (("gate", "checks", "trades", "value"), 9_999.0, "gate.checks.trades.value"),
        (("gate", "checks", "rotation_p", "passed"), False, "gate.checks.rotation_p.passed"),
        (("gate", "terms", "level"), 0.05, "gate."),
        (("gate", "terms", "number"), 9, "gate."),
        (("look", "number"), 9, "gate.terms.number is not look.number"),
        (("market", "decision", "margins", "3", "edge_found"), False, "edge_found is not the margin's"),
        (("market", "leaks", "refusals"), ["volume knows the next bar"], "objections are not the leak alarms"),
        (("metrics", "headline"), "market-synth-15min: Gate passed", "the headline does not end with the verdict"),
        (("look", "days"), [0, 900], "no verdict can be derived"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_manifest_that_was_edited_and_hashed_anew_is_refused(small_run, chain, path, value, said):
    with pytest.raises(RevisionError, match=said.replace(".", r"\.")):
        check_verdict(changed(small_run.stored, *path, value=value), chain)


def test_a_refusal_that_is_called_a_pass_is_refused(small_run, chain, monkeypatch):
    """As if the trades had been worthless."""
    said = dict(small_run.stored.revision.manifest["gate"])
    refused = said | {"passed": False, "reasons": ["the lower 1 % bound of the expectancy is -0.142 R, not above zero"]}
    monkeypatch.setattr("trademl.pipeline.market.recompute.derived_verdict", lambda stored: SimpleNamespace(to_json=lambda: refused))
    with pytest.raises(RevisionError, match=r"gate\.passed is True, but its own trades give False: the verdict was changed"):
        check_verdict(small_run.stored, chain)


def test_a_verdict_that_the_chain_does_not_hold_is_refused(small_run, chain, tmp_path):
    """Manifest and table may be forged together; the chain holds what was said then."""
    with pytest.raises(RevisionError, match="holds no look 0000000000000000"):
        check_verdict(changed(small_run.stored, "look", "hash", value="0" * 64), chain)
    assert "another project's" in check_verdict(changed(small_run.stored, "look", "project", value="ab" * 8), chain)
    assert "chain" not in check_verdict(small_run.stored, tmp_path / "looks.jsonl")  # none here
    (tmp_path / "looks.jsonl").write_bytes(chain.read_bytes().replace(b'"passed":true', b'"passed":false'))
    with pytest.raises(RevisionError, match=r"its look cannot be confirmed: .*was edited"):
        check_verdict(small_run.stored, tmp_path / "looks.jsonl")


def test_a_standing_verdict_that_was_never_given_is_refused(small_run, chain):
    stored = small_run.stored
    said = stored.revision.manifest["gate"]
    stands = {"at_utc": "2026-01-01T00:00:00Z", "passed": True, "words": "standing verdict of 2026-01-01; 3 of 60 new days"}
    forged = changed(stored, "look", "standing", value=stands | {"sentence": "Gate passed at 1 %.", "level": said["level"]})
    gate = derived_verdict(forged).to_json()
    forged = changed(changed(forged, "gate", value=gate), "metrics", "headline", value=f"x: {gate['sentence']}")
    with pytest.raises(RevisionError, match="holds another verdict of its look"):
        check_verdict(forged, chain)


def test_another_version_may_word_it_otherwise(small_run, chain):
    """The figures decide; sentences are compared where the same version wrote them."""
    reworded = changed(small_run.stored, "gate", "sentence", value="Passed.")
    with pytest.raises(RevisionError, match=r"gate\.sentence"):
        check_verdict(reworded, chain)
    older = changed(changed(reworded, "trademl_version", value="0.2.9"), "metrics", "headline", value="a market: Passed.")
    check_verdict(older, chain)
    with pytest.raises(RevisionError, match=r"gate\.passed"):
        check_verdict(changed(older, "gate", "passed", value=False), chain)


@pytest.mark.slow
def test_an_alarm_that_was_accepted_is_no_longer_in_the_way(tmp_path):
    """What concerns one run stays out of the record: the verdict of the trades stands, and passes where nothing else objects."""

    def planted(alarms):
        return replace(alarms, is_planted=False)

    first = retrain(tmp_path, change={"inputs": first_bars, "alarms": planted}, until="finding")
    assert not first.finding.verdict.passed
    assert "knows the future" in first.finding.verdict.sentence
    assert first.finding.verdict.record_passed
    again = retrain(tmp_path, change={"inputs": first_bars, "alarms": planted}, until="finding", accept_leak="planted on purpose")
    assert again.look.standing is not None
    assert again.finding.verdict.passed


def test_verify_and_activate_refuse_it_on_the_command_line(small_run, chain, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "trademl.pipeline.market.recompute.derived_verdict",
        lambda stored: SimpleNamespace(to_json=lambda: dict(stored.revision.manifest["gate"]) | {"passed": False}),
    )
    words = [small_run.stored.name, "--models-dir", str(small_run.choice.models_dir)]
    done = CliRunner().invoke(app, ["models", "verify", *words, "--json"])
    record = json.loads(done.stdout)
    assert done.exit_code == 1
    assert record["checks"][-1]["name"] == "verdict" and not record["checks"][-1]["ok"]
    refused = CliRunner().invoke(app, ["models", "activate", *words, "--reason", "I like it"])
    assert isinstance(refused.exception, RevisionError)
    assert "the verdict was changed" in str(refused.exception)
    assert Store(small_run.choice.models_dir).active() is None


# --- one recipe, one record ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project in which one recipe was judged once."""
    folder = tmp_path_factory.mktemp("project")
    return folder, retrain(folder, change={"inputs": first_bars}, until="finding")


@pytest.mark.slow
@pytest.mark.parametrize("again", [{"windows.final_share": 0.22}, {"run.seed": 8}], ids=["another share", "another seed"])
def test_a_recipe_cannot_be_judged_again_by_turning_a_knob(project, again):
    folder, first = project
    second = retrain(folder, SMALL | again, change={"inputs": first_bars}, until="finding")
    assert second.look.number == first.look.number == 1
    assert second.look.standing is not None
    assert second.finding.verdict.passed == first.finding.verdict.passed
    assert first.finding.verdict.sentence in second.finding.verdict.sentence
    assert second.finding.verdict.sentence.startswith("Standing verdict of ")


@pytest.mark.slow
def test_another_recipe_pays_for_its_look_whatever_store_it_names(project):
    folder, _ = project
    before = records_of(read_chain((folder / "looks.jsonl").read_bytes(), "looks"))
    second = retrain(
        folder / "elsewhere", SMALL | {"ensemble.rf_trees": 13, "paths.models": str(folder)}, change={"inputs": first_bars}, until="finding"
    )
    assert second.look.number == len(before) + 1
    assert second.finding.verdict.level == pytest.approx(0.01 / second.look.number)
    assert f"look {second.look.number} at these days" in second.finding.verdict.sentence


def test_no_line_no_figures(tmp_path):
    """Where the look cannot be written, the run ends before any figure of final exists."""
    (tmp_path / "looks.jsonl").mkdir(parents=True)
    settings, seen = load_settings(SMALL | {"paths.models": str(tmp_path)}, environ={}), []
    request = SimpleNamespace(line="market-x-15min")
    with pytest.raises(Exception, match=r"looks\.jsonl.*no figures are shown|cannot be written"):
        seen.append(pipeline_look(settings, tmp_path, request))
    assert not seen


def pipeline_look(settings, folder, request):
    from trademl.pipeline.market.looks import take_look

    return take_look(settings, folder, request)


# --- prices are known by their content --------------------------------------------------------------------------------------


def windows_over(bars):
    """The last half is judged."""
    seconds = bars.index.as_unit("s").asi8
    half, three, end = (int(seconds[int(len(seconds) * share)]) for share in (0.5, 0.75, 0.999))
    spans = {"select": Span(half, three), "final": Span(three, end)}
    return SimpleNamespace(span=spans.__getitem__)


def test_a_year_that_is_copied_and_stamped_anew_is_refused(small_run):
    bars = small_run.inputs.bars
    refuse_repeats(bars, windows_over(bars))
    copied = bars.iloc[:4_000].set_axis(bars.index[:4_000] + pd.Timedelta(days=365))
    joined = pd.concat([bars.iloc[:4_000], copied])
    with pytest.raises(LeakageError, match=r"\d+% of their moves were seen before, with stamps 365 days earlier"):
        refuse_repeats(joined, windows_over(joined))


def test_training_prices_with_later_stamps_are_no_new_bars(small_run):
    bars, stored = small_run.inputs.bars, small_run.stored
    later = bars.set_axis(bars.index + pd.Timedelta(days=400))
    assert "with stamps 400 days earlier" in why_seen(stored, later, Span(0, 2**40))
    scaled = later * np.array([1.37] * 4 + [1.0])  # another price level does not hide them
    assert "with stamps 400 days earlier" in why_seen(stored, scaled, Span(0, 2**40))
    assert why_seen(stored, bars, Span(int(bars.index[-1].timestamp()) + 86_400, 2**40)) == ""
    inputs = small_run.inputs.__class__(**{**vars(small_run.inputs), "bars": later})
    settings = load_settings(SMALL | {"paths.models": str(small_run.choice.models_dir)}, environ={})
    conditions = pipeline.Conditions.of(stored, settings)
    with pytest.raises(LeakageError, match="the models have seen these prices"):
        pipeline.replay_bars(stored, inputs, settings, conditions, "run")
