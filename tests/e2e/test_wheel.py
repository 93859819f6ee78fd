"""The wheel: job notebooks are inside, and `trademl retrain` works where there is no clone."""

import importlib.util
import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from house import own_files

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


def test_the_wheel_holds_the_jobs_the_page_and_every_module(repo, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        path.relative_to(repo).as_posix() for path in own_files(repo) if path.is_relative_to(repo / "trademl") and path.suffix == ".py"
    }
    jobs = {f"trademl/jobs/{path.name}" for path in (repo / "nbs" / "jobs").glob("*.ipynb")}
    assert jobs
    index = {"trademl/_modidx.py"}  # nbdev's own, for `nbdev-update` in a clone
    assert index < modules
    assert (modules - index | jobs | {"trademl/report/page.html", "trademl/settings.ini"}) - names == set()
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
