"""The report in a real browser: every figure drawn, nothing complained of, nothing fetched, nothing clipped, at a desk and on a phone."""

import json
import re
from importlib import resources

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from browser_page import CLIPPED, DESK, DRAWN, PHONE, TABLET, chromium, opened, wait_until

from trademl.data.synthetic import synthetic_market
from trademl.evidence.page import Judging, make_evidence
from trademl.explore.view import PLOTLY_JS, figure_json
from trademl.market.backtest import Decisions
from trademl.market.specs import CostSpec
from trademl.pipeline.market.pages import Pages
from trademl.report import Banner, write_report
from trademl.report.figures import INK, PAGE_COLOURS, finish
from trademl.report.page import PLOTLY
from trademl.runs import RunFolder, run_job

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def browser():
    with chromium() as program:
        yield program


@pytest.fixture(scope="module")
def pictures_html(tmp_path_factory, notebooks):
    """Every picture that a report may hold, from a notebook run."""
    with RunFolder.create(tmp_path_factory.mktemp("reports"), "pictures") as run:
        result = run_job(notebooks / "pictures.ipynb", {"bars": 12_000}, run=run)
        headline = "Revision 1a2b3c, 2024-01-01 to 2024-12-31: gate refused, expectancy is not above zero"
        write_report(run.path / "report.html", result.notebook, headline=headline, status="refused", facts={"seed": 7})
    return run.path / "report.html"


@pytest.fixture(scope="module")
def evidence():
    """Blind trades, for which the gate finds several reasons."""
    bars = synthetic_market(9_000, edge=0.0).bars
    side = np.random.default_rng(3).choice([-1, 0, 1], len(bars), p=[0.05, 0.9, 0.05]).astype(np.int8)
    judging = Judging(seed=7, lookback=96, null_curves=60, bootstrap_draws=200)
    return make_evidence(bars, Decisions(side), costs=CostSpec(spread=16.95), judging=judging)


@pytest.fixture(scope="module")
def backtest_html(tmp_path_factory, evidence):
    """The page of a backtest: the first screen, the anatomy, the list of trades."""
    path = tmp_path_factory.mktemp("backtest") / "report.html"
    banners = [Banner("synthetic", "Made by the generator: it shows that the workbench works, and nothing else.", "warn"), Banner("look 1")]
    head = {"headline": evidence.sentence, "subtitle": "backtest of revision 1a2b3c4d5e6f7a8b, market-synth-15min", "banners": banners}
    page = Pages(stored=None, evidence=evidence).backtest()
    return write_report(path, page, status="refused", facts={"run": "20260101-120000-backtest-1a2b3c"}, **head)


@pytest.fixture(params=[pytest.param("pictures", marks=pytest.mark.slow), "backtest"])
def report_html(request):
    return request.getfixturevalue(f"{request.param}_html")


@pytest.mark.parametrize("size", [pytest.param(DESK, marks=pytest.mark.slow), pytest.param(TABLET, marks=pytest.mark.slow), PHONE])
def test_every_figure_is_drawn_nothing_is_fetched_and_nothing_clipped(browser, report_html, size):
    page, said, asked = opened(browser, report_html, size)
    assert asked == [report_html.as_uri()]
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate(CLIPPED) == []
    page.close()


@pytest.mark.parametrize("size", [pytest.param(DESK, marks=pytest.mark.slow), PHONE])
def test_the_first_screen_says_what_may_be_claimed(browser, backtest_html, evidence, size):
    page, _, _ = opened(browser, backtest_html, size)
    assert page.locator("h1.headline").inner_text() == evidence.verdict.sentence
    read = ["h1.headline", ".marks", ".cards"] + ([".first table", ".first .plot"] if size == DESK else [])
    below = {part: page.locator(part).first.bounding_box() for part in read}
    assert {part: box["y"] + box["height"] for part, box in below.items() if box["y"] + box["height"] > size[1]} == {}
    assert page.locator(".card").count() == 6
    values = page.locator(".first table td").all_inner_texts()
    assert values[:4] == [f"{evidence.strategy.trades:,}"] * 4  # a value in every column: decisions, random, all long, all short
    assert page.locator(".first table td").last.is_visible()
    page.close()


@pytest.mark.slow
def test_a_phone_unfolds_the_contents_only_when_asked(browser, backtest_html):
    for size, is_open in ((DESK, True), (PHONE, False)):
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.goto(backtest_html.as_uri())
        assert page.evaluate("document.getElementById('contents').open") == is_open
        page.close()


def luminance(colour: str) -> float:
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 765


def test_figures_and_page_are_light_or_dark_together(browser, backtest_html):
    page, _, _ = opened(browser, backtest_html, DESK, "dark")
    style = "getComputedStyle(document.querySelector('{}')).{}"
    for scheme, is_dark in (("dark", True), ("light", False)):
        page.emulate_media(color_scheme=scheme)  # drawn again without another load
        wanted = PAGE_COLOURS[scheme][INK]
        rgb = f"rgb({', '.join(str(int(wanted[k : k + 2], 16)) for k in (1, 3, 5))})"
        inks = "[...document.querySelectorAll('.legendtext')].map(text => getComputedStyle(text).fill)"
        wait_until(page, f"({inks}).length && ({inks}).every(ink => ink === '{rgb}')")
        assert (luminance(page.evaluate(style.format("body", "backgroundColor"))) < 0.2) == is_dark
        assert (luminance(page.evaluate(style.format("h1.headline", "color"))) > 0.8) == is_dark
        assert page.evaluate(style.format(".main-svg", "backgroundColor")) in ("rgba(0, 0, 0, 0)", "transparent")
    page.close()


def test_the_trades_are_downloaded_from_the_page_itself(browser, backtest_html, evidence, tmp_path):
    page, _, asked = opened(browser, backtest_html, DESK)
    with page.expect_download() as download:
        page.locator("a.download").click()
    download.value.save_as(tmp_path / "trades.csv")
    taken = pd.read_csv(tmp_path / "trades.csv")
    assert download.value.suggested_filename.startswith("trades_2024-01-01")
    np.testing.assert_allclose(taken["net R"], evidence.trades["net_r"], rtol=1e-6)
    assert [url for url in asked if not url.startswith("data:")] == [backtest_html.as_uri()]
    page.close()


@pytest.mark.slow
def test_a_title_and_a_legend_never_meet_where_a_notebook_shows_them(browser, pictures_html, tmp_path):
    """JupyterLab draws a figure with its title inside: here the same figures at three widths, drawn by the same plotly."""
    plotly = re.search(r'<script type="text/plain" id="plotly">(.*?)</script>', pictures_html.read_text("utf-8"), re.DOTALL)[1]
    cells = json.loads((pictures_html.parent / "pictures.ipynb").read_text("utf-8"))["cells"]
    shown = [out["data"][PLOTLY] for cell in cells for out in cell.get("outputs", []) if PLOTLY in out.get("data", {})]
    figures = [{key: figure[key] for key in ("data", "layout")} for figure in shown]
    boxes = "".join(f'<div class="output" id="b{k}"></div>' for k in range(len(figures)))
    packed = json.dumps(figures).replace("<", "\\u003c")
    draw = "figures.forEach((f, k) => Plotly.newPlot('b' + k, f.data, f.layout))"
    (tmp_path / "lab.html").write_text(f"<body>{boxes}<script>{plotly}</script><script>const figures = {packed}; {draw}</script>")
    apart = """() => [...document.querySelectorAll('.output')].flatMap(box => {
      const of = name => [...box.querySelectorAll(name)].map(e => e.getBoundingClientRect()).filter(r => r.height);
      const low = Math.max(...of('.gtitle, .gtitle-subtitle').map(r => r.bottom));
      return of('.legendtext').map(r => r.top - low);
    })"""
    for width in (640, 1000):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto((tmp_path / "lab.html").as_uri())
        wait_until(page, f"{DRAWN} === {len(figures)}")
        room = page.evaluate(apart)
        assert len(room) > 9 and min(room) >= 0
        page.close()


@pytest.mark.parametrize("width", [480, pytest.param(300, marks=pytest.mark.slow), pytest.param(900, marks=pytest.mark.slow)])
def test_an_explorers_legend_of_several_lines_leaves_the_title_free(browser, tmp_path, width):
    lines = [go.Scatter(y=[1, 2], name=name) for name in ("volume_surge", "volume_ratio", "volume_trend", "momentum_10", "bb_upper")]
    figure = finish(go.Figure(lines), "From fold to fold", "two folds", height=430)
    view = resources.files("trademl.explore").joinpath("view.js").read_text("utf-8").replace("export default", "window.view =")
    model = {"figure": figure_json(figure), "colours": PAGE_COLOURS, "serial": 1}
    asks = f"{{get: name => ({json.dumps(model)})[name], on: () => 0, send: () => 0}}".replace("<", "\\u003c")
    draw = f"view.render({{model: {asks}, el: document.getElementById('box')}})"
    scripts = f"<script>{PLOTLY_JS.read_text('utf-8')}</script><script>{view}; {draw}</script>"
    (tmp_path / "view.html").write_text(f"<meta charset=utf-8><body><div id=box style='width:{width}px'></div>{scripts}", encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "view.html").as_uri())
    wait_until(page, "document.querySelector('.trademl-figure').dataset.drawn === '1'")
    low, *tops = page.evaluate("""() => {
      const of = name => [...document.querySelectorAll(name)].map(e => e.getBoundingClientRect());
      return [Math.max(...of('.gtitle, .gtitle-subtitle').map(r => r.bottom)), ...of('.legendtext').map(r => r.top)];
    }""")
    assert len(tops) == 5
    assert low < min(tops)
    page.close()


def test_code_is_hidden_until_it_is_asked_for(browser, pictures_html):
    page = browser.new_page()
    page.goto(pictures_html.as_uri())
    assert page.locator("details.code > pre:visible").count() == 0
    assert page.get_by_text("code", exact=True).locator("visible=true").count() == 0  # one switch, not one a cell
    page.get_by_role("button", name="show all code").click()
    assert page.locator("details.code > pre:visible").count() == page.locator("details.code").count() > 9
    page.close()


def test_the_page_is_light_and_quick(browser, report_html):
    assert 4.5e6 < report_html.stat().st_size < 6e6
    page = browser.new_page(viewport={"width": DESK[0], "height": DESK[1]})
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # a busy machine does not count
    page.goto(report_html.as_uri())  # until its load event: all text is there, and the first figure is about to be drawn
    measured = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    assert measured["TaskDuration"] < 2
    wait_until(page, f"{DRAWN} > 0")
    page.close()
