"""`trademl models`: what a person and a script get to see, and the exit codes."""

import json
import sys

import make_revision as make
import pytest
from typer.testing import CliRunner

from trademl.cli import main
from trademl.cli.models import app
from trademl.errors import Exit, LockedError, UnknownRevisionError, UsageError
from trademl.ship.store import Store

RUNNER = CliRunner()
FILES = make.make_files()


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "models")
    store.write(FILES, make.make_manifest(trained_at="2026-01-01T00:00:00Z"))
    store.write(FILES, make.make_manifest(trained_at="2026-01-02T00:00:00Z", passed=False))
    return store


@pytest.fixture(autouse=True)
def believed(monkeypatch):
    """These revisions hold no trades; `test_recompute.py` takes verdicts apart."""
    monkeypatch.setattr("trademl.pipeline.market.recompute.check_verdict", lambda stored, chain: "believed")


def call(store, *words):
    return RUNNER.invoke(app, [*words, "--models-dir", str(store.models_dir)])


def read(store, *words):
    done = call(store, *words, "--json")
    return json.loads(done.stdout), done


def good_and_bad(store):
    bad, good = store.revisions()
    return good, bad


@pytest.mark.contract
def test_list_shows_every_revision_with_its_state(store):
    good, bad = good_and_bad(store)
    store.activate(good.name)
    record, done = read(store, "list")
    assert done.exit_code == 0
    assert [(row["revision"], row["state"], row["gate"]) for row in record["revisions"]] == [
        (bad.name, "candidate", "refused at 1 %"),
        (good.name, "active", "passed at 1 %"),
    ]
    assert record["broken"] == []
    text = call(store, "list").stdout
    assert good.name in text
    assert "candidate" in text


@pytest.mark.contract
def test_list_and_show_say_what_was_shown_and_how_sure_it_is(tmp_path):
    store, manifest = Store(tmp_path / "models"), make.make_manifest()
    manifest["gate"]["checks"]["expectancy_lower_bound_r"] = {"value": 0.0312}
    manifest["metrics"]["trades_summary"] = {"trades": 1_460, "expectancy_net_r": 0.2041}
    manifest["metrics"]["signal_summary"] = {"log_loss": 1.09213, "prior_log_loss": 1.09612}
    store.write(FILES, manifest)
    record, _ = read(store, "list")
    (row,) = record["revisions"]
    figures = {name: row[name] for name in ("trades", "expectancy_r", "bound_r", "log_loss", "prior_log_loss")}
    assert figures == {"trades": 1_460, "expectancy_r": 0.2041, "bound_r": 0.0312, "log_loss": 1.09213, "prior_log_loss": 1.09612}
    table = call(store, "list").stdout.splitlines()
    assert [table[1].index(name) for name in ("trades", "expectancy R", "bound", "log loss", "prior")] == [
        table[2].index(figure) for figure in ("1,460", "+0.204", "+0.031", "1.0921", "1.0961")
    ]
    shown = call(store, "show").stdout
    assert "+0.204 R net of cost on 1,460 trades, lower bound +0.031 at 1 %" in shown
    assert "1.0921 on final, class prior 1.0961" in shown


def test_figures_that_an_earlier_trademl_did_not_keep_are_dashes(store):
    assert call(store, "list").stdout.splitlines()[2].split("1 %")[1].split()[:5] == ["-"] * 5


def test_a_symbol_that_the_store_does_not_hold_is_refused(store):
    with pytest.raises(UsageError, match="holds revisions of BTCUSD, not of XAUUSD"):
        RUNNER.invoke(app, ["list", "--symbol", "XAUUSD", "--models-dir", str(store.models_dir)], catch_exceptions=False)
    assert call(store, "list", "--symbol", "BTCUSD").exit_code == 0


def test_list_shows_what_is_not_readable_and_an_empty_store(store, tmp_path):
    (store.folder / "notes").mkdir()
    record, _ = read(store, "list")
    assert record["broken"][0]["folder"].endswith("notes")
    assert "not readable" in call(store, "list").stdout
    assert "trademl retrain" in call(Store(tmp_path / "none"), "list").stdout


@pytest.mark.contract
def test_show_gives_the_manifest(store):
    good, bad = good_and_bad(store)
    record, _ = read(store, "show")
    assert record["revision"] == bad.name  # the newest
    assert record["manifest"] == bad.manifest
    text = call(store, "show", good.name[:6]).stdout
    for word in (good.name, "approved", "signal.onnx", "market-btcusd-15min"):
        assert word in text


@pytest.mark.contract
def test_verify_names_each_check_and_fails_on_a_flipped_byte(store):
    good, _ = good_and_bad(store)
    record, done = read(store, "verify", good.name)
    assert done.exit_code == record["exit"] == 0
    assert record["ok"] is True
    assert len(record["checks"]) == 11
    assert record["checks"][-1] == {"name": "verdict", "ok": True, "detail": "believed"}
    assert "every check passed" in call(store, "verify", good.name).stdout
    path = good.folder / "position.onnx"
    path.chmod(0o644)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    record, done = read(store, "verify", good.name)
    assert done.exit_code == record["exit"] == 1
    assert [(one["name"], one["ok"]) for one in record["checks"]] == [
        ("signature", True),
        ("manifest", True),
        ("files", True),
        ("hashes", False),
    ]
    text = call(store, "verify", good.name)
    assert text.exit_code == 1
    assert "do not use it" in text.stdout


@pytest.mark.contract
def test_activate_moves_the_pointer_and_a_dry_run_does_not(store):
    good, bad = good_and_bad(store)
    record, _ = read(store, "activate", good.name, "--dry-run")
    assert record == {"revision": good.name, "previous": None, "by": "hand", "reason": None, "moved": False}
    assert store.active() is None
    assert "active" in call(store, "activate", good.name).stdout
    assert store.active() == good
    refused = call(store, "activate", bad.name)
    assert isinstance(refused.exception, UsageError)
    record, _ = read(store, "activate", bad.name, "--reason", "paper only")
    assert (record["previous"], record["reason"], record["moved"]) == (good.name, "paper only", True)
    assert store.active() == bad


def test_activate_waits_for_nobody(store):
    good, _ = good_and_bad(store)
    with store.lock():
        assert isinstance(call(store, "activate", good.name).exception, LockedError)
        assert call(store, "activate", good.name, "--dry-run").exit_code == 0  # looking needs no lock


@pytest.mark.contract
def test_diff_shows_where_two_manifests_differ(store):
    good, bad = good_and_bad(store)
    record, _ = read(store, "diff", good.name, bad.name)
    assert {row["key"]: (row["one"], row["other"]) for row in record["differences"]} == {
        "trained_at": ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        "gate.passed": (True, False),
        "gate.reasons": ([], ["lower bound below zero"]),
        "gate.sentence": ("Gate passed at 1 %.", "Gate refused at 1 %."),
    }
    shown = call(store, "diff", good.name, bad.name).stdout
    assert shown.startswith(f"{good.name}  trained from nothing, as asked\n")
    assert "gate refused" in shown
    assert "gate.passed" in shown
    assert "gate.reasons" not in shown  # a detail of the verdict
    assert "2 details" in shown
    assert "gate.reasons" in call(store, "diff", good.name, bad.name, "--all").stdout
    assert "the same" in call(store, "diff", good.name, good.name).stdout


def test_an_unknown_revision_is_refused(store):
    for words in (("show", "ffff"), ("verify", "nothex"), ("activate", "ffff"), ("diff", "ffff", "0")):
        refused = call(store, *words).exception
        assert (type(refused), refused.exit_code) == (UnknownRevisionError, Exit.USAGE)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("words", "code"),
    [(["list"], 0), (["show", "ffff"], 2), (["activate", "BAD"], 2), (["activate"], 2), (["verify"], 1)],
)
def test_the_command_line_prints_one_object_and_ends_with_the_code(store, monkeypatch, capsys, words, code):
    _, bad = good_and_bad(store)
    words = [bad.name if word == "BAD" else word for word in words]
    monkeypatch.undo()  # nothing is believed: `verify` refuses a verdict without trades
    monkeypatch.setattr(sys, "argv", ["trademl", "models", *words, "--models-dir", str(store.models_dir), "--json"])
    with pytest.raises(SystemExit) as left:
        main()
    told = capsys.readouterr()
    assert left.value.code == code, told.err
    record = json.loads(told.out)
    if code:
        assert record["exit"] == code
        assert record.get("error") or not record["ok"]
