"""A hub, a trainer's store and a bot's, with keys; for every test of the hub."""

import atexit
import functools
import itertools
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import hub_server
import make_revision as make

from trademl.ship.hub.hub import Hub
from trademl.ship.hub.objects import FolderObjects
from trademl.ship.hub.pull import pull
from trademl.ship.signing import KeyFolder, Trust
from trademl.ship.store import Store

LINE = "market-btcusd-15min"
NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
_NUMBERS = itertools.count()


@functools.cache
def files_of_all() -> dict:
    """What the revisions share. Made when it is asked for: a process that forks has not run a graph before."""
    return make.make_files()


@dataclass(frozen=True)
class Rooms:
    """One hub seen from two machines: the trainer's, which signs, and the bot's, which only knows the public key."""

    folder: Path
    objects: object  # as the trainer may use them
    readable: object  # as the bot may
    trust: Trust
    bot_folder: str = "bot"

    @property
    def hub(self) -> Hub:
        return Hub(self.objects, LINE, self.trust, self.trust)

    @property
    def seen_by_bot(self) -> Hub:
        public = Trust(self.trust.pinned)
        return Hub(self.readable, LINE, public, public)

    @property
    def store(self) -> Store:
        return Store(self.folder / "trainer", self.trust)

    @property
    def bot(self) -> Store:
        return Store(self.folder / self.bot_folder, Trust(self.trust.pinned))

    def revision(self, number=1, **changes):
        """The trainer's n-th revision, made once; they share most of their files."""
        trained_at = f"2026-01-{number:02d}T00:00:00Z"
        made = [one for one in self.store.revisions() if one.trained_at == trained_at and not changes]
        files = files_of_all() | {"metrics.json": b'{"number":%d}' % number}
        return made[0] if made else self.store.write(files, make.make_manifest(trained_at=trained_at, **changes))

    def approved(self, number=1, **promotion):
        """Train, push, promote."""
        revision = self.revision(number)
        self.hub.push(revision, now=NOW)
        self.hub.promote(revision.name, **{"now": NOW} | promotion)
        return revision

    def key(self, name: str) -> str:
        """A key of this line on the hub."""
        return self.hub.path(name)


@functools.cache
def _made(is_standing: bool) -> Path:
    """A trainer's folder with three revisions and an empty hub; `is_standing`: two are approved and the second one is pulled."""
    folder = Path(tempfile.mkdtemp(prefix="trademl-hub-rooms-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if is_standing:
        shutil.copytree(_made(False), folder, dirs_exist_ok=True)
        room = at(folder)
        room.approved(1)
        room.approved(2)
        pull(room.seen_by_bot, room.bot, now=NOW)
        return folder
    KeyFolder(folder / "keys").create()
    (folder / "hub").mkdir()
    for number in (1, 2, 3):
        at(folder).revision(number)
    return folder


def at(folder: Path, server=None) -> Rooms:
    """What lies in a folder; with a server, its hub is there in a room of its own."""
    objects = readable = FolderObjects(folder / "hub")
    if server is not None:
        prefix = f"hub-{next(_NUMBERS)}/"
        objects, readable = (hub_server.bucket(server.endpoint, who, prefix) for who in (hub_server.TRAINER, hub_server.BOT))
    return Rooms(folder, objects, readable, KeyFolder(folder / "keys").trust())


def rooms(folder: Path, server=None, *, is_standing: bool = False) -> Rooms:
    """A copy of its own: three revisions, and with `is_standing` two approvals, the second one pulled."""
    shutil.copytree(_made(is_standing), folder, dirs_exist_ok=True)
    return at(folder, server)
