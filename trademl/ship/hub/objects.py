"""What the hub asks of a store of objects, and a folder that does it.

Keys are lower-case paths. An object is written whole or not at all, and only if what lies there is what the writer believes:
nothing (`tag=None`), or the version that it read (`tag`). That one condition is what keeps two promoters from erasing each other.
A write whose bytes lie there already has succeeded: its answer may have been lost the first time.
"""

import contextlib
import os
import re
import shutil
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from trademl import files as disk
from trademl.errors import HubError, MissingExtraError
from trademl.files import digest

PATIENCE_S = 10.0  # a folder's writers wait for each other so long
_KEY = re.compile(r"[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*)*")
_STAGING = ".staging"


class RefusedError(HubError):
    """The store refuses, or cannot be reached."""


class AbsentError(RefusedError):
    """There is no object of this name."""


class ConflictError(RefusedError):
    """What lies there is not what the writer believed, nor what it wrote."""


@dataclass(frozen=True)
class Found:
    """An object's bytes, and the tag of this version."""

    data: bytes
    tag: str


@dataclass(frozen=True)
class Stat:
    """An object's size and hash, as the store knows them."""

    size: int
    sha256: str  # 64 hex
    tag: str


@dataclass(frozen=True)
class Listed:
    """An object in a listing."""

    key: str
    size: int
    modified: datetime  # UTC


class Objects(ABC):
    """A store of objects. Every method raises RefusedError for what the store refuses or where it cannot be reached."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The store in words, for messages; without secrets."""

    @abstractmethod
    def get(self, key: str, limit: int) -> Found:
        """An object of at most `limit` bytes. Raises AbsentError."""

    @abstractmethod
    def stat(self, key: str) -> Stat | None:
        """Size and hash; None when it is absent."""

    @abstractmethod
    def put(self, key: str, data: bytes, tag: str | None = None) -> None:
        """Write where nothing lies (None), or over the version `tag`. Raises ConflictError; equal bytes there are success."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Listed]:
        """Objects whose key starts with `prefix`, by key."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; an absent one is no error."""


def check_key(key: str) -> str:
    """`key` when it may name an object. Raises RefusedError."""
    if not (len(key) <= 1024 and _KEY.fullmatch(key) and not any(part.endswith(".") for part in key.split("/"))):
        raise RefusedError(f"key {key!r:.80} may not name an object of the hub: lower-case parts of a path, up to 1,024 characters")
    return key


@dataclass(frozen=True)
class FolderObjects(Objects):
    """Objects as files under a folder that all who use the hub can reach. Its conditional writes rest on the folder's lock."""

    root: Path

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.root)

    def get(self, key: str, limit: int) -> Found:
        """The file's bytes."""
        data = self._read(key, limit)
        if data is None:
            raise AbsentError(f"{self.where}: holds no {key}")
        return Found(data, digest(data))

    def stat(self, key: str) -> Stat | None:
        """Of the bytes that lie there now."""
        data = self._read(key, None)
        return None if data is None else Stat(len(data), digest(data), digest(data))

    def put(self, key: str, data: bytes, tag: str | None = None) -> None:
        """Under the folder's lock."""
        path = self._path(key)
        with self._writing() as staging:
            there = self.stat(key)
            if there is not None and there.sha256 == digest(data):
                return
            if (there.tag if there else None) != tag:
                raise ConflictError(f"{self.where}: {key} {'was changed' if there else 'is gone'} in the meantime; nothing was written")
            disk.make_folders(path.parent)
            disk.write_atomically(path, data, aside=staging / path.name)

    def list(self, prefix: str) -> Iterator[Listed]:
        """Files below the folder."""
        if not self.root.is_dir():
            raise self._absent()
        for path in sorted(self.root.rglob("*"), key=lambda path: path.relative_to(self.root).as_posix()):
            key = path.relative_to(self.root).as_posix()
            if key.startswith(prefix) and not key.startswith(".") and not path.is_dir():
                with contextlib.suppress(FileNotFoundError):
                    about = path.lstat()
                    yield Listed(key, about.st_size, datetime.fromtimestamp(about.st_mtime, UTC))

    def delete(self, key: str) -> None:
        """Unlink the file."""
        path = self._path(key)
        with self._writing():
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        path = self.root / check_key(key)
        if Path(os.path.realpath(path.parent)) != Path(os.path.realpath(self.root), *key.split("/")[:-1]):
            raise RefusedError(f"{path.parent}: a folder on the way there is a link; the hub's folder holds none")
        return path

    def _absent(self) -> RefusedError:
        return RefusedError(f"{self.where}: is not a folder; make it, or correct [hub] url")

    def _read(self, key: str, limit: int | None) -> bytes | None:
        """A regular file's bytes; None when it is absent. A link is refused."""
        path = self._path(key)
        if not self.root.is_dir():
            raise self._absent()
        try:
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as refusal:
            raise RefusedError(f"{path}: cannot be read ({refusal.strerror}); missing rights, or a link") from refusal
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise RefusedError(f"{path}: is not a regular file")
            with os.fdopen(handle, "rb", closefd=False) as stream:
                data = stream.read() if limit is None else stream.read(limit + 1)
        except OSError as refusal:
            raise RefusedError(f"{path}: cannot be read ({refusal.strerror})") from refusal
        finally:
            os.close(handle)
        if limit is not None and len(data) > limit:
            raise RefusedError(f"{path}: longer than {limit:,} bytes, so it is not what it is named")
        return data

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Path]:
        """The folder's lock, and a folder for what is being written: empty, since only the lock's holder uses it."""
        try:
            import filelock
        except ImportError:
            raise MissingExtraError("writing to a hub's folder needs the package filelock; pip install 'trademl[hub]'") from None
        if not self.root.is_dir():
            raise self._absent()
        staging = self.root / _STAGING
        try:
            with filelock.FileLock(self.root / ".lock", timeout=PATIENCE_S, poll_interval=0.01):
                shutil.rmtree(staging, ignore_errors=True)
                staging.mkdir()
                yield staging
        except filelock.Timeout:
            raise RefusedError(f"{self.where}: somebody else has been writing for {PATIENCE_S:g} s; try again") from None
        except OSError as refusal:
            raise RefusedError(f"{self.where}: cannot be written ({refusal.strerror or refusal}); nothing was changed") from refusal
