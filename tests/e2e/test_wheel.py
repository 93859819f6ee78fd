"""The wheel: job notebooks are inside, and `trademl retrain` works where there is no clone."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import small_run
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
def bare(repo, wheel, tmp_path_factory) -> Path:
    """A new environment after `pip install 'trademl[bot]'`; without an index, the wheel and links to what the extra requires."""
    home = tmp_path_factory.mktemp("bare")
    assert run(sys.executable, "-m", "venv", "--without-pip", home / "venv", cwd=home).returncode == 0
    pip = [sys.executable, "-m", "pip", "--python", home / "venv/bin/python", "install", "--quiet", "--disable-pip-version-check"]
    done = run(*pip, "--retries", 0, "--constraint", repo / "constraints.txt", f"trademl[bot] @ {wheel.as_uri()}", cwd=home)
    if done.returncode:
        assert "No matching distribution" in done.stderr or "connection" in done.stderr.lower(), done.stderr
        (home / "linked").touch()
        (site,) = (home / "venv").glob("lib/python*/site-packages")
        source = Path(sysconfig.get_path("purelib"))
        for name in needed("trademl", "bot"):
            for top in {Path(str(file)).parts[0] for file in metadata.files(name)} - {"..", "__pycache__"}:
                if not (site / top).exists():
                    (site / top).symlink_to(source / top)
        done = run(*pip, "--no-deps", "--no-index", wheel, cwd=home)
    assert done.returncode == 0, done.stderr
    return home


def test_the_extra_bot_installs_what_its_three_packages_need_and_nothing_else(bare):
    if (bare / "linked").exists():
        pytest.skip("no index could be reached: nothing was installed, only linked")
    code = "from importlib.metadata import distributions as d; print(*sorted({one.metadata['Name'].lower() for one in d()}))"
    installed = set(run(bare / "venv/bin/python", "-I", "-c", code, cwd=bare).stdout.split())
    assert {"trademl", "numpy", "onnxruntime", "cryptography"} <= installed
    assert installed == {name.lower() for name in needed("trademl", "bot")} | {"trademl"}
    assert not installed & {"pandas", "scikit-learn", "numba", "boto3", "typer", "filelock", "joblib", "cloudpickle", "dill"}


def test_the_wheel_holds_no_pickle_by_any_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.endswith((".pkl", ".pickle", ".joblib", ".dill", ".p"))] == []


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


# ---------------------------------------------------------------- the README's section on the bot, run as it stands

WALK = """
import time
import numpy as np
rng, last = np.random.default_rng(1), int(time.time()) // 900 * 900 - 900
close = 60_000 * np.exp(np.cumsum(rng.standard_t(4, 2_000) * 0.0012))
start = np.append(60_000.0, close[:-1])
bars = {"time": last - 900 * np.arange(1_999, -1, -1), "open": start, "close": close, "volume": rng.lognormal(4, 1, 2_000)}
bars |= {"high": np.maximum(start, close) * 1.0005, "low": np.minimum(start, close) * 0.9995}
news_times, known_until, account_state, open_position = bars["time"][::90], last + 10**6, None, None
"""


def test_the_readme_section_of_the_bot_runs_as_it_stands(repo, bare, elsewhere, tmp_path):
    """Keys, a retrain, an activation, a decision where only the bot's extra is; then a revision that was tampered with is refused."""
    section = (repo / "README.md").read_text("utf-8").split("## The bot\n")[1].split("\n## ")[0]
    train, decide, spoil = re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)
    own = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "PATH": f"{elsewhere / 'venv/bin'}:{os.environ['PATH']}"}
    environment = {name: text for name, text in os.environ.items() if not name.startswith("TRADEML_")} | small_run.environment() | own

    def shell(line: str) -> subprocess.CompletedProcess:
        return subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    def decision() -> subprocess.CompletedProcess:
        code = WALK + decide.replace("ed25519:…", key)
        return run(bare / "venv/bin/python", "-I", "-c", code, cwd=tmp_path)

    told, revision, key = {}, "", ""
    for line in train.splitlines():
        command = line.split("#")[0].replace("1a2b…", revision).strip()
        if "pip install" in command:  # `bare` is what it makes
            continue
        done = shell(command)
        told[command] = done.stdout + done.stderr
        assert done.returncode in ((0, 3) if "retrain" in command else (0,)), told
        if "retrain" in command:
            (revision,) = (path.name for path in (tmp_path / "models/synthetic/revisions").iterdir())
        if "keys show" in command:
            key = re.search("ed25519:[0-9a-f]{64}", done.stdout)[0]
    assert revision and key
    made = decision()
    assert made.returncode == 0, made.stderr
    assert made.stdout.split()[0] in ("-1", "0", "1")
    spoilt = [shell(line.split("#")[0].replace("1a2b…", revision)) for line in spoil.splitlines()]
    assert [done.returncode for done in spoilt] == [0, 1]
    assert "signal.onnx" in spoilt[1].stdout
    refused = decision()
    assert refused.returncode == 1
    assert "LoadError" in refused.stderr and "(check: hashes)" in refused.stderr
