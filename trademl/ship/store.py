"""The local store: whole revisions that never change, and one pointer that moves last.

    <models_dir>/revisions/<rev>/   read-only; <rev> = first 16 hex of sha256(manifest.json); signed where a key is (`trademl.ship.signing`)
    <models_dir>/.staging/          what is being written; left-overs of dead runs are swept
    <models_dir>/.fetched/          what a pull that was cut off keeps (`trademl.ship.hub.kept`)
    <models_dir>/model_compat.json  the pointer: names the active revision
    <models_dir>/state.json         approvals by hand (and what the hub remembers)
    <models_dir>/.lock              held by the run that may write; .lock.holder beside it names that run by a random token

A revision is written aside, synced, and renamed into its place, so a reader sees a whole one or none, whatever
is killed when. That does not rest on the lock: two writers use different staging names and immutable targets, and
the pointer is replaced in one step. Nothing is parsed before its hash is right.

`write` and `activate` ask who may write (`trademl.ship.lock`), and store nothing for a process that outlived its run.

Reading needs numpy, onnxruntime for `Revision.verify` and cryptography where a key is pinned; writing needs filelock.
"""

import contextlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import chain
from pathlib import Path

from trademl import files as disk
from trademl.clock import DAY_S, iso_z, utc_now
from trademl.errors import RevisionError, UnknownRevisionError, UsageError
from trademl.files import canonical_json, digest, strict_json
from trademl.ship.contents import POINTER, inner_folders, read_file
from trademl.ship.lock import StoreLock
from trademl.ship.manifest import (
    MAX_BYTES,
    OldSchemaError,
    compat_record,
    complete_manifest,
    manifest_bytes,
    parse_manifest,
    revision_name,
    short,
)
from trademl.ship.revision import Revision, read_revision
from trademl.ship.signing import NO_TRUST, SIGNATURE, Trust

STATE_FILE = "state.json"
ROOM = 1 << 20  # bytes that stay free beside a revision that is received
_NAME = frozenset("0123456789abcdef")


class State(StrEnum):
    """What a stored revision may be used for."""

    CANDIDATE = "candidate"  # the gate refused it: in shadow only
    APPROVED = "approved"  # the gate passed, or a person approved it with a reason
    ACTIVE = "active"  # the pointer names it


@dataclass(frozen=True)
class Broken:
    """A folder under revisions/ that is not a readable revision."""

    folder: Path
    problem: str
    is_old: bool = False  # of an earlier trademl: kept, and in nobody's way


@dataclass(frozen=True)
class Activation:
    """What moving the pointer did, or would do."""

    revision: str
    previous: str | None
    by: str  # gate or hand
    reason: str | None
    moved: bool


@dataclass(frozen=True)
class Store:
    """A folder of revisions of one line. Construction touches nothing."""

    models_dir: Path | str
    trust: Trust = NO_TRUST  # whose signatures count, and what signs here

    def __post_init__(self):
        object.__setattr__(self, "models_dir", Path(self.models_dir))

    @property
    def folder(self) -> Path:
        """Where the revisions are."""
        return self.models_dir / "revisions"

    # -------- reading

    def scan(self) -> tuple[list[Revision], list[Broken]]:
        """Readable revisions, newest first (by trained_at, then name), and folders that are not. Files are not hashed."""
        good, broken = [], []
        for folder in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            try:
                good.append(self._read(folder))
            except RevisionError as refusal:
                broken.append(Broken(folder, str(refusal), isinstance(refusal, OldSchemaError)))
        return sorted(good, key=lambda r: (r.trained_at, r.name), reverse=True), broken

    def revisions(self) -> list[Revision]:
        """Readable revisions, newest first. `scan` also tells what is not readable."""
        return self.scan()[0]

    def locate(self, rev: str | None = None) -> Revision:
        """A revision by name or the start of it (None: the newest), its manifest read and its files not yet looked at.

        Raises UnknownRevisionError when none or several fit a name; RevisionError when nothing is stored, or when the newest is
        asked for beside a folder that cannot be read.
        """
        if rev is not None and not (rev and set(rev) <= _NAME and len(rev) <= 16):
            raise UnknownRevisionError(f"revision {rev!r}: a name is up to 16 hex digits; `trademl models list` shows them")
        if rev is None:
            readable, broken = self.scan()
            broken = [folder for folder in broken if not folder.is_old]
            if broken:  # it might be the newest: nothing older is taken in its place unasked
                raise RevisionError(
                    f"the newest revision cannot be determined: {broken[0].problem}. Name one, or move {broken[0].folder} away"
                )
            found = [revision.folder for revision in readable[:1]]
        else:
            found = [folder for folder in (self.folder.iterdir() if self.folder.is_dir() else []) if folder.name.startswith(rev)]
        if len(found) != 1:
            if rev is None:
                raise RevisionError(f"no revision is stored in {self.models_dir}; `trademl retrain` makes one")
            what = "no revision" if not found else f"{len(found)} revisions"
            raise UnknownRevisionError(f"{what} named {rev} in {self.models_dir}; `trademl models list` shows what is stored")
        return self._read(found[0])

    def open(self, rev: str | None = None) -> Revision:
        """As `locate`, with every file's name and hash checked. RevisionError also when it needs a newer trademl."""
        revision = self.locate(rev)
        _check_files(revision)
        return revision

    def pointer(self) -> dict | None:
        """What the pointer says; None when nothing is active. Raises RevisionError when it is not readable."""
        path = self.models_dir / POINTER
        if not os.path.lexists(path):
            return None
        record = _read_object(path)
        name, sha256 = record.get("revision"), record.get("manifest_sha256")
        if not (_is_name(name) and isinstance(sha256, str) and sha256[:16] == name):
            raise RevisionError(f"{path}: does not name a revision; `trademl models activate REV` writes it anew")
        return record

    def active(self, now: datetime | None = None) -> Revision | None:
        """The revision that the pointer names, signature and hashes checked; None when nothing is active.

        RevisionError also when it has expired.
        """
        record = self.pointer()
        if record is None:
            return None
        revision = self.locate(record["revision"])
        revision.check_signature()
        _check_files(revision)
        revision.check_age(now or utc_now())
        said = {key: value for key, value in record.items() if key != "activation"}
        if revision.manifest_sha256 != record["manifest_sha256"] or said != revision.compat:
            raise RevisionError(f"{self.models_dir / POINTER} does not say what revision {revision.name} says; activate it anew")
        return revision

    def state(self, revision: Revision) -> State:
        """Active, approved or candidate."""
        record = self.pointer()
        if record is not None and record["manifest_sha256"] == revision.manifest_sha256:
            return State.ACTIVE
        approved = revision.gate_passed or revision.name in self._approvals()
        return State.APPROVED if approved else State.CANDIDATE

    def check_line(self, line: str) -> None:
        """Raises UsageError when this store holds revisions of another line."""
        others = sorted({revision.line for revision in self.revisions()} - {line})
        if others:
            raise UsageError(
                f"{self.models_dir} holds the line {others[0]}, this run makes {line}; one store holds one line: "
                "choose another folder with --models-dir"
            )

    def _read(self, folder: Path) -> Revision:
        return read_revision(folder, self.trust)

    # -------- writing

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held for a whole retrain, pull or activation (`trademl.ship.lock`). Raises LockedError at once when another run holds it."""
        with StoreLock(self.models_dir).held():
            self.sweep()
            yield

    def sweep(self) -> list[str]:
        """Remove what dead runs left in .staging and return the names.

        Dead is what a process of this machine left that is gone, and anything older than a day: never a live run's.
        """
        folder, gone = self.models_dir / ".staging", []
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if _is_stale(path):
                gone.append(path.name)
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        return gone

    def write(self, files: Mapping[str, bytes], manifest: Mapping, *, graphs: bool = False) -> Revision:
        """Store a revision; the same one twice is the same folder.

        `manifest` is complete but for `files` and each model's `sha256`, which are filled in from the bytes here.
        Where a key signs (`trust`), its signature lies beside the manifest.
        It is read back from the disk and verified (with `graphs`, run on its golden rows) before it gets its place.
        Raises RevisionError for what breaks the contract, UsageError for another line, LockedError when another run
        holds the store or this process outlived its own run; then nothing is stored.
        """
        record = complete_manifest(files, manifest)
        data = manifest_bytes(record)
        if len(data) > MAX_BYTES:
            raise RevisionError(f"manifest.json: {len(data):,} bytes, at most {MAX_BYTES:,} are allowed")
        parse_manifest(data)
        self.check_line(record["line"])
        return self._keep(record, data, sorted(files.items()), self.trust.sign(data), graphs)

    def receive(self, manifest: bytes, signature: bytes | None, fetch: Callable[[dict], bytes]) -> Revision:
        """Store a revision that was made elsewhere; `fetch` gives the bytes of an entry of its `files`, one at a time.

        Signature, names and free space are looked at before the first file is fetched, everything else as in `write`.
        """
        record = parse_manifest(manifest)
        self.trust.check(manifest, signature)
        self.check_line(record["line"])
        size = sum(entry["bytes"] for entry in record["files"])
        disk.make_folders(self.models_dir)
        free = shutil.disk_usage(self.models_dir).free
        if free < size + ROOM:
            raise RevisionError(f"{self.models_dir}: {free:,} bytes are free, a revision of {size:,} does not fit; make room")
        return self._keep(record, manifest, ((entry["name"], fetch(entry)) for entry in record["files"]), signature, graphs=True)

    def _keep(
        self, record: Mapping, manifest: bytes, files: Iterable[tuple[str, bytes]], signature: bytes | None, graphs: bool
    ) -> Revision:
        own = [("manifest.json", manifest), (POINTER, canonical_json(compat_record(record, digest(manifest))))]
        own += [] if signature is None else [(SIGNATURE, signature)]
        target = self.folder / revision_name(manifest)
        revision = None
        with StoreLock(self.models_dir).writing():
            if not os.path.lexists(target):
                revision = self._write_folder(target, chain(files, own), graphs)
            self._seal(target)
        if revision is None:  # it was there before, or another writer of the same one was first
            revision = self._read(target)
            revision.verify(graphs=graphs)
        return revision

    def activate(
        self,
        rev: str,
        reason: str | None = None,
        *,
        by_gate: bool = False,
        dry_run: bool = False,
        now: datetime | None = None,
    ) -> Activation:
        """Move the pointer to a revision, after every check of `Revision.verify`.

        `by_gate`: the run itself does it, and only a revision whose gate passed. By hand a candidate needs a reason,
        which stands in the pointer and in state.json. Raises RevisionError, UsageError for a missing reason, LockedError as `write`.
        """
        revision = self.locate(rev)
        revision.verify()  # a new object: what is on the disk now, read once
        revision.check_runtime()
        revision.check_age(now or utc_now())
        self.check_line(revision.line)
        reason = (reason or "").strip() or None
        if by_gate and not revision.gate_passed:
            raise RevisionError(f"revision {revision.name}: its gate refused it, so only a person may activate it, with a reason")
        if not by_gate and reason is None and not revision.gate_passed:
            reason = self._approvals().get(revision.name, {}).get("reason")
            if reason is None:
                raise UsageError(
                    f"revision {revision.name} is a candidate (its gate refused it): activating it takes --reason TEXT, which is kept"
                )
        previous = self._previous()
        result = Activation(revision.name, previous, "gate" if by_gate else "hand", reason, moved=not dry_run)
        if dry_run:
            return result
        moment = iso_z(now or utc_now())
        with StoreLock(self.models_dir).writing():
            if not by_gate and reason is not None:
                approvals = self._approvals() | {revision.name: {"reason": reason, "at": moment}}
                self._replace(STATE_FILE, canonical_json(self._state() | {"approvals": approvals}))
            activation = {"at": moment, "by": result.by, "previous": previous, "reason": reason}
            self._replace(POINTER, canonical_json(revision.compat | {"activation": activation}))
        return result

    def held(self) -> set[str]:
        """Names of revisions that must stay: the active one, the one before it, and what a person approved."""
        record = self.pointer() or {}
        named = {record.get("revision"), (record.get("activation") or {}).get("previous"), *self._approvals()}
        return {name for name in named if name is not None}

    def remove(self, name: str) -> None:
        """Take a revision out of the store: gone in one step, then its files. Raises UsageError for one that must stay, LockedError."""
        if name in self.held():
            raise UsageError(f"revision {name} is active, was before the active one, or was approved by hand: it stays")
        folder = self.locate(name).folder
        with StoreLock(self.models_dir).writing():
            aside = self._staging()
            try:
                folder.chmod(0o755)  # a read-only folder cannot be moved
                disk.move_folder(folder, aside)
                disk.sync_folder(self.folder)
                for inner in inner_folders(aside):
                    inner.chmod(0o755)
                shutil.rmtree(aside)
            except OSError as refusal:
                raise RevisionError(f"{folder}: could not be removed whole ({refusal}); the next run sweeps the rest") from refusal

    def recall(self, channel: str) -> dict | None:
        """What `remember` was last told of a channel; None: nothing yet."""
        return self._state().get("hub", {}).get(channel)

    def remember(self, channel: str, seen: Mapping) -> None:
        """Keep {seq, sha256} of the newest approval that was seen on the hub: an older one is refused from now on."""
        state = self._state()
        with StoreLock(self.models_dir).writing():
            self._replace(STATE_FILE, canonical_json(state | {"hub": state.get("hub", {}) | {channel: dict(seen)}}))

    def _approvals(self) -> dict[str, dict]:
        """revision -> {reason, at}: what a person approved."""
        return self._state().get("approvals", {})

    def _previous(self) -> str | None:
        try:
            record = self.pointer()
        except RevisionError:  # a broken pointer is what an activation mends
            return None
        return None if record is None else record["revision"]

    def _state(self) -> dict:
        """What state.json holds. Raises RevisionError when its approvals are not what `activate` writes."""
        path = self.models_dir / STATE_FILE
        if not os.path.lexists(path):
            return {}
        remedy = "move it away, then approve again with `trademl models activate REV --reason TEXT`"
        try:
            state = _read_object(path)
        except RevisionError as refusal:
            raise RevisionError(f"{refusal}; {remedy}") from refusal
        approvals = state.get("approvals", {})
        if not (isinstance(approvals, dict) and all(map(_is_approval, approvals.items()))):
            rule = "an object of revisions, each with its reason and at"
            raise RevisionError(f"{path}: approvals = {short(approvals)}, expected {rule}; {remedy}")
        seen = state.get("hub", {})
        if not (isinstance(seen, dict) and all(map(_is_memory, seen.values()))):
            raise RevisionError(f"{path}: hub = {short(seen)}, expected seq and sha256 of each channel; {remedy}")
        return state

    def _staging(self) -> Path:
        folder = self.models_dir / ".staging"
        disk.make_folders(folder)
        return folder / f"{socket.gethostname()}~{os.getpid()}~{uuid.uuid4().hex}"

    def _write_folder(self, target: Path, files: Iterable[tuple[str, bytes]], graphs: bool) -> Revision | None:
        """Write, sync, read back, prove, rename. None when another writer of the same revision was first."""
        staging = None
        try:
            disk.make_folders(self.folder)
            staging = self._staging()
            made = staging / target.name
            made.mkdir(parents=True)
            for name, data in files:
                (made / name).parent.mkdir(exist_ok=True)
                disk.write_new(made / name, data, mode=0o444)
            for folder in (*inner_folders(made), made):
                disk.sync_folder(folder)
            revision = self._read(made)
            revision.check_signature()
            revision.verify(graphs=graphs)
            StoreLock(self.models_dir).check()  # again: proving took a while
            try:
                disk.move_folder(made, target)
            except OSError:
                if not os.path.lexists(target):
                    raise
                return None
            return revision.moved_to(target)
        except OSError as refusal:
            raise RevisionError(f"{self.models_dir}: the revision could not be written ({refusal}); nothing was changed") from refusal
        finally:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)

    def _seal(self, target: Path) -> None:
        """Read-only folders and a durable name; after the rename, because a read-only folder cannot be moved."""
        try:
            for folder in (*inner_folders(target), target):
                with contextlib.suppress(PermissionError):  # another user's folder: its owner sealed it
                    folder.chmod(0o555)
            disk.sync_folder(self.folder)
        except OSError as refusal:
            raise RevisionError(f"{target}: written, but not safely on the disk ({refusal}); the pointer was not moved") from refusal

    def _replace(self, name: str, data: bytes) -> None:
        path = self.models_dir / name
        try:
            disk.write_atomically(path, data, aside=self._staging())  # aside, where the next run sweeps what a killed one left
        except OSError as refusal:
            raise RevisionError(f"{path} could not be written ({refusal}); what was there is still there") from refusal


def _check_files(revision: Revision) -> None:
    """RevisionError when this trademl is too old for it, or a file is not what the manifest says."""
    revision.check_runtime()
    revision.verify(graphs=False)


def _is_approval(item: tuple[str, object]) -> bool:
    revision, record = item
    texts = [record.get("reason"), record.get("at")] if isinstance(record, dict) else [None]
    return _is_name(revision) and all(isinstance(text, str) and text.strip() for text in texts)


def _is_memory(record: object) -> bool:
    """Whether this is what `remember` keeps of a channel."""
    seq, sha256 = (record.get("seq"), record.get("sha256")) if isinstance(record, dict) else (None, None)
    return type(seq) is int and seq > 0 and isinstance(sha256, str) and len(sha256) == 64


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) == 16 and set(value) <= _NAME


def _read_object(path: Path) -> dict:
    """The object in one of the store's own files. Raises RevisionError."""
    data = read_file(path, MAX_BYTES, str(path))
    try:
        return strict_json(data)
    except ValueError as refusal:
        raise RevisionError(f"{path}: {refusal}") from refusal


def _is_stale(path: Path) -> bool:
    try:
        old = time.time() - path.lstat().st_mtime > DAY_S
    except OSError:
        return False  # its owner has just moved it
    host, _, rest = path.name.rpartition("~")[0].rpartition("~")
    if old or os.name == "nt" or host != socket.gethostname() or not rest.isdigit():
        return old
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False
