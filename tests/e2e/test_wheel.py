"""The wheel: job notebooks are inside, and `trademl retrain` works where there is no clone."""

import importlib.util
import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from house import own_files
from packaging.requirements import Requirement

from trademl.clock import epoch_seconds
from trademl.files import npz_bytes
from trademl.ship.signing import KeyFolder, Trust
from trademl.ship.store import Store

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def run(*command: object, cwd: Path, timeout: int = 600) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout)


@pytest.fixture(scope="module")
def wheel(repo, tmp_path_factory) -> Path:
    """Built through the source distribution, from a copy: the clone stays as it is."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in own_files(repo):
        target = copy / path.relative_to(repo)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    isolation = [] if importlib.util.find_spec("setuptools") is None else ["--no-isolation"]  # offline where setuptools is at hand
    done = run(sys.executable, "-m", "build", *isolation, "--outdir", out, ".", cwd=copy)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory) -> Path:
    """A new environment that holds the wheel, and borrows this one's libraries without its editable install.

    A path line in a .pth file adds the folder but does not process the .pth files in it, so the clone stays out of reach.
    """
    home = tmp_path_factory.mktemp("elsewhere")
    assert run(sys.executable, "-m", "venv", "--without-pip", home / "venv", cwd=home).returncode == 0
    (site,) = (home / "venv").glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    done = run(sys.executable, "-m", "pip", "--python", home / "venv/bin/python", "install", "--no-deps", "--no-index", wheel, cwd=home)
    assert done.returncode == 0, done.stderr
    return home


def test_the_wheel_holds_the_notebooks_the_page_and_every_module(repo, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        path.relative_to(repo).as_posix() for path in own_files(repo) if path.is_relative_to(repo / "trademl") and path.suffix == ".py"
    }
    jobs = {f"trademl/jobs/{path.name}" for path in (repo / "nbs" / "jobs").glob("*.ipynb")}
    assert jobs
    index = {"trademl/_modidx.py"}  # nbdev's own, for `nbdev-update` in a clone
    assert index < modules
    explorers = {f"trademl/explore/notebooks/{path.name}" for path in (repo / "nbs" / "explore").glob("*.ipynb")}
    assert explorers
    browser = {
        "trademl/explore/view.js",
        *(f"trademl/explore/lab/trademl-lab/{name}" for name in ("package.json", "static/remoteEntry.js")),
    }
    assert (modules - index | jobs | explorers | browser | {"trademl/report/page.html", "trademl/settings.ini"}) - names == set()
    assert names & index == set()
    assert not [name for name in names if name.startswith(("tests", "nbs", "benchmarks"))]


def test_jobs_are_found_outside_the_clone(repo, elsewhere):
    code = "import trademl; from trademl.runs import find_job; print(trademl.__file__); print(find_job('retrain'))"
    done = run(elsewhere / "venv/bin/python", "-c", code, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    package, job = map(Path, done.stdout.splitlines())
    assert package.is_relative_to(elsewhere)
    assert job == package.parent / "jobs" / "retrain.ipynb"
    assert json.loads(job.read_text())["cells"]


def test_the_lab_brings_its_notebooks_outside_the_clone(elsewhere):
    work = elsewhere / "lab"
    work.mkdir()
    code = "from pathlib import Path; from trademl.commands.lab import bring_notebooks; print(len(bring_notebooks(Path())))"
    done = run(elsewhere / "venv/bin/python", "-c", code, cwd=work)
    assert done.returncode == 0, done.stderr
    assert {"00_start", "labels"} <= {path.stem for path in (work / "nbs" / "explore").glob("*.ipynb")}
    assert int(done.stdout) == len(list((work / "nbs").rglob("*.ipynb"))) > 5


def test_trademl_retrain_runs_outside_the_clone(elsewhere):
    trademl, work = elsewhere / "venv/bin/trademl", elsewhere / "work"
    work.mkdir()
    sample = run(trademl, "data", "sample", "--bars", 8_000, "--edge", 0.5, "--seed", 7, "--output", "bars.csv", cwd=work)
    assert sample.returncode == 0, sample.stderr
    done = run(trademl, "retrain", "--bars", "bars.csv", "--no-news", "--device", "cpu", "--seed", 7, "--json", cwd=work)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["exit"] == done.returncode
    assert told["run_id"] in told["report"]
    folder = (work / told["report"]).parent
    assert {"run.json", "events.jsonl", "retrain.ipynb", "report.html"} <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "run.json").read_text())["exit"] == done.returncode


# ---------------------------------------------------------------- the extra `bot`


def needed(distribution: str, extra: str | None = None) -> set[str]:
    """What a distribution, with an extra, requires here, itself not among it."""
    found = set()
    for text in metadata.requires(distribution) or []:
        requirement = Requirement(text)
        environments = [{"extra": extra}] if extra else [{"extra": ""}]
        if requirement.marker is None or any(requirement.marker.evaluate(one) for one in environments):
            found |= {requirement.name} | needed(requirement.name)
    return found


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory) -> Path:
    """A new environment as `pip install 'trademl[bot]'` makes it, without a network: the wheel, and links to what the extra requires."""
    home = tmp_path_factory.mktemp("bare")
    assert run(sys.executable, "-m", "venv", "--without-pip", home / "venv", cwd=home).returncode == 0
    (site,) = (home / "venv").glob("lib/python*/site-packages")
    source = Path(sysconfig.get_path("purelib"))
    for name in needed("trademl", "bot"):
        for top in {Path(str(file)).parts[0] for file in metadata.files(name)} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(source / top)
    done = run(sys.executable, "-m", "pip", "--python", home / "venv/bin/python", "install", "--no-deps", "--no-index", wheel, cwd=home)
    assert done.returncode == 0, done.stderr
    return home


def test_the_extra_bot_is_enough_for_a_decision(bare, small_run, tmp_path):
    """Nothing of the workbench is there: no pandas, no numba, no filelock."""
    keys = KeyFolder(tmp_path / "keys")
    store, revision = Store(tmp_path / "models", Trust((keys.create(),), keys.private)), small_run.stored.revision
    store.activate(store.write({name: revision.read(name) for name in revision.files()}, revision.manifest).name, "a test")
    bars = small_run.inputs.bars.iloc[-2_000:]
    columns = {name: bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}
    (tmp_path / "bars.npz").write_bytes(npz_bytes(columns | {"time": epoch_seconds(bars.index)}))
    code = f"""
import importlib.util
from datetime import UTC, datetime
import numpy as np
from trademl.bot import Calendar, DecisionLog, Expect, load_approved
here = [name for name in ("pandas", "numba", "filelock", "sklearn", "typer") if importlib.util.find_spec(name)]
bars = dict(np.load({str(tmp_path / "bars.npz")!r}))
last = int(bars["time"][-1])
predictor = load_approved({str(store.models_dir)!r}, [{str(keys.signer())!r}], profile=3, expect=Expect("SYNTH"), risk_enabled=False)
calendar = Calendar(bars["time"][::90], (), last + 10**6)
decision = predictor.predict(bars, calendar, now=datetime.fromtimestamp(last + 901, UTC))
print(here, decision.probabilities is not None, DecisionLog("log.jsonl").decision(decision, bars))
"""
    done = run(bare / "venv/bin/python", "-I", "-c", code, cwd=tmp_path)
    assert done.stdout.strip() == "[] True 0", done.stderr
    forged = next((store.models_dir / "revisions").iterdir()) / "signal.onnx"
    forged.chmod(0o644)
    forged.write_bytes(forged.read_bytes()[:-1] + b"\x00")
    done = run(bare / "venv/bin/python", "-I", "-c", code, cwd=tmp_path)
    assert "signal.onnx is not what the manifest says" in done.stderr
