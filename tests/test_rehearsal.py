"""What `make setup` compiles is all that a retrain needs."""

import os
import subprocess
import sys

import pytest

COUNT = """
import gc, sys
from small_run import retrain
retrain(sys.argv[1], shap=True)
from numba.core.dispatcher import Dispatcher
kernels = [one for one in gc.get_objects() if isinstance(one, Dispatcher) and one.py_func.__module__.startswith("trademl.")]
print("found", sum(sum(one.stats.cache_hits.values()) for one in kernels))
print("compiled", sorted(one.py_func.__qualname__ for one in kernels if one.stats.cache_misses))
"""


@pytest.mark.slow
def test_a_retrain_compiles_nothing_that_was_rehearsed(repo, tmp_path):
    kept = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "PYTHONPATH": str(repo / "tests")}
    subprocess.run([sys.executable, "-m", "trademl.explore"], env=kept, check=True, timeout=600)
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(tmp_path / "models")], env=kept, capture_output=True, text=True, check=True, timeout=600
    )
    found, compiled = (line for line in done.stdout.splitlines() if line.split()[0] in ("found", "compiled"))
    assert int(found.split()[1]) > 20
    assert compiled == "compiled []"
