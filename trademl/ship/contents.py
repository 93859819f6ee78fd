"""The files of a revision: which names may stand in one, how large they may be, what lies in its folder, and their hashes.

Only the standard library and numpy are needed.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from trademl.errors import RevisionError
from trademl.files import digest, read_regular
from trademl.ship.signing import SIGNATURE

POINTER = "model_compat.json"
SCALER = "native/scaler.npz"
JUDGED_ROWS, SHAP_SUMMARY = "judged_rows.npz", "shap_summary.json"  # both or neither: what explains a revision
MAX_FILES = 64
MAX_FILE_BYTES = 1 << 30
SUFFIXES = (".onnx", ".json", ".npz", ".parquet", ".txt", ".ubj", ".md", ".html")  # none of them runs code when it is read
OWN_FILES = ("manifest.json", SIGNATURE, POINTER)

_PART = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


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


def entry_of(name: str, data: bytes) -> dict:
    """The manifest's entry of a file: {name, sha256, bytes}. Raises RevisionError for a name that is not allowed."""
    return {"name": check_file_name(name), "sha256": digest(data), "bytes": len(data)}


def read_file(path: Path, limit: int, what: str) -> bytes:
    """At most `limit` bytes of a regular file that nothing else links to. Raises RevisionError naming `what`."""
    try:
        return read_regular(path, limit)
    except OSError as refusal:
        raise RevisionError(f"{what}: cannot be read ({refusal.strerror}); missing, or a link") from refusal
    except ValueError as refusal:
        raise RevisionError(f"{what}: {refusal}") from refusal


def read_listed(folder: Path, entry: dict) -> bytes:
    """A listed file's bytes, of the size and hash that its entry says. Raises RevisionError."""
    name = check_file_name(entry["name"])
    data = read_file(folder / name, entry["bytes"], f"revision {folder.name}: {name}")
    if digest(data) != entry["sha256"]:
        raise RevisionError(f"revision {folder.name}: {name} is not what the manifest says (sha256 differs). {advice(folder)}")
    return data


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
                    raise RevisionError(f"revision {folder.name}: {name} is a link or not a regular file. {advice(folder)}")
                yield f"{inner}/{entry.name}" if inner else entry.name
        if inner and empty:
            raise RevisionError(f"revision {folder.name}: an empty folder {inner}. {advice(folder)}")


def inner_folders(folder: Path) -> list[Path]:
    """The folders directly inside, sorted; links are not followed."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())


def advice(folder: Path) -> str:
    """What to do about a revision that cannot be trusted."""
    return f"Do not use it: move {folder} away and pull or train again"
