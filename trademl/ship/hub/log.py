"""A channel's history: each approval that was, as far as it is believed, and what is missing from it."""

from dataclasses import dataclass

from trademl.errors import HubError, UsageError
from trademl.files import digest
from trademl.ship.hub.pointer import MAX_BYTES, Channel, Pointer, channel_key, log_prefix, read_pointer
from trademl.ship.hub.room import Room

MAX_LOG = 100_000


@dataclass(frozen=True)
class LogEntry:
    """A pointer of a channel's history. `problem` says why it is not believed here; then `pointer` is None."""

    key: str
    pointer: Pointer | None
    problem: str | None = None


def read_log(room: Room, channel: str = Channel.APPROVED, newest: int = MAX_LOG) -> list[LogEntry]:
    """A channel's history, newest first: what stands now, then so many copies. What is not believed is shown with the reason."""
    standing = room.standing(channel)
    entries = [] if standing is None else [LogEntry(room.path(channel_key(channel)), standing.pointer)]
    prefix, expected = room.path(log_prefix(channel)), None if standing is None else standing.pointer
    copies = sorted((entry.key for entry in room.objects.list(prefix)), reverse=True)
    for key in copies[: newest + 1]:  # one of them may be that of what stands
        try:
            data = room.objects.get(key, MAX_BYTES).data
            pointer = read_pointer(data, room.trust(channel), channel, room.line, f"{room.objects.where}: {key}")
            if key != room.path(pointer.log_key):
                raise HubError(f"holds approval {pointer.seq}")
        except (HubError, UsageError) as refusal:
            entries.append(LogEntry(key, None, str(refusal)))
            continue
        if standing is not None and pointer.seq == standing.pointer.seq and digest(data) == standing.sha256:
            continue  # the copy of what stands
        if expected is not None and (pointer.seq != expected.seq - 1 or digest(data) != expected.previous):
            entries.append(LogEntry(key, None, f"approval {pointer.seq} is not the one that approval {expected.seq} follows"))
        else:
            entries.append(LogEntry(key, pointer))
        expected = pointer
    return entries


def named(room: Room, keep: int) -> set[str]:
    """Revisions that a pointer or one of the newest log entries names. HubError for an entry that cannot be believed."""
    names = set()
    for channel in Channel:
        for entry in read_log(room, channel, keep):
            if entry.pointer is None:
                raise HubError(f"{entry.key}: {entry.problem}; nothing is removed before that is settled")
            names.add(entry.pointer.revision)
    return names


def gaps(entries: list[LogEntry]) -> list[str]:
    """Numbers between 1 and the newest that no believed entry has."""
    seqs = {entry.pointer.seq for entry in entries if entry.pointer}
    missing = sorted(set(range(1, max(seqs) + 1)) - seqs)
    channel = next(entry.pointer.channel for entry in entries if entry.pointer)
    return [f"channel {channel}: approval {', '.join(map(str, missing[:5]))} is missing from the log"] if missing else []
