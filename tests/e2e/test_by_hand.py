"""A job notebook run by hand, as JupyterLab does it: a kernel of its own, in the notebook's folder, without parameters."""

import json
import os
import shutil
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock, Timeout
from nbclient import NotebookClient
from small_run import SMALL

from trademl.runs import find_job
from trademl.ship.store import Store

pytestmark = pytest.mark.e2e


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A copy of what a clone has: settings in its root, notebooks two folders below."""
    sections: dict[str, list[str]] = {}
    for name, value in SMALL.items():
        section, key = name.split(".")
        sections.setdefault(section, []).append(f"{key} = {value}")
    text = "\n".join(line for section, lines in sections.items() for line in (f"[{section}]", *lines))
    (tmp_path / "settings.ini").write_text(text)
    (tmp_path / "nbs" / "jobs").mkdir(parents=True)
    shutil.copy(find_job("retrain"), tmp_path / "nbs" / "jobs")
    for name in [name for name in os.environ if name.startswith("TRADEML_")]:
        monkeypatch.delenv(name)
    return tmp_path


def kernel_of(project: Path) -> NotebookClient:
    """The notebook and a client that runs its cells."""
    notebook = nbformat.read(project / "nbs" / "jobs" / "retrain.ipynb", 4)
    return NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(project / "nbs" / "jobs")}})


def shown(client: NotebookClient) -> str:
    """Everything that cells printed."""
    outputs = [out for cell in client.nb.cells for out in cell.get("outputs", [])]
    return "".join(out["text"] for out in outputs if out["output_type"] == "stream")


def is_locked(store: Path) -> bool:
    try:
        with FileLock(store / ".lock", timeout=0):
            return False
    except Timeout:
        return True


def test_the_first_cells_open_a_run_in_the_project_and_the_kernel_ends_it(project):
    client, store = kernel_of(project), project / "models" / "synthetic"
    with client.setup_kernel():
        for number, cell in enumerate(client.nb.cells[:5]):  # up to the inputs
            client.execute_cell(cell, number)
        (partial,) = (project / "reports").iterdir()
        assert json.loads((partial / "run.json").read_text())["status"] == "running"
        assert "\rdata: " in shown(client)
        assert is_locked(store)
    (folder,) = (project / "reports").iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert not is_locked(store)
    assert not (project / "nbs" / "jobs" / "models").exists()


@pytest.mark.slow
def test_a_whole_retrain_by_hand_stores_as_the_command_does(project):
    client, store = kernel_of(project), project / "models" / "synthetic"
    client.execute()
    (revision,) = Store(store).revisions()
    (folder,) = (project / "reports").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["exit"], record["revision"]) == ("done", 0, revision.name)
    assert record["data"]["sha256"] == revision.manifest["data"]["sha256"]
    assert list(record["stages"])[-1] == "store"
    assert f"`trademl models activate {revision.name}` moves it" in shown(client)
    assert Store(store).pointer() is None
    assert not is_locked(store)
