"""One stored revision, and the eight checks that prove it.

What is proven when: `read_revision` proves the manifest (its hash is the folder's name); `Revision.read` proves each file that it
returns; `Revision.verify` proves everything, and reads and hashes every file once.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trademl.errors import MissingExtraError, RevisionError
from trademl.files import canonical_json, digest, read_npz
from trademl.ship.contents import MAX_RECORD_BYTES, advice, read_bytes, read_file, walk
from trademl.ship.manifest import compat_record, parse_manifest
from trademl.ship.runtime import check_graph, predict_onnx, session

MANIFEST, SIGNATURE, POINTER = "manifest.json", "manifest.sig", "model_compat.json"
SCALER = "native/scaler.npz"


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
        """A file's bytes, proven by the hash in the manifest. Raises RevisionError."""
        entry = self.files().get(name)
        if entry is None:
            raise RevisionError(f"revision {self.name} holds no file {name!r}; it holds {', '.join(self.files())}")
        return read_file(self.folder, entry, f"revision {self.name}: {name}")

    def checks(self, *, graphs: bool = True) -> list[Check]:
        """Look at everything in order and stop at the first thing that is wrong: what comes after it cannot be trusted.

        `graphs=False` leaves out what needs onnxruntime.
        """
        done, proof = [], _Proof(self)
        for name, look in (FILE_CHECKS | (GRAPH_CHECKS if graphs else {})).items():
            try:
                done.append(Check(name, True, look(proof)))
            except RevisionError as refusal:
                return [*done, Check(name, False, str(refusal))]
        return done

    def verify(self, *, graphs: bool = True) -> list[Check]:
        """As `checks`, but raises RevisionError with the first failure."""
        done = self.checks(graphs=graphs)
        if not done[-1].ok:
            raise RevisionError(f"{done[-1].detail} (check: {done[-1].name})")
        return done


def read_revision(folder: Path) -> Revision:
    """A revision from its folder: manifest strictly parsed, folder named by its hash. Raises RevisionError."""
    if folder.is_symlink():
        raise RevisionError(f"revision {folder.name}: is a link, not a folder of this store")
    data = read_bytes(folder / MANIFEST, MAX_RECORD_BYTES, f"revision {folder.name}: {MANIFEST}")
    sha256 = digest(data)
    if folder.name != sha256[:16]:
        raise RevisionError(f"revision {folder.name}: its manifest hashes to {sha256[:16]}; the folder was renamed or the manifest altered")
    return Revision(folder, parse_manifest(data), sha256)


# ---------------------------------------------------------------- the checks


@dataclass
class _Proof:
    """One pass over a revision: what a check has proven, the next one uses."""

    revision: Revision
    data: dict[str, bytes] = field(default_factory=dict)  # every listed file, once `hashes` has proven it
    runners: dict[str, object] = field(default_factory=dict)  # model -> session, once `graphs` has opened it

    @property
    def manifest(self) -> dict:
        """The revision's manifest."""
        return self.revision.manifest

    def refuse(self, what: str, *, with_advice: bool = True) -> RevisionError:
        """A refusal that names the revision; `with_advice` says what to do with it."""
        tail = f". {advice(self.revision.folder)}" if with_advice else ""
        return RevisionError(f"revision {self.revision.name}: {what}{tail}")


def _check_manifest(proof: _Proof) -> str:
    again = read_revision(proof.revision.folder)
    if again.manifest_sha256 != proof.revision.manifest_sha256:
        raise proof.refuse("the manifest changed while it was read", with_advice=False)
    return f"canonical, schema {proof.manifest['schema']}, named by its hash"


def _check_names(proof: _Proof) -> str:
    found = set(walk(proof.revision.folder))
    listed = {*proof.revision.files(), MANIFEST, POINTER}
    extra, missing = sorted(found - listed - {SIGNATURE}), sorted(listed - found)
    if extra or missing:
        wrong = [f"{what}: {', '.join(names[:5])}" for what, names in (("not in the manifest", extra), ("missing", missing)) if names]
        raise proof.refuse(f"files {'; '.join(wrong)}")
    return f"{len(found)} files, none missing, none extra, no links"


def _check_hashes(proof: _Proof) -> str:
    proof.data = {name: proof.revision.read(name) for name in proof.revision.files()}
    return f"{sum(map(len, proof.data.values())):,} bytes as the manifest says"


def _check_scaler(proof: _Proof) -> str:
    bound, width = proof.manifest["scaler"], proof.manifest["feature_count"]
    if bound is None or SCALER not in proof.data:
        return "none kept"
    try:
        held = read_npz(proof.data[SCALER])
        parts = [np.asarray(held[name], "<f8") for name in ("mean", "scale")]
    except (KeyError, TypeError, ValueError) as refusal:
        raise proof.refuse(f"{SCALER} is not readable ({refusal})") from refusal
    if any(part.shape != (width,) for part in parts):
        shapes = [part.shape for part in parts]
        raise proof.refuse(f"{SCALER} has shapes {shapes}, the models take {width} features", with_advice=False)
    if digest(np.concatenate(parts).tobytes()) != bound["sha256"]:
        raise proof.refuse(f"{SCALER} is another scaler than the one that the manifest binds to the models")
    return f"{width} columns, the one that the models were trained with"


def _check_compat(proof: _Proof) -> str:
    data = read_bytes(proof.revision.folder / POINTER, MAX_RECORD_BYTES, f"revision {proof.revision.name}: {POINTER}")
    if data != canonical_json(proof.revision.compat):
        raise proof.refuse(f"{POINTER} does not say what the manifest says")
    return "says what the manifest says"


def _check_graphs(proof: _Proof) -> str:
    for model in proof.manifest["models"]:
        proof.runners[model["name"]] = _open_graph(proof, model)
    return f"{len(proof.runners)} graphs load, whole in themselves, standard operators, promised inputs and outputs"


def _open_graph(proof: _Proof, model: Mapping):
    """A session on one of the revision's graphs, once it is what the manifest promises. Raises RevisionError."""
    data = proof.data[model["file"]]
    try:
        check_graph(data)
        runner = session(data)
    except MissingExtraError:
        raise
    except RevisionError as refusal:
        raise proof.refuse(f"{model['file']}: {refusal}", with_advice=False) from refusal
    except Exception as refusal:  # onnxruntime's errors have no public root
        raise proof.refuse(f"{model['file']} does not load: {refusal}", with_advice=False) from refusal
    check_interface(proof, model, runner)
    return runner


_TENSORS = {"float64": "tensor(double)", "float32": "tensor(float)"}


def check_interface(proof: _Proof, model: Mapping, runner) -> None:
    """RevisionError unless the graph takes and gives what the manifest says."""
    file, asked = model["file"], model["input"]
    found = [(one.name, one.type, one.shape[-1]) for one in runner.get_inputs()]
    width = asked["shape"][-1]
    if found != [(asked["name"], _TENSORS[asked["dtype"]], width)]:
        seen = [(one.name, one.type, one.shape) for one in runner.get_inputs()]
        raise proof.refuse(f"{file}: takes {seen}, the manifest says {asked}", with_advice=False)
    if model["role"] == "signal" and width != proof.manifest["feature_count"]:
        raise proof.refuse(f"{file}: takes {width} columns; expected {proof.manifest['feature_count']}", with_advice=False)
    outputs = {one.name: one.shape[-1] for one in runner.get_outputs()}
    name, columns = ("value", None) if model["classes"] is None else ("probabilities", len(model["classes"]))
    if name not in outputs or columns not in (None, outputs[name]):
        raise proof.refuse(f"{file}: gives {outputs}, expected {name} of {columns or 'any'} columns", with_advice=False)


def _check_run(proof: _Proof) -> str:
    wanted = proof.manifest["trained_together"]
    for model in proof.manifest["models"]:
        inside = proof.runners[model["name"]].get_modelmeta().custom_metadata_map
        file = model["file"]
        if inside.get("training_run_id") != wanted:
            raise proof.refuse(
                f"{file} comes from training run {inside.get('training_run_id')!r}, the manifest from {wanted!r}; "
                "models that were not trained together must not go live together",
                with_advice=False,
            )
        if model["classes"] is not None and inside.get("classes") != ",".join(model["classes"]):
            raise proof.refuse(f"{file} orders classes {inside.get('classes')!r}, the manifest {model['classes']}", with_advice=False)
        _check_columns(proof, file, inside.get("features"))
    return f"every graph is of training run {wanted}"


def _check_columns(proof: _Proof, file: str, named: str | None) -> None:
    """A graph that names its columns must name those of the manifest first, in their order."""
    if named is None:
        return
    names = [feature["name"] for feature in proof.manifest["features"]]
    try:
        columns = [str(name) for name in json.loads(named)][: len(names)]
    except (TypeError, ValueError) as refusal:
        raise proof.refuse(f"{file} names its columns illegibly ({refusal})", with_advice=False) from refusal
    if columns != names:
        at = next((n for n, (one, other) in enumerate(zip(columns, names)) if one != other), len(columns))
        asked, listed = ((*part[at : at + 1], "nothing")[0] for part in (columns, names))
        raise proof.refuse(f"{file} takes {asked!r} in column {at}, the manifest lists {listed!r} there", with_advice=False)


def _check_golden(proof: _Proof) -> str:
    golden = proof.manifest["golden"]
    try:
        arrays = read_npz(proof.data[golden["file"]])
    except ValueError as refusal:
        raise proof.refuse(f"{golden['file']} is not readable: {refusal}", with_advice=False) from refusal
    worst = max(
        (_replay(proof, model, arrays, golden) for model in proof.manifest["models"] if model["role"] != "risk"),
        default=0.0,
    )
    return f"golden rows replayed, off by at most {worst:.1e}"


def _replay(proof: _Proof, model: Mapping, arrays: Mapping[str, np.ndarray], golden: Mapping) -> float:
    """How far a graph's answers to its golden rows are from the kept ones. RevisionError above the tolerance."""
    x, expected = (arrays.get(f"{model['role']}_{what}") for what in ("x", "probabilities"))
    if x is None or expected is None or len(x) == 0:
        raise proof.refuse(f"{golden['file']} holds no golden rows for the {model['role']} model", with_advice=False)
    width = model["input"]["shape"][-1]
    if x.ndim != 2 or x.shape[1] != width:
        raise proof.refuse(f"the golden rows of {model['file']} have shape {x.shape}, it takes {width} columns", with_advice=False)
    served = predict_onnx(proof.runners[model["name"]], x)["probabilities"]
    off = float(np.abs(served - expected).max()) if served.shape == expected.shape else float("inf")
    if not off <= golden["tolerance"]:
        raise proof.refuse(
            f"{model['file']} misses its golden rows by {off:.2g} on this machine, allowed {golden['tolerance']:g}; do not use it here",
            with_advice=False,
        )
    return off


FILE_CHECKS: dict[str, Callable[[_Proof], str]] = {
    "manifest": _check_manifest,
    "files": _check_names,
    "hashes": _check_hashes,
    "scaler": _check_scaler,
    "model_compat": _check_compat,
}
GRAPH_CHECKS: dict[str, Callable[[_Proof], str]] = {"graphs": _check_graphs, "trained together": _check_run, "golden rows": _check_golden}
