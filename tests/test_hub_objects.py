"""The contract of a store of objects, over a folder and over a real S3 server."""

import hashlib
import itertools
import threading

import hub_server
import pytest

from trademl.errors import UsageError
from trademl.ship.hub.objects import AbsentError, ConflictError, FolderObjects, RefusedError, check_key
from trademl.ship.hub.s3 import ATTEMPTS, S3Objects, open_bucket

ROOMS = itertools.count()
HOSTILE = ["../x", "/etc/x", "a//b", "A", "a\\b", "a\0", ".hidden", "a/.b", "", "x" * 1025, "a.", "é"]


@pytest.fixture(params=["folder", "s3"])
def objects(request, tmp_path):
    """An empty store of either kind."""
    if request.param == "folder":
        return FolderObjects(tmp_path)
    server = request.getfixturevalue("s3_server")
    return bucket(server, prefix=f"contract-{next(ROOMS)}/")


def bucket(server, keys=hub_server.TRAINER, prefix="", name=hub_server.BUCKET):
    return hub_server.bucket(server.endpoint, keys, prefix, name)


@pytest.mark.contract
class TestContract:
    """Whoever keeps objects for the hub passes this."""

    def test_what_was_put_is_what_is_got_with_its_size_and_hash(self, objects):
        data = bytes(range(256)) * 100
        objects.put("a/b/one.bin", data)
        found, about = objects.get("a/b/one.bin", len(data)), objects.stat("a/b/one.bin")
        assert found.data == data
        assert (about.size, about.sha256, about.tag) == (len(data), hashlib.sha256(data).hexdigest(), found.tag)

    def test_what_is_absent_is_named_so(self, objects):
        objects.put("a/one", b"1")
        assert objects.stat("a/two") is None
        with pytest.raises(AbsentError, match="a/two"):
            objects.get("a/two", 10)
        objects.delete("a/two")

    def test_nothing_is_overwritten_unseen(self, objects):
        objects.put("one", b"first")
        with pytest.raises(ConflictError, match="changed in the meantime"):
            objects.put("one", b"second")
        assert objects.get("one", 10).data == b"first"

    def test_equal_bytes_twice_are_one_write(self, objects):
        objects.put("one", b"same")
        tag = objects.stat("one").tag
        objects.put("one", b"same")
        assert objects.stat("one").tag == tag

    def test_only_the_version_that_was_read_is_replaced(self, objects):
        objects.put("one", b"first")
        tag = objects.stat("one").tag
        objects.put("one", b"second", tag)
        with pytest.raises(ConflictError):
            objects.put("one", b"third", tag)
        assert objects.get("one", 10).data == b"second"
        with pytest.raises(ConflictError, match="is gone"):
            objects.put("two", b"1", tag)

    def test_a_write_whose_answer_was_lost_has_succeeded(self, objects):
        objects.put("one", b"first")
        tag = objects.stat("one").tag
        objects.put("one", b"second", tag)
        objects.put("one", b"second", tag)  # the retry of somebody who did not hear
        assert objects.get("one", 10).data == b"second"

    def test_no_more_is_read_than_asked_for(self, objects):
        objects.put("one", b"12345")
        assert objects.get("one", 5).data == b"12345"
        with pytest.raises(RefusedError, match=r"5 bytes long|longer than 4"):
            objects.get("one", 4)

    def test_a_listing_is_sorted_and_starts_with_the_prefix(self, objects):
        for key in ("b/2", "b/10", "a/1", "bb"):
            objects.put(key, key.encode())
        assert [(entry.key, entry.size) for entry in objects.list("b/")] == [("b/10", 4), ("b/2", 3)]
        assert all(entry.modified.tzinfo is not None for entry in objects.list("b/"))
        objects.delete("b/2")
        assert [entry.key for entry in objects.list("b/")] == ["b/10"]

    def test_an_empty_object_is_an_object(self, objects):
        objects.put("empty", b"")
        assert objects.get("empty", 0).data == b""

    def test_one_of_eight_writers_wins(self, objects):
        objects.put("one", b"start")
        tag, won = objects.stat("one").tag, []

        def write(number):
            try:
                objects.put("one", b"by %d" % number, tag)
                won.append(number)
            except ConflictError:
                pass

        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert objects.get("one", 10).data == b"by %d" % won[0]

    def test_a_hostile_key_is_refused_before_anything_is_asked(self, objects):
        for key in HOSTILE:
            for ask in (objects.stat, objects.delete, lambda key: objects.get(key, 1), lambda key: objects.put(key, b"")):
                with pytest.raises(RefusedError, match="may not name an object"):
                    ask(key)


def test_a_key_is_given_back():
    assert check_key("trademl/v1/market-btcusd-15min/channels/approved.json").endswith("approved.json")


@pytest.mark.fault
class TestFolder:
    """What only a folder can show."""

    def test_a_link_is_not_followed(self, tmp_path):
        (tmp_path / "secret").write_bytes(b"1")
        (tmp_path / "link").symlink_to(tmp_path / "secret")
        with pytest.raises(RefusedError, match="or a link"):
            FolderObjects(tmp_path).get("link", 10)

    def test_a_linked_folder_is_not_followed(self, tmp_path):
        """Somebody who may write to the shared folder must not turn a trainer's writes elsewhere; the hub's own address may be a link."""
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "hub").mkdir()
        (tmp_path / "hub" / "blobs").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "hub" / "loop").symlink_to(tmp_path / "hub" / "loop")
        (tmp_path / "address").symlink_to(tmp_path / "hub")
        for root in ("hub", "address"):
            objects = FolderObjects(tmp_path / root)
            for ask, words in ((objects.put, ("blobs/x/a", b"1")), (objects.get, ("blobs/a", 1)), (objects.delete, ("blobs/a",))):
                with pytest.raises(RefusedError, match="is a link; the hub's folder holds none"):
                    ask(*words)
            for ask, words in ((objects.put, ("loop/a", b"1")), (objects.get, ("loop/a", 1)), (objects.delete, ("loop/a",))):
                with pytest.raises(RefusedError):
                    ask(*words)
            objects.put(f"other/{root}", b"1")
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_a_folder_that_is_not_there_is_named(self, tmp_path):
        objects = FolderObjects(tmp_path / "gone")
        for ask in (lambda: objects.get("a", 1), lambda: objects.put("a", b""), lambda: list(objects.list(""))):
            with pytest.raises(RefusedError, match=r"is not a folder; make it, or correct \[hub\] url"):
                ask()

    def test_what_a_killed_writer_left_is_no_object_and_goes_with_the_next_write(self, tmp_path):
        (tmp_path / ".staging").mkdir()
        (tmp_path / ".staging" / "half").write_bytes(b"1")
        objects = FolderObjects(tmp_path)
        assert list(objects.list("")) == []
        objects.put("a/one", b"1")
        assert list((tmp_path / ".staging").iterdir()) == []


class TestS3:
    """What only a server can show."""

    def test_a_bots_credentials_read_and_nothing_else(self, s3_server):
        room = f"bot-{next(ROOMS)}/"
        bucket(s3_server, prefix=room).put("one", b"1")
        bot = bucket(s3_server, hub_server.BOT, prefix=room)
        assert bot.get("one", 1).data == b"1"
        assert [entry.key for entry in bot.list("")] == ["one"]
        for ask in (lambda: bot.put("two", b"2"), lambda: bot.delete("one")):
            with pytest.raises(RefusedError, match="may not do that there"):
                ask()

    def test_a_listing_goes_on_after_its_first_page(self, s3_server, monkeypatch):
        objects = bucket(s3_server, prefix=f"pages-{next(ROOMS)}/")
        for number in range(5):
            objects.put(f"{number}", b"")
        ask = objects.client.list_objects_v2
        monkeypatch.setattr(objects.client, "list_objects_v2", lambda **words: ask(**words, MaxKeys=2))
        assert [entry.key for entry in objects.list("")] == ["0", "1", "2", "3", "4"]

    def test_no_secret_is_in_a_repr(self, s3_server):
        assert not any(secret in repr(bucket(s3_server)) for secret in hub_server.SECRETS)

    def test_what_r2_refuses_is_never_sent(self, s3_server):
        """Its own checksum headers, trailers and chunked uploads; each object has the sha256 that the store checks and keeps."""
        sent = []
        objects = bucket(s3_server, prefix=f"wire-{next(ROOMS)}/")
        objects.client.meta.events.register("before-send.s3", lambda request, **rest: sent.append(request))
        objects.put("one", b"data")
        objects.get("one", 4)
        put = next(request for request in sent if request.method == "PUT")
        names = {name.lower() for request in sent for name in request.headers}
        assert not {"x-amz-trailer", "x-amz-sdk-checksum-algorithm", "transfer-encoding"} & names
        assert not any(b"aws-chunked" in bytes(str(value), "utf8") for request in sent for value in request.headers.values())
        assert {name.lower() for name in put.headers if "checksum" in name.lower()} == {"x-amz-checksum-sha256"}


@pytest.mark.fault
class TestRefusals:
    """One sentence, no storm of attempts, no secret."""

    def say(self, ask, match):
        with pytest.raises((RefusedError, UsageError), match=match) as caught:
            ask()
        said = str(caught.value)
        assert "\n" not in said
        assert not any(secret in said for secret in hub_server.SECRETS)
        return said

    def test_no_credentials(self, monkeypatch):
        for name in hub_server.TRAINER:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
        self.say(lambda: open_bucket("hub", "http://127.0.0.1:9"), "no credentials; set AWS_ACCESS_KEY_ID")

    def test_a_secret_that_is_wrong(self, s3_server):
        keys = hub_server.TRAINER | {"AWS_SECRET_ACCESS_KEY": "wrong-secret"}
        assert "wrong-secret" not in self.say(lambda: bucket(s3_server, keys).get("a", 1), "correct AWS_SECRET_ACCESS_KEY")

    def test_a_key_that_is_not_known(self, s3_server):
        keys = hub_server.TRAINER | {"AWS_ACCESS_KEY_ID": "UNKNOWNUNKNOWNUNKNOW"}
        self.say(lambda: bucket(s3_server, keys).get("a", 1), "correct AWS_ACCESS_KEY_ID")

    def test_a_bucket_that_is_not_there(self, s3_server):
        self.say(lambda: bucket(s3_server, name="no-such-bucket").get("a", 1), r"bucket does not exist there; make it, or correct \[hub\]")

    @pytest.mark.parametrize("name", ["botocore", "botocore.auth", "urllib3.connectionpool"])
    def test_a_debug_log_is_refused(self, monkeypatch, name):
        import logging

        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "level", logging.DEBUG)
        logger._cache.clear()
        try:
            self.say(lambda: open_bucket("hub", "http://127.0.0.1:9"), "at DEBUG, which writes signed requests")
        finally:
            logger._cache.clear()

    @pytest.mark.parametrize(
        ("code", "status", "match", "attempts"),
        [
            ("RequestTimeTooSkewed", 403, "clock is wrong", 1),
            ("ExpiredToken", 403, "have expired", 1),
            ("AccessDenied", 403, "may not do that", 1),
            ("", 403, "refused there, or have expired", 1),
            ("MethodNotAllowed", 405, r"refuses a \(405 MethodNotAllowed\)", 1),
            ("SlowDown", 503, "no usable answer for a in 5 attempts", ATTEMPTS),
            ("TooManyRequests", 429, "no usable answer", ATTEMPTS),
            ("InternalError", 500, r"last: 500 InternalError", ATTEMPTS),
        ],
    )
    def test_an_error_of_the_store(self, s3_server, monkeypatch, code, status, match, attempts):
        from botocore.exceptions import ClientError

        objects, asked, pauses = bucket(s3_server), [], []

        def refuse(**words):
            asked.append(words)
            raise ClientError(
                {"Error": {"Code": code, "Message": hub_server.SECRETS[0]}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Get"
            )

        monkeypatch.setattr(objects.client, "get_object", refuse)
        slow = S3Objects(objects.bucket, objects.client, objects.endpoint, sleep=pauses.append)
        self.say(lambda: slow.get("a", 1), match)
        assert len(asked) == attempts
        assert len(pauses) == attempts - 1
        if status == 429 or code == "SlowDown":
            assert min(pauses) >= 1.0
