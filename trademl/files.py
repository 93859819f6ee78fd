"""Files: durable writes and careful reads, once for everybody; JSON and arrays as canonical bytes.

Who reads while somebody writes sees the old file or the new one, never half of either, whatever is killed when.
Errors are the plain ones (OSError, ValueError, TypeError): callers say what they mean for a revision, a run or a table.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import secrets
import stat
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trademl.clock import iso_z

# ---------------------------------------------------------------- writing


@contextlib.contextmanager
def replacing(path: str | os.PathLike, *, aside: str | os.PathLike | None = None, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A binary file that takes `path`'s place when the block ends well, and leaves nothing behind when it does not.

    It is written as `aside` (same file system; default: a hidden name beside `path`), synced, then renamed; the folder is synced too.
    """
    path = Path(path)
    aside = Path(aside) if aside else path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    make_folder(path.parent)
    try:
        with aside.open("xb") as file:
            yield file
            settle(file, mode)
        patiently(lambda: aside.replace(path))
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_file(path: str | os.PathLike, data: bytes, *, aside: str | os.PathLike | None = None) -> None:
    """Put `data` in `path`'s place, as `replacing` does."""
    with replacing(path, aside=aside) as file:
        file.write(data)


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """A new file, synced; FileExistsError when there is one. The name is durable once its folder is synced."""
    with path.open("xb") as file:
        file.write(data)
        settle(file, mode)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """`value` as indented JSON in `path`'s place."""
    text = json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_file(path, f"{text}\n".encode())


def settle(file: BinaryIO, mode: int) -> None:
    """Give an open file its permissions and let its bytes reach the disk."""
    file.flush()
    if hasattr(os, "fchmod"):
        os.fchmod(file.fileno(), mode)
    os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """`path` and its parents, each new one synced into its parent."""
    if not path.is_dir():
        make_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Let the names in a folder reach the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def patiently(move: Callable[[], Any], seconds: float = 2.0) -> Any:
    """Windows refuses to replace a file while somebody reads it: try for a while."""
    end = time.monotonic() + seconds
    while True:
        try:
            return move()
        except PermissionError:
            if os.name != "nt" or time.monotonic() > end:
                raise
            time.sleep(0.05)


# ---------------------------------------------------------------- reading


def read_plain(path: Path, limit: int) -> bytes:
    """At most `limit` bytes of a plain file that nothing else links to. OSError when it cannot be opened, ValueError for the rest."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as stream:
        about = os.fstat(stream.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:  # 0 links: replaced since it was opened, and still whole
            raise ValueError("not a plain file of its own (a link, a folder or a device)")
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"longer than {limit:,} bytes")
    return data


def digest(data: bytes) -> str:
    """sha256, 64 hex."""
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------- JSON


def jsonable(value: Any) -> Any:
    """`value` in JSON's types: dataclasses, enums, paths, times, numpy scalars and arrays; NaN and infinities become null."""
    if isinstance(value, Enum):
        return jsonable(value.value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return jsonable(asdict(value))
    if isinstance(value, Mapping):
        return {str(jsonable(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((jsonable(item) for item in value), key=str)
    if isinstance(value, datetime):
        return iso_z(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "tolist"):  # numpy and pandas
        return jsonable(value.tolist())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def canonical_json(record: Mapping) -> bytes:
    """UTF-8, keys sorted, no spaces, no NaN: equal records give equal bytes. ValueError for what JSON cannot hold."""
    try:
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, RecursionError) as refusal:
        raise ValueError(str(refusal)) from refusal


def strict_json(data: bytes) -> dict:
    """The object in `data`. ValueError for bad UTF-8, a repeated key, NaN, too deep a nesting, or anything but an object."""

    def unique(pairs):
        record = dict(pairs)
        if len(record) != len(pairs):
            raise ValueError("a key is repeated")
        return record

    def finite(text):
        if not math.isfinite(float(text)):
            raise ValueError(f"{text} is not a finite number")
        return float(text)

    try:
        record = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError) as refusal:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ValueError(f"not strict JSON: {refusal}") from refusal
    if not isinstance(record, dict):
        raise ValueError(f"holds {type(record).__name__}, expected an object")
    return record


# ---------------------------------------------------------------- arrays

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest moment that a zip entry can carry
_ZIP = b"PK\x03\x04"


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
        raise ValueError("not a readable .npz: not a zip archive")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as refusal:  # zipfile and numpy raise a dozen kinds for damaged bytes
        raise ValueError(f"not a readable .npz: {refusal}") from refusal


def arrays_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 (64 hex) over names, dtypes, shapes and contents, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = _canonical(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _canonical(array) -> np.ndarray:
    array = np.asarray(array)
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
