"""What readers in other languages hold on to: documents that are the code's own, and golden files that the code still answers to."""

import copy
import json
import os

import jsonschema
import make_contract
import make_revision as make
import numpy as np
import pytest
from live import Recorded, close_of, decide, ready

from trademl.bot import AccountState, Bars, Calendar, DecisionLog, Expect, load_approved
from trademl.bot.contract import DOCUMENTS, contract, registry
from trademl.errors import RevisionError, UsageError
from trademl.files import canonical_json, strict_json
from trademl.market.features import FEATURES, feature_hash, last_row
from trademl.ship.manifest import complete_manifest, parse_manifest
from trademl.ship.signing import KeyFolder
from trademl.ship.store import Store

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def folder(repo, tmp_path_factory):
    """docs/contract; written anew first where that was asked for."""
    if os.environ.get("TRADEML_PIN") == "1":
        make_contract.write(repo / "docs" / "contract", tmp_path_factory.mktemp("scratch"))
    return repo / "docs" / "contract"


def refuses(name, record) -> bool:
    schema = contract(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    return not jsonschema.Draft202012Validator(schema).is_valid(record)


# ---------------------------------------------------------------- documents


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_documents_are_what_the_code_says(folder, name):
    """`TRADEML_PIN=1 pytest tests/test_contract.py` writes them anew."""
    assert (folder / make_contract.file_of(name)).read_text("utf-8") == make_contract.as_text(contract(name))


def test_an_unknown_document_is_refused():
    with pytest.raises(UsageError, match="manifest, pointer, signature, log, shadow, account, registry"):
        contract("models")


def test_the_registry_is_the_list_that_features_are_computed_from():
    record = registry(round_step=0.01)
    assert [entry["column"] for entry in record["features"]] == list(range(len(FEATURES)))
    told = [(entry["name"], entry["lookback"], entry["unit"], entry["formula"]) for entry in record["features"]]
    assert told == [(feature.name, feature.lookback, feature.unit, feature.meaning) for feature in FEATURES]
    assert record["feature_hash"] == feature_hash(round_step=0.01) != registry()["feature_hash"]
    assert all(entry["reference"].startswith("trademl.market.definitions.") for entry in record["features"])


MANGLED = {
    "a key less": lambda m: m.pop("lineage"),
    "another schema": lambda m: m.update(schema=99),
    "another pipeline": lambda m: m.update(pipeline="weather"),
    "no section": lambda m: m.pop("market"),
    "a section's key less": lambda m: m["market"].pop("decision"),
    "a name for a number": lambda m: m["data"].update(rows="5"),
    "a truth for a number": lambda m: m.update(seed=True),
    "a hash that is none": lambda m: m["files"][0].update(sha256="x"),
    "a local time": lambda m: m.update(trained_at="2026-01-02 03:04:05"),
    "nothing for a list": lambda m: m.update(models=None),
    "a number for a rule": lambda m: m["market"]["decision"].update(rule=1),
}


@pytest.mark.parametrize("what", MANGLED)
def test_the_manifests_schema_refuses_what_the_code_refuses(what):
    manifest = complete_manifest(make.make_files(), make.make_manifest())
    assert not refuses("manifest", manifest)
    mangled = copy.deepcopy(manifest)
    MANGLED[what](mangled)
    assert refuses("manifest", mangled)
    with pytest.raises(RevisionError):
        parse_manifest(canonical_json(mangled))


def test_what_is_really_written_fits_its_schema(small_run, tmp_path):
    """A trained revision, its signature and pointer; an account; a log of decisions, a fill and an exit."""
    keys = KeyFolder(tmp_path / "keys")
    keys.create()
    store, market = Store(tmp_path / "models", keys.trust()), Recorded.of(small_run.inputs)
    revision = store.write(*ready(small_run.stored.revision))
    store.activate(revision.name, "a test")
    predictor, log = load_approved(store.models_dir, [str(keys.signer())], profile=3, expect=Expect("SYNTH")), DecisionLog(tmp_path / "log")
    decision = decide(predictor, market)
    log.fill(decision, log.decision(decision, market.tail()), 100.5, 1, close_of(market.tail()))
    log.exit(decision, 0, 101, 1.0, close_of(market.tail()), "target")
    log.decision(decide(predictor, market, news_times=[]), market.tail())
    written = {
        "manifest": [revision.folder / "manifest.json", small_run.stored.revision.folder / "manifest.json"],
        "signature": [revision.folder / "manifest.sig"],
        "pointer": [revision.folder / "model_compat.json", store.models_dir / "model_compat.json"],
    }
    records = [(name, strict_json(path.read_bytes())) for name, paths in written.items() for path in paths]
    records += [("log", strict_json(line)) for line in log.path.read_bytes().splitlines()] + [("account", market.account.record())]
    assert [name for name, record in records if refuses(name, record)] == []
    assert len(records) == 10
    bare = [(name, {key: value for key, value in record.items() if key != "line"}) for name, record in records if name != "signature"]
    assert all(refuses(name, record) for name, record in bare)


def test_a_trained_revision_holds_its_registry(small_run):
    record, manifest = strict_json(small_run.stored.revision.read("registry.json")), small_run.stored.revision.manifest
    signal = next(model for model in manifest["models"] if model["role"] == "signal")
    assert record == registry(manifest["market"]["round_step"])
    assert [(entry["name"], entry["lookback"]) for entry in record["features"]] == [(f["name"], f["lookback"]) for f in signal["features"]]
    assert record["feature_hash"] == signal["feature_hash"]


# ---------------------------------------------------------------- golden files


@pytest.fixture(scope="module")
def golden(folder):
    """(predictor, bars, calendar, decisions) of docs/contract/golden."""
    kept = json.loads((folder / "golden" / "bars.json").read_text())
    bars, known = Bars(*(np.array(kept[name]) for name in Bars._fields)), kept["calendar"]
    calendar = Calendar(np.array(known["times"]), np.array(known["all_day_times"], np.int64), known["covers_until"])
    return make_contract.load(folder / "golden"), bars, calendar, json.loads((folder / "golden" / "decisions.json").read_text())


def test_the_golden_bars_still_give_the_golden_features_and_decisions(golden):
    predictor, bars, calendar, record = golden
    for wanted in record["cases"]:
        asked = {name: wanted[name] for name in ("row", "account", "open_position", "calendar_is_known")}
        got = make_contract.decided(predictor, bars, calendar, asked)
        assert got.keys() == wanted.keys()
        for name in ("features", "account_state", "trade_state"):
            assert almost(got[name], wanted[name], 1e-9), name
        for name, value in wanted["expected"].items():
            assert almost(got["expected"][name], value, record["tolerance"]), name


def almost(got, wanted, tolerance) -> bool:
    if wanted is None or isinstance(wanted, bool | str) or (isinstance(wanted, list) and wanted and isinstance(wanted[0], str)):
        return got == wanted
    got, wanted = (np.array(value, float) for value in (got, wanted))
    return got.shape == wanted.shape and np.allclose(got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def test_the_golden_decisions_try_every_way(golden):
    _, bars, calendar, record = golden
    told = [case["expected"] for case in record["cases"]]
    assert {case["side"] for case in told} == {-1, 0, 1}
    assert {case["leave"] for case in told} == {True, False, None}
    assert len({case["size_multiplier"] for case in told}) > 1
    assert [case["probabilities"] for case in told].count(None) == 1
    stale = next(case for case in record["cases"] if not case["calendar_is_known"])
    assert stale["features"][-4:] == [None] * 4
    x = last_row(Bars(*(column[stale["row"] - 1_999 : stale["row"] + 1] for column in bars)), calendar.times)
    assert np.isfinite(x).all()
    assert AccountState.of(stale["account"]).record() == stale["account"]
