"""Reports: figures from plain arrays, and a page that needs nothing but itself."""

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl import report
from trademl.evidence.figures import MAX_POINTS, thin
from trademl.report.figures import times
from trademl.report.page import PLOTLY, clean_html, lighter

ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"
EVIL = "<script>alert(1)</script>"


def page(tmp_path: Path, *cells: dict, **more) -> str:
    path = tmp_path / "executed.ipynb"
    path.write_text(json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return report.render(path, **{"headline": "Revision 1a2b3c: gate passed"} | more)


def markdown(source: str) -> dict:
    return {"cell_type": "markdown", "source": source, "metadata": {}}


def code(*outputs: dict, source: str = "1 + 1") -> dict:
    return {"cell_type": "code", "source": source, "metadata": {}, "outputs": list(outputs)}


def shown(**data) -> dict:
    return {"output_type": "display_data", "data": {key.replace("__", "/"): value for key, value in data.items()}, "metadata": {}}


def plot(figure) -> dict:
    return {"output_type": "display_data", "data": {PLOTLY: json.loads(figure.to_json()), "text/html": "<b>not this</b>"}, "metadata": {}}


def body(text: str) -> str:
    return text[text.index("<body>") :]


# --- the page -------------------------------------------------------------------------------------------------------------


def test_the_first_visible_line_is_the_headline(tmp_path):
    text = body(
        page(tmp_path, markdown("# Retrain"), facts={"seed": 7, "bars": 35_040, "share": 0.123456, "news": None}, subtitle="BTCUSD")
    )
    visible = [line for line in re.sub(r"<[^>]*>", "\n", text).splitlines() if line.strip()]
    assert visible[:3] == ["Revision 1a2b3c: gate passed", "BTCUSD", "done"]
    assert "<dd>35,040</dd>" in text
    assert "<dd>0.1235</dd>" in text


def test_plotly_is_embedded_once_and_only_when_there_is_a_figure(tmp_path):
    figure = report.confusion([[3, 1], [2, 4]], ["SELL", "BUY"])
    without = page(tmp_path, markdown("text"))
    once = page(tmp_path, code(plot(figure)), code(plot(figure)), code(plot(figure)))
    assert len(without) < 20_000
    assert once.count("plotly.js v") == 1
    assert once.count('<div class="plot"') == 3
    assert "not this" not in once


def test_nothing_is_fetched(tmp_path):
    figure = report.confusion([[3, 1], [2, 4]], ["SELL", "BUY"])
    figure.add_layout_image(source="https://example.org/x.png")
    text = page(tmp_path, markdown("![x](https://example.org/a.png) and ![y](b.png)"), code(plot(figure)))
    page_text = text.replace(re.search(r"<script>.*?plotly.js v.*?</script>", text, re.DOTALL)[0], "")
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page_text)
    assert "https://example.org/x.png" not in page_text
    assert "default-src 'none'" in page_text


def test_sentences_wrap_and_are_shown_without_quotes(tmp_path):
    result = {"output_type": "execute_result", "metadata": {}, "execution_count": 1, "data": {"text/plain": repr("it's cold: <no parent>")}}
    table = {
        "output_type": "display_data",
        "metadata": {},
        "data": {"text/html": f"<table><tr><td>1.5</td><td>{'why ' * 20}</td></tr></table>"},
    }
    text = body(page(tmp_path, code(result, table)))
    assert '<pre class="out">it&#x27;s cold: &lt;no parent&gt;</pre>' in text
    assert "<td>1.5</td>" in text and '<td class="words">why' in text


def test_what_a_cell_printed_is_escaped(tmp_path):
    text = body(
        page(
            tmp_path,
            markdown(f"a {EVIL} b"),
            code({"output_type": "stream", "name": "stdout", "text": [EVIL]}, source=EVIL),
            code({"output_type": "error", "ename": "ValueError", "evalue": EVIL, "traceback": ["\x1b[31m" + EVIL]}),
            code(shown(text__plain=EVIL)),
            code(shown(text__html=f"<table><tr><td onclick='x()'>1{EVIL}</td></tr></table>")),
            code(shown(text__markdown=EVIL)),
            headline=EVIL,
            facts={EVIL: EVIL},
            subtitle=EVIL,
        )
    )
    assert EVIL not in text
    assert text.count(ESCAPED) >= 9
    assert "onclick" not in text


def test_a_figure_cannot_close_its_script_tag(tmp_path):
    figure = report.confusion([[1]], ["</script><script>alert(1)</script>"])
    text = page(tmp_path, code(plot(figure)))
    packed = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert json.loads(packed[0])["data"][0]["x"] == ["</script><script>alert(1)</script>"]
    assert "<script>alert(1)" not in text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("<b>bold</b>", "<b>bold</b>"),
        ("<img src=x onerror=alert(1)>", ""),
        ("<style>td {color: red}</style><p style='x'>t</p>", "<p>t</p>"),
        ("<svg><script>alert(1)</script></svg>after", "after"),
        ("<td colspan='2' class=\"a\">1</td>", '<td colspan="2" class="a">1</td>'),
        ("<tr><td>1", "<tr><td>1</td></tr>"),
        ("</div></div>x", "x"),
        ("<a href='javascript:alert(1)'>a</a> &lt;b&gt;", "a &lt;b&gt;"),
        ("<table><td>word</td><td>-1.5</td><td>nan</td></table>", '<table><td class="text">word</td><td>-1.5</td><td>nan</td></table>'),
    ],
)
def test_html_outputs_keep_only_tables_and_text(dirty, clean):
    assert clean_html(dirty) == clean


def test_a_frame_becomes_a_table(tmp_path):
    frame = pd.DataFrame({"name": ["<b>", "model"], "trades": [1, 2]})
    text = page(tmp_path, code(shown(text__html=frame._repr_html_(), text__plain="no")))
    assert '<td class="text">&lt;b&gt;</td>' in text
    assert "<td>2</td>" in text


def test_a_failed_run_shows_its_traceback_and_the_code_that_failed(tmp_path):
    error = {
        "output_type": "error",
        "ename": "IndexError",
        "evalue": "list index out of range",
        "traceback": ["\x1b[0;31mIndexError\x1b[0m", "line 3"],
    }
    banner = markdown("<span id=x>An Exception was encountered</span>") | {"metadata": {"tags": ["papermill-error-cell-tag"]}}
    text = page(tmp_path, banner, code(error, source="[][1]"), status="failed")
    assert "IndexError\nline 3" in text
    assert '<details class="code" open>' in text
    assert "An Exception was encountered" not in text
    assert 'class="mark bad"' in text


def test_pictures_and_messages_have_their_place(tmp_path):
    png = base64.b64encode(b"\x89PNG").decode()
    text = page(
        tmp_path, code(shown(image__png=png)), code({"output_type": "stream", "name": "stderr", "text": "warned"}), watermark="in-sample"
    )
    assert f'src="data:image/png;base64,{png}"' in text
    assert "<summary>messages</summary>" in text
    assert ">in-sample</div>" in text


def test_a_report_with_no_cells_is_a_page_too(tmp_path):
    assert "gate passed" in page(tmp_path)


def test_write_report_leaves_no_half_page(tmp_path):
    (tmp_path / "report.html").write_text("old")
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(ValueError):
        report.write_report(tmp_path / "report.html", tmp_path / "broken.ipynb", headline="x")
    assert (tmp_path / "report.html").read_text() == "old"


# --- long series ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5, 3_999, 4_000, 4_001, 100_003])
def test_thinning_keeps_ends_and_extremes(n):
    values = np.random.default_rng(n).normal(size=n).cumsum()
    keep = thin(values)
    assert len(keep) <= MAX_POINTS
    assert (np.diff(keep) > 0).all()
    if n:
        assert {0, n - 1, int(values.argmin()), int(values.argmax())} <= set(keep.tolist())


def test_thinning_survives_gaps():
    values = np.full(50_000, np.nan)
    values[777] = 3.0
    assert 777 in thin(values)


def test_a_figure_made_elsewhere_is_thinned_with_all_its_arrays():
    go = pytest.importorskip("plotly.graph_objects")
    n = 60_000
    y = np.sin(np.arange(n) / 500)
    figure = go.Figure(
        go.Scattergl(x=np.arange(n), y=y, customdata=np.arange(n), text=[str(i) for i in range(n)], marker={"size": np.arange(n)})
    )
    trace = lighter(json.loads(figure.to_json()))["data"][0]
    assert trace["type"] == "scatter"
    rows = trace["x"]
    assert len(rows) <= MAX_POINTS
    assert trace["customdata"] == rows == trace["marker"]["size"]
    assert trace["text"] == [str(i) for i in rows]
    np.testing.assert_allclose(trace["y"], y[rows])


def test_a_short_figure_is_left_alone():
    figure = json.loads(report.cost_curve([0, 1, 2, 3], [0.1, 0.05, 0.0, -0.05], spread=16.95, trades=10).to_json())
    assert lighter(figure)["data"] == figure["data"]


# --- figures --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment",
    [
        "2024-03-01T12:00:00Z",
        "2024-03-01",
        datetime(2024, 3, 1, 12, tzinfo=UTC),
        np.datetime64("2024-03-01T12:00"),
        1_709_294_400,
        pd.Timestamp("2024-03-01 13:00", tz="Europe/Berlin"),
    ],
)
def test_times_of_every_kind_are_the_same_moment(moment):
    noon = np.datetime64("2024-03-01T12:00:00")
    expected = noon if moment != "2024-03-01" else np.datetime64("2024-03-01T00:00:00")
    assert times([moment])[0] == expected
    assert times(pd.DatetimeIndex([moment if not isinstance(moment, int) else moment * 10**9]))[0] == expected


def _drawn_y(trace) -> list:
    packed = trace["y"]
    return packed if isinstance(packed, list) else np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"]).tolist()


def text_of(figure) -> str:
    return figure.layout.title.text + " | " + figure.layout.title.subtitle.text


def test_the_label_figure_shows_the_driftless_share_beside_the_real_one():
    figure = report.label_distribution(
        {"SELL": 0.352, "BUY": 0.342, "HOLD": 0.306}, {"SELL": 0.348, "BUY": 0.348, "HOLD": 0.304}, 70_000, effective_n=11_700
    )
    real, driftless = figure.data[:2]
    np.testing.assert_allclose(real.y, [35.2, 34.2, 30.6])
    np.testing.assert_allclose(driftless.y, [34.8, 34.8, 30.4])
    assert "70,000 labelled bars, worth about 11,700" in text_of(figure)


def test_drawdown_is_measured_from_the_peak():
    figure = report.equity_and_drawdown([0, 900, 1800, 2700], [500, 600, 450, 660], trades=3)
    fall = figure.data[-1]
    np.testing.assert_allclose(fall.y, [0, 0, -25, 0])
    assert "3 trades, marked to market; deepest drawdown 25.0 %" in text_of(figure)


def test_a_year_of_equity_is_thin_enough():
    n = 35_000
    rng = np.random.default_rng(3)
    equity = 500 + rng.normal(size=n).cumsum()
    band = report.NullBand(equity - 5, equity + 5, median=equity * 0)
    figure = report.worth_and_drawdown(np.arange(n) * 900, equity, equity.max() - equity, band=band)
    assert all(len(trace.y) <= MAX_POINTS for trace in figure.data)
    assert equity.min() in figure.data[3].y


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12_000), scale=st.sampled_from([1e-4, 1e-3, 1e-2]))
@settings(max_examples=15, deadline=None)
def test_the_extremes_drawn_are_those_of_the_curve(seed, n, scale):
    equity = 500 * np.exp(np.random.default_rng(seed).normal(scale=scale, size=n).cumsum())
    deepest = 100 * (1 - equity / np.maximum.accumulate(equity)).max()
    drawn = lighter(json.loads(report.equity_and_drawdown(900 * np.arange(n), equity).to_json()))
    line, fall = (np.array(_drawn_y(trace), dtype=float) for trace in drawn["data"][-2:])
    assert (line.min(), line.max(), line[-1]) == (equity.min(), equity.max(), equity[-1])
    assert -fall.min() == pytest.approx(deepest, abs=1e-9)
    assert f"deepest drawdown {deepest:.1f} %" in drawn["layout"]["title"]["subtitle"]["text"]


def test_what_was_earned_is_drawn_in_r():
    figure = report.worth_and_drawdown([0, 900, 1800], [0, -2.5, 1], [0, 2.5, 0], trades=3)
    assert min(figure.data[-1].y) == -2.5
    assert "3 trades, the same risk on each; deepest drawdown 2.5 R" in text_of(figure)


def test_a_thinned_curve_brings_its_drawdown():
    figure = report.equity_and_drawdown([0, 900, 1800], [500, 480, 510], drawdown_pct=[0.0, 9.7, 0.0])
    assert min(figure.data[-1].y) == -9.7
    assert "deepest drawdown 9.7 %" in text_of(figure)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 9_000))
@settings(max_examples=40, deadline=None)
def test_thinning_several_series_keeps_the_extremes_of_each(seed, n):
    series = np.random.default_rng(seed).normal(size=(3, n)).cumsum(axis=1)
    keep = thin(*series, limit=400)
    assert len(keep) <= 400
    for values in series:
        assert {0, n - 1, int(values.argmin()), int(values.argmax())} <= set(keep.tolist())


def test_purged_gaps_come_from_the_windows_or_are_given():
    windows = {"train": {"start": 0, "end": 86_400}, "final": {"start": 90_000, "end": 172_800}, "note": "ignored"}
    derived = report.windows_timeline(windows, refits=[90_000, 120_000], n={"train": 96, "final": 90})
    assert [shape.x0 for shape in derived.layout.shapes] == ["1970-01-02T00:00:00"]
    assert "186 rows; 2 refits; 1970-01-01 to 1970-01-03" in text_of(derived)
    given = report.windows_timeline(windows, gaps=[(80_000, 90_000), (170_000, 172_800)])
    assert len(given.layout.shapes) == 2


def test_confusion_is_coloured_by_the_share_of_the_true_class():
    figure = report.confusion([[3, 1, 0], [0, 0, 0], [1, 1, 2]], ["SELL", "BUY", "HOLD"])
    np.testing.assert_allclose(figure.data[0].z, [[75, 25, 0], [0, 0, 0], [25, 25, 50]])
    assert "8 rows" in text_of(figure)


def test_a_risk_histogram_of_zero_states_is_empty_and_whole():
    figure = report.risk_histogram({1: {"growth": np.zeros(9)}, 5: {"growth": np.ones(9)}}, np.linspace(0.15, 1.2, 9))
    assert np.sum(figure.data[0].y) == 0
    assert np.sum(figure.data[1].y) == pytest.approx(100)


def test_every_figure_says_its_subject_its_n_and_its_units():
    bars = pd.DataFrame(
        {"open": [1.0, 2], "high": [2.0, 3], "low": [0.5, 1], "close": [2.0, 1]}, index=pd.date_range("2024-01-01", periods=2, freq="15min")
    )
    bins = {"BUY": {"predicted": [0.3, 0.4], "observed": [0.31, 0.42], "count": [10, 20]}}
    rows = [{"name": "atr_pct", "finite": 0.5, "low": 0, "median": 1, "high": 2}]
    figures = [
        report.label_distribution({"BUY": 1.0}, {"BUY": 1.0}, 10),
        report.label_on_path(bars, report.PathTrade(entry=0, exit=1, entry_price=1, exit_price=2, target=2, stop=0.5, reason="TP")),
        report.windows_timeline({"train": {"start": 0, "end": 86_400}}),
        report.equity_and_drawdown([0, 900], [500, 501]),
        report.worth_and_drawdown([0, 900], [0, 1.5], [0, 0]),
        report.calibration(bins),
        report.confusion([[10]], ["BUY"]),
        report.feature_coverage(rows, 10),
        report.cost_curve([0, 1], [0.1, 0.0], spread=1.0, trades=10),
        report.risk_histogram({1: {"growth": [10, 0]}}, [0.15, 1.2]),
        report.importance(["atr_pct"], [0.1], low=[0.05], high=[0.2], noise=0.01, n=10),
    ]
    for figure in figures:
        title, subtitle = figure.layout.title.text, figure.layout.title.subtitle.text
        assert title
        assert not re.search(r"\d", title)
        assert re.search(r"\d", subtitle)
        assert figure.layout.template.layout.paper_bgcolor == "#ffffff"
    assert figures[3].layout.yaxis.title.text == "equity, USD"
    assert figures[4].layout.yaxis.title.text == "R earned"
    assert figures[8].layout.yaxis.title.text == "expectancy, R a trade"
    assert figures[0].layout.yaxis.title.text == "share of labelled bars, %"
