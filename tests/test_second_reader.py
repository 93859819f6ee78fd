"""A second reader, in JavaScript on Node, by docs/contract alone: what it accepts, refuses and decides is what Python does.

Node checks hashes, signature and rules in the quick tests; the graphs need onnxruntime-web, which the slow ones install from the lock file.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from live import ready

from trademl.files import strict_json
from trademl.ship.signing import KeyFolder
from trademl.ship.store import Store

pytestmark = pytest.mark.contract


def tool(name: str) -> str:
    """The path of node or npm. On a machine that must have it the test fails; elsewhere it is skipped with the line that installs it."""
    if found := shutil.which(name):
        return found
    line = f"{name} is not installed; `apt install nodejs npm` (or nodejs.org) brings it"
    if os.environ.get("CI") == "true":
        pytest.fail(line)
    pytest.skip(line)


def read(reader: Path, *arguments) -> subprocess.CompletedProcess:
    command = [tool("node"), "reader.mjs", *map(str, arguments)]
    return subprocess.run(command, cwd=reader, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="session")
def installed(repo, tmp_path_factory) -> Path:
    """The reader beside the packages of its lock file, installed without running any script of theirs."""
    folder = tmp_path_factory.mktemp("node") / "reader"
    shutil.copytree(repo / "tests" / "node", folder)
    command = [tool("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", folder.parent / "cache"]
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def golden(repo, tmp_path):
    """A copy of the golden files that may be spoilt."""
    return Path(shutil.copytree(repo / "docs" / "contract" / "golden", tmp_path / "golden"))


def test_the_lock_file_pins_contents_and_no_host(repo):
    lock = json.loads((repo / "tests" / "node" / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert "node_modules/onnxruntime-web" in packages
    for package in packages.values():
        assert package["integrity"].startswith("sha512-")
        assert not package.keys() & {"resolved", "link"}


def test_it_reads_a_revision_and_decides_by_its_rules(repo, golden):
    done = read(repo / "tests" / "node", golden / "models", golden / "keys.json", "--decisions", golden / "decisions.json", "--no-graphs")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["revision"] == strict_json((golden / "models" / "model_compat.json").read_bytes())["revision"]
    assert told["decisions"]["cases"] == 24
    assert set(told["decisions"]["sides"]) == {"-1", "0", "1"}
    assert told["decisions"]["worst"] < 1e-12


def of_revision(golden: Path) -> Path:
    return next((golden / "models" / "revisions").iterdir())


def change(path: Path, old: bytes, new: bytes) -> None:
    path.chmod(0o644)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def forge(golden: Path) -> None:
    """Another decision rule under the old signature, every hash made anew, the pointer moved to it: all but the key."""
    honest = Store(golden / "models").locate()
    section = honest.manifest["market"]
    other = honest.manifest | {"market": section | {"decision": section["decision"] | {"exit_probability": 0.1}}}
    forged = Store(golden / "workshop").write({name: honest.read(name) for name in honest.files()}, other)
    for name in ("manifest.json", "model_compat.json"):
        (honest.folder / name).chmod(0o644)
        (honest.folder / name).write_bytes((forged.folder / name).read_bytes())
    (golden / "models" / "model_compat.json").write_bytes((forged.folder / "model_compat.json").read_bytes())
    honest.folder.rename(honest.folder.with_name(forged.name))


SPOILT = {
    "a changed graph": (lambda g: change(of_revision(g) / "signal.onnx", b"trademl", b"Trademl"), "is not what the manifest says"),
    "an edited manifest": (lambda g: change(of_revision(g) / "manifest.json", b'"seed":7', b'"seed":8'), "not the one that the pointer"),
    "another key is pinned": (lambda g: (g / "keys.json").write_text(json.dumps({"pinned": [f"ed25519:{1:064x}"]})), "not pinned here"),
    "a file too many": (lambda g: (of_revision(g) / "model.pkl").write_bytes(b"x"), "the folder holds"),
    "a file less": (lambda g: (of_revision(g) / "position.onnx").unlink(), "the folder holds"),
    "forged and rehashed without the key": (forge, "forged or altered"),
}


@pytest.mark.fault
@pytest.mark.parametrize("what", SPOILT)
def test_it_refuses_what_python_refuses(repo, golden, what):
    spoil, said = SPOILT[what]
    of_revision(golden).chmod(0o755)
    spoil(golden)
    done = read(repo / "tests" / "node", golden / "models", golden / "keys.json", "--no-graphs")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("refused: ")
    assert said in done.stderr


@pytest.mark.slow
def test_it_runs_the_graphs_and_reproduces_the_golden_decisions(installed, golden):
    done = read(installed, golden / "models", golden / "keys.json", "--decisions", golden / "decisions.json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    print(done.stdout)
    assert told["golden"].keys() == {"signal probabilities", "signal model_probabilities", "position probabilities", "risk_p3 value"}
    assert max(told["golden"].values()) < 1e-6
    assert (told["decisions"]["cases"], told["decisions"]["sides"]) == (24, {"-1": 2, "0": 4, "1": 18})
    assert told["decisions"]["worst"] < 1e-6


@pytest.mark.slow
def test_it_replays_the_golden_rows_of_a_trained_revision(installed, small_run, tmp_path):
    """The three libraries' trees, through WebAssembly."""
    keys = KeyFolder(tmp_path / "keys")
    keys.create()
    store = Store(tmp_path / "models", keys.trust())
    store.activate(store.write(*ready(small_run.stored.revision)).name, "a test")
    (tmp_path / "keys.json").write_text(json.dumps({"pinned": [str(keys.signer())]}))
    done = read(installed, store.models_dir, tmp_path / "keys.json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {"signal probabilities", "position probabilities", "risk_p3 value"} <= told["golden"].keys()
    assert max(told["golden"].values()) < 1e-5
