"""What a pull that was cut off keeps: each file that came whole, under its hash, so that the next pull fetches only the rest.

    <models_dir>/.fetched/<64 hex>    gone once a pull ends well

Nothing rests on it. What lies there is hashed again before it is used, and what is not what its name says is fetched again, so it
needs no sync; where the disk has no room for every file twice, nothing is kept.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from trademl.files import digest, read_regular
from trademl.ship.store import ROOM

FOLDER = ".fetched"


@dataclass
class Kept:
    """Files of one revision, from the folder or from the hub. `fetched` counts the bytes that came from the hub."""

    models_dir: Path
    ask: Callable[[dict], bytes] = field(repr=False)  # the hub's answer to a manifest's entry of a file
    fetched: int = 0

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.models_dir / FOLDER

    def missing(self, entries: Iterable[dict]) -> int:
        """Bytes that must still be fetched; each hash once."""
        return sum(size for sha256, size in _sizes(entries).items() if self._read(sha256, size) is None)

    def begin(self, entries: Iterable[dict]) -> None:
        """Forget what another revision left, and this one too where the disk is too small for both copies."""
        sizes = _sizes(entries)
        free = shutil.disk_usage(self.models_dir).free if self.models_dir.is_dir() else 0
        if free < 2 * sum(sizes.values()) + ROOM:
            self.clear()
            return
        with contextlib.suppress(OSError):
            if self.folder.is_symlink():  # what it points to is somebody else's
                self.folder.unlink()
            self.folder.mkdir(exist_ok=True)
            for path in self.folder.iterdir():
                if path.name not in sizes:
                    path.unlink()

    def fetch(self, entry: dict) -> bytes:
        """A file's bytes, of its size and hash. Raises HubError."""
        data = self._read(entry["sha256"], entry["bytes"])
        if data is None:
            data = self.ask(entry)
            self.fetched += len(data)
            self._keep(entry["sha256"], data)
        return data

    def clear(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, sha256: str, size: int) -> bytes | None:
        try:
            data = read_regular(self.folder / sha256, size)
        except (OSError, ValueError):  # absent, a link, longer
            return None
        return data if len(data) == size and digest(data) == sha256 else None

    def _keep(self, sha256: str, data: bytes) -> None:
        if not self.folder.is_dir():
            return
        path = self.folder / sha256
        try:
            path.unlink(missing_ok=True)
            with path.open("xb") as stream:
                stream.write(data)
        except OSError:  # a full disk: what comes next says so
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _sizes(entries: Iterable[dict]) -> dict[str, int]:
    return {entry["sha256"]: entry["bytes"] for entry in entries}
