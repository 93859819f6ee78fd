"""What code trains here: for a manifest."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from trademl import __version__
from trademl.ship.manifest import MIN_RUNTIME

LIBRARIES = ("numpy", "scikit-learn", "xgboost", "lightgbm", "onnx", "onnxruntime", "numba", "pandas")


def code_record() -> dict:
    """Commit, versions of TradeML, of Python and of the libraries."""
    return {
        **_commit(),
        "trademl_version": __version__,
        "min_runtime_version": MIN_RUNTIME,
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
    }


def _commit() -> dict:
    """Commit and cleanliness of the clone that this package is imported from; nulls outside a clone."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return {"git_commit": None, "dirty": None}
    try:
        commit = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=20)
        status = subprocess.run(["git", "-C", str(root), "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "dirty": None}
    return {"git_commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}
