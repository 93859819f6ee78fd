"""Durable writes and careful reads, once for everybody; and arrays as bytes.

A reader of anything written here sees the old file or the new one, never half of either, whatever is killed when.
Errors are neutral (OSError from the disk, ValueError and TypeError from the content): callers say what they mean.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import stat
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trademl.clock import iso_z

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest moment that a zip entry can carry
_ZIP = b"PK\x03\x04"
_RETRY_S = 2.0  # how long a refused move is tried again on Windows

# ---------------------------------------------------------------- writing


@contextlib.contextmanager
def replacing(path: Path | str, *, mode: int = 0o644, aside: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file that takes `path`'s place when the block ends well, and leaves nothing behind when it does not.

    File and folder are synced; the folder must be there. `aside` is where the bytes wait, on the same file system;
    default: a hidden name beside `path`.
    """
    path = Path(path)
    partial = aside or path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with _new_file(partial, mode) as stream:
            yield stream
            _finish(stream, mode)
        move(partial, path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path | str, data: bytes, *, mode: int = 0o644, aside: Path | None = None) -> None:
    """Replace a file in one step. Raises OSError; the old file then stands."""
    with replacing(path, mode=mode, aside=aside) as stream:
        stream.write(data)


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """A file that was not there before, synced; its folder is not. Raises FileExistsError, OSError."""
    with _new_file(path, mode) as stream:
        stream.write(data)
        _finish(stream, mode)


def write_json(path: Path | str, value: Any) -> None:
    """Indented JSON of `jsonable(value)`, replaced in one step. Raises TypeError before anything is written."""
    text = json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def make_folders(path: Path) -> None:
    """`path` and its parents, each new one synced into its parent."""
    if not path.is_dir():
        make_folders(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names inside a folder durable."""
    if _is_windows():  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move(source: Path, target: Path) -> None:
    """Rename a file over another one, in one step."""
    _retry(lambda: source.replace(target))


def move_folder(source: Path, target: Path) -> None:
    """Rename a folder to a name that is free. Raises OSError when it is not."""
    _retry(lambda: source.rename(target))


def _retry(action: Callable[[], object]) -> None:
    """Windows refuses to replace a file while somebody reads it: try for a while."""
    end = time.monotonic() + _RETRY_S
    while True:
        try:
            action()
        except PermissionError:
            if not _is_windows() or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def _is_windows() -> bool:
    return os.name == "nt"


def _new_file(path: Path, mode: int) -> BinaryIO:
    """A new file that from its first byte on nobody may read whom `mode` does not let, and that its owner may write."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode | stat.S_IWUSR))


def _finish(stream: BinaryIO, mode: int) -> None:
    stream.flush()
    if hasattr(os, "fchmod"):
        os.fchmod(stream.fileno(), mode)
    os.fsync(stream.fileno())


# ---------------------------------------------------------------- JSON


def jsonable(value: Any) -> Any:
    """`value` in JSON's types: dataclasses, enums, paths, times, numpy scalars and arrays; NaN and infinities become null.

    Raises TypeError for anything else.
    """
    if isinstance(value, Enum):
        return jsonable(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(jsonable(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((jsonable(item) for item in value), key=str)
    if isinstance(value, datetime):
        return iso_z(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def canonical_json(record: Mapping) -> bytes:
    """UTF-8, keys sorted, no spaces, no NaN. Raises ValueError for what JSON cannot hold."""
    try:
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as refusal:
        raise ValueError(f"the record cannot be written as canonical JSON: {refusal}") from refusal


def strict_json(data: bytes) -> dict:
    """The object in `data`. Raises ValueError for bad UTF-8, a repeated key, NaN, a whole number beyond 64 bits, too deep nesting,
    or anything but an object.
    """

    def unique(pairs):
        record = dict(pairs)
        if len(record) != len(pairs):
            raise ValueError("a key is repeated")
        return record

    def finite(text):
        if not math.isfinite(float(text)):
            raise ValueError(f"{text} is not a finite number")
        return float(text)

    def whole(text):
        number = int(text)
        if not -(2**63) <= number < 2**63:  # no float beside it, and another number to most readers
            raise ValueError(f"{text[:20]}… is beyond 64 bits")
        return number

    hooks = {"object_pairs_hook": unique, "parse_float": finite, "parse_constant": finite, "parse_int": whole}
    try:
        record = json.loads(data.decode("utf-8"), **hooks)
    except (ValueError, RecursionError) as refusal:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ValueError(f"not strict JSON: {refusal}") from refusal
    if not isinstance(record, dict):
        raise ValueError(f"not strict JSON: holds {type(record).__name__}, expected an object")
    return record


# ---------------------------------------------------------------- reading


def digest(data: bytes) -> str:
    """sha256, 64 hex."""
    return hashlib.sha256(data).hexdigest()


def read_regular(path: Path | str, limit: int) -> bytes:
    """At most `limit` bytes of a regular file that nothing else links to. No link is followed and no pipe waited for.

    Raises OSError when it cannot be opened or read (a link ends here), ValueError when it is not such a file, or longer.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        about = os.fstat(handle)  # before fdopen, which refuses a folder in its own words
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:  # 0 links: replaced since it was opened, and still whole
            raise ValueError("not a regular file of its own (a link, a folder or a device)")
        with os.fdopen(handle, "rb", closefd=False) as stream:
            data = stream.read(limit + 1)
    finally:
        os.close(handle)
    if len(data) > limit:
        raise ValueError(f"longer than {limit:,} bytes")
    return data


# ---------------------------------------------------------------- arrays


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An uncompressed .npz: entries by name, one fixed time stamp, little-endian, C order.

    Not compressed on purpose: the bytes then depend on no compressor's version. Object arrays are refused (ValueError).
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.create_system = 3  # otherwise the platform's number
            entry = io.BytesIO()
            np.lib.format.write_array(entry, _canonical(arrays[name]), version=(1, 0), allow_pickle=False)
            archive.writestr(info, entry.getvalue())
    return buffer.getvalue()


def read_npz(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an .npz given as bytes. Pickled entries and damaged files are refused (ValueError)."""
    if data[:4] != _ZIP:  # numpy would take it for a pickle, and say how to load that
        raise ValueError("not a readable .npz: no zip archive")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as refusal:  # zipfile and numpy raise a dozen kinds for damaged bytes
        raise ValueError(f"not a readable .npz: {refusal}") from refusal


def arrays_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 (64 hex) over names, dtypes, shapes and contents, in the order of the names."""
    sha256 = hashlib.sha256()
    for name in sorted(arrays):
        array = _canonical(arrays[name])
        sha256.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()


def _canonical(array) -> np.ndarray:
    array = np.asarray(array)
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
