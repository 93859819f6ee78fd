"""Durable writes, careful reads, canonical bytes."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from trademl import files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestWriting:
    def test_the_new_takes_the_place_of_the_old_and_leaves_nothing_beside_it(self, tmp_path):
        target = tmp_path / "new folder" / "a.json"
        for value in ({"x": 1}, {"x": 2}):
            files.write_json(target, value)
        assert json.loads(target.read_text()) == {"x": 2}
        assert names(target.parent) == ["a.json"]
        assert target.stat().st_mode & 0o777 == 0o644

    def test_a_block_that_fails_leaves_the_old(self, tmp_path):
        target = tmp_path / "a.csv"
        target.write_text("old")

        def fail_half_way():
            with files.replacing(target) as handle:
                handle.write(b"half")
                raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            fail_half_way()
        assert target.read_text() == "old"
        assert names(tmp_path) == ["a.csv"]

    @pytest.mark.fault
    @pytest.mark.parametrize("step", ["settle", "patiently", "sync_folder"])
    def test_killed_at_any_step_a_reader_sees_the_old_or_the_new(self, tmp_path, step):
        target = tmp_path / "a.txt"
        target.write_text("old")
        code = f"import os, signal\nfrom trademl import files\nfiles.{step} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        done = subprocess.run([sys.executable, "-c", f"{code}files.write_file({str(target)!r}, b'new')"], check=False)
        assert done.returncode == -signal.SIGKILL
        assert target.read_text() == ("new" if step == "sync_folder" else "old")

    def test_a_new_file_never_replaces_one(self, tmp_path):
        files.write_new(tmp_path / "a", b"one", mode=0o444)
        with pytest.raises(FileExistsError):
            files.write_new(tmp_path / "a", b"two")
        assert (tmp_path / "a").read_bytes() == b"one"
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o444


class TestReading:
    def test_a_plain_file_is_read_up_to_a_limit(self, tmp_path):
        path = tmp_path / "a"
        path.write_bytes(b"x" * 10)
        assert files.read_plain(path, 10) == b"x" * 10
        with pytest.raises(ValueError, match="longer than 9 bytes"):
            files.read_plain(path, 9)

    @pytest.mark.fault
    def test_links_folders_and_pipes_are_refused_without_waiting(self, tmp_path):
        (tmp_path / "a").write_bytes(b"x")
        (tmp_path / "soft").symlink_to(tmp_path / "a")
        os.mkfifo(tmp_path / "pipe")
        for name, says in (("soft", "symbolic link"), (".", "directory")):
            with pytest.raises(OSError, match=says):
                files.read_plain(tmp_path / name, 10)
        with pytest.raises(ValueError, match="not a plain file"):
            files.read_plain(tmp_path / "pipe", 10)
        os.link(tmp_path / "a", tmp_path / "hard")
        with pytest.raises(ValueError, match="not a plain file of its own"):
            files.read_plain(tmp_path / "a", 10)


class TestJson:
    def test_what_json_cannot_hold_becomes_what_it_can(self):
        class Colour(Enum):
            RED = "red"

        record = {
            Colour.RED: np.float64("nan"),
            "t": datetime(2026, 1, 2, tzinfo=UTC),
            "d": date(2026, 1, 2),
            "s": {2, 1},
            "a": np.arange(2),
            "p": Path("x/y"),
        }
        assert files.jsonable(record) == {"red": None, "t": "2026-01-02T00:00:00Z", "d": "2026-01-02", "s": [1, 2], "a": [0, 1], "p": "x/y"}
        with pytest.raises(TypeError, match="object cannot be written as JSON"):
            files.jsonable(object())

    @pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a": NaN}', '{"a": 1e999}', "[1]", "{", "\udcff", "[" * 100_000])
    def test_strict_json_refuses_what_two_readers_could_read_differently(self, text):
        with pytest.raises(ValueError, match=r"strict JSON|expected an object"):
            files.strict_json(text.encode("utf-8", "surrogateescape"))

    def test_canonical_json_depends_on_the_content_alone(self):
        assert files.canonical_json({"b": 1, "a": "é"}) == files.canonical_json({"a": "é", "b": 1}) == '{"a":"é","b":1}'.encode()


def test_npz_bytes_are_stable_and_read_back(tmp_path):
    arrays = {"b": np.arange(3.0), "a": np.array([[1, 2]], np.int8)}
    data = files.npz_bytes(arrays)
    assert data == files.npz_bytes(dict(reversed(arrays.items())))
    again = files.read_npz(data)
    assert {name: (value.dtype, value.tolist()) for name, value in again.items()} == {n: (v.dtype, v.tolist()) for n, v in arrays.items()}
    for broken in (data[:-30], b"\x80\x04pickle"):
        with pytest.raises(ValueError, match=r"not a readable \.npz"):
            files.read_npz(broken)
