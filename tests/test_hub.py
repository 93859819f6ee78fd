"""The hub: published, approved, pulled, rolled back, collected; over a folder and over a real S3 server."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import make_revision as make
import numpy as np
import pytest
from hub_rooms import LINE, NOW, rooms

from trademl.errors import Exit, HubError, LockedError, RevisionError, RollbackError, SupersededError, UsageError
from trademl.files import canonical_json, strict_json
from trademl.ship.hub.hub import Hub, Terms
from trademl.ship.hub.objects import FolderObjects
from trademl.ship.hub.pointer import MAX_BYTES, Channel, sign_pointer
from trademl.ship.hub.pull import pull
from trademl.ship.hub.room import blob_key
from trademl.ship.runtime import predict_onnx
from trademl.ship.signing import KeyFolder, Trust
from trademl.ship.store import State, Store


@pytest.fixture(params=["folder", "s3"])
def either(request, tmp_path):
    """Both kinds of hub."""
    return rooms(tmp_path, None if request.param == "folder" else request.getfixturevalue("s3_server"))


SERVER_SLOW = pytest.mark.parametrize("either", ["folder", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)


@pytest.fixture
def room(tmp_path):
    """A hub in a folder."""
    return rooms(tmp_path)


def fetch(room, **words):
    return pull(room.seen_by_bot, room.bot, **{"now": NOW} | words)


def keys_of(room):
    return [entry.key for entry in room.objects.list("")]


@pytest.mark.contract
class TestTheWay:
    """From a retrain to a bot and back."""

    def test_push_promote_pull(self, either):
        revision = either.revision()
        pushed = either.hub.push(revision, now=NOW)
        assert (pushed.present, pushed.is_done) == (0, True)
        assert set(pushed.sent) == set(revision.files())
        promoted = either.hub.promote(revision.name, now=NOW, expires_days=30)
        assert (promoted.seq, promoted.previous, promoted.moved, promoted.expires_at) == (1, None, True, "2026-03-05T04:05:06Z")
        done = fetch(either)
        assert (done.revision, done.seq, done.previous, done.activated) == (revision.name, 1, None, True)
        assert done.fetched == sum(entry["bytes"] for entry in revision.files().values())
        assert "nothing was seen of this hub before" in done.remarks[0]
        active = either.bot.active(NOW)
        assert active.name == revision.name
        active.verify()
        assert either.bot.pointer()["activation"]["reason"].startswith("approval 1 on the hub by key ")
        assert {path.name for path in active.folder.iterdir()} == {path.name for path in revision.folder.iterdir()}

    def test_nothing_is_sent_twice(self, either):
        one, two = either.revision(1), either.revision(2)
        either.hub.push(one, now=NOW)
        again = either.hub.push(one, now=NOW)
        assert (again.sent, again.bytes_sent, again.present) == ((), 0, len(one.files()))
        second = either.hub.push(two, now=NOW)
        assert second.sent == ("metrics.json",)
        assert either.seen_by_bot.revisions() == sorted([one.name, two.name])

    @SERVER_SLOW
    def test_a_pull_without_news_fetches_nothing(self, either):
        either.approved()
        fetch(either)
        again = fetch(either)
        assert (again.fetched, again.previous, again.remarks) == (0, again.revision, ())

    @SERVER_SLOW
    def test_a_rollback_is_a_higher_number(self, either):
        one, two = either.approved(1), either.approved(2)
        fetch(either)
        assert either.bot.active(NOW).name == two.name
        back = either.hub.rollback(None, now=NOW, reason="two loses money")
        assert (back.revision, back.seq, back.previous) == (one.name, 3, two.name)
        fetch(either)
        assert either.bot.active(NOW).name == one.name
        log = either.seen_by_bot.log()
        assert [(entry.pointer.seq, entry.pointer.revision, entry.problem) for entry in log] == [
            (3, one.name, None),
            (2, two.name, None),
            (1, one.name, None),
        ]
        assert log[0].pointer.reason == "two loses money"
        assert either.seen_by_bot.verify() == (sorted([one.name, two.name]), [])

    def test_another_promoter_is_not_overwritten_unseen(self, either):
        one, two = either.approved(1), either.revision(2)
        either.hub.push(two, now=NOW)
        seen = either.hub.standing()
        either.hub.promote(two.name, now=NOW)
        with pytest.raises(
            SupersededError, match=f"approval 1 was read, and meanwhile there is approval 2 of revision {two.name}"
        ) as refusal:
            either.hub._advance(Channel.APPROVED, seen, either.hub.published(one.name), Terms(NOW, "late"), renew=True)
        assert refusal.value.exit_code == Exit.GATE_REFUSED
        with pytest.raises(SupersededError, match="approval 1 was seen, and 2 stands"):
            either.hub.promote(one.name, now=NOW, seen=1)
        assert either.hub.standing().pointer.revision == two.name
        assert [entry.pointer.seq for entry in either.hub.log()] == [2, 1]

    @SERVER_SLOW
    def test_collecting_keeps_what_is_named_and_what_is_young(self, either):
        one, two, three = either.approved(1), either.approved(2), either.approved(3)
        four = either.revision(4)
        either.hub.push(four, now=NOW)
        later, grace = datetime.now(UTC) + timedelta(hours=1), timedelta(minutes=30)
        assert either.hub.collect(now=datetime.now(UTC), grace=grace, keep=1).revisions == ()
        dry = either.hub.collect(now=later, grace=grace, keep=1, dry_run=True)
        assert (dry.revisions, dry.blobs, dry.is_done) == ((one.name,), 1, False)
        assert one.name in either.hub.revisions()
        done = either.hub.collect(now=later, grace=grace, keep=1)
        assert (done.revisions, done.blobs, done.is_done) == ((one.name,), 1, True)
        assert done.bytes_freed == one.files()["metrics.json"]["bytes"]
        assert either.hub.verify() == (sorted([two.name, three.name, four.name]), [])
        fetch(either)


@pytest.mark.fault
def test_collecting_leaves_what_no_push_wrote(room):
    """A system's own files in a shared folder, names that are none: they are in nobody's way."""
    room.approved(1)
    later, strangers = (
        datetime.now(UTC) + timedelta(hours=1),
        ("blobs/Thumbs.db", "blobs/sha256/ab/.x", "revisions/Desktop.ini/a", "blobs/sha256/aa/bb"),
    )
    for name in strangers:
        path = room.folder / "hub" / room.key(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    done = room.hub.collect(now=later, grace=timedelta(minutes=1), keep=1)
    assert (done.revisions, done.blobs) == ((), 0)
    assert all((room.folder / "hub" / room.key(name)).exists() for name in strangers)


class TestPush:
    """What is published."""

    def test_an_unsigned_revision_is_not(self, room):
        unsigned = Store(room.folder / "unsigned").write(make.make_files(), make.make_manifest())
        with pytest.raises(RevisionError, match="is not signed"):
            room.hub.push(Store(room.folder / "unsigned", room.trust).locate(unsigned.name), now=NOW)
        with pytest.raises(UsageError, match="the hub takes signed revisions alone"):
            Hub(room.objects, LINE, Trust(), Trust()).push(unsigned, now=NOW)
        assert keys_of(room) == []

    def test_another_line_is_not(self, room):
        with pytest.raises(HubError, match="does not belong to market-eurusd-15min"):
            replace(room.hub, line="market-eurusd-15min").push(room.revision(), now=NOW)

    def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(self, room):
        dry = room.hub.push(room.revision(), now=NOW, dry_run=True)
        assert dry.bytes_sent > 0 and not dry.is_done
        assert keys_of(room) == []

    def test_it_is_a_candidate_then(self, room):
        one, two = room.revision(1), room.revision(2)
        room.hub.push(one, now=NOW)
        room.hub.push(two, now=NOW)
        assert room.hub.standing(Channel.CANDIDATE).pointer.revision == two.name
        assert room.hub.standing() is None
        done = fetch(room, channel="candidate")
        assert (done.revision, done.activated) == (two.name, False)
        assert room.bot.active(NOW) is None

    def test_a_file_that_holds_other_bytes_is_told_and_healed(self, room):
        revision = room.approved()
        key = room.key(blob_key(revision.files()["signal.onnx"]["sha256"]))
        (room.folder / "hub" / key).write_bytes(b"other")
        with pytest.raises(HubError, match=r"signal.onnx\) holds other bytes than its name says; --heal replaces it"):
            room.hub.push(revision, now=NOW)
        with pytest.raises(HubError, match="trademl hub push REV --heal"):
            fetch(room)
        assert room.bot.active(NOW) is None
        assert room.hub.push(revision, now=NOW, heal=True).sent == ("signal.onnx",)
        fetch(room)
        assert room.bot.active(NOW).name == revision.name

    def test_a_file_that_is_gone_is_sent_again(self, room):
        revision = room.approved()
        room.objects.delete(room.key(blob_key(revision.files()["golden.npz"]["sha256"])))
        assert "golden.npz" not in " ".join(room.hub.verify()[0])
        assert "holds no" in room.hub.verify()[1][0]
        with pytest.raises(HubError, match="holds no"):
            fetch(room)
        assert room.hub.push(revision, now=NOW).sent == ("golden.npz",)
        fetch(room)


class Meddling(FolderObjects):
    """A folder in which somebody does something once, just before an object of this name is written or listed."""

    before, deed = "", staticmethod(lambda: None)

    def _meddle(self, key):
        if self.before in key and self.deed:
            deed, type(self).deed = self.deed, None
            deed()

    def put(self, key, data, tag=None):
        self._meddle(key)
        super().put(key, data, tag)

    def list(self, prefix):
        self._meddle(prefix)
        return super().list(prefix)


@pytest.mark.fault
class TestCollectingMeanwhile:
    """A collection beside a push: what the push needs is there afterwards."""

    def test_a_file_that_goes_before_the_manifest_is_seen_is_sent_again(self, room, monkeypatch):
        room.hub.push(room.revision(1), now=NOW)
        key = room.key(blob_key(room.revision(2).files()["signal.onnx"]["sha256"]))  # the push of 2 finds it there
        monkeypatch.setattr(Meddling, "before", "manifest.json")
        monkeypatch.setattr(Meddling, "deed", staticmethod(lambda: room.objects.delete(key)))
        replace(room.hub, objects=Meddling(room.objects.root)).push(room.revision(2), now=NOW)
        assert room.hub.verify()[1] == []

    def test_a_push_that_comes_after_the_revisions_were_listed_keeps_its_files(self, room, monkeypatch):
        old = room.revision(1)
        room.hub.push(old, now=NOW)
        for name in ("manifest.json", "manifest.sig"):
            room.objects.delete(room.key(f"revisions/{old.name}/{name}"))
        for key in [key for key in keys_of(room) if "/channels/" in key]:
            room.objects.delete(key)  # now nobody names its files
        monkeypatch.setattr(Meddling, "before", "blobs/")
        monkeypatch.setattr(Meddling, "deed", staticmethod(lambda: room.hub.push(old, now=NOW)))
        later = datetime.now(UTC) + timedelta(hours=1)
        done = replace(room.hub, objects=Meddling(room.objects.root)).collect(now=later, grace=timedelta(minutes=1), keep=1)
        assert done.blobs == 0
        assert room.hub.verify() == ([old.name], [])


class TestPromote:
    """Who may say what bots trade."""

    def test_a_candidate_takes_a_reason_that_is_kept(self, room):
        revision = room.revision(passed=False)
        room.hub.push(revision, now=NOW)
        with pytest.raises(UsageError, match="approving it takes --reason TEXT"):
            room.hub.promote(revision.name, now=NOW)
        room.hub.promote(revision.name, now=NOW, reason="a trial on one lot")
        fetch(room)
        assert room.bot.pointer()["activation"]["reason"].endswith("a trial on one lot")
        assert room.bot.state(room.bot.active(NOW)) == State.ACTIVE

    def test_what_is_not_there_cannot_be_approved(self, room):
        revision = room.revision()
        with pytest.raises(HubError, match="holds no"):
            room.hub.promote(revision.name, now=NOW)
        room.hub.push(revision, now=NOW)
        room.objects.delete(room.key(blob_key(revision.files()["signal.onnx"]["sha256"])))
        with pytest.raises(HubError, match=f"lacks signal.onnx; `trademl hub push {revision.name}`"):
            room.hub.promote(revision.name, now=NOW)
        assert room.hub.standing() is None

    def test_the_same_again_moves_nothing_and_a_renewal_does(self, room):
        revision = room.approved(expires_days=30)
        later = NOW + timedelta(days=20)
        assert room.hub.promote(revision.name, now=later, expires_days=30).moved is False
        renewed = room.hub.promote(revision.name, now=later, expires_days=30, renew=True)
        assert (renewed.seq, renewed.moved, renewed.expires_at) == (2, True, "2026-03-25T04:05:06Z")

    def test_an_approval_that_ran_out_is_renewed_without_being_asked(self, room):
        revision = room.approved(expires_days=30)
        assert room.hub.promote(revision.name, now=NOW + timedelta(days=31), expires_days=30).seq == 2

    def test_a_dry_run_moves_nothing(self, room):
        revision = room.revision()
        room.hub.push(revision, now=NOW)
        before = keys_of(room)
        assert room.hub.promote(revision.name, now=NOW, dry_run=True).moved is False
        assert keys_of(room) == before

    def test_a_revision_that_expired_is_refused(self, room):
        revision = room.revision(expires_at="2026-02-01T00:00:00Z")
        with pytest.raises(HubError, match="expired at 2026-02-01"):
            room.hub.push(revision, now=NOW)

    def test_a_separate_approver_decides_alone(self, room):
        """The trainer pushes candidates; only the approver's key moves what bots trade, and a bot knows both."""
        other = KeyFolder(room.folder / "approver")
        other.create()
        approver = other.trust()
        trainers = replace(room.hub, approvers=replace(approver, signs_with=room.trust.signs_with))
        revision = room.revision()
        trainers.push(revision, now=NOW)
        with pytest.raises(UsageError, match=f"only the key {approver.pinned[0].name} may approve"):
            trainers.promote(revision.name, now=NOW)
        approvers = replace(room.hub, makers=Trust(room.trust.pinned), approvers=approver)
        approvers.promote(revision.name, now=NOW)
        with pytest.raises(HubError, match="is signed by key"):
            fetch(room)  # a bot that pins the trainer for both
        bots = replace(room.seen_by_bot, approvers=Trust(approver.pinned))
        assert pull(bots, room.bot, now=NOW).revision == revision.name

    def test_without_a_key_nobody_approves(self, room):
        revision = room.revision()
        room.hub.push(revision, now=NOW)
        with pytest.raises(UsageError, match="no key signs here"):
            room.seen_by_bot.promote(revision.name, now=NOW)

    def test_a_rollback_takes_a_reason_and_something_to_go_back_to(self, room):
        with pytest.raises(UsageError, match="nothing of the line"):
            room.hub.rollback(None, now=NOW, reason="why")
        one, two = room.approved(1), room.revision(2)
        room.hub.push(two, now=NOW)
        with pytest.raises(UsageError, match="takes --reason TEXT"):
            room.hub.rollback(None, now=NOW, reason=" ")
        with pytest.raises(UsageError, match="no other revision"):
            room.hub.rollback(None, now=NOW, reason="why")
        with pytest.raises(UsageError, match=f"revision {two.name} was never approved"):
            room.hub.rollback(two.name[:8], now=NOW, reason="why")
        room.hub.promote(two.name, now=NOW)
        assert room.hub.rollback(one.name[:8], now=NOW, reason="why").revision == one.name

    def test_a_reason_has_an_end(self, room):
        revision = room.revision()
        room.hub.push(revision, now=NOW)
        with pytest.raises(UsageError, match="at most 1,000 are kept"):
            room.hub.promote(revision.name, now=NOW, reason="x" * 1001)


@pytest.mark.fault
class TestTrust:
    """What somebody who can write to the hub may try; the bot's active revision stands each time."""

    @pytest.fixture
    def standing(self, tmp_path):
        """Two approvals, both pulled; whatever happens then, the second revision stays active and the memory with it."""
        room = rooms(tmp_path, is_standing=True)
        one, two = room.revision(1), room.revision(2)
        memory = room.bot.recall("approved")
        yield room, one, two
        assert room.bot.active(NOW).name == two.name
        assert room.bot.recall("approved") == memory

    def put(self, room, data, key="channels/approved.json"):
        (room.folder / "hub" / room.key(key)).write_bytes(data)

    def pointer(self, room, **changes):
        """What stands, changed and signed anew by the right key."""
        return sign_pointer(replace(room.hub.standing().pointer, **changes), room.trust)

    def test_a_replayed_older_pointer(self, standing):
        room, _, _ = standing
        self.put(room, room.objects.get(room.key("channels/log/approved/00000001.json"), MAX_BYTES).data)
        with pytest.raises(RollbackError, match="shows approval 1, and 2 was seen before"):
            fetch(room)

    def test_an_older_pointer_is_not_approved_over(self, standing):
        """The log tells: the successor of pointer 1 is there already."""
        room, one, _ = standing
        current = room.objects.get(room.key("channels/approved.json"), MAX_BYTES).data
        self.put(room, current, "channels/log/approved/00000002.json")
        self.put(room, self.pointer(room, seq=2, reason="another"))
        with pytest.raises(HubError, match="the log holds another approval 2"):
            room.hub.promote(one.name, now=NOW)
        self.put(room, current)
        assert room.hub.verify()[1] == []

    @pytest.mark.parametrize("number", [1, None])
    def test_an_older_pointer_that_was_put_back_is_found_out_by_a_promoter(self, standing, number):
        """Or none at all: the copy of its successor lies in the log, and nothing is approved over it unseen."""
        room, _, _ = standing
        three, current = room.revision(3), room.objects.get(room.key("channels/approved.json"), MAX_BYTES).data
        room.hub.push(three, now=NOW)
        if number is None:
            room.objects.delete(room.key("channels/approved.json"))
        else:
            self.put(room, room.objects.get(room.key(f"channels/log/approved/0000000{number}.json"), MAX_BYTES).data)
        before = keys_of(room)
        with pytest.raises(HubError, match="an older one was put back"):
            room.hub.promote(three.name, now=NOW, reason="why")
        if number is not None:
            with pytest.raises(HubError, match="approval 2 is not the one that approval 1 follows"):
                room.hub.rollback(None, now=NOW, reason="why")
        assert keys_of(room) == before
        assert any("is not the one that" in problem or "was taken away" in problem for problem in room.hub.verify()[1])
        self.put(room, current)
        assert room.hub.verify()[1] == []

    def test_a_rollback_does_not_pass_over_what_it_cannot_believe(self, standing):
        """Somebody who spoils a log entry must not choose what a rollback goes back to."""
        room, one, _ = standing
        room.hub.promote(one.name, now=NOW, reason="a trial")
        room.approved(3)
        log = [room.key(f"channels/log/approved/0000000{number}.json") for number in (1, 2, 3)]
        whole = (room.folder / "hub" / log[2]).read_bytes()
        (room.folder / "hub" / log[2]).write_bytes(b"{}")
        with pytest.raises(HubError, match=r"00000003\.json is not believed .*; name the revision"):
            room.hub.rollback(None, now=NOW, reason="why")
        (room.folder / "hub" / log[2]).write_bytes(whole)
        assert room.hub.rollback(None, now=NOW, reason="why", dry_run=True).revision == one.name

    def test_an_edited_pointer(self, standing):
        room, one, _ = standing
        outer = strict_json(room.hub.standing().data)
        outer["pointer"]["revision"] = one.name
        self.put(room, canonical_json(outer))
        with pytest.raises(HubError, match="forged or altered"):
            fetch(room)

    def test_a_strangers_key(self, standing, tmp_path):
        room, one, _ = standing
        stranger = KeyFolder(tmp_path / "stranger")
        stranger.create()
        pointer = replace(room.hub.standing().pointer, seq=3, revision=one.name, manifest_sha256=one.manifest_sha256)
        self.put(room, sign_pointer(pointer, stranger.trust()))
        with pytest.raises(HubError, match=r"is signed by key [0-9a-f]{16}, and the key [0-9a-f]{16} is pinned here"):
            fetch(room)

    def test_a_strangers_signature_under_the_pinned_name(self, standing, tmp_path):
        room, _, _ = standing
        stranger = KeyFolder(tmp_path / "stranger")
        stranger.create()
        outer = strict_json(sign_pointer(replace(room.hub.standing().pointer, seq=3), stranger.trust()))
        outer["signature"]["key"] = room.trust.pinned[0].name
        self.put(room, canonical_json(outer))
        with pytest.raises(HubError, match="forged or altered"):
            fetch(room)

    POINTERS = (
        ({"channel": "candidate"}, "is an approval of channel candidate, expected approved"),
        ({"line": "market-eurusd-15min"}, "is an approval of line market-eurusd-15min"),
        ({"approved_by": "0" * 16}, "and another key signed"),
        ({"seq": 0}, "seq = 0"),
        ({"seq": True}, "seq = True"),
        ({"revision": "../../etc/passwd"}, "revision = '../../etc/passwd'"),
        ({"manifest_sha256": "0" * 64}, "manifest_sha256"),
        ({"previous": None}, "previous = None"),
        ({"approved_at": "2026-02-31T00:00:00Z"}, "approved_at"),
        ({"expires_at": "soon"}, "expires_at = 'soon'"),
        ({"gates": {}}, "gates"),
        ({"nonce": ""}, "nonce"),
    )

    def test_a_pointer_of_the_right_key_that_does_not_fit(self, standing):
        room, _, _ = standing
        made = [(self.pointer(room, **{"seq": 3} | changes), match) for changes, match in self.POINTERS]
        for data, match in made:
            self.put(room, data)
            with pytest.raises(HubError, match=match):
                fetch(room)

    BYTES = (
        (b"", "not strict JSON"),
        (b"<html><body>Sign in</body></html>", "a web page where an approval should be"),
        (b"[" * 5_000, "not strict JSON"),
        (b'{"pointer":{},"pointer":{},"signature":{}}', "a key is repeated"),
        (b'{"pointer":{"seq":NaN},"signature":{}}', "not a finite number"),
        (b'{"pointer":{},"signature":{}}', "manifest.sig cannot be read"),
        (b"x" * (MAX_BYTES + 1), "longer than 16,384 bytes"),
    )

    def test_bytes_that_are_no_pointer(self, standing):
        room, _, _ = standing
        for data, match in self.BYTES:
            self.put(room, data)
            with pytest.raises(HubError, match=match):
                fetch(room)

    def test_a_signature_over_reordered_json(self, standing):
        room, _, _ = standing
        outer = strict_json(room.hub.standing().data)
        shuffled = dict(reversed(list(outer["pointer"].items())))
        self.put(room, json.dumps({"pointer": shuffled, "signature": outer["signature"]}, separators=(",", ":")).encode())
        with pytest.raises(HubError, match="not in canonical form"):
            fetch(room)

    def test_an_empty_signature(self, standing):
        room, _, _ = standing
        outer = strict_json(room.hub.standing().data)
        self.put(room, canonical_json(outer | {"signature": {"key": room.trust.pinned[0].name, "signature": ""}}))
        with pytest.raises(HubError, match="key and a signature"):
            fetch(room)

    def test_the_same_number_with_another_digest(self, standing):
        room, _, _ = standing
        self.put(room, self.pointer(room, reason="another"))
        with pytest.raises(RollbackError, match="another approval 2 than the one seen before"):
            fetch(room)

    def test_a_pointer_from_the_future(self, standing):
        """Approved by a clock that runs ahead, or seen by one that is behind."""
        room, one, _ = standing
        room.hub.promote(one.name, now=NOW + timedelta(minutes=6))
        with pytest.raises(HubError, match="set this machine's clock right"):
            fetch(room)

    def test_frozen_past_its_expiry(self, room):
        """Somebody who can only hold the hub still: warned of, or refused where the settings say so."""
        room.approved(expires_days=30)
        late = NOW + timedelta(days=31)
        done = fetch(room, now=late)
        assert "ran out at 2026-03-05T04:05:06Z" in done.remarks[1]
        assert done.activated
        with pytest.raises(HubError, match=r"hub promote [0-9a-f]{16} --renew` renews it"):
            fetch(room, now=late, refuse_expired=True)
        assert room.bot.active(NOW) is not None

    def test_a_manifest_that_is_another_one(self, standing):
        room, one, _ = standing
        three = room.approved(3)
        self.put(room, canonical_json(one.manifest), f"revisions/{three.name}/manifest.json")
        with pytest.raises(HubError, match="is not the manifest that is named by its hash"):
            fetch(room)

    def test_a_manifest_whose_signature_is_gone_or_anothers(self, standing):
        room, one, _ = standing
        three = room.approved(3)
        self.put(room, (one.folder / "manifest.sig").read_bytes(), f"revisions/{three.name}/manifest.sig")
        with pytest.raises(HubError, match="forged or altered"):
            fetch(room)
        room.objects.delete(room.key(f"revisions/{three.name}/manifest.sig"))
        with pytest.raises(HubError, match="holds no"):
            fetch(room)

    def test_a_manifest_of_a_hundred_megabytes(self, standing):
        room, _, _ = standing
        three = room.approved(3)
        path = room.folder / "hub" / room.key(f"revisions/{three.name}/manifest.json")
        with path.open("r+b") as stream:
            stream.truncate(100 << 20)
        with pytest.raises(HubError, match="longer than 262,144 bytes"):
            fetch(room)

    def test_a_file_that_was_altered_longer_or_cut(self, standing):
        room, _, _ = standing
        three = room.approved(3)
        key, whole = blob_key(three.files()["metrics.json"]["sha256"]), (three.folder / "metrics.json").read_bytes()
        for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole + b"x", whole[:-1]):
            self.put(room, damaged, key)
            with pytest.raises(HubError, match=r"is not what its name says|longer than"):
                fetch(room)
            assert list((room.bot.models_dir / ".staging").iterdir()) == []

    def test_a_line_in_anothers_place(self, standing):
        """A whole other line's room, copied over this one: the pointer is of that line."""
        room, _, _ = standing
        with pytest.raises(HubError, match="nothing of the line market-eurusd-15min is approved yet"):
            pull(replace(room.seen_by_bot, line="market-eurusd-15min"), room.bot, now=NOW)

    def test_another_lines_store(self, room):
        room.approved()
        other = Store(room.folder / "other", room.trust)
        other.write(make.make_files(), make.make_manifest(symbol="EURUSD"))
        with pytest.raises(UsageError, match="one store holds one line"):
            pull(room.seen_by_bot, other, now=NOW)

    def test_no_pinned_key(self, room):
        room.approved()
        with pytest.raises(UsageError, match="no key is pinned here"):
            pull(Hub(room.objects, LINE, Trust(), Trust()), Store(room.folder / "bot"), now=NOW)

    def test_a_memory_that_was_deleted_is_said(self, standing):
        room, _, _ = standing
        (room.bot.models_dir / "state.json").unlink()
        assert "taken on its signature; none older from now on" in fetch(room).remarks[0]

    @pytest.mark.parametrize("state", [b'{"hub":[]}', b'{"hub":{"approved":{"seq":"2","sha256":"0"}}}', b"{"])
    def test_a_memory_that_cannot_be_read_is_not_guessed(self, room, state):
        room.approved()
        fetch(room)
        (room.bot.models_dir / "state.json").write_bytes(state)
        with pytest.raises(RevisionError, match="move it away"):
            fetch(room)

    def test_a_rotation_of_keys(self, room):
        """The bot pins both; then the old key alone no longer counts."""
        room.approved(1)
        keys = KeyFolder(room.folder / "keys")
        keys.rotate()
        both = replace(room, trust=keys.trust())
        two = both.approved(4)
        assert fetch(both).revision == two.name
        keys.finish()
        new = replace(room, trust=keys.trust())
        assert fetch(new).revision == two.name
        three = new.approved(5)
        with pytest.raises(HubError, match="is pinned here"):
            fetch(room)  # still pins the removed key alone
        assert fetch(new).revision == three.name
        assert [entry.problem is None for entry in new.seen_by_bot.log()] == [True, True, False]


@pytest.mark.fault
class TestPull:
    """What may go wrong on the bot's machine."""

    def test_no_room_on_the_disk(self, room, monkeypatch):
        room.approved()
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1_000}))
        with pytest.raises(RevisionError, match=r"1,000 bytes are free, a revision of .* does not fit; make room"):
            fetch(room)
        assert not (room.bot.folder).exists()

    def test_another_run_holds_the_store(self, room):
        room.approved()
        with room.bot.lock(), pytest.raises(LockedError, match="another run holds the lock"):
            fetch(room)

    def test_a_dry_run_fetches_and_moves_nothing(self, room):
        revision = room.approved()
        dry = fetch(room, dry_run=True)
        assert (dry.revision, dry.activated, dry.fetched > 0) == (revision.name, False, True)
        assert not room.bot.models_dir.exists()

    def test_golden_rows_that_this_machine_misses(self, tmp_path, monkeypatch):
        room = rooms(tmp_path, is_standing=True)
        room.approved(3)
        answers = predict_onnx

        def off(session, x):
            return {name: values + np.float32(1e-3) for name, values in answers(session, x).items()}

        with monkeypatch.context() as patch:
            patch.setattr("trademl.ship.revision.predict_onnx", off)
            with pytest.raises(RevisionError, match=r"misses its golden rows by 0\.001"):
                fetch(room)
        assert room.bot.active(NOW).name == room.revision(2).name
        assert len(room.bot.revisions()) == 1

    def test_a_revision_that_was_damaged_here_is_not_activated(self, room):
        one, two = room.approved(1), room.approved(2)
        fetch(room)
        room.hub.rollback(one.name, now=NOW, reason="why")
        fetch(room)
        path = room.bot.folder / two.name / "signal.onnx"
        path.chmod(0o644)
        path.write_bytes(b"damaged")
        room.hub.promote(two.name, now=NOW)
        with pytest.raises(RevisionError, match="signal\\.onnx is"):
            fetch(room)
        assert room.bot.active(NOW).name == one.name

    def test_an_active_revision_that_was_damaged_here_is_told(self, tmp_path):
        room = rooms(tmp_path, is_standing=True)
        path = room.bot.active(NOW).folder / "position.onnx"
        path.chmod(0o644)
        path.write_bytes(b"damaged")
        with pytest.raises(RevisionError, match=r"position\.onnx is not what the manifest says"):
            fetch(room)

    def test_a_local_pointer_that_a_bot_would_refuse_is_written_anew(self, tmp_path):
        room = rooms(tmp_path, is_standing=True)
        path = room.bot.models_dir / "model_compat.json"
        path.write_bytes(canonical_json(strict_json(path.read_bytes()) | {"feature_count": 1}))
        with pytest.raises(RevisionError, match="activate it anew"):
            room.bot.active(NOW)
        assert fetch(room).fetched == 0
        assert room.bot.active(NOW).name == room.revision(2).name

    def test_an_active_revision_that_expired_is_not_called_active(self, room):
        revision = room.revision(expires_at="2026-03-01T00:00:00Z")
        room.hub.push(revision, now=NOW)
        room.hub.promote(revision.name, now=NOW)
        fetch(room)
        with pytest.raises(RevisionError, match="expired at 2026-03-01"):
            fetch(room, now=NOW + timedelta(days=40))

    def test_a_local_pointer_that_is_torn_is_written_anew(self, tmp_path):
        room = rooms(tmp_path, is_standing=True)
        (room.bot.models_dir / "model_compat.json").write_bytes(b'{"revision":')
        assert fetch(room).previous is None
        assert room.bot.active(NOW).name == room.revision(2).name

    def test_a_hub_that_is_a_folder_elsewhere(self, room):
        with pytest.raises(HubError, match="is not a folder"):
            pull(replace(room.seen_by_bot, objects=FolderObjects(room.folder / "gone")), room.bot, now=NOW)
