"""One line's room on the hub: push, approve, roll back, prove what lies there, collect what nobody names.

    trademl/v1/<line>/blobs/sha256/ab/<64 hex>           immutable
    trademl/v1/<line>/revisions/<rev>/manifest.json      immutable, then manifest.sig: a revision is there once both are
    trademl/v1/<line>/channels/…                         `trademl.ship.hub.pointer`

A push ends with the signature, so what a crash leaves is never seen; the next push goes on from it, and nothing is sent twice. An
approval is one conditional write of one object: whoever read an older pointer is refused, and no approval overwrites a newer one unseen.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from trademl.clock import iso_z
from trademl.errors import HubError, RevisionError, SupersededError, UsageError
from trademl.files import canonical_json, digest, strict_json
from trademl.ship.hub.objects import AbsentError, ConflictError, Objects, RefusedError
from trademl.ship.hub.pointer import MAX_BYTES, Channel, Pointer, channel_key, log_prefix, read_pointer, sign_pointer
from trademl.ship.manifest import MAX_BYTES as MAX_MANIFEST_BYTES
from trademl.ship.manifest import parse_manifest
from trademl.ship.revision import Revision
from trademl.ship.signing import MAX_SIGNATURE_BYTES, SIGNATURE, Trust

ROOT = "trademl/v1"
LOOKS = 3  # a body that is not what its hash says is fetched so often: one bit may flip on the way
MAX_LOG = 100_000

_T = TypeVar("_T")


@dataclass(frozen=True)
class Standing:
    """What a channel names now: the pointer, its bytes, and the tag that a change must name."""

    pointer: Pointer
    data: bytes
    tag: str

    @property
    def sha256(self) -> str:
        """Of the bytes."""
        return digest(self.data)


@dataclass(frozen=True)
class Published:
    """A revision on the hub: proven to be what its name says and signed by a key that counts here."""

    name: str
    manifest: dict = field(repr=False)
    manifest_bytes: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def gate(self) -> dict:
        """What a pointer keeps of its gate."""
        return {"passed": self.manifest["gate"]["passed"], "sentence": self.manifest["gate"]["sentence"]}


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
class LogEntry:
    """A pointer of a channel's history. `problem` says why it is not believed here; then `pointer` is None."""

    key: str
    pointer: Pointer | None
    problem: str | None = None


@dataclass(frozen=True)
class Collection:
    """What a collection removed, or would remove."""

    revisions: tuple[str, ...]
    blobs: int
    bytes_freed: int
    is_done: bool


@dataclass(frozen=True)
class Hub:
    """One line on the hub. `makers` sign revisions, `approvers` sign approvals; often one key is both."""

    objects: Objects
    line: str
    makers: Trust = field(repr=False)
    approvers: Trust = field(repr=False)

    # ---------------------------------------------------------------- reading

    def standing(self, channel: str = Channel.APPROVED) -> Standing | None:
        """What a channel names; None when it names nothing yet. Raises HubError for a pointer that is not to be believed."""
        key = self.path(channel_key(channel))
        return self._patiently(lambda: self._standing(key, channel))

    def published(self, name: str, manifest_sha256: str | None = None) -> Published:
        """A revision's manifest, with the hash and the signature that it must have. Raises HubError."""
        return self._patiently(lambda: self._published(name, manifest_sha256))

    def blob(self, entry: dict) -> bytes:
        """The bytes of a manifest's entry of a file, of its size and hash. Raises HubError."""
        key = self.path(blob_key(entry["sha256"]))

        def fetch() -> bytes:
            data = self.objects.get(key, entry["bytes"]).data
            if len(data) != entry["bytes"] or digest(data) != entry["sha256"]:
                raise HubError(
                    f"{self.objects.where}: {key} ({entry['name']}) is not what its name says; "
                    "`trademl hub push REV --heal` from where the revision is whole replaces it"
                )
            return data

        return self._patiently(fetch)

    def revisions(self) -> list[str]:
        """Names of the revisions that lie there whole, by name."""
        prefix = self.path("revisions/")
        parts = [entry.key.removeprefix(prefix).split("/") for entry in self.objects.list(prefix)]
        return sorted(part[0] for part in parts if part[1:] == [SIGNATURE])

    def find(self, start: str) -> str:
        """The name of a published revision, from the start of it. UsageError when none or several fit."""
        found = [name for name in self.revisions() if name.startswith(start)]
        if not start or len(found) != 1:
            what = f"{len(found)} revisions" if found else "no revision"
            raise UsageError(
                f"{self.objects.where}: {what} of the line {self.line} named {start!r}; "
                "`trademl hub verify` lists what is there, `trademl hub push` publishes"
            )
        return found[0]

    def log(self, channel: str = Channel.APPROVED, newest: int = MAX_LOG) -> list[LogEntry]:
        """A channel's history, newest first: what stands now, then so many copies. What is not believed is shown with the reason."""
        standing = self.standing(channel)
        entries = [] if standing is None else [LogEntry(self.path(channel_key(channel)), standing.pointer)]
        prefix, expected = self.path(log_prefix(channel)), None if standing is None else standing.pointer
        for key in sorted((entry.key for entry in self.objects.list(prefix)), reverse=True)[:newest]:
            try:
                data = self.objects.get(key, MAX_BYTES).data
                pointer = read_pointer(data, self._trust(channel), channel, self.line, f"{self.objects.where}: {key}")
                if key != self.path(pointer.log_key):
                    raise HubError(f"holds approval {pointer.seq}")
            except (HubError, UsageError) as refusal:
                entries.append(LogEntry(key, None, str(refusal)))
                continue
            if standing is not None and pointer.seq == standing.pointer.seq and digest(data) == standing.sha256:
                continue  # archived, and then its successor was not written
            if expected is not None and (pointer.seq != expected.seq - 1 or digest(data) != expected.previous):
                entries.append(LogEntry(key, None, f"approval {pointer.seq} is not the one that approval {expected.seq} follows"))
            else:
                entries.append(LogEntry(key, pointer))
            expected = pointer
        return entries

    def named(self, keep: int) -> set[str]:
        """Revisions that a pointer or one of the newest log entries names. HubError for an entry that cannot be believed."""
        named = set()
        for channel in Channel:
            for entry in self.log(channel, keep):
                if entry.pointer is None:
                    raise HubError(f"{entry.key}: {entry.problem}; nothing is removed before that is settled")
                named.add(entry.pointer.revision)
        return named

    # ---------------------------------------------------------------- writing

    def push(self, revision: Revision, *, now: datetime, heal: bool = False, dry_run: bool = False) -> Push:
        """Publish a local revision, after every check of it: files, manifest, signature, then the channel of candidates.

        `heal` replaces a file there that is not what its name says. Raises HubError, RevisionError, UsageError.
        """
        self._check_line(revision.line)
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
        earlier = [entry.pointer.revision for entry in self.log()[1:] if entry.pointer is not None]
        before = next((one for one in earlier if one != standing.pointer.revision), None) if name is None else self.find(name)
        if before is None:
            raise UsageError(f"{self.objects.where}: no other revision of the line {self.line} was approved before")
        if before == standing.pointer.revision:
            raise UsageError(f"revision {before} is the one that stands; `trademl hub log` shows what stood before")
        if before not in earlier:
            raise UsageError(f"revision {before} was never approved on the hub; `trademl hub promote` approves what is new")
        published = self.published(before)
        self._check_whole(published)
        return self._advance(Channel.APPROVED, standing, published, Terms(now, reason, expires_days), dry_run=dry_run)

    def verify(self) -> tuple[list[str], list[str]]:
        """(revisions that lie there, what is wrong): both pointers, their logs, and every file of every revision, read and hashed."""
        wrong = []
        for channel in Channel:
            try:
                entries = self.log(channel)
            except HubError as refusal:
                wrong.append(str(refusal))
                continue
            wrong += [f"{entry.key}: {entry.problem}" for entry in entries if entry.problem]
            if entries and entries[0].pointer is not None:
                wrong += self._gaps(entries)
        names = self.revisions()
        good: set[str] = set()
        for name in names:
            try:
                manifest = self.published(name).manifest
            except HubError as refusal:
                wrong.append(str(refusal))
                continue
            for entry in manifest["files"]:
                if entry["sha256"] not in good:
                    try:
                        self.blob(entry)
                        good.add(entry["sha256"])
                    except HubError as refusal:
                        wrong.append(f"revision {name}: {refusal}")
        return names, wrong

    def collect(self, *, now: datetime, grace: timedelta, keep: int, dry_run: bool = False) -> Collection:
        """Remove revisions that no pointer and none of the newest `keep` log entries names, and files that no revision names.

        Nothing younger than `grace` is touched. Raises HubError, and removes nothing, where a manifest or a pointer cannot be believed:
        what it names is then not known.
        """
        named = self.named(keep)
        dead = sorted(self._unnamed(named, now - grace))
        living = set(self._begun()) - set(dead)
        needed = self._needed(living)
        if not dry_run:
            for name in dead:
                for file in (SIGNATURE, "manifest.json"):  # in this order: a revision without a signature is none
                    self.objects.delete(self.path(f"revisions/{name}/{file}"))
        blobs = size = 0
        for entry in list(self.objects.list(self.path("blobs/"))):
            sha256 = entry.key.rsplit("/", 1)[-1]
            if sha256 in needed or entry.modified > now - grace:
                continue
            if not dry_run:
                fresh = set(self._begun()) - living  # pushed in the meantime
                living |= fresh
                needed |= self._needed(fresh)
                if sha256 in needed:
                    continue
                self.objects.delete(entry.key)
            blobs, size = blobs + 1, size + entry.size
        return Collection(tuple(dead), blobs, size, not dry_run)

    # ---------------------------------------------------------------- inside

    def path(self, key: str) -> str:
        """A key of this line, from the hub's root."""
        return f"{ROOT}/{self.line}/{key}"

    def _trust(self, channel: str) -> Trust:
        return self.approvers if channel == Channel.APPROVED else self.makers

    def _standing(self, key: str, channel: str) -> Standing | None:
        try:
            found = self.objects.get(key, MAX_BYTES)
        except AbsentError:
            return None
        pointer = read_pointer(found.data, self._trust(channel), channel, self.line, f"{self.objects.where}: {key}")
        return Standing(pointer, found.data, found.tag)

    def _published(self, name: str, manifest_sha256: str | None) -> Published:
        key = self.path(f"revisions/{name}/manifest.json")
        data = self.objects.get(key, MAX_MANIFEST_BYTES).data
        if digest(data)[:16] != name or (manifest_sha256 is not None and digest(data) != manifest_sha256):
            raise HubError(f"{self.objects.where}: {key} is not the manifest that is named by its hash. Do not use it")
        signature = self.objects.get(self.path(f"revisions/{name}/{SIGNATURE}"), MAX_SIGNATURE_BYTES).data
        if not self.makers.pinned:
            raise UsageError("no key is pinned here, so no revision can be believed; put the trainer's public key into trusted.txt")
        try:
            self.makers.check(data, signature)
            manifest = parse_manifest(data)
        except RevisionError as refusal:
            raise HubError(f"{self.objects.where}: revision {name} {refusal}") from refusal
        self._check_line(manifest["line"])
        return Published(name, manifest, data, signature)

    def _patiently(self, look: Callable[[], _T]) -> _T:
        """Look again when what came is not what it must be: a bit may have flipped on the way. The store's own refusals stand."""
        for left in reversed(range(LOOKS)):
            try:
                return look()
            except RefusedError:
                raise
            except HubError:
                if not left:
                    raise
        raise AssertionError

    def _check_line(self, line: str) -> None:
        if line != self.line:
            raise HubError(f"a revision of the line {line} does not belong to {self.line} on the hub")

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
        """Archive the pointer that stands, then replace it in one conditional write: the commit point."""
        name, now, reason = published.name, terms.now, (terms.reason or "").strip() or None
        if not published.gate["passed"] and reason is None:
            raise UsageError(f"revision {name} is a candidate (its gate refused it): approving it takes --reason TEXT, which is kept")
        self._check_term(published, now)
        before = standing.pointer if standing else None
        if before is not None and before.revision == name and not renew and not before.is_expired(now):
            return Promotion(channel, name, before.seq, before.revision, before.expires_at, moved=False)
        trust = self._trust(channel)
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
            self._archive(standing)
            try:
                self.objects.put(self.path(pointer.key), data, standing.tag if standing else None)
            except ConflictError as refusal:
                raise self._superseded(channel, before) from refusal
        return Promotion(channel, name, pointer.seq, before.revision if before else None, pointer.expires_at, moved=not dry_run)

    def _archive(self, standing: Standing | None) -> None:
        if standing is None:
            return
        try:
            self.objects.put(self.path(standing.pointer.log_key), standing.data)
        except ConflictError as refusal:
            raise HubError(
                f"{self.objects.where}: the log holds another approval {standing.pointer.seq} than the one that stands: an older one was "
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

    def _gaps(self, entries: list[LogEntry]) -> list[str]:
        """Numbers between 1 and the newest that no believed entry has."""
        seqs = {entry.pointer.seq for entry in entries if entry.pointer}
        missing = sorted(set(range(1, max(seqs) + 1)) - seqs)
        channel = next(entry.pointer.channel for entry in entries if entry.pointer)
        return [f"channel {channel}: approval {', '.join(map(str, missing[:5]))} is missing from the log"] if missing else []

    def _unnamed(self, named: set[str], before: datetime) -> set[str]:
        """Revisions that nobody names and whose newest file is older than `before`, those of a push that was cut off too."""
        prefix, newest = self.path("revisions/"), {}
        for entry in self.objects.list(prefix):
            name = entry.key.removeprefix(prefix).split("/")[0]
            newest[name] = max(entry.modified, newest.get(name, entry.modified))
        return {name for name, modified in newest.items() if name not in named and modified <= before}

    def _begun(self) -> set[str]:
        """Names of the revisions whose manifest lies there, with or without its signature."""
        prefix = self.path("revisions/")
        parts = [entry.key.removeprefix(prefix).split("/") for entry in self.objects.list(prefix)]
        return {part[0] for part in parts if part[1:] == ["manifest.json"]}

    def _needed(self, names: set[str]) -> set[str]:
        """Hashes of the files that these revisions name."""
        needed = set()
        for name in sorted(names):
            key = self.path(f"revisions/{name}/manifest.json")
            data = self.objects.get(key, MAX_MANIFEST_BYTES).data
            if digest(data)[:16] != name:
                raise HubError(f"{self.objects.where}: {key} is not the manifest that is named by its hash; nothing more is removed")
            needed |= {entry["sha256"] for entry in strict_json(data)["files"]}
        return needed


def blob_key(sha256: str) -> str:
    """Where a file's bytes lie."""
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def _signer(trust: Trust) -> str:
    """Name of the key that signs. UsageError where none does, or where its approvals do not count."""
    key = trust.signer()
    if key is None:
        raise UsageError("no key signs here, and an approval on the hub is signed; `trademl keys new` makes one")
    if key not in trust.pinned:
        names = " or ".join(one.name for one in trust.pinned)
        raise UsageError(f"key {key.name} signs here, and only the key {names} may approve on this hub; its owner runs this command")
    return key.name
