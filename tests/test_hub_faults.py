"""The hub under kills, cuts, flipped bits, racers and wrong clocks; `docs/hub-faults.md` says what each gives."""

import itertools
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import hub_server
import pytest
from hub_faults import Answers, Nursery, Proxy, Storm, Wire
from hub_rooms import NOW, files_of_all, rooms

from trademl.errors import HubError, LockedError, RevisionError, SupersededError
from trademl.files import digest
from trademl.ship.hub import s3
from trademl.ship.hub.kept import Kept
from trademl.ship.hub.objects import ConflictError, FolderObjects, RefusedError
from trademl.ship.hub.pull import pull
from trademl.ship.hub.room import blob_key
from trademl.ship.store import Store

pytestmark = pytest.mark.fault
SLOW = pytest.mark.slow
BOTS = itertools.count()
FILES = 6  # of a revision: three graphs, golden rows, metrics, native trees


@pytest.fixture
def room(tmp_path):
    """A trainer with three revisions, and an empty hub in a folder."""
    return rooms(tmp_path)


@pytest.fixture
def standing(tmp_path):
    """Two approvals, the second one pulled; the third revision is not pushed yet."""
    return rooms(tmp_path, is_standing=True)


@pytest.fixture(scope="module")
def nursery():
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def hurried(monkeypatch):
    """Silence is given up after a second instead of thirty."""
    monkeypatch.setattr(s3, "SILENCE_S", 1)
    monkeypatch.setattr(s3, "CONNECT_S", 1)


@pytest.fixture(scope="module")
def published(tmp_path_factory, s3_server):
    """Approved and on the server; who alters it mends it."""
    room = rooms(tmp_path_factory.mktemp("published"), s3_server)
    room.approved(1)
    return room


def fetch(room, hub=None, **words):
    return pull(hub or room.seen_by_bot, room.bot, **{"now": NOW} | words)


def remove(store):
    """A store is read-only inside."""
    for folder in (store.models_dir / "revisions").rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)
    shutil.rmtree(store.models_dir)


def through(room, endpoint):
    """The room's hub, reached by another address; pauses are left out."""
    objects = hub_server.bucket(endpoint, prefix=room.objects.prefix)
    return replace(room.hub, objects=objects), replace(room.seen_by_bot, objects=objects)


# ---------------------------------------------------------------- killed


class TestKilled:
    """A crash at any point: the next run ends it, and what a bot trades stands meanwhile."""

    @pytest.mark.parametrize(
        ("writes", "is_there"),
        [
            pytest.param(1, False, id="first blob"),
            pytest.param(3, False, id="half the blobs", marks=SLOW),
            pytest.param(FILES, False, id="last blob", marks=SLOW),
            pytest.param(FILES + 1, False, id="manifest"),
            pytest.param(FILES + 2, True, id="signature"),
            pytest.param(FILES + 3, True, id="candidate", marks=SLOW),
        ],
    )
    def test_a_push(self, room, nursery, writes, is_there):
        revision = room.revision(1)
        assert nursery.killed(room, "push", 1, "put", writes - 1)
        assert (revision.name in room.hub.revisions()) == is_there
        assert room.hub.standing() is None
        again = room.hub.push(revision, now=NOW)
        assert len(again.sent) == FILES - min(writes, FILES)
        assert room.hub.verify() == ([revision.name], [])
        room.hub.promote(revision.name, now=NOW)
        assert fetch(room).revision == revision.name

    @pytest.mark.parametrize(
        ("put", "before", "seq"),
        [
            pytest.param(0, True, 2, id="start", marks=SLOW),
            pytest.param(0, False, 2, id="archive"),
            pytest.param(1, True, 2, id="commit", marks=SLOW),
            pytest.param(1, False, 3, id="end"),
        ],
    )
    def test_a_promotion(self, standing, nursery, put, before, seq):
        standing.hub.push(standing.revision(3), now=NOW)
        assert nursery.killed(standing, "promote", 3, "put", put, before=before)
        assert standing.hub.standing().pointer.seq == seq
        assert standing.bot.active(NOW).name == standing.revision(2).name
        standing.hub.promote(standing.revision(3).name, now=NOW)
        assert [entry.pointer.seq for entry in standing.hub.log()] == [3, 2, 1]
        assert standing.hub.verify()[1] == []
        assert fetch(standing).seq == 3

    STEPS = (
        ("_finish", 0, False),  # the first file
        ("rename", 0, False),  # the revision has its place
        ("replace", 0, False),  # what was seen is remembered
        ("replace", 2, True),  # just before the pointer
        ("replace", 2, False),  # just after
    )
    MORE = (
        *(("_finish", count, False) for count in (3, FILES, FILES + 1, FILES + 2)),  # a file, the manifest, model_compat, the signature
        *(("sync_folder", count, False) for count in range(4)),
        ("rename", 0, True),
        ("replace", 0, True),
        ("replace", 1, True),
        ("replace", 1, False),
    )

    @pytest.mark.parametrize(("step", "count", "before"), [*STEPS, *(pytest.param(*one, marks=SLOW) for one in MORE)], ids=str)
    def test_a_pull(self, standing, nursery, step, count, before):
        standing.approved(3)
        assert nursery.killed(standing, "pull", 3, step, count, before=before)
        two, three = standing.revision(2).name, standing.revision(3).name
        good, broken = standing.bot.scan()
        assert broken == []
        assert {revision.name for revision in good} <= {two, three}
        is_swapped = (step, count, before) == ("replace", 2, False)
        assert standing.bot.active(NOW).name == (three if is_swapped else two)
        assert fetch(standing).revision == three
        assert standing.bot.active(NOW).name == three
        assert list((standing.bot.models_dir / ".staging").iterdir()) == []

    @pytest.mark.parametrize("rounds", [3, pytest.param(150, marks=SLOW)])
    def test_at_random_under_a_reader_that_verifies(self, standing, nursery, rounds):
        rng, kills = random.Random(19), 0  # the first three are steps, which come for sure
        names = {standing.revision(number).name for number in (1, 2, 3)}
        for turn in range(rounds):
            number = 1 + turn % 3
            if turn < 3:
                standing.hub.push(standing.revision(number), now=NOW)
            standing.hub.promote(standing.revision(number).name, now=NOW, renew=True)
            step, last = rng.choice([("_finish", 4), ("sync_folder", 4), ("replace", 3), ("milliseconds", 150)])
            kills += nursery.killed(standing, "pull", number, step, rng.randrange(last))
            active = standing.bot.active(NOW)
            active.verify(graphs=False)
            assert active.name in names
            assert standing.bot.scan()[1] == []
        assert kills > rounds / 3
        assert fetch(standing).revision == standing.hub.standing().pointer.revision


# ---------------------------------------------------------------- cut off


def cut_after(count: int, verb: bytes):
    """A way that ends for good with the request that follows `count` of blobs."""
    seen = []

    def fault(way, at, data):
        if way == "up":
            seen.extend([1] * data.count(verb + b" /hub/") * (b"/blobs/" in data))
        return None if len(seen) > count else data

    return fault


@pytest.mark.contract
class TestGoesOn:
    """What came whole is kept: the next run asks for the rest, and nothing crosses the wire twice."""

    def test_a_pull_that_was_cut(self, published, s3_server, hurried):
        far = replace(published, bot_folder=f"bot-{next(BOTS)}")
        entries = list(far.revision(1).manifest["files"])
        with Proxy(s3_server.port, cut_after(4, b"GET")) as proxy:
            for _ in range(2):
                with pytest.raises(HubError, match="no usable answer"):
                    fetch(far, through(far, proxy.endpoint)[1])
        assert far.bot.pointer() is None
        assert list((far.bot.models_dir / ".staging").iterdir()) == []
        rest = sum(entry["bytes"] for entry in entries[4:])
        assert fetch(far, dry_run=True).fetched == rest
        with Wire(far.readable) as wire:
            done = fetch(far)
        assert done.fetched == rest
        assert wire.count("GET", "blobs/") == {far.key(blob_key(entry["sha256"])): 1 for entry in entries[4:]}
        assert far.bot.active(NOW).name == far.revision(1).name
        assert not (far.bot.models_dir / ".fetched").exists()

    def test_a_push_that_was_cut(self, tmp_path, s3_server, hurried):
        room, sent = rooms(tmp_path, s3_server), []
        revision = room.revision(1)
        with Proxy(s3_server.port, cut_after(2, b"PUT")) as proxy:
            hub = through(room, proxy.endpoint)[0]
            with Wire(hub.objects) as wire, pytest.raises(HubError, match="no usable answer"):
                hub.push(revision, now=NOW)
        sent = wire.count("PUT", "blobs/")
        assert sorted(sent.values()) == [1, 1, s3.ATTEMPTS]  # two arrived, the third one never did
        with Wire(room.objects) as wire:
            again = room.hub.push(revision, now=NOW)
        assert len(again.sent) == FILES - 2
        blobs = wire.count("PUT", "blobs/")
        assert set(blobs.values()) == {1}
        assert {key for key, times in sent.items() if times == 1} | set(blobs) == {
            room.key(blob_key(entry["sha256"])) for entry in revision.files().values()
        }
        assert again.bytes_sent == sum(size for verb, key, size in wire.sent if verb == "PUT" and "blobs/" in key)
        with Wire(room.objects) as wire:
            room.hub.push(revision, now=NOW)
        assert [key for verb, key, _ in wire.sent if verb == "PUT"] == []

    @pytest.mark.parametrize("files", [1, pytest.param(FILES - 1, marks=SLOW)])
    def test_a_pull_that_was_killed(self, standing, nursery, files):
        revision = standing.approved(3)
        assert nursery.killed(standing, "pull", 3, "_finish", files - 1)
        done = fetch(standing)
        assert done.fetched == sum(entry["bytes"] for entry in revision.manifest["files"][files:])
        assert standing.bot.active(NOW).name == revision.name

    def test_what_was_kept_is_proven_again(self, standing, monkeypatch):
        """Altered, cut, a link, of another revision: fetched anew or forgotten."""
        revision = standing.approved(3)
        entries = revision.manifest["files"]
        kept = Kept(standing.bot.models_dir, standing.seen_by_bot.blob)
        kept.begin(entries)
        for entry in entries:
            kept.fetch(entry)
        paths = [kept.folder / entry["sha256"] for entry in entries]
        paths[0].write_bytes(bytes(entries[0]["bytes"]))
        paths[1].write_bytes(paths[1].read_bytes()[:-1])
        paths[2].unlink()
        paths[2].symlink_to(revision.folder / entries[2]["name"])
        (kept.folder / ("0" * 64)).write_bytes(b"another's")
        with monkeypatch.context() as patch:
            patch.setattr("trademl.ship.store.Store.remember", cut_off)
            with pytest.raises(KeyboardInterrupt):
                fetch(standing)
        assert not (kept.folder / ("0" * 64)).exists()
        assert all(digest(path.read_bytes()) == path.name and not path.is_symlink() for path in paths)
        assert fetch(standing).fetched == 0
        assert not kept.folder.exists()

    def test_a_link_in_the_folders_place_is_taken_away(self, standing, tmp_path):
        """Nothing beyond it is removed."""
        standing.approved(3)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "file").write_bytes(b"1")
        (standing.bot.models_dir / ".fetched").symlink_to(tmp_path / "mine")
        fetch(standing)
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]

    def test_a_disk_that_has_no_room_for_both(self, standing, monkeypatch):
        revision = standing.approved(3)
        size = sum(entry["bytes"] for entry in revision.manifest["files"])
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2 * size + (1 << 20) - 1}))
        monkeypatch.setattr("trademl.ship.store.Store.remember", cut_off)
        with pytest.raises(KeyboardInterrupt):
            fetch(standing)
        assert not (standing.bot.models_dir / ".fetched").exists()


def cut_off(*words, **more):
    raise KeyboardInterrupt


# ---------------------------------------------------------------- the disk


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no right to mount a small tmpfs: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


class TestDiskFull:
    """What was there is still there, and nothing half is left."""

    def big(self, room):
        revision = room.store.write(files_of_all() | {"big.npz": bytes(2 << 20)}, room.revision(1).manifest | {"seed": 8})
        room.hub.push(revision, now=NOW)
        room.hub.promote(revision.name, now=NOW)

    def test_on_the_bots_machine(self, standing, small_disk, monkeypatch):
        shutil.copytree(standing.folder / "bot", small_disk / "bot")
        bot = Store(small_disk / "bot", standing.bot.trust)
        active = bot.active(NOW).name
        self.big(standing)
        with pytest.raises(RevisionError, match="does not fit; make room"):
            pull(standing.seen_by_bot, bot, now=NOW)
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1 << 40}))  # somebody else fills it meanwhile
        with pytest.raises(RevisionError, match=r"No space left on device.*nothing was changed"):
            pull(standing.seen_by_bot, bot, now=NOW)
        assert bot.active(NOW).name == active
        assert list((bot.models_dir / ".staging").iterdir()) == []

    def test_on_the_hub(self, standing, small_disk):
        shutil.copytree(standing.folder / "hub", small_disk / "hub")
        full = replace(standing, objects=FolderObjects(small_disk / "hub"), readable=FolderObjects(small_disk / "hub"))
        with pytest.raises(RefusedError, match="No space left on device"):
            self.big(full)
        assert full.hub.verify()[1] == []
        assert full.hub.standing().pointer.seq == 2
        assert fetch(full).seq == 2

    def test_a_hub_that_may_not_be_written(self, standing, monkeypatch):
        def refuse(*words, **more):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("trademl.files.write_new", refuse)
        monkeypatch.setattr("trademl.files.write_atomically", refuse)
        with pytest.raises(RefusedError, match=r"cannot be written.*nothing was changed"):
            standing.hub.push(standing.revision(3), now=NOW)


# ---------------------------------------------------------------- racers


class TestRacing:
    """Eight promoters who decide again whenever somebody was first: each approval is won once, and the log has no gap."""

    def race(self, room, promoters, rounds):
        revisions = [room.revision(number).name for number in (1, 2, 3)]
        for number in (1, 2, 3):
            room.hub.push(room.revision(number), now=NOW)
        won, lost, failed = [], Counter(), []

        def promote(who):
            try:
                for turn in range(rounds):
                    while True:
                        try:
                            won.append(
                                (who, room.hub.promote(revisions[(who + turn) % 3], now=NOW, renew=True, reason=f"{who}/{turn}").seq)
                            )
                            break
                        except SupersededError:
                            lost[who] += 1
            except Exception as error:  # an assertion in a thread would go unseen
                failed.append(error)

        threads = [threading.Thread(target=promote, args=(who,)) for who in range(promoters)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert sorted(seq for _, seq in won) == list(range(1, promoters * rounds + 1))
        log = room.hub.log()
        assert [entry.pointer.seq for entry in log] == list(range(promoters * rounds, 0, -1))
        said = {entry.pointer.seq: entry.pointer.reason for entry in log}
        assert all(said[seq].startswith(f"{who}/") for who, seq in won)
        assert len({entry.pointer.reason for entry in log}) == promoters * rounds
        assert room.hub.verify()[1] == []
        return sum(lost.values())

    def test_four_on_the_server(self, tmp_path, s3_server):
        self.race(rooms(tmp_path, s3_server), 4, 1)

    @SLOW
    def test_six_in_a_folder(self, room):
        assert self.race(room, 6, 5) > 0

    @SLOW
    def test_eight_on_the_server_thirty_rounds(self, tmp_path, s3_server):
        assert self.race(rooms(tmp_path, s3_server), 8, 30) > 0

    def test_an_answer_that_was_lost_does_not_promote_twice(self, tmp_path, s3_server, monkeypatch):
        """The PUT arrives, its answer does not: the second attempt finds its own bytes."""
        room = rooms(tmp_path, s3_server)
        room.hub.push(room.revision(1), now=NOW)
        real, lost = room.objects.client.put_object, []

        def put(**words):
            answer = real(**words)
            if words["Key"].endswith("approved.json") and not lost:
                lost.append(answer)
                raise ConnectionResetError
            return answer

        monkeypatch.setattr(room.objects.client, "put_object", put)
        assert room.hub.promote(room.revision(1).name, now=NOW).seq == 1
        assert lost
        assert [entry.pointer.seq for entry in room.hub.log()] == [1]

    def test_two_bots_pull_into_one_store(self, standing):
        standing.approved(3)
        done = []

        def run():
            try:
                done.append(fetch(standing).revision)
            except LockedError:
                done.append("told to wait")

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(done) <= {standing.revision(3).name, "told to wait"}
        assert standing.bot.active(NOW).name == standing.revision(3).name


# ---------------------------------------------------------------- the way


class TestTheWay:
    """Cuts, flipped bits, storms of refusals, servers that are none: the right bytes, or one sentence."""

    @pytest.fixture
    def far(self, published):
        """The same, seen from a bot's machine that has pulled nothing."""
        return replace(published, bot_folder=f"bot-{next(BOTS)}")

    @SLOW
    def test_an_upload_that_is_cut_leaves_no_manifest(self, tmp_path, s3_server, hurried):
        room = rooms(tmp_path, s3_server)
        big = room.store.write(files_of_all() | {"big.npz": bytes(1 << 20)}, room.revision(1).manifest | {"seed": 8})
        with Proxy(s3_server.port, lambda way, at, data: None if way == "up" and at > 100_000 else data) as proxy:
            hub, _ = through(room, proxy.endpoint)
            with pytest.raises(HubError, match=r"no usable answer for .* in 5 attempts"):
                hub.push(big, now=NOW)
            assert proxy.cuts >= 5
        assert room.hub.revisions() == []
        assert "big.npz" in room.hub.push(big, now=NOW).sent

    def test_a_download_that_is_cut_is_asked_for_again(self, far, s3_server, hurried):
        left = iter(range(2))
        with Proxy(
            s3_server.port, lambda way, at, data: None if way == "down" and b"ONNX" in data and next(left, None) is not None else data
        ) as proxy:
            assert fetch(far, through(far, proxy.endpoint)[1]).revision == far.revision(1).name

    @pytest.mark.parametrize(
        "what",
        [
            pytest.param(b'"approved_at"', id="pointer", marks=SLOW),
            pytest.param(b'"feature_hash"', id="manifest", marks=SLOW),
            pytest.param(b"NUMPY", id="file"),
        ],
    )
    def test_one_bit_that_flips_on_the_way_is_asked_for_again(self, far, s3_server, hurried, what):
        flipped = []

        def flip(way, at, data):
            if way == "down" and what in data and not flipped:
                flipped.append(1)
                at = data.index(what)
                return data[:at] + bytes([data[at] ^ 2]) + data[at + 1 :]
            return data

        with Proxy(s3_server.port, flip) as proxy:
            assert fetch(far, through(far, proxy.endpoint)[1]).revision == far.revision(1).name
        assert flipped

    @SLOW
    def test_a_bit_that_flips_in_an_upload_is_refused_and_sent_again(self, tmp_path, s3_server, hurried):
        room, flipped = rooms(tmp_path, s3_server), []

        def flip(way, at, data):
            if way == "up" and b'{"number":1}' in data and not flipped:
                flipped.append(1)
                return data.replace(b'{"number":1}', b'{"number":3}')
            return data

        with Proxy(s3_server.port, flip) as proxy:
            through(room, proxy.endpoint)[0].push(room.revision(1), now=NOW)
        assert flipped
        assert room.hub.verify()[1] == []

    @pytest.mark.parametrize("pulls", [4, pytest.param(5_000, marks=SLOW)])
    def test_no_bad_pull_through_a_storm(self, far, s3_server, hurried, tmp_path, pulls):
        """Four bots, each by a way of its own that cuts, flips and delays; `-s` prints what came of it. At most half an hour."""
        whole = {name: (far.revision(1).folder / name).read_bytes() for name in far.revision(1).files()}
        told, end = [], time.monotonic() + 1_800

        def check(bot):
            """A store after a pull that ended well: the very bytes that were published."""
            active = bot.active(NOW)
            if {name: (active.folder / name).read_bytes() for name in active.files()} != whole:
                raise AssertionError(active.folder)

        def work(seed):
            storm, bot, tries, done = Storm(seed, 0.02), None, 0, Counter()
            told.append((done, storm.count))
            with Proxy(s3_server.port, storm) as proxy:
                hub = through(far, proxy.endpoint)[1]
                for number in range(pulls // 4):
                    bot = bot or Store(tmp_path / f"{seed}-{number}", far.bot.trust)
                    try:
                        if time.monotonic() > end:
                            return
                        pull(hub, bot, now=NOW)
                        check(bot)
                        done["good"] += 1
                        done["good, after a refusal"] += tries > 0
                    except HubError:
                        done["refused"] += 1
                        done["bad"] += bot.pointer() is not None or bot.scan() != ([], [])
                        tries += 1  # this store tries again, with what it has
                        continue
                    except Exception as error:
                        done["bad"] += 1
                        print(repr(error))
                    remove(bot)
                    bot, tries = None, 0

        threads = [threading.Thread(target=work, args=(seed,)) for seed in (5, 6, 7, 8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done, faults = (sum(counts, Counter()) for counts in zip(*told))
        print(f"{pulls} pulls: {dict(done)}; the way: {dict(faults)}")
        assert done["bad"] == 0
        assert done["good"] + done["refused"] == pulls
        assert done["good"] > 0
        if pulls > 100:  # of a few, chance decides
            assert done["good"] > pulls * 0.8
            assert all(faults[kind] > pulls / 10 for kind in ("cut", "flipped", "delayed"))

    @pytest.mark.parametrize(("status", "times"), [(429, 3), pytest.param(503, 2, marks=SLOW), pytest.param(500, 1, marks=SLOW)])
    def test_a_store_that_is_busy_for_a_while_is_waited_for(self, far, monkeypatch, status, times):
        from botocore.exceptions import ClientError

        real, left = far.readable.client.get_object, iter(range(times))

        def get(**words):
            if next(left, None) is not None:
                raise ClientError({"Error": {"Code": str(status)}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")
            return real(**words)

        monkeypatch.setattr(far.readable.client, "get_object", get)
        assert fetch(far).revision == far.revision(1).name

    def test_a_web_page_with_200(self, far):
        page = b"<html>sign in</html>"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(page)
        with Answers(head + page) as server:
            trainers, bots = through(far, server.endpoint)
            for ask in (lambda: fetch(far, bots), lambda: trainers.push(far.revision(1), now=NOW), trainers.revisions):
                before = server.asked
                with pytest.raises(HubError, match="no usable answer") as refusal:
                    ask()
                assert server.asked - before <= s3.ATTEMPTS
                assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize(
        ("status", "chunked"),
        [
            ("200 OK", False),
            ("403 Forbidden", True),
            *(pytest.param(*one, marks=SLOW) for one in (("200 OK", True), ("403 Forbidden", False), ("503 Busy", True))),
        ],
    )
    def test_a_listing_or_a_refusal_without_an_end_is_capped(self, far, hurried, monkeypatch, status, chunked):
        monkeypatch.setattr(s3, "MAX_ANSWER", 1 << 17)
        head = f"HTTP/1.1 {status}\r\n{'Transfer-Encoding: chunked' if chunked else 'Connection: close'}\r\n\r\n".encode()
        piece = b"10000\r\n" + b" " * 65_536 + b"\r\n" if chunked else b" " * 65_536
        with Answers(head, piece, 0.001) as server:
            hub = through(far, server.endpoint)[1]
            for ask in (hub.revisions, hub.standing) if status[0] != "2" else (hub.revisions,):
                with pytest.raises(HubError, match="an answer of more than 131,072 bytes"):
                    ask()
            assert server.asked <= 2 * s3.ATTEMPTS

    def test_a_listing_that_goes_round_is_ended(self, far, monkeypatch):
        real, asked = far.readable.client.list_objects_v2, []

        def turn(**words):
            asked.append(words)
            words.pop("ContinuationToken", None)
            return real(**words) | {"IsTruncated": True, "NextContinuationToken": "round"}

        monkeypatch.setattr(far.readable.client, "list_objects_v2", turn)
        with pytest.raises(HubError, match="a listing of other names than were asked for"):
            far.seen_by_bot.revisions()
        assert len(asked) <= 1 + s3.ATTEMPTS

    def test_a_listing_that_ignores_what_was_asked_for_is_not_believed(self, far, monkeypatch):
        real = far.readable.client.list_objects_v2
        monkeypatch.setattr(far.readable.client, "list_objects_v2", lambda **words: real(Bucket=words["Bucket"]))
        with pytest.raises(HubError, match="a listing of other names"):
            far.seen_by_bot.revisions()

    def test_a_body_without_an_end_is_capped(self, far):
        head = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 99999999999\r\n\r\n'
        with Answers(head, b"x" * 65_536) as server, pytest.raises(HubError, match="at most 16,384 are read"):
            fetch(far, through(far, server.endpoint)[1])

    @SLOW
    def test_a_body_that_trickles_is_given_up(self, far, hurried, monkeypatch):
        monkeypatch.setattr(s3, "SILENCE_S", 0.2)
        head = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 9999\r\n\r\n'
        monkeypatch.setattr(s3, "SLOWEST_BYTES_S", 1e9)
        with Answers(head, b"x", 0.05) as server:
            hub = through(far, server.endpoint)[1]
            with pytest.raises(HubError, match="a body that trickles"):
                fetch(far, hub)

    @SLOW
    def test_an_address_that_is_none(self, far, hurried):
        with pytest.raises(HubError, match="no usable answer"):
            fetch(far, through(far, "http://no-such-host.invalid:9")[1])

    def test_a_clock_that_is_an_hour_off(self, far, monkeypatch):
        """The server's own answer, in our words, and no second attempt."""
        import botocore.auth

        real = botocore.auth.get_current_datetime
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *words, **more: real(*words, **more) + timedelta(hours=1))
        with pytest.raises(HubError, match="this machine's clock is wrong by more than the store allows"):
            fetch(far)

    @SLOW
    def test_a_blob_that_somebody_replaced_is_told_and_healed(self, far):
        """It leaves the shared hub whole again."""
        key = far.key(blob_key(far.revision(1).files()["signal.onnx"]["sha256"]))
        far.objects.put(key, b"other", far.objects.stat(key).tag)
        with pytest.raises(HubError, match="is not what its name says"):
            fetch(far)
        with pytest.raises(HubError, match="--heal replaces it"):
            far.hub.push(far.revision(1), now=NOW)
        far.hub.push(far.revision(1), now=NOW, heal=True)
        assert fetch(far).revision == far.revision(1).name

    def test_a_bots_machine_cannot_write(self, far):
        key = next(itertools.islice(far.readable.list(""), 1)).key
        for ask in (lambda: far.readable.put("x", b""), lambda: far.readable.delete(key)):
            with pytest.raises(RefusedError, match="may only read"):
                ask()
        with pytest.raises((RefusedError, ConflictError)):
            far.readable.put(far.key("channels/approved.json"), b"", far.readable.stat(far.key("channels/approved.json")).tag)


@SLOW
def test_push_and_pull_take_no_more_than_two_seconds_on_loopback(tmp_path, s3_server):
    room = rooms(tmp_path, s3_server)
    room.store.write(files_of_all() | {"big.npz": bytes(8 << 20)}, room.revision(1).manifest | {"seed": 8})
    began = time.monotonic()
    room.hub.push(room.store.revisions()[0], now=NOW)
    pushed = time.monotonic()
    room.hub.promote(room.store.revisions()[0].name, now=NOW)
    promoted = time.monotonic()
    fetch(room)
    assert pushed - began < 2
    assert time.monotonic() - promoted < 2
