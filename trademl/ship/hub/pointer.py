"""The pointer of a channel: a signed record that says which revision the channel names, and since when.

    <line>/channels/approved.json               what bots pull
    <line>/channels/candidate.json              what was pushed last
    <line>/channels/log/approved/00000007.json  a copy of pointer 7, written once it stands, at the latest before pointer 8 takes its place

Each pointer holds the hash of the one before it, so the log is a chain; its number only grows, also when an older revision is put back.
"""

import re
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum

from trademl.clock import iso_z
from trademl.errors import HubError, RevisionError, RollbackError, UsageError
from trademl.files import canonical_json, strict_json
from trademl.ship.manifest import short
from trademl.ship.signing import POINTER_DOMAIN, Trust

SCHEMA = 1
MAX_BYTES = 16 * 1024
MAX_REASON = 1_000  # characters
SKEW = timedelta(minutes=5)  # clocks differ by so much


class Channel(StrEnum):
    """What is named on the hub."""

    APPROVED = "approved"  # bots trade it
    CANDIDATE = "candidate"  # pushed last; bots may watch it


@dataclass(frozen=True)
class Pointer:
    """Which revision a channel names."""

    channel: str
    line: str
    seq: int  # 1, 2, 3, … without a gap
    revision: str  # 16 hex
    manifest_sha256: str
    previous: str | None  # sha256 of the pointer before this one; None: the first
    approved_at: str  # UTC, ISO 8601 with Z
    expires_at: str | None  # from then on a bot warns, or refuses where its settings say so; None: never
    approved_by: str  # 16 hex: the key that signed
    reason: str | None
    gates: dict  # {passed, sentence}: what the revision's own gate said
    nonce: str  # 32 hex: two approvals are never the same bytes

    @property
    def key(self) -> str:
        """Where it lies."""
        return channel_key(self.channel)

    @property
    def log_key(self) -> str:
        """Where its copy lies."""
        return log_key(self.channel, self.seq)

    def is_expired(self, now: datetime) -> bool:
        """Whether the approval has run out."""
        return self.expires_at is not None and iso_z(now) >= self.expires_at


def channel_key(channel: str) -> str:
    """Key of a channel's pointer."""
    return f"channels/{channel}.json"


def log_prefix(channel: str) -> str:
    """Where the copies of a channel's pointers lie."""
    return f"channels/log/{channel}/"


def log_key(channel: str, seq: int) -> str:
    """Where the copy of a channel's pointer of this number lies."""
    return f"{log_prefix(channel)}{seq:08d}.json"


def sign_pointer(pointer: Pointer, trust: Trust) -> bytes:
    """The bytes of a pointer's object. UsageError where nothing signs, or for a reason too long to keep."""
    if len(pointer.reason or "") > MAX_REASON:
        raise UsageError(f"--reason is {len(pointer.reason):,} characters long; at most {MAX_REASON:,} are kept")
    record = {"schema": SCHEMA} | asdict(pointer)
    signature = trust.sign(canonical_json(record), POINTER_DOMAIN)
    if signature is None:
        raise UsageError("no key signs here, and an approval on the hub is signed; `trademl keys new` makes one")
    return canonical_json({"pointer": record, "signature": strict_json(signature)})


def read_pointer(data: bytes, trust: Trust, channel: str, line: str, where: str) -> Pointer:
    """A pointer from its bytes: signature first, then its form, then that it is this channel's and this line's. Raises HubError."""
    if len(data) > MAX_BYTES:
        raise HubError(f"{where}: {len(data):,} bytes, at most {MAX_BYTES:,} are read")
    if data.lstrip()[:1] == b"<":
        raise HubError(f"{where}: a web page where an approval should be; the address is wrong, or a proxy answers in the store's place")
    if not trust.pinned:
        raise UsageError("no key is pinned here, so no approval can be believed; put the trainer's public key into trusted.txt")
    try:
        outer = strict_json(data)
        record, signature = outer["pointer"], canonical_json(outer["signature"])
        if canonical_json(outer) != data or len(outer) != 2 or not isinstance(record, dict):
            raise ValueError("not in canonical form")
        trust.check(canonical_json(record), signature, POINTER_DOMAIN)
        pointer = _parse(record)
    except RevisionError as refusal:
        raise HubError(f"{where}: the approval {refusal}") from refusal
    except (KeyError, TypeError, ValueError) as refusal:
        raise HubError(f"{where}: is not an approval that trademl wrote ({refusal}). Do not use it") from refusal
    if pointer.approved_by != outer["signature"]["key"]:
        raise HubError(f"{where}: says that {pointer.approved_by} approved, and another key signed. Do not use it")
    for name, theirs, ours in (("channel", pointer.channel, channel), ("line", pointer.line, line)):
        if theirs != ours:
            raise HubError(f"{where}: is an approval of {name} {theirs}, expected {ours}: it was copied from elsewhere. Do not use it")
    return pointer


def check_memory(pointer: Pointer, sha256: str, seen: dict | None, where: str) -> None:
    """RollbackError when the hub shows something older than was seen, or another approval under the same number."""
    if seen is None:
        return
    if pointer.seq < seen["seq"]:
        raise RollbackError(
            f"{where}: shows approval {pointer.seq}, and {seen['seq']} was seen before: an older one was put back. "
            "Nothing was changed; ask whoever keeps the hub"
        )
    if pointer.seq == seen["seq"] and sha256 != seen["sha256"]:
        raise RollbackError(
            f"{where}: shows another approval {pointer.seq} than the one seen before. Nothing was changed; ask whoever keeps the hub"
        )


def check_time(pointer: Pointer, now: datetime, where: str) -> None:
    """HubError when the approval lies in the future by more than clocks differ."""
    if pointer.approved_at > iso_z(now + SKEW):
        raise HubError(f"{where}: was approved at {pointer.approved_at}, here it is {iso_z(now)}: set this machine's clock right")


_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_HEX = {size: re.compile(rf"[0-9a-f]{{{size}}}") for size in (16, 32, 64)}


def _parse(record: dict) -> Pointer:
    """A signed record. Raises ValueError for what this trademl does not write."""
    if record.get("schema") != SCHEMA or type(record["schema"]) is not int:
        raise ValueError(f"schema {short(record.get('schema'))}; this trademl reads {SCHEMA}, a newer one may be needed")
    names = {field.name for field in fields(Pointer)}
    if record.keys() != names | {"schema"}:
        raise ValueError(f"its keys are {', '.join(sorted(record))[:200]}")
    pointer = Pointer(**{name: record[name] for name in names})
    good = {
        "channel": pointer.channel in tuple(Channel),
        "line": isinstance(pointer.line, str),
        "seq": type(pointer.seq) is int and 0 < pointer.seq < 10**8,
        "revision": _is(pointer.revision, 16),
        "manifest_sha256": _is(pointer.manifest_sha256, 64) and str(pointer.manifest_sha256)[:16] == pointer.revision,
        "previous": pointer.previous is None if pointer.seq == 1 else _is(pointer.previous, 64),
        "approved_at": _is_moment(pointer.approved_at),
        "expires_at": pointer.expires_at is None or _is_moment(pointer.expires_at),
        "approved_by": _is(pointer.approved_by, 16),
        "reason": pointer.reason is None or isinstance(pointer.reason, str),
        "gates": isinstance(pointer.gates, dict) and type(pointer.gates.get("passed")) is bool,
        "nonce": _is(pointer.nonce, 32),
    }
    wrong = [name for name, is_good in good.items() if not is_good]
    if wrong:
        raise ValueError(f"{wrong[0]} = {short(record[wrong[0]])}")
    return pointer


def _is(value: object, size: int) -> bool:
    return isinstance(value, str) and _HEX[size].fullmatch(value) is not None


def _is_moment(value: object) -> bool:
    try:
        return isinstance(value, str) and _UTC.fullmatch(value) is not None and bool(datetime.fromisoformat(value))
    except ValueError:
        return False
