"""Prove everything of a line that lies on the hub."""

from trademl.errors import HubError
from trademl.ship.hub.log import gaps, read_log
from trademl.ship.hub.pointer import Channel, channel_key
from trademl.ship.hub.room import Room


def verify(room: Room) -> tuple[list[str], list[str]]:
    """(revisions that lie there, what is wrong): both pointers, their logs, and every file of every revision, read and hashed."""
    wrong = []
    for channel in Channel:
        try:
            entries = read_log(room, channel)
        except HubError as refusal:
            wrong.append(str(refusal))
            continue
        wrong += [f"{entry.key}: {entry.problem}" for entry in entries if entry.problem]
        if entries and entries[0].key != room.path(channel_key(channel)):
            wrong.append(f"channel {channel} names nothing, and its log holds {entries[0].key}: the pointer was taken away")
        if entries and entries[0].pointer is not None:
            wrong += gaps(entries)
    names = room.revisions()
    good: set[str] = set()
    for name in names:
        try:
            manifest = room.published(name).manifest
        except HubError as refusal:
            wrong.append(str(refusal))
            continue
        for entry in manifest["files"]:
            if entry["sha256"] not in good:
                try:
                    room.blob(entry)
                    good.add(entry["sha256"])
                except HubError as refusal:
                    wrong.append(f"revision {name}: {refusal}")
    return names, wrong
