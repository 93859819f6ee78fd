"""`trademl release`: the checklist and what a bot's operator is told; the whole way is `e2e/test_hub_transcript.py`."""

import json
import shutil
from types import SimpleNamespace

import pytest
from hub_rooms import NOW, rooms
from typer.testing import CliRunner

from trademl.cli import app
from trademl.commands.release import _heads
from trademl.errors import RevisionError
from trademl.pipeline.market.strategy import SHAPE, strategy_params
from trademl.ship.shapes import check_shape
from trademl.ship.store import Store


@pytest.fixture
def golden(repo, tmp_path):
    """A whole market revision that decides as the docs say."""
    shutil.copytree(repo / "docs" / "contract" / "golden" / "models", tmp_path / "golden")
    return Store(tmp_path / "golden").locate()


@pytest.mark.contract
def test_what_an_operator_is_told_is_what_the_manifest_says(golden):
    params = strategy_params(golden)
    check_shape(params, SHAPE, "strategy_params")
    section = golden.manifest["market"]
    assert (params["revision"], params["symbol"], params["line"]) == (golden.name, "SYNTH", "market-synth-15min")
    assert params["brackets"] == {name: section["label_spec"][name] for name in SHAPE["brackets"]}
    assert params["costs"] == section["costs"]
    three = params["profiles"][2]
    assert (three["profile"], three["margin_r"], three["base_risk_pct"]) == (3, section["decision"]["margins"]["3"]["margin_r"], 1.5)
    assert three["head"] == "risk_p3.onnx"
    assert [one["head"] for one in params["profiles"] if one["profile"] != 3] == [None] * 4


@pytest.fixture
def room(tmp_path, monkeypatch, golden):
    """A trainer whose newest revision is to be released; the replay of its trades is left out (these have none)."""
    room = rooms(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in {"PATHS_MODELS": "trainer", "PATHS_KEYS": "keys", "HUB_URL": tmp_path / "hub"}.items():
        monkeypatch.setenv(f"TRADEML_{name}", str(value))
    told = {"sentence": "31 trades", "backtest_report": "b.json"}
    evidence = SimpleNamespace(profile_account=SimpleNamespace(sentence="Never halted: start 500."))
    monkeypatch.setattr("trademl.commands.release.run_backtest", lambda *words: SimpleNamespace(summary=told, evidence=evidence))
    monkeypatch.setattr("trademl.commands.release.Pages.backtest", lambda self: {"cells": []})
    monkeypatch.setattr("trademl.commands.release.strategy_params", lambda revision: strategy_params(golden))
    monkeypatch.setattr("trademl.pipeline.market.recompute.check_verdict", lambda stored, chain: "believed")
    return room


def release(*words):
    done = CliRunner().invoke(app, ["release", *words, "--json"], catch_exceptions=False)
    return json.loads(done.stdout), done


def test_the_checklist_says_what_was_done_and_what_is_left(room, tmp_path):
    told, done = release()
    newest = room.revision(3)
    assert (done.exit_code, told["revision"], told["exit"]) == (0, newest.name, 0)
    assert [(one["step"], one["state"]) for one in told["checklist"]] == [
        ("manifest", "done"),
        ("risk heads", "done"),
        ("out of sample", "done"),
        ("push", "done"),
        ("parameters", "done"),
        ("approval", "left to you"),
        ("activation here", "left to you"),
        ("the bot", "left to you"),
    ]
    assert told["checklist"][2]["detail"] == "31 trades Never halted: start 500."
    assert f"trademl hub promote {newest.name}`" in told["checklist"][5]["detail"]
    assert room.hub.standing("candidate").pointer.revision == newest.name
    assert room.hub.standing() is None
    assert json.loads((tmp_path / told["strategy_params"]).read_text())["symbol"] == "SYNTH"
    page = (tmp_path / told["report"]).read_text("utf-8")
    for words in ("Six steps", "left to you", "every step done"):
        assert words in page
    room.hub.promote(newest.name, now=NOW)
    text = CliRunner().invoke(app, ["release"], catch_exceptions=False).stdout
    assert "[x]  approval" in text
    assert "approval 1 by key" in text


def test_a_verdict_that_profiles_share_is_said_once():
    entries = [{"profile": number, "published": number == 3, "verdict": "not shown" if number < 5 else "too few"} for number in range(1, 6)]
    (item,) = _heads(SimpleNamespace(manifest={"market": {"profiles": entries}}))
    assert item.detail == "published for profile 3; profile 1, 2, 4: not shown; profile 5: too few"


def test_a_dry_run_publishes_nothing(room):
    told, _ = release("--dry-run")
    assert "would send" in told["checklist"][3]["detail"]
    assert list(room.objects.list("")) == []


def test_a_refused_revision_is_a_candidate_and_ends_with_three(room):
    room.revision(4, passed=False)
    told, done = release()
    assert done.exit_code == told["exit"] == 3
    assert told["checklist"][2]["state"] == "refused"
    assert told["checklist"][5]["detail"].endswith("--reason TEXT`")


def test_without_a_hub_the_push_is_left_to_a_person(room, monkeypatch):
    monkeypatch.setenv("TRADEML_HUB_URL", "off")
    told, _ = release()
    assert told["checklist"][3] == {
        "step": "push",
        "state": "left to you",
        "detail": "[hub] url = off: name a bucket or a folder, then `trademl hub push`",
    }


def test_what_cannot_be_proven_is_not_released(room):
    path = room.revision(3).folder / "signal.onnx"
    path.chmod(0o644)
    path.write_bytes(b"x")
    with pytest.raises(RevisionError, match=r"signal\.onnx"):
        release()
    assert list(room.objects.list("")) == []
