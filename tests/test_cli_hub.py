"""`trademl hub`: what a person and a script get to see, and the exit codes."""

import json
import logging
import shutil
from typing import ClassVar

import hub_server
import pytest
from hub_rooms import LINE, NOW, rooms
from typer.testing import CliRunner

from trademl.cli import app
from trademl.commands.hub import open_publication
from trademl.errors import HubError, RevisionError, SupersededError, UsageError
from trademl.settings import load_settings
from trademl.ship.signing import KeyFolder

RUNNER = CliRunner()


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A trainer's folder with three revisions, and a hub in a folder; commands run on the trainer's machine."""
    room = rooms(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trademl.pipeline.market.recompute.check_verdict", lambda stored, chain: "believed")
    on_trainer(room, monkeypatch)
    monkeypatch.setenv("TRADEML_HUB_URL", str(tmp_path / "hub"))
    return room


def on_trainer(room, monkeypatch):
    monkeypatch.setenv("TRADEML_PATHS_MODELS", str(room.folder / "trainer"))
    monkeypatch.setenv("TRADEML_PATHS_KEYS", str(room.folder / "keys"))


def on_bot(room, monkeypatch):
    """A machine that knows the trainer's public key, and nothing else."""
    keys = KeyFolder(room.folder / "public")
    keys.path.mkdir(exist_ok=True)
    keys.trusted.write_text("".join(f"{key}\n" for key in room.trust.pinned))
    monkeypatch.setenv("TRADEML_PATHS_MODELS", str(room.folder / "bot"))
    monkeypatch.setenv("TRADEML_PATHS_KEYS", str(keys.path))


def call(*words):
    return RUNNER.invoke(app, ["hub", *words], catch_exceptions=False)


def read(*words):
    return json.loads(call(*words, "--json").stdout)


@pytest.mark.contract
def test_the_three_steps_and_a_rollback(room, monkeypatch):
    one, two = room.revision(1), room.revision(2)
    pushed = read("push", one.name[:6])
    assert (pushed["revision"], pushed["is_done"], pushed["present"], pushed["line"]) == (one.name, True, 0, LINE)
    promoted = read("promote")  # the candidate
    assert (promoted["revision"], promoted["seq"], promoted["moved"], promoted["remarks"]) == (one.name, 1, True, [])
    assert promoted["expires_at"] is not None
    on_bot(room, monkeypatch)
    pulled = read("pull")
    assert (pulled["revision"], pulled["activated"], pulled["previous"]) == (one.name, True, None)
    assert room.bot.pointer()["revision"] == one.name
    on_trainer(room, monkeypatch)
    assert "pushed" in call("push", two.name).stdout
    text = call("promote", two.name, "--reason", "better", "--seen", "1").stdout
    assert text.startswith(f"approval 2: {two.name} (before: {one.name}, until ")
    on_bot(room, monkeypatch)
    assert f"active: {two.name}, approval 2 of {LINE}" in call("pull").stdout
    on_trainer(room, monkeypatch)
    assert read("rollback", "--reason", "it loses")["revision"] == one.name
    log = read("log")
    assert [(entry["seq"], entry["revision"], entry["reason"]) for entry in log["entries"]] == [
        (3, one.name, "it loses"),
        (2, two.name, "better"),
        (1, one.name, None),
    ]
    assert "it loses" in call("log").stdout
    assert read("log", "--channel", "candidate", "--last", "1")["entries"][0]["revision"] == two.name
    verified = read("verify")
    assert (verified["ok"], verified["exit"], verified["wrong"]) == (True, 0, [])
    assert read("gc")["revisions"] == []


@pytest.mark.contract
def test_dry_runs_change_nothing(room, monkeypatch):
    one, two = room.approved(1), room.approved(2)
    room.hub.push(room.revision(3), now=NOW)
    before = sorted(entry.key for entry in room.objects.list(""))
    assert "would push" in call("push", room.revision(1).name, "--dry-run").stdout
    assert "would be approval 3" in call("promote", "--dry-run").stdout
    assert "would remove 0 revisions" in call("gc", "--dry-run").stdout
    assert "would be approval 3" in call("rollback", one.name, "--reason", "why", "--dry-run").stdout
    on_bot(room, monkeypatch)
    assert f"would be active: {two.name}" in call("pull", "--dry-run").stdout
    assert sorted(entry.key for entry in room.objects.list("")) == before
    assert not (room.folder / "bot").exists()


def test_a_promotion_that_comes_second_ends_with_three(room):
    room.approved(1)
    room.hub.push(room.revision(2), now=NOW)
    with pytest.raises(SupersededError, match="approval 0 was seen, and 1 stands"):
        call("promote", "--seen", "0")


def test_an_approver_who_does_not_hold_the_revision_is_told(room, monkeypatch):
    room.hub.push(room.revision(1), now=NOW)
    monkeypatch.setenv("TRADEML_PATHS_MODELS", str(room.folder / "elsewhere"))
    assert "its verdict was not judged again" in call("promote").stdout


def test_a_separate_approver_stands_in_the_settings(room, monkeypatch):
    other = KeyFolder(room.folder / "approver").create()
    monkeypatch.setenv("TRADEML_HUB_APPROVERS", str(other))
    call("push", room.revision(1).name)
    with pytest.raises(UsageError, match=f"only the key {other.name} may approve"):
        call("promote")
    (room.folder / "approver" / "trusted.txt").write_text(f"{room.trust.pinned[0]}\n")  # whose revisions count; its own key signs approvals
    monkeypatch.setenv("TRADEML_PATHS_KEYS", str(room.folder / "approver"))
    assert "approval 1" in call("promote").stdout
    on_bot(room, monkeypatch)
    assert "active" in call("pull").stdout


def test_a_verdict_that_does_not_follow_is_not_published(room, monkeypatch):
    def disproved(stored, chain):
        raise RevisionError("the verdict was changed; retrain")

    room.hub.push(room.revision(1), now=NOW)
    monkeypatch.setattr("trademl.pipeline.market.recompute.check_verdict", disproved)
    for words in (("push",), ("promote",)):
        with pytest.raises(RevisionError, match="the verdict was changed"):
            call(*words)
    assert room.hub.standing() is None


def test_verify_ends_with_one_when_something_is_wrong(room):
    revision = room.approved(1)
    room.objects.delete(room.key(f"blobs/sha256/{revision.files()['golden.npz']['sha256'][:2]}/{revision.files()['golden.npz']['sha256']}"))
    done = call("verify")
    assert done.exit_code == 1
    assert "1 things are wrong" in done.stdout


def test_the_line_is_the_symbols_when_the_store_is_empty(room, monkeypatch):
    on_bot(room, monkeypatch)
    with pytest.raises(HubError, match="nothing of the line market-xauusd-15min is approved yet"):
        call("pull", "--symbol", "XAUUSD")
    with pytest.raises(UsageError, match="channel = 'live' is not one of approved, candidate"):
        call("log", "--channel", "live")


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("off", r"\[hub\] url = off: no hub is set"),
        ("https://example.org", r"expected s3://BUCKET, the path of a folder, or off"),
        ("s3://", r"expected s3://BUCKET"),
        ("missing/folder", r"is not a folder; make it, or correct \[hub\] url"),
    ],
)
def test_a_hub_that_is_none(room, monkeypatch, url, match):
    monkeypatch.setenv("TRADEML_HUB_URL", url)
    with pytest.raises((HubError, UsageError), match=match):
        call("log")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("URL", "https://hub.example/b/x?X-Amz-Signature=s3cr3t"),
        ("URL", "s3://AKIA:s3cr3t@bucket"),
        ("ENDPOINT", "https://user:s3cr3t@store.example"),
    ],
)
def test_an_address_with_a_secret_in_it_is_refused_and_not_repeated(room, monkeypatch, name, value):
    monkeypatch.setenv(f"TRADEML_HUB_{name}", value)
    for words in (["hub", "log"], ["config", "show"]):
        with pytest.raises(UsageError, match=rf"\[hub\] {name.lower()}: takes no '@'") as refusal:
            RUNNER.invoke(app, words, catch_exceptions=False)
        assert "s3cr3t" not in str(refusal.value)


class TestARetrainPublishes:
    """`retrain --push-to-hub`, from where the run is stored."""

    SUMMARY: ClassVar = {"run_id": "r", "gate": {}, "seconds": {}, "report": "x", "metrics": {}, "exit": 0, "headline": "passed"}

    def publish(self, room, revision, **words):
        return open_publication(load_settings(), LINE).publish(room.store, self.SUMMARY | {"revision": revision.name}, **words)

    def test_what_passed_is_approved_and_renewed(self, room):
        first = self.publish(room, room.revision(1))
        assert (first["hub"]["seq"], first["exit"]) == (1, 0)
        assert first["hub"]["sentence"].startswith(f"on {room.folder / 'hub'}: {room.revision(1).name} is approval 1 (")
        again = self.publish(room, room.revision(1))  # the next week's run with the same outcome
        assert (again["hub"]["seq"], again["hub"]["sent"]) == (2, 0)

    def test_what_its_gate_refused_is_a_candidate(self, room):
        refused = room.revision(4, passed=False)
        told = self.publish(room, refused)["hub"]
        assert told["seq"] is None
        assert "is a candidate: its gate refused it" in told["sentence"]
        assert room.hub.standing() is None
        assert room.hub.standing("candidate").pointer.revision == refused.name

    def test_a_separate_approver_is_named(self, room, monkeypatch):
        other = KeyFolder(room.folder / "approver").create()
        monkeypatch.setenv("TRADEML_HUB_APPROVERS", str(other))
        told = self.publish(room, room.revision(1))
        assert f"key {other.name} must approve it, by `trademl hub promote {room.revision(1).name}`" in told["hub"]["sentence"]
        assert told["exit"] == 0

    def test_an_approval_that_came_meanwhile_stands(self, room):
        publication = open_publication(load_settings(), LINE)
        room.approved(2)
        told = publication.publish(room.store, self.SUMMARY | {"revision": room.revision(1).name})
        assert told["exit"] == 3
        assert "somebody approved another one while it trained" in told["hub"]["sentence"]
        assert room.hub.standing().pointer.revision == room.revision(2).name

    def test_new_heads_beside_a_revision_that_was_put_back_are_not_approved(self, room):
        assert "another revision is active here" in self.publish(room, room.revision(1), approves=False)["hub"]["sentence"]

    def test_a_hub_that_fails_afterwards_costs_no_training(self, room):
        publication = open_publication(load_settings(), LINE)
        shutil.rmtree(room.folder / "hub")
        with pytest.raises(HubError, match=f"is stored here, and `trademl hub push {room.revision(1).name}` publishes it") as refusal:
            publication.publish(room.store, self.SUMMARY | {"revision": room.revision(1).name})
        assert refusal.value.run["revision"] == room.revision(1).name

    @pytest.mark.parametrize(
        ("name", "value", "match"), [("TRADEML_HUB_URL", "off", "no hub is set"), ("TRADEML_PATHS_KEYS", "empty", "no key signs here")]
    )
    def test_what_is_missing_is_said_before_anything_is_trained(self, room, monkeypatch, name, value, match):
        monkeypatch.setenv(name, value)
        with pytest.raises(UsageError, match=match):
            RUNNER.invoke(app, ["retrain", "--push-to-hub", "--quiet"], catch_exceptions=False)
        assert not (room.folder / "reports").exists()


@pytest.mark.fault
class TestSecrets:
    """Credentials come from the environment, and never come out again."""

    @pytest.fixture
    def on_server(self, room, s3_server, monkeypatch):
        monkeypatch.setenv("TRADEML_HUB_URL", f"s3://{hub_server.BUCKET}/cli")
        monkeypatch.setenv("TRADEML_HUB_ENDPOINT", s3_server.endpoint)
        for name, value in hub_server.TRAINER.items():
            monkeypatch.setenv(name, value)
        return room

    def test_no_output_and_no_file_holds_one(self, on_server, monkeypatch, caplog):
        caplog.set_level(logging.INFO)
        said = "".join(call(*words).stdout for words in (("push",), ("promote",), ("pull", "--json")))
        said += RUNNER.invoke(app, ["config", "show", "--json"], catch_exceptions=False).stdout + caplog.text
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-0123456789")
        with pytest.raises(HubError, match="AWS_SECRET_ACCESS_KEY") as refusal:
            call("log")
        said += str(refusal.value)
        files = b"".join(path.read_bytes() for path in on_server.folder.rglob("*") if path.is_file())
        for secret in (*hub_server.SECRETS, *hub_server.TRAINER.values(), "wrong-secret"):
            assert secret not in said
            assert secret.encode() not in files

    @pytest.mark.slow
    def test_a_bots_credentials_suffice_to_pull_and_not_to_promote(self, on_server, monkeypatch):
        call("push")
        call("promote", "--renew")
        for name, value in hub_server.BOT.items():
            monkeypatch.setenv(name, value)
        on_bot(on_server, monkeypatch)
        assert "active" in call("pull").stdout
        on_trainer(on_server, monkeypatch)
        with pytest.raises(HubError, match="may only read, publishing takes Object Read & Write"):
            call("promote", "--renew")
