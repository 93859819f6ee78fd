"""The bot's read-only side of the hub: from a channel into a local store, each thing proven before the next.

pointer (size, signature, channel, line) -> not older than what was seen -> not from the future, not run out -> manifest (hash, signature,
form) -> room on the disk -> each file (length, hash) aside -> every check, golden rows on this machine -> one rename -> what was
seen -> the local pointer. A crash anywhere leaves the local pointer where it was, and the next pull goes on from the files that came
whole (`trademl.ship.hub.kept`).
"""

from dataclasses import dataclass
from datetime import datetime

from trademl.clock import iso_z
from trademl.errors import HubError, RevisionError
from trademl.ship.hub.kept import Kept
from trademl.ship.hub.pointer import Channel, Pointer, check_memory, check_time
from trademl.ship.hub.room import Room, Standing
from trademl.ship.store import Store


@dataclass(frozen=True)
class Pull:
    """What a pull did, or would do."""

    channel: str
    revision: str
    seq: int
    previous: str | None  # the revision that was active before
    fetched: int  # bytes; 0 when the store held it, and only the rest after a pull that was cut off
    activated: bool
    remarks: tuple[str, ...]  # what a person should know


def pull(
    hub: Room,
    store: Store,
    *,
    now: datetime,
    channel: str = Channel.APPROVED,
    refuse_expired: bool = False,
    dry_run: bool = False,  # everything is asked of the pointer and the manifest, nothing is fetched or moved
) -> Pull:
    """Bring the revision that the channel names into the store, and activate it if it is approved.

    A candidate is stored and never activated. Raises HubError, RollbackError, RevisionError; the active revision then stands.
    """
    if dry_run:
        return _pull(hub, store, now, channel, refuse_expired, dry_run=True)
    with store.lock():
        return _pull(hub, store, now, channel, refuse_expired, dry_run=False)


def _pull(hub: Room, store: Store, now: datetime, channel: str, refuse_expired: bool, *, dry_run: bool) -> Pull:
    standing = hub.standing(channel)
    if standing is None:
        raise HubError(f"{hub.objects.where}: nothing of the line {hub.line} is {channel} yet; `trademl hub promote REV` approves")
    store.check_line(hub.line)
    remarks = _check_standing(hub, store, standing, now, refuse_expired)
    pointer, kept = standing.pointer, Kept(store.models_dir, hub.blob)
    published = hub.published(pointer.revision, pointer.manifest_sha256)
    previous = _active(store)
    is_here = (store.folder / pointer.revision).exists()
    fetched = 0 if is_here or not dry_run else kept.missing(published.manifest["files"])
    activates = channel == Channel.APPROVED
    if not dry_run:
        if not is_here:
            kept.begin(published.manifest["files"])
            store.receive(published.manifest_bytes, published.signature, kept.fetch)
            fetched = kept.fetched
        if store.recall(channel) != _memory(standing):
            store.remember(channel, _memory(standing))
        if not activates:
            store.open(pointer.revision)  # what lay here already is whole all the same
        elif previous != pointer.revision or not _is_loadable(store, now):
            store.activate(pointer.revision, _reason(pointer), now=now)
        kept.clear()
    return Pull(channel, pointer.revision, pointer.seq, previous, fetched, activates and not dry_run, tuple(remarks))


def _active(store: Store) -> str | None:
    """The revision that the local pointer names; None also for a pointer that cannot be read: a pull writes it anew."""
    try:
        record = store.pointer()
    except RevisionError:
        return None
    return None if record is None else record["revision"]


def _is_loadable(store: Store, now: datetime) -> bool:
    """Whether a bot would load what the local pointer names; where it would not, activating it anew mends it or says why."""
    try:
        return store.active(now) is not None
    except RevisionError:
        return False


def _check_standing(hub: Room, store: Store, standing: Standing, now: datetime, refuse_expired: bool) -> list[str]:
    """What is to be said of the pointer. HubError and RollbackError for what must not be followed."""
    pointer, where = standing.pointer, f"{hub.objects.where}: channel {standing.pointer.channel}"
    remarks, seen = [], store.recall(pointer.channel)
    check_memory(pointer, standing.sha256, seen, where)
    check_time(pointer, now, where)
    if seen is None:
        remarks.append(f"nothing was seen of this hub before: approval {pointer.seq} is taken on its signature; none older from now on")
    if pointer.is_expired(now):
        sentence = f"{where}: the approval of {pointer.revision} ran out at {pointer.expires_at}, here it is {iso_z(now)}"
        if refuse_expired:
            raise HubError(f"{sentence}; `trademl hub promote {pointer.revision} --renew` renews it ([hub] refuse_expired)")
        remarks.append(f"{sentence}; it is used all the same ([hub] refuse_expired = false)")
    return remarks


def _memory(standing: Standing) -> dict:
    return {"seq": standing.pointer.seq, "sha256": standing.sha256}


def _reason(pointer: Pointer) -> str:
    """What the local pointer keeps of the approval."""
    return f"approval {pointer.seq} on the hub by key {pointer.approved_by}" + (f": {pointer.reason}" if pointer.reason else "")
