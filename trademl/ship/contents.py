"""The files of a revision: which names they may have, how they are listed, and how one is read.

Nothing is parsed here; what a file says is looked at only after its hash is right.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from trademl.errors import RevisionError
from trademl.files import digest, read_plain, strict_json

MAX_FILES = 64
MAX_FILE_BYTES = 1 << 30
MAX_RECORD_BYTES = 256 * 1024  # of a manifest, a pointer, a store's state

_PART = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
SUFFIXES = (".onnx", ".json", ".npz", ".parquet", ".txt", ".ubj")  # none of them runs code when it is read
OWN_FILES = ("manifest.json", "manifest.sig", "model_compat.json")


def check_file_name(name: str) -> str:
    """`name` when it may stand in a revision: lower case ASCII, at most one folder, a suffix of SUFFIXES.

    Raises RevisionError otherwise: anything that could leave the folder, be read as another name on another
    file system, or hold code.
    """
    parts = name.split("/") if isinstance(name, str) else []
    good = (
        1 <= len(parts) <= 2
        and all(_PART.fullmatch(part) and part[-1] != "." and part.split(".")[0] not in _RESERVED for part in parts)
        and name.endswith(SUFFIXES)
        and name not in OWN_FILES
    )
    if not good:
        raise RevisionError(
            f"file name {name!r} is not allowed in a revision: lower-case letters, digits, '_', '-' and '.', at most one folder, "
            f"ending in {', '.join(SUFFIXES)}"
        )
    return name


def list_files(files: Mapping[str, bytes]) -> list[dict]:
    """{name, sha256, bytes} of each file, sorted by name: the manifest's `files`. RevisionError for a name that is not allowed."""
    return [{"name": check_file_name(name), "sha256": digest(files[name]), "bytes": len(files[name])} for name in sorted(files)]


def read_file(folder: Path, entry: Mapping, where: str) -> bytes:
    """The bytes of a listed file, proven by its hash. RevisionError."""
    data = read_bytes(folder / check_file_name(entry["name"]), entry["bytes"], where)
    if digest(data) != entry["sha256"]:
        raise RevisionError(f"{where} is not what the manifest says (sha256 differs). {advice(folder)}")
    return data


def read_bytes(path: Path, limit: int, where: str) -> bytes:
    """At most `limit` bytes of a plain file that nothing else links to. RevisionError."""
    try:
        return read_plain(path, limit)
    except OSError as refusal:
        raise RevisionError(f"{where}: cannot be read ({refusal.strerror}); missing, or a link") from refusal
    except ValueError as refusal:
        raise RevisionError(f"{where}: {refusal}") from refusal


def read_record(path: Path, where: str) -> dict:
    """The JSON object in a small file. RevisionError."""
    return parse_record(read_bytes(path, MAX_RECORD_BYTES, where), where)


def parse_record(data: bytes, where: str) -> dict:
    """The JSON object in `data`, strictly read. RevisionError."""
    if len(data) > MAX_RECORD_BYTES:
        raise RevisionError(f"{where}: {len(data):,} bytes, at most {MAX_RECORD_BYTES:,} are read")
    try:
        return strict_json(data)
    except ValueError as refusal:
        raise RevisionError(f"{where}: {refusal}") from refusal


def walk(folder: Path) -> Iterator[str]:
    """Names of all files, `sub/name` inside one level of folders. Raises RevisionError for links, depth, or too many."""
    count = 0
    for inner in ("", *sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))):
        empty = True
        with os.scandir(folder / inner) as entries:
            for entry in entries:
                count += 1
                empty = False
                if count > 2 * MAX_FILES:
                    raise RevisionError(f"revision {folder.name}: more than {2 * MAX_FILES} files. {advice(folder)}")
                if entry.is_dir(follow_symlinks=False):
                    if inner:
                        raise RevisionError(f"revision {folder.name}: a folder in a folder, {inner}/{entry.name}. {advice(folder)}")
                    continue
                about = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
                    name = entry.name.encode("unicode_escape").decode()
                    raise RevisionError(f"revision {folder.name}: {name} is a link, or not a plain file. {advice(folder)}")
                yield f"{inner}/{entry.name}" if inner else entry.name
        if inner and empty:
            raise RevisionError(f"revision {folder.name}: an empty folder {inner}. {advice(folder)}")


def advice(folder: Path) -> str:
    return f"Do not use it: move {folder} away and pull or train again"
