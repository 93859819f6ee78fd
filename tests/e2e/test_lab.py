"""The lab in a real browser: it opens on the start page, an explorer draws by itself, and a moved slider exchanges the figure."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from browser_page import chromium
from lab_page import MOVE, until_it_listens
from nbclient import NotebookClient

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WAIT = 120_000  # ms: a machine may be busy


def save_as_run(source: Path, target: Path) -> None:
    """A notebook as JupyterLab saves it after a run: with counts, and views of widgets that ended with their kernel."""
    notebook = nbformat.read(source, as_version=4)
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        view = {"application/vnd.jupyter.widget-view+json": {"version_major": 2, "version_minor": 0, "model_id": "0" * 32}}
        cell.execution_count, cell.outputs = 1, [nbformat.v4.new_output("execute_result", view, execution_count=1)]
    target.parent.mkdir(parents=True)
    nbformat.write(notebook, target)


@pytest.fixture(scope="module")
def lab(tmp_path_factory, repo):
    """Address of a lab in a folder of its own, on a small embedded market; its backtest explorer was saved under an earlier server."""
    home = tmp_path_factory.mktemp("lab")
    save_as_run(repo / "nbs" / "explore" / "backtest.ipynb", home / "nbs" / "explore" / "backtest.ipynb")
    program = str(Path(sys.executable).parent / "trademl")
    command = [program, "lab", "--port", "0", "--no-browser", "--allow-root", "--", "--ServerApp.shutdown_no_activity_timeout=600"]
    env = os.environ | {"TRADEML_SYNTHETIC_BARS": "4000", "JUPYTER_CONFIG_DIR": str(home / "jupyter")}
    server = subprocess.Popen(command, cwd=home, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        for line in server.stderr:
            if found := re.search(r"http://(localhost|127\.0\.0\.1):\d+/lab\S*token=\S+", line):
                yield until_it_listens(found.group(0))
                break
        else:
            pytest.fail("the lab ended before it said where it is")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


@pytest.fixture(scope="module")
def page(lab):
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 1440, "height": 1200})
        tab.asked = []
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.goto(lab)
        yield tab


@pytest.mark.parametrize("name", ["00_start", "labels", "shap", "risk", "backtest", "trades"])
def test_an_explorer_runs_in_a_kernel_without_any_data(name, repo, tmp_path, monkeypatch):
    """Nothing is there but the embedded market: widgets or the offer to train, and no traceback."""
    monkeypatch.setenv("TRADEML_SYNTHETIC_BARS", "2000")
    notebook = nbformat.read(repo / "nbs" / "explore" / f"{name}.ipynb", as_version=4)
    done = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in done.cells for output in cell.get("outputs", ())]
    assert not [output for output in shown if output.output_type == "error"]
    kind = "text/html" if name == "00_start" else "application/vnd.jupyter.widget-view+json"
    assert any(kind in output.get("data", {}) for output in shown)
    offers = dict.fromkeys(("shap", "risk", "backtest"), "Train on the embedded market") | {"trades": "Open generated records"}
    if name in offers:
        state = done.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
        assert [part for part in state if part["state"].get("description") == offers[name]]


def test_the_lab_opens_on_the_start_page_and_runs_it(page):
    page.wait_for_selector(".trademl-start", timeout=WAIT)
    assert "embedded market" in page.locator(".trademl-start").inner_text()


def test_the_start_page_gets_the_label_explorer_ready(page):
    """Its kernel runs before its notebook is opened, and plotly.js came from the server."""
    page.wait_for_function("window.Plotly !== undefined", timeout=WAIT)
    assert [url for url in page.asked if url.endswith("/static/plotly.min.js")]
    sessions = page.evaluate("async () => (await fetch('/api/sessions')).json()")
    assert "nbs/explore/labels.ipynb" in [session["path"] for session in sessions]


def test_a_moved_slider_exchanges_the_figure(page):
    page.click("a[href*='labels.ipynb']")
    page.wait_for_selector(".trademl-figure .main-svg", timeout=WAIT)
    page.wait_for_function("document.querySelectorAll('.trademl-figure .main-svg').length >= 4", timeout=WAIT)
    before = page.locator(".trademl-figure").first.inner_text()
    is_new, milliseconds = page.evaluate(MOVE)
    assert is_new, f"no new figure after {milliseconds:.0f} ms"
    assert page.locator(".trademl-figure").first.inner_text() != before


def test_an_explorer_that_was_saved_with_its_outputs_runs_in_the_new_kernel(page):
    page.get_by_role("tab", name="00_start.ipynb").click()
    page.click("a[href*='backtest.ipynb']")
    page.get_by_role("button", name="Train on the embedded market").wait_for(timeout=WAIT)


def test_nothing_is_fetched_from_elsewhere(page):
    far = [url for url in page.asked if not re.match(r"((http|ws)s?://(localhost|127\.0\.0\.1)[:/])|blob:|data:", url)]
    assert far == []
