"""The local store: whole revisions that never change, and one pointer that moves last.

    <models_dir>/revisions/<rev>/   read-only; <rev> = first 16 hex of sha256(manifest.json)
    <models_dir>/.staging/          what is being written; left-overs of dead runs are swept
    <models_dir>/model_compat.json  the pointer: names the active revision
    <models_dir>/state.json         approvals by hand (and what the hub remembers)
    <models_dir>/.lock              held while a run writes

A revision is written aside, synced, and renamed into its place, so a reader sees a whole one or none, whatever
is killed when. Nothing here rests on the lock: two writers use different staging names and immutable targets, and
the pointer is replaced in one step. Nothing is parsed before its hash is right.

Reading needs numpy, and onnxruntime for `Revision.verify`; writing needs filelock for the lock.
"""

import contextlib
import json
import os
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import numpy as np

from trademl.clock import DAY_S, iso_z, utc_now
from trademl.errors import LockedError, MissingExtraError, RevisionError, UsageError
from trademl.files import read_npz
from trademl.ship.manifest import (
    MAX_BYTES,
    MAX_FILES,
    canonical_json,
    check_file_name,
    check_manifest,
    compat_record,
    digest,
    parse_manifest,
    revision_name,
    strict_json,
)
from trademl.ship.runtime import INPUT, check_graph, predict_onnx, session

POINTER = "model_compat.json"
SCALER = "native/scaler.npz"
_NAME = frozenset("0123456789abcdef")


class State(StrEnum):
    """What a stored revision may be used for."""

    CANDIDATE = "candidate"  # the gate refused it: in shadow only
    APPROVED = "approved"  # the gate passed, or a person approved it with a reason
    ACTIVE = "active"  # the pointer names it


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Broken:
    """A folder under revisions/ that is no readable revision."""

    folder: Path
    problem: str


@dataclass(frozen=True)
class Activation:
    """What moving the pointer did, or would do."""

    revision: str
    previous: str | None
    by: str  # gate or hand
    reason: str | None
    moved: bool


# ---------------------------------------------------------------- one revision


@dataclass(frozen=True)
class Revision:
    """One stored revision. Its manifest is parsed and its name is right; `read` and `verify` prove the files."""

    folder: Path
    manifest: dict = field(repr=False)
    manifest_sha256: str = field(repr=False)

    @property
    def name(self) -> str:
        """The folder's name, 16 hex."""
        return self.folder.name

    @property
    def trained_at(self) -> str:
        """UTC, ISO 8601 with Z."""
        return self.manifest["trained_at"]

    @property
    def line(self) -> str:
        """pipeline-symbol-timeframe."""
        return self.manifest["line"]

    @property
    def gate_passed(self) -> bool:
        """The gate's own verdict."""
        return self.manifest["gate"]["passed"]

    @property
    def compat(self) -> dict:
        """The short record that `model_compat.json` holds."""
        return compat_record(self.manifest, self.manifest_sha256)

    def files(self) -> dict[str, dict]:
        """name -> {name, sha256, bytes} of every listed file."""
        return {entry["name"]: entry for entry in self.manifest["files"]}

    def read(self, name: str) -> bytes:
        """A file's bytes, checked against the manifest. Raises RevisionError."""
        entry = self.files().get(name)
        if entry is None:
            raise RevisionError(f"revision {self.name} holds no file {name!r}; it holds {', '.join(self.files())}")
        data = _read_regular(self.folder / check_file_name(name), entry["bytes"], f"revision {self.name}: {name}")
        if digest(data) != entry["sha256"]:
            raise RevisionError(f"revision {self.name}: {name} is not what the manifest says (sha256 differs). {_advice(self.folder)}")
        return data

    def checks(self, *, graphs: bool = True) -> list[Check]:
        """Look at everything in order and stop at the first thing that is wrong: what comes after it cannot be trusted.

        `graphs=False` leaves out what needs onnxruntime.
        """
        done, runners = [], {}
        for name, look in (_FILE_CHECKS | (_GRAPH_CHECKS if graphs else {})).items():
            try:
                done.append(Check(name, True, look(self, runners)))
            except RevisionError as refusal:
                return [*done, Check(name, False, str(refusal))]
        return done

    def verify(self, *, graphs: bool = True) -> list[Check]:
        """As `checks`, but raises RevisionError with the first failure."""
        done = self.checks(graphs=graphs)
        if not done[-1].ok:
            raise RevisionError(f"{done[-1].detail} (check: {done[-1].name})")
        return done


def _look_at_manifest(revision: Revision, runners: dict) -> str:
    again = read_revision(revision.folder)
    if again.manifest_sha256 != revision.manifest_sha256:
        raise RevisionError(f"revision {revision.name}: the manifest changed while it was read")
    return f"canonical, schema {revision.manifest['schema']}, named by its hash"


def _look_at_names(revision: Revision, runners: dict) -> str:
    found = set(_walk(revision.folder))
    listed = {*revision.files(), "manifest.json", POINTER}
    extra, missing = sorted(found - listed - {"manifest.sig"}), sorted(listed - found)
    if extra or missing:
        told = [f"{what}: {', '.join(names[:5])}" for what, names in (("not in the manifest", extra), ("missing", missing)) if names]
        raise RevisionError(f"revision {revision.name}: files {'; '.join(told)}. {_advice(revision.folder)}")
    return f"{len(found)} files, none missing, none extra, no links"


def _look_at_hashes(revision: Revision, runners: dict) -> str:
    size = sum(len(revision.read(name)) for name in revision.files())
    return f"{size:,} bytes as the manifest says"


def _look_at_scaler(revision: Revision, runners: dict) -> str:
    bound, width = revision.manifest["scaler"], revision.manifest["feature_count"]
    if bound is None or SCALER not in revision.files():
        return "none kept"
    where = f"revision {revision.name}: {SCALER}"
    try:
        held = read_npz(revision.read(SCALER))
        parts = [np.asarray(held[name], "<f8") for name in ("mean", "scale")]
    except (KeyError, TypeError, ValueError) as refusal:
        raise RevisionError(f"{where} is not readable ({refusal}). {_advice(revision.folder)}") from refusal
    if any(part.shape != (width,) for part in parts):
        raise RevisionError(f"{where} has shapes {[part.shape for part in parts]}, the models take {width} features")
    if digest(np.concatenate(parts).tobytes()) != bound["sha256"]:
        raise RevisionError(f"{where} is another scaler than the one that the manifest binds to the models. {_advice(revision.folder)}")
    return f"{width} columns, the one that the models were trained with"


def _look_at_compat(revision: Revision, runners: dict) -> str:
    data = _read_regular(revision.folder / POINTER, MAX_BYTES, f"revision {revision.name}: {POINTER}")
    if data != canonical_json(revision.compat):
        raise RevisionError(f"revision {revision.name}: {POINTER} does not say what the manifest says. {_advice(revision.folder)}")
    return "says what the manifest says"


def _look_at_graphs(revision: Revision, runners: dict) -> str:
    for model in revision.manifest["models"]:
        runners[model["name"]] = _open_graph(revision, model)
    return f"{len(runners)} graphs load, whole in themselves, standard operators, promised inputs and outputs"


def _open_graph(revision: Revision, model: Mapping):
    """A session on one of the revision's graphs, after a look that it is what the manifest promises. Raises RevisionError."""
    data = revision.read(model["file"])
    try:
        check_graph(data)
        runner = session(data)
    except MissingExtraError:
        raise
    except RevisionError as refusal:
        raise RevisionError(f"revision {revision.name}: {model['file']}: {refusal}") from refusal
    except Exception as refusal:  # onnxruntime's errors have no public root
        raise RevisionError(f"revision {revision.name}: {model['file']} does not load: {refusal}") from refusal
    _expect_face(revision, model, runner)
    return runner


def _expect_face(revision: Revision, model: Mapping, runner) -> None:
    where = f"revision {revision.name}: {model['file']}"
    inputs = runner.get_inputs()
    width, dtype = model["input"]["shape"][-1], {"float64": "tensor(double)", "float32": "tensor(float)"}[model["input"]["dtype"]]
    if len(inputs) != 1 or (inputs[0].name, inputs[0].type, inputs[0].shape[-1]) != (model["input"]["name"], dtype, width):
        seen = [(one.name, one.type, one.shape) for one in inputs]
        raise RevisionError(f"{where}: takes {seen}, the manifest says {model['input']}")
    if inputs[0].name != INPUT or (model["role"] == "signal" and width != revision.manifest["feature_count"]):
        raise RevisionError(
            f"{where}: takes {width} columns as {inputs[0].name!r}; expected {revision.manifest['feature_count']} as {INPUT!r}"
        )
    outputs = {one.name: one.shape[-1] for one in runner.get_outputs()}
    wanted = ("value", None) if model["classes"] is None else ("probabilities", len(model["classes"]))
    if wanted[0] not in outputs or wanted[1] not in (None, outputs[wanted[0]]):
        raise RevisionError(f"{where}: gives {outputs}, expected {wanted[0]} of {wanted[1] or 'any'} columns")


def _look_at_run(revision: Revision, runners: dict) -> str:
    wanted = revision.manifest["trained_together"]
    for model in revision.manifest["models"]:
        inside = runners[model["name"]].get_modelmeta().custom_metadata_map
        where = f"revision {revision.name}: {model['file']}"
        if inside.get("training_run_id") != wanted:
            raise RevisionError(
                f"{where} comes from training run {inside.get('training_run_id')!r}, the manifest from {wanted!r}; "
                "models that were not trained together must not go live together"
            )
        if model["classes"] is not None and inside.get("classes") != ",".join(model["classes"]):
            raise RevisionError(f"{where} orders classes {inside.get('classes')!r}, the manifest {model['classes']}")
        _expect_columns(revision, where, inside.get("features"))
    return f"every graph is of training run {wanted}"


def _expect_columns(revision: Revision, where: str, told: str | None) -> None:
    """A graph that names its columns must name those of the manifest first, in their order."""
    if told is None:
        return
    names = [feature["name"] for feature in revision.manifest["features"]]
    try:
        columns = [str(name) for name in json.loads(told)][: len(names)]
    except (TypeError, ValueError) as refusal:
        raise RevisionError(f"{where} names its columns illegibly ({refusal})") from refusal
    if columns != names:
        at = next((n for n, (one, other) in enumerate(zip(columns, names)) if one != other), len(columns))
        asked, listed = ((*part[at : at + 1], "nothing")[0] for part in (columns, names))
        raise RevisionError(f"{where} takes {asked!r} in column {at}, the manifest lists {listed!r} there")


def _look_at_golden(revision: Revision, runners: dict) -> str:
    golden = revision.manifest["golden"]
    try:
        arrays = read_npz(revision.read(golden["file"]))
    except ValueError as refusal:
        raise RevisionError(f"revision {revision.name}: {golden['file']} is not readable: {refusal}") from refusal
    worst = 0.0
    for model in revision.manifest["models"]:
        if model["role"] == "risk":
            continue
        x, expected = (arrays.get(f"{model['role']}_{what}") for what in ("x", "probabilities"))
        if x is None or expected is None or len(x) == 0:
            raise RevisionError(f"revision {revision.name}: {golden['file']} holds no golden rows for the {model['role']} model")
        width = model["input"]["shape"][-1]
        if x.ndim != 2 or x.shape[1] != width:
            raise RevisionError(
                f"revision {revision.name}: the golden rows of {model['file']} have shape {x.shape}, it takes {width} columns"
            )
        served = predict_onnx(runners[model["name"]], x)["probabilities"]
        off = float(np.abs(served - expected).max()) if served.shape == expected.shape else float("inf")
        if not off <= golden["tolerance"]:
            raise RevisionError(
                f"revision {revision.name}: {model['file']} misses its golden rows by {off:.2g} on this machine, "
                f"allowed {golden['tolerance']:g}; do not use it here"
            )
        worst = max(worst, off)
    return f"golden rows replayed, off by at most {worst:.1e}"


_FILE_CHECKS = {
    "manifest": _look_at_manifest,
    "files": _look_at_names,
    "hashes": _look_at_hashes,
    "scaler": _look_at_scaler,
    "model_compat": _look_at_compat,
}
_GRAPH_CHECKS = {"graphs": _look_at_graphs, "trained together": _look_at_run, "golden rows": _look_at_golden}


def read_revision(folder: Path) -> Revision:
    """A revision from its folder: manifest strictly parsed, folder named by its hash. Raises RevisionError."""
    if folder.is_symlink():
        raise RevisionError(f"revision {folder.name}: is a link, not a folder of this store")
    data = _read_regular(folder / "manifest.json", MAX_BYTES, f"revision {folder.name}: manifest.json")
    sha256 = digest(data)
    if folder.name != sha256[:16]:
        raise RevisionError(f"revision {folder.name}: its manifest hashes to {sha256[:16]}; the folder was renamed or the manifest altered")
    return Revision(folder, parse_manifest(data), sha256)


# ---------------------------------------------------------------- the store


@dataclass(frozen=True)
class Store:
    """A folder of revisions of one line. Construction touches nothing."""

    models_dir: Path | str

    def __post_init__(self):
        object.__setattr__(self, "models_dir", Path(self.models_dir))

    @property
    def folder(self) -> Path:
        """Where the revisions are."""
        return self.models_dir / "revisions"

    # -------- reading

    def scan(self) -> tuple[list[Revision], list[Broken]]:
        """Readable revisions, newest first (by trained_at, then name), and folders that are none. Files are not hashed."""
        good, broken = [], []
        for folder in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            try:
                good.append(read_revision(folder))
            except RevisionError as refusal:
                broken.append(Broken(folder, str(refusal)))
        return sorted(good, key=lambda r: (r.trained_at, r.name), reverse=True), broken

    def revisions(self) -> list[Revision]:
        """Readable revisions, newest first. `scan` also tells what is not readable."""
        return self.scan()[0]

    def locate(self, rev: str | None = None) -> Revision:
        """A revision by name or the start of it (None: the newest), its manifest read and its files not yet looked at.

        Raises RevisionError when none or several fit, or when the newest is asked for beside a folder that cannot be read.
        """
        if rev is not None and not (rev and set(rev) <= _NAME and len(rev) <= 16):
            raise RevisionError(f"revision {rev!r}: a name is up to 16 hex digits; `trademl models list` shows them")
        if rev is None:
            readable, broken = self.scan()
            if broken:  # it might be the newest: nothing older is taken in its place unasked
                raise RevisionError(
                    f"which revision is the newest cannot be told: {broken[0].problem}. Name one, or move {broken[0].folder} away"
                )
            found = [revision.folder for revision in readable[:1]]
        else:
            found = [folder for folder in (self.folder.iterdir() if self.folder.is_dir() else []) if folder.name.startswith(rev)]
        if len(found) != 1:
            what = "no revision" if not found else f"{len(found)} revisions"
            where = f"{'stored' if rev is None else f'named {rev}'} in {self.models_dir}"
            raise RevisionError(f"{what} {where}; `trademl models list` shows them, `trademl retrain` makes one")
        return read_revision(found[0])

    def open(self, rev: str | None = None) -> Revision:
        """As `locate`, with every file's name and hash checked. Raises RevisionError."""
        revision = self.locate(rev)
        revision.verify(graphs=False)
        return revision

    def pointer(self) -> dict | None:
        """What the pointer says; None when nothing is active. Raises RevisionError when it is not readable."""
        path = self.models_dir / POINTER
        if not os.path.lexists(path):
            return None
        record = strict_json(_read_regular(path, MAX_BYTES, str(path)), what=str(path))
        name, sha256 = record.get("revision"), record.get("manifest_sha256")
        if not (isinstance(name, str) and isinstance(sha256, str) and len(name) == 16 and set(name) <= _NAME and sha256[:16] == name):
            raise RevisionError(f"{path}: names no revision; `trademl models activate REV` writes it anew")
        return record

    def active(self) -> Revision | None:
        """The revision that the pointer names, hashes checked; None when nothing is active. Raises RevisionError."""
        record = self.pointer()
        if record is None:
            return None
        revision = self.open(record["revision"])
        short = {key: value for key, value in record.items() if key != "activation"}
        if revision.manifest_sha256 != record["manifest_sha256"] or short != revision.compat:
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
        held = sorted({revision.line for revision in self.revisions()} - {line})
        if held:
            raise UsageError(
                f"{self.models_dir} holds the line {held[0]}, this run makes {line}; one store holds one line: "
                "choose another folder with --models-dir"
            )

    # -------- writing

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held for a whole retrain, pull or activation. Raises LockedError at once when another run holds it.

        It saves work and says so clearly; no file depends on it.
        """
        try:
            import filelock
        except ImportError:
            raise MissingExtraError("writing to a store needs the package filelock; pip install 'trademl[lab]'") from None
        path = self.models_dir / ".lock"
        lock = filelock.FileLock(path)
        try:
            self.models_dir.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise LockedError(f"{path}: another run holds the lock of this store; wait for it, or choose --models-dir") from None
        except OSError as refusal:
            raise RevisionError(f"{self.models_dir}: cannot be written ({refusal}); choose another folder with --models-dir") from refusal
        try:
            self.sweep()
            yield
        finally:
            lock.release()

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
        It is read back from the disk and verified (with `graphs`, run on its golden rows) before it gets its place.
        Raises RevisionError for what breaks the contract, UsageError for another line; then nothing is stored.
        """
        record = _complete(files, manifest)
        data = canonical_json(record)
        if len(data) > MAX_BYTES:
            raise RevisionError(f"manifest.json: {len(data):,} bytes, at most {MAX_BYTES:,} are allowed")
        parse_manifest(data)
        self.check_line(record["line"])
        target = self.folder / revision_name(data)
        if not os.path.lexists(target):
            own = {"manifest.json": data, POINTER: canonical_json(compat_record(record, digest(data)))}
            self._write_folder(target, dict(sorted(files.items())) | own, graphs)
        self._seal(target)
        revision = read_revision(target)
        revision.verify(graphs=False)
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
        which stands in the pointer and in state.json. Raises RevisionError, or UsageError for a missing reason.
        """
        revision = self.open(rev)
        revision.verify()
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
        if not by_gate and reason is not None:
            approvals = self._approvals() | {revision.name: {"reason": reason, "at": moment}}
            self._replace("state.json", canonical_json(self._state() | {"approvals": approvals}))
        activation = {"at": moment, "by": result.by, "previous": previous, "reason": reason}
        self._replace(POINTER, canonical_json(revision.compat | {"activation": activation}))
        return result

    def _approvals(self) -> dict:
        """revision -> {reason, at}: what a person approved."""
        return self._state().get("approvals", {})

    def _previous(self) -> str | None:
        try:
            record = self.pointer()
        except RevisionError:  # a broken pointer is what an activation mends
            return None
        return None if record is None else record["revision"]

    def _state(self) -> dict:
        path = self.models_dir / "state.json"
        return strict_json(_read_regular(path, MAX_BYTES, str(path)), what=str(path)) if os.path.lexists(path) else {}

    def _staging(self) -> Path:
        folder = self.models_dir / ".staging"
        _make_folder(folder)
        return folder / f"{socket.gethostname()}~{os.getpid()}~{uuid.uuid4().hex}"

    def _write_folder(self, target: Path, files: Mapping[str, bytes], graphs: bool) -> None:
        staging = None
        try:
            _make_folder(self.folder)
            staging = self._staging()
            made = staging / target.name
            made.mkdir(parents=True)
            for name, data in files.items():
                (made / name).parent.mkdir(exist_ok=True)
                _write_file(made / name, data, mode=0o444)
            for folder in (*_inner_folders(made), made):
                _sync_folder(folder)
            read_revision(made).verify(graphs=graphs)
            try:
                _retry(lambda: made.rename(target))
            except OSError:
                if not os.path.lexists(target):  # else another writer of the same revision was first
                    raise
        except OSError as refusal:
            raise RevisionError(f"{self.models_dir}: the revision could not be written ({refusal}); nothing was changed") from refusal
        finally:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)

    def _seal(self, target: Path) -> None:
        """Read-only folders and a durable name; after the rename, because a read-only folder cannot be moved."""
        try:
            for folder in (*_inner_folders(target), target):
                with contextlib.suppress(PermissionError):  # another user's folder: its owner sealed it
                    folder.chmod(0o555)
            _sync_folder(self.folder)
        except OSError as refusal:
            raise RevisionError(f"{target}: written, but not safely on the disk ({refusal}); the pointer was not moved") from refusal

    def _replace(self, name: str, data: bytes) -> None:
        staging = None
        try:
            staging = self._staging()
            _write_file(staging, data)
            _retry(lambda: staging.replace(self.models_dir / name))
            _sync_folder(self.models_dir)
        except OSError as refusal:
            raise RevisionError(f"{self.models_dir / name} could not be written ({refusal}); what was there is still there") from refusal
        finally:
            if staging is not None:
                staging.unlink(missing_ok=True)


# ---------------------------------------------------------------- files


def _complete(files: Mapping[str, bytes], manifest: Mapping) -> dict:
    for name in files:
        check_file_name(name)
    listed = [{"name": name, "sha256": digest(files[name]), "bytes": len(files[name])} for name in sorted(files)]
    hashes = {entry["name"]: entry["sha256"] for entry in listed}
    models = []
    for model in manifest.get("models", []):
        if model.get("file") not in hashes:
            raise RevisionError(
                f"manifest.json: models name {model.get('file')!r}, which is not among the files given: {', '.join(hashes)}"
            )
        models.append(dict(model) | {"sha256": hashes[model["file"]]})
    record = dict(manifest) | {"files": listed, "models": models}
    check_manifest(record)
    return record


def _inner_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())


def _make_folder(path: Path) -> None:
    """`path` and its parents, each new one synced into its parent."""
    if not path.is_dir():
        _make_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
        _sync_folder(path.parent)


def _write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        if hasattr(os, "fchmod"):
            os.fchmod(stream.fileno(), mode)
        os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _retry(move, seconds: float = 2.0) -> None:
    """Windows refuses to replace a file while somebody reads it: try for a while."""
    end = time.monotonic() + seconds
    while True:
        try:
            return move()
        except PermissionError:
            if os.name != "nt" or time.monotonic() > end:
                raise
            time.sleep(0.05)


def _read_regular(path: Path, limit: int, what: str) -> bytes:
    """At most `limit` bytes of a plain file that nothing else links to. Raises RevisionError."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as refusal:
        raise RevisionError(f"{what}: cannot be read ({refusal.strerror}); missing, or a link") from refusal
    with os.fdopen(handle, "rb") as stream:
        about = os.fstat(stream.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:  # 0 links: replaced since it was opened, and still whole
            raise RevisionError(f"{what}: is no plain file of its own (a link, a folder or a device)")
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise RevisionError(f"{what}: longer than {limit:,} bytes")
    return data


def _walk(folder: Path) -> Iterator[str]:
    """Names of all files, `sub/name` inside one level of folders. Raises RevisionError for links, depth, or too many."""
    count = 0
    for inner in ("", *sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))):
        empty = True
        with os.scandir(folder / inner) as entries:
            for entry in entries:
                count += 1
                empty = False
                if count > 2 * MAX_FILES:
                    raise RevisionError(f"revision {folder.name}: more than {2 * MAX_FILES} files. {_advice(folder)}")
                if entry.is_dir(follow_symlinks=False):
                    if inner:
                        raise RevisionError(f"revision {folder.name}: a folder in a folder, {inner}/{entry.name}. {_advice(folder)}")
                    continue
                about = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
                    name = entry.name.encode("unicode_escape").decode()
                    raise RevisionError(f"revision {folder.name}: {name} is a link or no plain file. {_advice(folder)}")
                yield f"{inner}/{entry.name}" if inner else entry.name
        if inner and empty:
            raise RevisionError(f"revision {folder.name}: an empty folder {inner}. {_advice(folder)}")


def _advice(folder: Path) -> str:
    return f"Do not use it: move {folder} away and pull or train again"


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
