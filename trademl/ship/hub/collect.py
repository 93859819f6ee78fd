"""Remove from the hub what nobody names and is old enough."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from trademl.errors import HubError
from trademl.files import digest, strict_json
from trademl.ship.hub.log import named
from trademl.ship.hub.room import Room, blob_key
from trademl.ship.manifest import MAX_BYTES as MAX_MANIFEST_BYTES
from trademl.ship.signing import SIGNATURE

_NAME = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Collection:
    """What a collection removed, or would remove."""

    revisions: tuple[str, ...]
    blobs: int
    bytes_freed: int
    is_done: bool


def collect(room: Room, *, now: datetime, grace: timedelta, keep: int, dry_run: bool = False) -> Collection:
    """Remove revisions that no pointer and none of the newest `keep` log entries names, and files that no revision names.

    Nothing younger than `grace` is touched, nor what no push wrote. Raises HubError, and removes nothing, where a manifest or a
    pointer cannot be believed: what it names is then not known.
    """
    dead = sorted(_unnamed(room, named(room, keep), now - grace))
    living = set(room.begun()) - set(dead)
    needed = _needed(room, living)
    if not dry_run:
        for name in dead:
            for file in (SIGNATURE, "manifest.json"):  # in this order: a revision without a signature is none
                room.objects.delete(room.path(f"revisions/{name}/{file}"))
    blobs = size = 0
    for entry in list(room.objects.list(room.path("blobs/"))):
        sha256 = entry.key.rsplit("/", 1)[-1]
        if entry.key != room.path(blob_key(sha256)) or sha256 in needed or entry.modified > now - grace:
            continue
        if not dry_run:
            fresh = set(room.begun()) - living  # pushed in the meantime
            living |= fresh
            needed |= _needed(room, fresh)
            if sha256 in needed:
                continue
            room.objects.delete(entry.key)
        blobs, size = blobs + 1, size + entry.size
    return Collection(tuple(dead), blobs, size, not dry_run)


def _unnamed(room: Room, kept: set[str], before: datetime) -> set[str]:
    """Revisions that nobody names and whose newest file is older than `before`, those of a push that was cut off too."""
    prefix, newest = room.path("revisions/"), {}
    for entry in room.objects.list(prefix):
        name = entry.key.removeprefix(prefix).split("/")[0]
        if not _NAME.fullmatch(name):
            continue
        newest[name] = max(entry.modified, newest.get(name, entry.modified))
    return {name for name, modified in newest.items() if name not in kept and modified <= before}


def _needed(room: Room, names: set[str]) -> set[str]:
    """Hashes of the files that these revisions name."""
    needed = set()
    for name in sorted(names):
        key = room.path(f"revisions/{name}/manifest.json")
        data = room.objects.get(key, MAX_MANIFEST_BYTES).data
        if digest(data)[:16] != name:
            raise HubError(f"{room.objects.where}: {key} is not the manifest that is named by its hash; nothing more is removed")
        needed |= {entry["sha256"] for entry in strict_json(data)["files"]}
    return needed
