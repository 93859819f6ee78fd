"""Durable writes and careful reads: the old file or the new one, nothing left behind, nothing followed."""

import json
import os
import signal
import stat
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path

import numpy as np
import pytest

from trademl import files
from trademl.files import (
    arrays_hash,
    canonical_json,
    digest,
    jsonable,
    make_folders,
    npz_bytes,
    read_npz,
    read_regular,
    replacing,
    strict_json,
    write_atomically,
    write_json,
    write_new,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- writing


def test_a_write_replaces_the_whole_file_and_sets_its_mode(tmp_path):
    path = tmp_path / "new" / "deeper" / "a.json"
    with pytest.raises(FileNotFoundError):  # a folder that was moved away is not made again
        write_atomically(path, b"one")
    make_folders(path.parent)
    write_atomically(path, b"one")
    write_atomically(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(path.parent) == ["a.json"]


def test_a_private_file_is_private_from_its_first_byte_on(tmp_path, monkeypatch):
    """A key that others could read for a moment would be a key that others have."""
    seen = []
    monkeypatch.setattr(os, "fchmod", lambda handle, mode: seen.append(stat.S_IMODE(os.fstat(handle).st_mode)))
    write_new(tmp_path / "a", b"key", mode=0o600)
    write_atomically(tmp_path / "b", b"key", mode=0o600)
    assert seen == [0o600, 0o600]


@pytest.mark.fault
@pytest.mark.parametrize("step", ["fsync", "fchmod", "replace"])
def test_a_write_that_fails_at_any_step_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path if step == "replace" else os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.fault
def test_an_interrupted_block_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")

    def stop_half_way(error):
        with replacing(path) as stream:
            stream.write(b"half")
            raise error

    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):
            stop_half_way(error)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.csv"]


KILLED = """
import os, signal, sys
from pathlib import Path
from trademl import files

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

real = files.{step}
files.{step} = die if {before} else lambda *args: (real(*args), die())
files.write_atomically(Path({path!r}), b"new" * 100_000)
"""


@pytest.mark.fault
@pytest.mark.parametrize(
    ("step", "before", "left"),
    [("_finish", True, b"old"), ("_finish", False, b"old"), ("move", True, b"old"), ("move", False, b"new" * 100_000)],
)
def test_killed_at_any_step_a_reader_sees_the_old_or_the_new_file(tmp_path, step, before, left):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    child = subprocess.run([sys.executable, "-c", KILLED.format(step=step, before=before, path=str(path))], capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert path.read_bytes() == left
    write_atomically(path, b"again")  # what the dead left is in nobody's way
    assert path.read_bytes() == b"again"


def test_a_file_that_is_there_is_not_written_anew(tmp_path):
    write_new(tmp_path / "a", b"one", mode=0o444)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o444
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", b"two")


@pytest.mark.parametrize("refusals", [3, None])
def test_windows_gets_a_while_to_let_go_of_a_file(tmp_path, monkeypatch, refusals):
    path, real, count = tmp_path / "a", Path.replace, iter(range(10**9))

    def replace(source, target):
        if refusals is None or next(count) < refusals:
            raise PermissionError(13, "used by another process")
        return real(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(files, "_RETRY_S", 0.5)
    monkeypatch.setattr(files, "_is_windows", lambda: True)
    if refusals is None:
        with pytest.raises(PermissionError):
            write_atomically(path, b"x")
        assert names(tmp_path) == []
    else:
        write_atomically(path, b"x")
        assert path.read_bytes() == b"x"


# ---------------------------------------------------------------- JSON


class Device(StrEnum):
    CPU = "cpu"


@dataclass(frozen=True)
class Row:
    name: str
    values: np.ndarray


def test_jsonable_turns_what_records_hold_into_json():
    value = {
        1: np.float64(0.5),
        Device.CPU: [float("nan"), np.float32("inf"), np.int64(3), np.bool_(True)],
        "row": Row("a", np.array([[1.0, np.nan]])),
        "when": (datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2)),
        "path": Path("a") / "b",
        "set": {2, 1},
        "none": None,
    }
    assert jsonable(value) == {
        "1": 0.5,
        "cpu": [None, None, 3, True],
        "row": {"name": "a", "values": [[1.0, None]]},
        "when": ["2026-01-02T00:00:00Z", "2026-01-02"],
        "path": "a/b",
        "set": [1, 2],
        "none": None,
    }
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        jsonable({"x": object()})


def test_written_json_is_read_back_and_a_refused_value_changes_nothing(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": float("nan"), "a": "é"})
    assert json.loads(path.read_text("utf-8")) == {"a": "é", "b": None}
    assert path.read_bytes().endswith(b"}\n")
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_bytes() == before and names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, "\ud800", object()])
def test_canonical_json_refuses_what_json_cannot_hold(value):
    assert canonical_json({"b": 1, "a": [0.1, None, "é"]}) == '{"a":[0.1,null,"é"],"b":1}'.encode()
    with pytest.raises(ValueError, match="canonical"):
        canonical_json({"x": value})


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b"[1]",
        b"",
        b"{",
        b'{"a":"\xff"}',
        b"[" * 100_000,
        b'{"a":%d}' % 2**63,
        b'{"a":-1%s}' % (b"0" * 400),
        b'{"a":1%s}' % (b"0" * 5_000),
    ],
    ids=lambda data: data[:16].decode("latin1"),
)
def test_strict_json_refuses_what_readers_take_differently(data):
    assert strict_json(b'{"a":1.5,"b":9223372036854775807,"c":-9223372036854775808}') == {"a": 1.5, "b": 2**63 - 1, "c": -(2**63)}
    with pytest.raises(ValueError, match="not strict JSON"):
        strict_json(data)


# ---------------------------------------------------------------- reading


@pytest.mark.fault
def test_only_a_regular_file_of_its_own_is_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(ValueError, match="longer than 4 bytes"):
        read_regular(path, 4)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="link"):
        read_regular(tmp_path / "link", 5)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none", 5)
    with pytest.raises(ValueError, match="regular file"):
        read_regular(tmp_path, 5)
    with pytest.raises(ValueError, match="regular file"):
        read_regular("/dev/null", 5)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="regular file"):  # and does not wait for a writer
        read_regular(tmp_path / "pipe", 5)
    os.link(path, tmp_path / "twin")
    with pytest.raises(ValueError, match="of its own"):
        read_regular(path, 5)


# ---------------------------------------------------------------- arrays


def test_the_bytes_of_an_npz_depend_on_the_arrays_alone():
    arrays = {"b": np.arange(6.0).reshape(2, 3), "a": np.array([1, 2], np.int32)}
    twin = {"a": arrays["a"].astype(">i4"), "b": np.asfortranarray(arrays["b"])}
    data = npz_bytes(arrays)
    assert npz_bytes(twin) == data
    assert digest(data) == "ace09bec7a04593155ea86d9b2262a4857d1981153a13771a6a97edcdf7bfe16"  # of a file that was written once
    back = read_npz(data)
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    assert arrays_hash(twin) == arrays_hash(arrays) != arrays_hash(arrays | {"a": arrays["a"] + 1})


@pytest.mark.parametrize("data", [b"", b"\x80\x04N.", b"PK\x03\x04 nonsense", npz_bytes({"x": np.arange(9)})[:-30]])
def test_damaged_bytes_and_pickles_are_not_arrays(data):
    with pytest.raises(ValueError, match=r"not a readable \.npz"):
        read_npz(data)
    with pytest.raises(ValueError, match=r"[Oo]bject arrays"):
        npz_bytes({"x": np.array([{}], dtype=object)})
