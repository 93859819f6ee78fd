"""What accelerators really work here: probed with a tiny fit in a process of its own, and read back; never guessed.

XGBoost asked for "cuda" without a GPU warns and trains on the CPU, so a probe that only waits for an exception always succeeds.
"""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from trademl.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
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


@cache
def probe(library: str, timeout_s: float = 60.0) -> tuple[str, str]:
    """("cuda" or "cpu", why): the device on which a tiny fit of this library really ran when it was asked for CUDA."""
    try:
        done = subprocess.run([sys.executable, "-c", _PROBES[library]], capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return "cpu", f"the probe did not end within {timeout_s:.0f} s"
    answer = done.stdout.strip().splitlines()[-1:] or [""]
    if done.returncode == 0 and answer[0].startswith("cuda"):
        return "cuda", "a tiny fit ran on it"
    if done.returncode == 0:
        return "cpu", f"asked for cuda, the library trained on {answer[0] or 'nothing it would name'}"
    last = done.stderr.strip().splitlines()[-1:] or [f"the probe died with status {done.returncode}"]
    return "cpu", last[0][:160]


def resolve(library: str, requested: str = "auto") -> Resolved:
    """Where `library` will train. Asking for cuda where there is none resolves to cpu and says so."""
    if requested not in DEVICES:
        raise UsageError(f"device {requested!r} is not one of {', '.join(DEVICES)}")
    if requested == "cpu":
        return Resolved(requested, "cpu", "as asked")
    if library not in _PROBES:
        return Resolved(requested, "cpu", "the library has no GPU path")
    device, reason = probe(library)
    return Resolved(requested, device, reason)


@dataclass(frozen=True)
class Machine:
    """What `trademl doctor` found."""

    python: str
    platform: str
    cores: int
    memory_gib: float | None
    libraries: dict
    devices: dict

    def lines(self):
        """(name, value) pairs for a table."""
        yield from (("python", self.python), ("platform", self.platform), ("cores", self.cores))
        yield "memory", "unknown" if self.memory_gib is None else f"{self.memory_gib:.1f} GiB"
        yield from self.libraries.items()
        yield from ((f"{name} trains on", f"{d.resolved} ({d.reason})") for name, d in self.devices.items())


def examine() -> Machine:
    """Look at this machine."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed (pip install 'trademl[lab]')"
    devices = {name: resolve(name) for name in ("xgboost", "lightgbm", "scikit-learn")}
    return Machine(platform.python_version(), platform.platform(), os.cpu_count() or 1, _memory_gib(), versions, devices)


def _memory_gib():
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (AttributeError, ValueError, OSError):
        return None
