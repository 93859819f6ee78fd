"""One stored revision: its manifest, its files, and the ten checks that prove it.

What is proven when:

- `read_revision` proves the manifest: canonical, complete, and the hash that the folder is named by.
- `Revision.check_signature` proves who made it, where a key is pinned; elsewhere it says what stands there.
- `Revision.verify(graphs=False)` proves the bytes: every listed file is read once from the disk and hashed, none is
  missing, none is extra. What passed is remembered in that object and not looked at again: a `Revision` speaks of the
  moment when it was verified, and who must know about now (an activation, `models verify`) opens a new one.
- `Revision.verify()` asks for the signature first, then opens the graphs, from the very bytes that were hashed, and replays
  the golden rows.
- `Revision.read` proves the bytes that it hands out, each time.

Reading needs numpy, cryptography where a key is pinned, and onnxruntime for the graphs.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from trademl import __version__
from trademl.clock import iso_z, utc_now
from trademl.display import facts_html
from trademl.errors import MissingExtraError, RevisionError
from trademl.files import canonical_json, digest, read_npz, strict_json
from trademl.ship.contents import JUDGED_ROWS, POINTER, SCALER, SHAP_SUMMARY, advice, read_file, read_listed, walk
from trademl.ship.manifest import MAX_BYTES, compat_record, model_of, parse_manifest
from trademl.ship.runtime import check_graph, predict_onnx, session
from trademl.ship.signing import MAX_SIGNATURE_BYTES, NO_TRUST, SIGNATURE, Trust

_ONNX_TYPES = {"float64": "tensor(double)", "float32": "tensor(float)", "int64": "tensor(int64)"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Revision:
    """One stored revision. Its manifest is parsed and its name is right; `read` and `verify` prove the files."""

    folder: Path
    manifest: dict = field(repr=False)
    manifest_sha256: str = field(repr=False)
    trust: Trust = field(default=NO_TRUST, repr=False, compare=False)  # whose signature is asked for
    _passed: dict[str, tuple[Check, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)  # by group of checks

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

    def _repr_html_(self) -> str:
        record = self.manifest
        data, gate = record["data"], record["gate"]
        facts = {"line": self.line, "trained at": self.trained_at, "bars": f"{data['rows']:,} from {data['first']} to {data['last']}"}
        facts |= {"models": ", ".join(model["name"] for model in record["models"]), "folder": self.folder}
        return facts_html(f"Revision {self.name}", facts, gate["sentence"])

    def files(self) -> dict[str, dict]:
        """name -> {name, sha256, bytes} of every listed file."""
        return {entry["name"]: entry for entry in self.manifest["files"]}

    def read(self, name: str) -> bytes:
        """A file's bytes, checked against the manifest. Raises RevisionError."""
        entry = self.files().get(name)
        if entry is None:
            raise RevisionError(f"revision {self.name} does not hold a file {name!r}; it holds {', '.join(self.files())}")
        return read_listed(self.folder, entry)

    def checks(self, *, graphs: bool = True) -> list[Check]:
        """Look at everything in order and stop at the first failure: what comes after it cannot be trusted.

        `graphs=False` looks at the bytes alone: neither at the signature nor at what needs onnxruntime.
        What passed once is not looked at again in this object.
        """
        done, look = [], _Inspection(self, keep=graphs)
        for group in ("signature", "files", "graphs") if graphs else ("files",):
            if group not in self._passed:
                fresh = []
                for name, check in _CHECKS[group].items():
                    try:
                        fresh.append(Check(name, True, check(look)))
                    except RevisionError as refusal:
                        return [*done, *fresh, Check(name, False, str(refusal))]
                self._passed[group] = tuple(fresh)
            done += self._passed[group]
        return done

    def verify(self, *, graphs: bool = True) -> list[Check]:
        """As `checks`, but raises RevisionError with the first failure."""
        done = self.checks(graphs=graphs)
        if not done[-1].ok:
            raise RevisionError(f"{done[-1].detail} (check: {done[-1].name})")
        return done

    def check_signature(self) -> str:
        """Who signed, in words. RevisionError when a key is pinned here and it is none of theirs; nothing else was looked at yet."""
        path, where = self.folder / SIGNATURE, f"revision {self.name}"
        signature = read_file(path, MAX_SIGNATURE_BYTES, f"{where}: {SIGNATURE}") if os.path.lexists(path) else None
        try:
            return self.trust.check(canonical_json(self.manifest), signature)
        except RevisionError as refusal:
            raise RevisionError(f"{where} {refusal}") from refusal

    def check_runtime(self) -> None:
        """RevisionError when this trademl is too old for the revision."""
        needed = self.manifest["min_runtime_version"]
        if version_key(needed) > version_key(__version__):
            raise RevisionError(f"revision {self.name} needs trademl {needed} or newer, this is {__version__}; install a newer one")

    def check_age(self, now: datetime) -> None:
        """RevisionError when the revision has expired at `now`."""
        expires = self.manifest["expires_at"]
        if expires is not None and iso_z(now) >= expires:
            raise RevisionError(
                f"revision {self.name} expired at {expires} ([ship] max_age_days when it was trained, {self.trained_at}); "
                "`trademl retrain` makes a new one"
            )

    def moved_to(self, folder: Path) -> "Revision":
        """The same revision after its folder was renamed: what was proven stays proven."""
        moved = Revision(folder, self.manifest, self.manifest_sha256, self.trust)
        moved._passed.update(self._passed)
        return moved


def version_key(version: str) -> tuple[int, ...]:
    """A version's numbers, comparable: "0.10.0" is newer than "0.9.9". "0.3.0rc1" counts as 0.3.0."""
    return tuple(int(re.match(r"\d*", part)[0] or 0) for part in version.split(".")[:3])


def read_revision(folder: Path, trust: Trust = NO_TRUST) -> Revision:
    """A revision from its folder: manifest strictly parsed, folder named by its hash. Raises RevisionError.

    `trust` says whose signature `verify` asks for.
    """
    if folder.is_symlink():
        raise RevisionError(f"revision {folder.name}: is a link, not a folder of this store")
    data = read_file(folder / "manifest.json", MAX_BYTES, f"revision {folder.name}: manifest.json")
    sha256 = digest(data)
    if folder.name != sha256[:16]:
        raise RevisionError(f"revision {folder.name}: its manifest hashes to {sha256[:16]}; the folder was renamed or the manifest altered")
    return Revision(folder, parse_manifest(data), sha256, trust)


# ---------------------------------------------------------------- the checks


@dataclass(frozen=True)
class _Inspection:
    """One walk through the checks: bytes whose hash is right, and the graphs opened from them."""

    revision: Revision
    keep: bool  # whether the checks of the graphs follow, which need the bytes again
    data: dict[str, bytes] = field(default_factory=dict)
    sessions: dict[str, object] = field(default_factory=dict)  # by the model's name

    def where(self, file: str) -> str:
        """The start of a sentence about a file."""
        return f"revision {self.revision.name}: {file}"

    def needed_later(self) -> set[str]:
        """Files whose content is looked at after their hash."""
        manifest = self.revision.manifest
        graphs = {*(model["file"] for model in manifest["models"]), manifest["golden"]["file"]} if self.keep else set()
        return graphs | {SCALER, JUDGED_ROWS, SHAP_SUMMARY}

    def read(self, name: str) -> bytes:
        """A file's proven bytes, read once."""
        return self.data[name] if name in self.data else self.revision.read(name)


def _check_manifest(look: _Inspection) -> str:
    trained_at, latest = look.revision.trained_at, iso_z(utc_now() + timedelta(days=1))
    if trained_at > latest:
        raise RevisionError(
            f"{look.where('manifest.json')}: trained_at = {trained_at} lies in the future, expected at most {latest}; "
            f"set this machine's clock right. {advice(look.revision.folder)}"
        )
    return f"canonical, schema {look.revision.manifest['schema']}, named by its hash"  # proven by read_revision


def _check_names(look: _Inspection) -> str:
    revision = look.revision
    found = set(walk(revision.folder))
    listed = {*revision.files(), "manifest.json", POINTER}
    extra, missing = sorted(found - listed - {SIGNATURE}), sorted(listed - found)
    if extra or missing:
        wrong = [f"{what}: {', '.join(names[:5])}" for what, names in (("not in the manifest", extra), ("missing", missing)) if names]
        raise RevisionError(f"revision {revision.name}: files {'; '.join(wrong)}. {advice(revision.folder)}")
    return f"{len(found)} files, none missing, none extra, no links"


def _check_hashes(look: _Inspection) -> str:
    size, later = 0, look.needed_later()
    for name in look.revision.files():
        data = look.revision.read(name)
        size += len(data)
        if name in later:
            look.data[name] = data
    return f"{size:,} bytes as the manifest says"


def _check_scaler(look: _Inspection) -> str:
    revision = look.revision
    bound = revision.manifest.get("market", {}).get("scaler")
    if bound is None or SCALER not in revision.files():
        return "none kept"
    width = len(model_of(revision.manifest, "signal")["features"])
    where = look.where(SCALER)
    try:
        arrays = read_npz(look.read(SCALER))
        parts = [np.asarray(arrays[name], "<f8") for name in ("mean", "scale")]
    except (KeyError, TypeError, ValueError) as refusal:
        raise RevisionError(f"{where} is not readable ({refusal}). {advice(revision.folder)}") from refusal
    if any(part.shape != (width,) for part in parts):
        raise RevisionError(f"{where} has shapes {[part.shape for part in parts]}, the models take {width} features")
    if digest(np.concatenate(parts).tobytes()) != bound["sha256"]:
        raise RevisionError(f"{where} is not the scaler that the manifest binds to the models. {advice(revision.folder)}")
    return f"{width} columns, the one that the models were trained with"


def _check_explained(look: _Inspection) -> str:
    """Judged rows and SHAP summary stand together, as the manifest says; a revision from before has neither."""
    revision = look.revision
    said, held = revision.manifest.get("explained"), [name for name in (JUDGED_ROWS, SHAP_SUMMARY) if name in revision.files()]
    if said is None and not held:
        return "none kept"
    where = f"revision {revision.name}"
    if said is None or len(held) < 2:
        there = ", ".join(held) or "neither"
        raise RevisionError(f"{where} holds {there} of {JUDGED_ROWS} and {SHAP_SUMMARY}, and its manifest says {said}")
    shape = said["rows"], len(model_of(revision.manifest, "signal")["features"])
    try:
        found, schema = read_npz(look.read(JUDGED_ROWS))["x"].shape, strict_json(look.read(SHAP_SUMMARY))["schema"]
    except (KeyError, ValueError) as refusal:
        raise RevisionError(f"{where}: what explains it is not readable ({refusal}). {advice(revision.folder)}") from refusal
    if found != shape or schema != said["schema"]:
        there = f"{JUDGED_ROWS} holds {found}, {SHAP_SUMMARY} is of schema {schema}"
        raise RevisionError(f"{where}: {there}; the manifest says {shape}, {said}")
    return f"{shape[0]:,} judged rows and the SHAP summary"


def _check_compat(look: _Inspection) -> str:
    folder = look.revision.folder
    data = read_file(folder / POINTER, MAX_BYTES, look.where(POINTER))
    if data != canonical_json(look.revision.compat):
        raise RevisionError(f"{look.where(POINTER)} does not say what the manifest says. {advice(folder)}")
    return "says what the manifest says"


def _check_graphs(look: _Inspection) -> str:
    for model in look.revision.manifest["models"]:
        look.sessions[model["name"]] = _open_graph(look, model)
    return f"{len(look.sessions)} graphs load, whole in themselves, standard operators, promised inputs and outputs"


def _open_graph(look: _Inspection, model: Mapping):
    """A session on one of the revision's graphs, after a look that it is what the manifest promises. Raises RevisionError."""
    data, where = look.read(model["file"]), look.where(model["file"])
    try:
        check_graph(data)
        runner = session(data)
    except MissingExtraError:
        raise
    except RevisionError as refusal:
        raise RevisionError(f"{where}: {refusal}") from refusal
    except Exception as refusal:  # onnxruntime's errors have no public root
        raise RevisionError(f"{where} does not load: {refusal}") from refusal
    _check_interface(look.revision, model, runner)
    return runner


def _check_interface(revision: Revision, model: Mapping, runner) -> None:
    """The graph takes the one input and gives the outputs that the manifest promises."""
    where, asked = f"revision {revision.name}: {model['file']}", model["input"]
    inputs = [(one.name, one.type, one.shape) for one in runner.get_inputs()]
    if [(name, kind, shape[-1:]) for name, kind, shape in inputs] != [(asked["name"], _ONNX_TYPES[asked["dtype"]], asked["shape"][-1:])]:
        raise RevisionError(f"{where}: takes {inputs}, the manifest says {asked}")
    outputs = {one.name: (one.type, one.shape[1:]) for one in runner.get_outputs()}
    for answer in model["outputs"]:
        if outputs.get(answer["name"]) != (_ONNX_TYPES[answer["dtype"]], answer["shape"][1:]):
            raise RevisionError(f"{where}: gives {outputs}, the manifest says {answer}")


def _check_run(look: _Inspection) -> str:
    wanted = look.revision.manifest["trained_together"]
    for model in look.revision.manifest["models"]:
        inside = look.sessions[model["name"]].get_modelmeta().custom_metadata_map
        where = look.where(model["file"])
        if inside.get("training_run_id") != wanted:
            raise RevisionError(
                f"{where} comes from training run {inside.get('training_run_id')!r}, the manifest from {wanted!r}; "
                "models that were not trained together must not go live together"
            )
        if model["classes"] is not None and inside.get("classes") != ",".join(model["classes"]):
            raise RevisionError(f"{where} orders classes {inside.get('classes')!r}, the manifest {model['classes']}")
        _check_columns(model, where, inside.get("features"))
    return f"every graph is of training run {wanted}"


def _check_columns(model: Mapping, where: str, stated: str | None) -> None:
    """A graph that names its columns must name the features of the manifest, in their order."""
    if stated is None:
        return
    names = [feature["name"] for feature in model["features"]]
    try:
        columns = [str(name) for name in json.loads(stated)]
    except (TypeError, ValueError) as refusal:
        raise RevisionError(f"{where} names its columns illegibly ({refusal})") from refusal
    if columns != names:
        shared = min(len(columns), len(names))
        at = next((n for n, (one, other) in enumerate(zip(columns, names)) if one != other), shared)
        asked, listed = ((*part[at : at + 1], "nothing")[0] for part in (columns, names))
        raise RevisionError(f"{where} takes {asked!r} in column {at}, the manifest lists {listed!r} there")


def _check_golden(look: _Inspection) -> str:
    golden = look.revision.manifest["golden"]
    try:
        arrays = read_npz(look.read(golden["file"]))
    except ValueError as refusal:
        raise RevisionError(f"{look.where(golden['file'])} is not readable: {refusal}") from refusal
    worst = max(_replay(look, model, arrays) for model in look.revision.manifest["models"])
    return f"golden rows of {len(look.sessions)} graphs replayed, off by at most {worst:.1e}"


def _replay(look: _Inspection, model: Mapping, arrays: Mapping[str, np.ndarray]) -> float:
    """Largest difference of a graph's answers to its golden rows. Raises RevisionError above the manifest's tolerance."""
    golden, width, where = look.revision.manifest["golden"], len(model["features"]), look.where(look.revision.manifest["golden"]["file"])
    x = arrays.get(f"{model['name']}_x")
    if x is None or x.ndim == 0 or len(x) == 0:
        raise RevisionError(f"{where} holds no golden rows for {model['name']}")
    if x.ndim != 2 or x.shape[1] != width or len(x) > golden["rows"]:
        raise RevisionError(
            f"{where}: the rows of {model['file']} have shape {x.shape}, it takes {width} columns, at most {golden['rows']} rows are kept"
        )
    served, worst = predict_onnx(look.sessions[model["name"]], x), 0.0
    for name in (answer["name"] for answer in model["outputs"] if answer["dtype"] != "int64"):
        expected = arrays.get(f"{model['name']}_{name}")
        if expected is None:
            raise RevisionError(f"{where} holds no golden {name} for {model['name']}")
        off = float(np.abs(served[name] - expected).max()) if served[name].shape == expected.shape else float("inf")
        if not off <= golden["tolerance"]:
            raise RevisionError(
                f"{look.where(model['file'])} misses its golden rows by {off:.2g} on this machine ({name}), "
                f"allowed {golden['tolerance']:g}; do not use it here"
            )
        worst = max(worst, off)
    return worst


_CHECKS: dict[str, dict[str, Callable[[_Inspection], str]]] = {
    "signature": {"signature": lambda look: look.revision.check_signature()},
    "files": {
        "manifest": _check_manifest,
        "files": _check_names,
        "hashes": _check_hashes,
        "scaler": _check_scaler,
        "explanation": _check_explained,
        "model_compat": _check_compat,
    },
    "graphs": {"graphs": _check_graphs, "trained together": _check_run, "golden rows": _check_golden},
}
