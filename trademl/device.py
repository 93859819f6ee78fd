"""What accelerators really work here: probed with a tiny fit in a process of its own, and read back; never guessed.

XGBoost asked for "cuda" without a GPU warns and trains on the CPU, so a probe that only waits for an exception always succeeds.
"""

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from trademl.clock import iso_z, utc_now
from trademl.errors import choose
from trademl.files import make_folders, write_json

DEVICES = ("auto", "cpu", "cuda")
LIBRARY_OF = {"rf": "xgboost", "xgb": "xgboost", "lgb": "lightgbm"}  # model -> what trains it
FOREST_LIBRARY = {"hist": "xgboost", "sklearn": "scikit-learn"}  # engine of the forest -> what grows it
LIBRARIES = ("numpy", "pandas", "numba", "scikit-learn", "xgboost", "lightgbm", "onnx", "onnxruntime", "papermill", "jupyterlab", "plotly")

_PROBES = {
    "xgboost": """
import json, numpy as np, xgboost as xgb
x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
b = xgb.train({"device": "cuda", "tree_method": "hist", "verbosity": 0}, xgb.DMatrix(x, label=x[:, 0]), 2)
print(json.loads(b.save_config())["learner"]["generic_param"]["device"])
""",
    "lightgbm": """
import numpy as np, lightgbm as lgb
x = np.random.default_rng(0).normal(size=(256, 4))
lgb.train({"device_type": "cuda", "verbosity": -1}, lgb.Dataset(x, label=x[:, 0]), 2)
print("cuda")
""",
}


@dataclass(frozen=True)
class Resolved:
    """Where a library trains, and why."""

    requested: str
    resolved: str
    reason: str


CPU = Resolved("cpu", "cpu", "as asked")
Fitted = TypeVar("Fitted")

_NO_END, _NO_PATH = "the probe did not end within", "the library has no GPU path"


@cache
def probe(library: str, timeout_s: float = 60.0) -> tuple[str, str]:
    """("cuda" or "cpu", why): the device on which a tiny fit of this library really ran when it was asked for CUDA."""
    try:
        command = [sys.executable, "-P", "-c", _PROBES[library]]  # -P: nothing is imported from the folder that somebody works in
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return "cpu", f"{_NO_END} {timeout_s:.0f} s"
    answer = done.stdout.strip().splitlines()[-1:] or [""]
    if done.returncode == 0 and answer[0].startswith("cuda"):
        return "cuda", "a tiny fit ran on it"
    if done.returncode == 0:
        return "cpu", f"asked for cuda, the library trained on {answer[0] or 'nothing it would name'}"
    last = done.stderr.strip().splitlines()[-1:] or [f"the probe died with status {done.returncode}"]
    return "cpu", last[0][:160]


def has_accelerator() -> bool:
    """Whether the system shows an accelerator at all (NVIDIA, AMD ROCm, WSL). Says no only where that is certain: on Linux and macOS."""
    if platform.system() == "Linux":
        return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists() or Path("/dev/dxg").exists()
    return platform.system() != "Darwin"


def check(requested: str) -> None:
    """UsageError when this is no device that can be asked for."""
    choose(DEVICES, requested, "device")


def resolve(library: str, requested: str = "auto") -> Resolved:
    """Where `library` will train. Asking for cuda where there is none resolves to cpu and says so.

    A ROCm build of a library answers to the name cuda too.
    """
    check(requested)
    if requested == "cpu":
        return CPU
    if library not in _PROBES:
        return Resolved(requested, "cpu", _NO_PATH)
    if requested == "auto" and not has_accelerator():
        return Resolved(requested, "cpu", "no accelerator on this machine")
    device, reason = probe(library)
    return Resolved(requested, device, reason)


def resolve_models(requested: str = "auto", rf_engine: str = "hist") -> dict[str, Resolved]:
    """Where each kind of model will train: rf, xgb, lgb."""
    return {model: resolve(library, requested) for model, library in (LIBRARY_OF | {"rf": FOREST_LIBRARY[rf_engine]}).items()}


def fit_on(
    where: Resolved,
    fit: Callable[[str], Fitted],  # fit("cuda") or fit("cpu")
    trained_on: Callable[[Fitted], str],  # reads the device back from what was fitted
    errors: type[Exception] | tuple[type[Exception], ...],  # what the library raises when its device fails
) -> tuple[Fitted, Resolved]:
    """Fit where `where` says; once more on the CPU when the accelerator fails in mid-fit. Returns where it really trained, too."""
    if where.resolved == "cpu":
        return fit("cpu"), where
    try:
        fitted = fit(where.resolved)
    except errors as failure:
        why = " ".join(str(failure).split())[:160] or type(failure).__name__
        return fit("cpu"), Resolved(where.requested, "cpu", f"{where.resolved} failed in mid-fit ({why}); fitted again on the CPU")
    found = trained_on(fitted)
    if not found.startswith(where.resolved):
        return fitted, Resolved(where.requested, "cpu", f"asked for {where.resolved}, the library trained on {found}")
    return fitted, where


def notes(devices: Mapping[str, Mapping[str, Mapping[str, str]]]) -> list[str]:
    """Sentences for what did not train where it was asked to; `devices`: role -> model -> a Resolved as a dict.

    A forest of scikit-learn is never meant: there is no GPU path for it.
    """
    said = {}
    for models in devices.values():
        for model, one in models.items():
            fell = one["requested"] == "cuda" or "mid-fit" in one["reason"]
            if one["resolved"] == "cpu" and fell and one["reason"] != _NO_PATH:
                said[f"{LIBRARY_OF[model]} was asked for {one['requested']} and trained on the CPU: {one['reason']}"] = None
    return list(said)


# ---------------------------------------------------------------- what the doctor shows

_DRIVERS = ("/proc/driver/nvidia/version", "/sys/module/amdgpu/version")
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "LD_LIBRARY_PATH")


def cache_folder() -> Path:
    """Where TradeML keeps what it can find out again: $XDG_CACHE_HOME/trademl, else ~/.cache/trademl (Windows: %LOCALAPPDATA%)."""
    named = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if platform.system() == "Windows" else None)
    return (Path(named) if named else Path.home() / ".cache") / "trademl"


def _fingerprint(library: str) -> str:
    """What a probe's answer rests on: the machine, its drivers and devices, this Python, and the build of the library (not its version
    alone: LightGBM with and without CUDA share one)."""
    rests = [platform.node(), platform.platform(), sys.version, sys.prefix, str(has_accelerator())]
    rests += [str(os.environ.get(name)) for name in _VISIBLE]  # empty is not the same as not set
    rests += sorted(path.name for path in Path("/dev").glob("nvidia*"))
    rests += [path.read_text() for path in map(Path, _DRIVERS) if path.exists()]
    installed = metadata.distribution(library)
    rests += [_PROBES[library], installed.version, installed.read_text("RECORD") or str(installed.locate_file(""))]
    return hashlib.sha256("\0".join(rests).encode()).hexdigest()


@dataclass(frozen=True)
class Probed:
    """Where a library trains when it is asked for CUDA. Only the doctor shows an earlier answer; a run probes for itself."""

    device: Resolved
    tried_at: str  # ISO 8601 UTC
    kept_in: str | None = None  # the file that holds the answer


def examine_device(library: str, *, fresh: bool = False) -> Probed:
    """Probe the library, or take the answer that the same build gave on the same machine before. A time-out is not kept."""
    try:
        key, path = _fingerprint(library), cache_folder() / f"device-{library}.json"
    except (metadata.PackageNotFoundError, OSError, RuntimeError):  # RuntimeError: nobody's home folder is known
        return Probed(resolve(library, "cuda"), iso_z(utc_now()))
    if not fresh:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # no file, or not one of ours: probe
            kept = json.loads(path.read_text("utf-8"))
            if kept["fingerprint"] == key:
                return Probed(Resolved(**kept["device"]), kept["tried_at"], str(path))
    found = Probed(resolve(library, "cuda"), iso_z(utc_now()))
    if found.device.reason.startswith(_NO_END):
        return found
    with contextlib.suppress(OSError):  # a home that cannot be written to: probed again next time
        make_folders(path.parent)
        write_json(path, {"fingerprint": key, "device": asdict(found.device), "tried_at": found.tried_at})
        found = replace(found, kept_in=str(path))
    return found


@dataclass(frozen=True)
class Machine:
    """What `trademl doctor` found."""

    python: str
    platform: str
    cores: int
    memory_gib: float | None
    libraries: dict
    devices: dict  # library -> Resolved
    probes: dict  # library -> Probed, of those that have a GPU path

    def lines(self):
        """(name, value) pairs for a table."""
        yield from (("python", self.python), ("platform", self.platform), ("cores", self.cores))
        yield "memory", "unknown" if self.memory_gib is None else f"{self.memory_gib:.1f} GiB"
        yield from self.libraries.items()
        yield from ((f"{name} trains on", f"{d.resolved} ({d.reason})") for name, d in self.devices.items())
        for name, one in self.probes.items():
            kept = f"; kept in {one.kept_in}, `trademl doctor --fresh` probes again" if one.kept_in else ""
            yield f"{name} probed at", one.tried_at + kept


def examine(*, fresh: bool = False) -> Machine:
    """Look at this machine; `fresh` probes the accelerators again."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed (pip install 'trademl[lab]')"
    probes = {name: examine_device(name, fresh=fresh) for name in _PROBES}
    devices = {name: one.device for name, one in probes.items()} | {"scikit-learn": resolve("scikit-learn", "cuda")}
    return Machine(platform.python_version(), platform.platform(), os.cpu_count() or 1, _memory_gib(), versions, devices, probes)


def _memory_gib():
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (AttributeError, ValueError, OSError):
        return None
