"""Publish, approve and put back: what the trainer's machine does on the hub of one line.

A push ends with the signature, so what a crash leaves is never seen; the next push goes on from it, and nothing is sent twice. An
approval is one conditional write of one object: whoever read an older pointer is refused, and no approval overwrites a newer one unseen.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from trademl.clock import iso_z
from trademl.errors import HubError, SupersededError, UsageError
from trademl.files import canonical_json, digest
from trademl.ship.hub.collect import Collection, collect
from trademl.ship.hub.log import MAX_LOG, LogEntry, named, read_log
from trademl.ship.hub.objects import ConflictError
from trademl.ship.hub.pointer import Channel, Pointer, log_key, sign_pointer
from trademl.ship.hub.room import LOOKS, Published, Room, Standing, blob_key
from trademl.ship.hub.verify import verify
from trademl.ship.revision import Revision
from trademl.ship.signing import SIGNATURE, Trust


@dataclass(frozen=True)
class Terms:
    """What an approval says beside the revision."""

    now: datetime
    reason: str | None = None
    expires_days: int = 0  # 0: never


@dataclass(frozen=True)
class Push:
    """What a push did, or would do."""

    revision: str
    sent: tuple[str, ...]  # files that were not there yet
    bytes_sent: int
    present: int  # files that lay there already
    is_done: bool  # False: a dry run


@dataclass(frozen=True)
class Promotion:
    """What moving a channel did, or would do."""

    channel: str
    revision: str
    seq: int
    previous: str | None  # the revision before
    expires_at: str | None
    moved: bool  # False: a dry run, or it named this revision already


@dataclass(frozen=True)
class Hub(Room):
    """One line on the hub, for those who publish and approve."""

    def log(self, channel: str = Channel.APPROVED, newest: int = MAX_LOG) -> list[LogEntry]:
        """A channel's history (`trademl.ship.hub.log`)."""
        return read_log(self, channel, newest)

    def named(self, keep: int) -> set[str]:
        """Revisions that a pointer or one of the newest `keep` log entries names (`trademl.ship.hub.log`)."""
        return named(self, keep)

    def verify(self) -> tuple[list[str], list[str]]:
        """Everything, read and proven (`trademl.ship.hub.verify`)."""
        return verify(self)

    def collect(self, *, now: datetime, grace: timedelta, keep: int, dry_run: bool = False) -> Collection:
        """Remove what nobody names (`trademl.ship.hub.collect`)."""
        return collect(self, now=now, grace=grace, keep=keep, dry_run=dry_run)

    def push(self, revision: Revision, *, now: datetime, heal: bool = False, dry_run: bool = False) -> Push:
        """Publish a local revision, after every check of it: files, manifest, signature, then the channel of candidates.

        `heal` replaces a file there that is not what its name says. Raises HubError, RevisionError, UsageError.
        """
        self.check_line(revision.line)
        if not self.makers.pinned:
            raise UsageError("no key is pinned here, and the hub takes signed revisions alone; `trademl keys new`, then retrain")
        revision.verify()
        sent, present, size = [], [], 0
        for entry in {entry["sha256"]: entry for entry in revision.files().values()}.values():
            if self._has(entry, heal=heal):
                present.append(entry)
                continue
            sent.append(entry["name"])
            size += entry["bytes"]
            if not dry_run:
                self._send(entry, revision.read(entry["name"]))
        if not dry_run:
            for name in ("manifest.json", SIGNATURE):
                self._put_own(revision, name)
            for entry in present:  # again: a collection may have taken an old one before it saw this manifest
                if not self._has(entry):
                    self._send(entry, revision.read(entry["name"]))
            self._name_candidate(revision, now)
        return Push(revision.name, tuple(sent), size, len(present), not dry_run)

    def promote(
        self,
        name: str,
        *,
        now: datetime,
        reason: str | None = None,
        expires_days: int = 0,  # 0: never
        renew: bool = False,  # also when it is approved already: the same revision for another term
        seen: int | None = None,  # number of the approval that the decision rests on; 0: none
        dry_run: bool = False,
    ) -> Promotion:
        """Let the approved channel name a published revision: what every bot pulls next.

        SupersededError when somebody else moved it since it was read here; nothing is written then. UsageError for a
        candidate without a reason.
        """
        standing = self.standing()
        there = standing.pointer.seq if standing else 0
        if seen is not None and seen != there:
            raise SupersededError(
                f"{self.objects.where}: approval {seen} was seen, and {there} stands; see `trademl hub log`, then decide again"
            )
        published = self.published(name)
        self._check_whole(published)
        return self._advance(Channel.APPROVED, standing, published, Terms(now, reason, expires_days), renew=renew, dry_run=dry_run)

    def rollback(self, name: str | None, *, now: datetime, reason: str, expires_days: int = 0, dry_run: bool = False) -> Promotion:
        """Approve an older revision again, under a higher number; None: the one that was approved before the present one."""
        if not reason.strip():
            raise UsageError("a rollback takes --reason TEXT, which stands in the log")
        standing = self.standing()
        if standing is None:
            raise UsageError(f"{self.objects.where}: nothing of the line {self.line} is approved, so there is nothing to roll back")
        entries = self.log()[1:]
        before = self._before(entries, standing.pointer.revision) if name is None else self.find(name)
        if before == standing.pointer.revision:
            raise UsageError(f"revision {before} is the one that stands; `trademl hub log` shows what stood before")
        if before not in {entry.pointer.revision for entry in entries if entry.pointer is not None}:
            raise UsageError(f"revision {before} was never approved on the hub; `trademl hub promote` approves what is new")
        published = self.published(before)
        self._check_whole(published)
        return self._advance(Channel.APPROVED, standing, published, Terms(now, reason, expires_days), dry_run=dry_run)

    def _has(self, entry: dict, *, heal: bool = False) -> bool:
        key = self.path(blob_key(entry["sha256"]))
        there = self.objects.stat(key)
        if there is None:
            return False
        if (there.size, there.sha256) == (entry["bytes"], entry["sha256"]):
            return True
        if not heal:
            raise HubError(f"{self.objects.where}: {key} ({entry['name']}) holds other bytes than its name says; --heal replaces it")
        return False

    def _send(self, entry: dict, data: bytes) -> None:
        key = self.path(blob_key(entry["sha256"]))
        there = self.objects.stat(key)
        self.objects.put(key, data, None if there is None else there.tag)

    def _put_own(self, revision: Revision, name: str) -> None:
        """The manifest or its signature."""
        key = self.path(f"revisions/{revision.name}/{name}")
        data = canonical_json(revision.manifest) if name != SIGNATURE else (revision.folder / SIGNATURE).read_bytes()
        there = self.objects.stat(key)
        if there is not None and there.sha256 == digest(data):
            return
        try:
            self.objects.put(key, data)
        except ConflictError as refusal:
            raise HubError(f"{self.objects.where}: {key} holds other bytes than this revision's; see `trademl hub verify`") from refusal

    def _name_candidate(self, revision: Revision, now: datetime) -> None:
        """Nobody's decision is overwritten here: whoever pushed last is the candidate."""
        published = self.published(revision.name)
        for left in reversed(range(LOOKS)):
            standing = self.standing(Channel.CANDIDATE)
            try:
                self._advance(Channel.CANDIDATE, standing, published, Terms(now, "pushed"))
            except SupersededError:
                if not left:
                    raise
            else:
                return

    def _before(self, entries: list[LogEntry], standing: str) -> str:
        """The revision that was approved before the one that stands. HubError where the log cannot be believed that far."""
        for entry in entries:
            if entry.pointer is None:
                raise HubError(f"{entry.key} is not believed ({entry.problem}), so it is not known what stood before; name the revision")
            if entry.pointer.revision != standing:
                return entry.pointer.revision
        raise UsageError(f"{self.objects.where}: no other revision of the line {self.line} was approved before")

    def _advance(
        self,
        channel: Channel,
        standing: Standing | None,
        published: Published,
        terms: Terms,
        *,
        renew: bool = False,
        dry_run: bool = False,
    ) -> Promotion:
        """Archive the pointer that stands, replace it in one conditional write, the commit point, and archive the new one."""
        name, now, reason = published.name, terms.now, (terms.reason or "").strip() or None
        if not published.gate["passed"] and reason is None:
            raise UsageError(f"revision {name} is a candidate (its gate refused it): approving it takes --reason TEXT, which is kept")
        self._check_term(published, now)
        before = standing.pointer if standing else None
        if before is not None and before.revision == name and not renew and not before.is_expired(now):
            return Promotion(channel, name, before.seq, before.revision, before.expires_at, moved=False)
        trust = self.trust(channel)
        pointer = Pointer(
            channel=str(channel),
            line=self.line,
            seq=before.seq + 1 if before else 1,
            revision=name,
            manifest_sha256=digest(published.manifest_bytes),
            previous=standing.sha256 if standing else None,
            approved_at=iso_z(now),
            expires_at=iso_z(now + timedelta(days=terms.expires_days)) if terms.expires_days else None,
            approved_by=_signer(trust),
            reason=reason,
            gates=published.gate,
            nonce=uuid.uuid4().hex,
        )
        data = sign_pointer(pointer, trust)
        if not dry_run:
            self._check_newest(channel, before)
            self._archive(before, standing.data if standing else b"")
            try:
                self.objects.put(self.path(pointer.key), data, standing.tag if standing else None)
            except ConflictError as refusal:
                raise self._superseded(channel, before) from refusal
            self._archive(pointer, data)  # so that whoever puts an older one back is found out
        return Promotion(channel, name, pointer.seq, before.revision if before else None, pointer.expires_at, moved=not dry_run)

    def _check_newest(self, channel: Channel, before: Pointer | None) -> None:
        """HubError when the log holds what came after the pointer that stands: an older one was put back."""
        seq = before.seq if before else 0
        if self.objects.stat(self.path(log_key(channel, seq + 1))) is None:
            return
        now = self.standing(channel)
        if now is not None and now.pointer.seq > seq:
            raise self._superseded(channel, before)
        stands = f"approval {seq} stands" if before else "no approval stands"
        raise HubError(
            f"{self.objects.where}: {stands}, and the log holds approval {seq + 1} of channel {channel}: an older one was put back. "
            "Nothing was changed; `trademl hub log` shows both, and whoever keeps the hub puts the newest one back"
        )

    def _archive(self, pointer: Pointer | None, data: bytes) -> None:
        if pointer is None:
            return
        try:
            self.objects.put(self.path(pointer.log_key), data)
        except ConflictError as refusal:
            raise HubError(
                f"{self.objects.where}: the log holds another approval {pointer.seq} than the one that stands: an older one was "
                "put back. Nothing was changed; `trademl hub log` shows both"
            ) from refusal

    def _superseded(self, channel: str, before: Pointer | None) -> SupersededError:
        now = self.standing(channel)
        seen = f"approval {before.seq}" if before else "no approval"
        newer = f"approval {now.pointer.seq} of revision {now.pointer.revision}" if now else "none"
        return SupersededError(
            f"{self.objects.where}: {seen} was read, and meanwhile there is {newer}: somebody else was first. "
            "Nothing was written; look at `trademl hub log`, then decide again"
        )

    def _check_term(self, published: Published, now: datetime) -> None:
        expires = published.manifest["expires_at"]
        if expires is not None and iso_z(now) >= expires:
            raise HubError(f"revision {published.name} expired at {expires}; `trademl retrain` makes a new one")

    def _check_whole(self, published: Published) -> None:
        """Every file is there: what is approved can be pulled."""
        missing = [entry["name"] for entry in published.manifest["files"] if not self._has(entry)]
        if missing:
            raise HubError(
                f"{self.objects.where}: revision {published.name} lacks {', '.join(missing[:5])}; `trademl hub push {published.name}`"
            )


def _signer(trust: Trust) -> str:
    """Name of the key that signs. UsageError where none does, or where its approvals do not count."""
    key = trust.signer()
    if key is None:
        raise UsageError("no key signs here, and an approval on the hub is signed; `trademl keys new` makes one")
    if key not in trust.pinned:
        names = " or ".join(one.name for one in trust.pinned)
        raise UsageError(f"key {key.name} signs here, and only the key {names} may approve on this hub; its owner runs this command")
    return key.name
