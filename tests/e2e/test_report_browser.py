"""The report in a real browser: every figure drawn, nothing complained of, nothing fetched."""

import os
import shutil

import pytest

from trademl.report import write_report
from trademl.runs import RunFolder, run_job

pytestmark = pytest.mark.e2e

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]  # a container gives Chromium neither a sandbox nor much /dev/shm
FIGURES = 10


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        message = "no Chromium on this machine: sudo apt-get install chromium"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report_html(tmp_path_factory, notebooks):
    with RunFolder.create(tmp_path_factory.mktemp("reports"), "pictures") as run:
        result = run_job(notebooks / "pictures.ipynb", {"bars": 12_000}, run=run)
        headline = "Revision 1a2b3c, 2024-01-01 to 2024-12-31: gate refused, expectancy is not above zero"
        write_report(run.path / "report.html", result.notebook, headline=headline, status="refused", facts={"seed": 7})
    return run.path / "report.html"


@pytest.mark.parametrize(("width", "height"), [(1360, 900), (390, 844)])
def test_every_figure_is_drawn_and_nothing_is_fetched(browser, report_html, width, height):
    page = browser.new_page(viewport={"width": width, "height": height})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report_html.as_uri())
    drawn = "[...document.querySelectorAll('.js-plotly-plot')].filter(box => box.querySelector('.main-svg')).length"
    page.wait_for_function(f"{drawn} === {FIGURES}", timeout=20_000)
    assert asked == [report_html.as_uri()]
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    widths = page.evaluate("[...document.querySelectorAll('.main-svg')].map(svg => svg.getBoundingClientRect().width)")
    assert max(widths) <= width
    page.close()


def test_code_is_hidden_until_it_is_asked_for(browser, report_html):
    page = browser.new_page()
    page.goto(report_html.as_uri())
    assert page.locator("details.code > pre:visible").count() == 0
    page.get_by_role("button", name="show all code").click()
    assert page.locator("details.code > pre:visible").count() == page.locator("details.code").count() > FIGURES
    page.close()


def test_the_page_is_of_reasonable_size(report_html):
    assert 4.5e6 < report_html.stat().st_size < 7e6
