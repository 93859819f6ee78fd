"""Which revisions of a local store may go: old ones that nobody names, and only by `trademl models gc`."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from trademl.ship.revision import Revision
from trademl.ship.store import Store


@dataclass(frozen=True)
class Removal:
    """What a collection removed, or would remove."""

    revisions: tuple[str, ...]
    bytes_freed: int
    kept: int
    is_done: bool


def collect(
    store: Store,
    *,
    now: datetime,
    grace: timedelta,  # nothing younger goes, by training and by arrival
    keep: int,  # the newest so many stay
    named: Iterable[str] = (),  # revisions that stay whatever their age, such as those that the hub's log names
    dry_run: bool = False,
) -> Removal:
    """Remove what is older than `grace` and is not the active revision, the one before it, approved by hand, among the newest, or named.

    The one that carries the highest look stays too: a chain of looks that is lost begins anew above it. Raises RevisionError for a pointer
    or a state that cannot be read; folders that are not readable revisions are left alone.
    """
    found = store.revisions()
    stays = {*named, *store.held(), *(one.name for one in found[:keep])}
    stays |= {max(found, key=lambda one: one.manifest["look"]["number"]).name} if found else set()
    dead = [one for one in found if one.name not in stays and _came(one) <= now - grace]
    size = sum(entry["bytes"] for one in dead for entry in one.files().values())
    if not dry_run and dead:
        with store.lock():
            for one in dead:
                store.remove(one.name)
    return Removal(tuple(one.name for one in dead), size, len(found) - len(dead), not dry_run)


def _came(revision: Revision) -> datetime:
    """When it was trained or came here, whichever was later."""
    return max(datetime.fromisoformat(revision.trained_at), datetime.fromtimestamp(revision.folder.stat().st_mtime, UTC))
