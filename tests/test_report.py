"""Reports: figures from plain arrays, and a page that needs nothing but itself."""

import base64
import html
import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl import report
from trademl.evidence.anatomy import anatomy_of
from trademl.evidence.figures import MAX_POINTS, thin
from trademl.pipeline.market.pages import agreement
from trademl.report.figures import INK, LEGEND_PX, PAGE_COLOURS, QUIET, TITLE_PX, times
from trademl.report.page import PLOTLY, clean_html, fitted, lighter

ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"
EVIL = "<script>alert(1)</script>"


def page(tmp_path: Path, *cells: dict, **more) -> str:
    path = tmp_path / "executed.ipynb"
    path.write_text(json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return report.render(path, **{"headline": "Revision 1a2b3c: gate passed"} | more)


def markdown(source: str, *tags: str) -> dict:
    return {"cell_type": "markdown", "source": source, "metadata": {"tags": list(tags)}}


def code(*outputs: dict, source: str = "1 + 1", tags=()) -> dict:
    return {"cell_type": "code", "source": source, "metadata": {"tags": list(tags)}, "outputs": list(outputs)}


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


def test_the_verdict_comes_first_and_where_it_comes_from_last(tmp_path):
    banners = [report.Banner("synthetic", "made by the generator", "warn"), report.Banner("look 3")]
    cells = [
        markdown("# Retrain", "last"),
        code({"output_type": "stream", "name": "stdout", "text": "how it was made"}),
        markdown("## The result", "first"),
        code({"output_type": "stream", "name": "stdout", "text": "the main table"}),
        markdown("## The evidence"),
        code({"output_type": "stream", "name": "stdout", "text": "moved up"}, tags=["first"]),
        code({"output_type": "stream", "name": "stdout", "text": "a histogram"}),
    ]
    text = body(page(tmp_path, *cells, headline="Gate refused at 1 %: no. On 9 trades nothing.", banners=banners, facts={"seed": 7}))
    lines = [line.strip() for line in re.sub(r"<[^>]*>", "\n", text[: text.index("<nav")]).splitlines() if line.strip()]
    shown = [line for line in lines if line not in ("code", "1 + 1")]
    assert shown == [
        *("Gate refused at 1 %: no.", "On 9 trades nothing.", "done", "synthetic", "look 3", "synthetic", "made by the generator"),
        *("The result", "the main table", "moved up", "The evidence", "a histogram", "Retrain", "how it was made"),
        *("Provenance", "seed", "7"),
    ]
    contents = re.findall(r'<li><a href="#(.*?)">(.*?)</a>', text)
    assert [title for _, title in contents] == ["The evidence", "Retrain", "Provenance"]
    assert all(f'id="{anchor}"' in text for anchor, _ in contents)


def test_a_table_fits_a_phone():
    plain = pd.DataFrame({"these decisions": ["609", "-0.037 [-0.138, +0.064]"], "why": ["", "w" * 60]}, index=["trades", "expectancy"])
    text = fitted(clean_html(plain.to_html()))
    assert '<table data-fits="yes"' in text
    assert '<td data-label="these decisions">609</td>' in text
    assert '<td data-label="these decisions">-0.037<small class="interval">-0.138 to +0.064</small></td>' in text
    assert '<th class="text">why</th>' in text and "<th>these decisions</th>" in text
    named = fitted(clean_html(plain.rename_axis("figure").to_html()))
    assert named.count("<tr") == 3 and "<th>figure</th>" in named
    long = fitted(clean_html(pd.DataFrame({"a": range(30)}).to_html()))
    assert long.startswith('<details class="rows"><summary>show 30 rows</summary>') and long.count('data-label="a"') == 30


def test_a_list_is_taken_away_as_a_file_from_the_page_itself(tmp_path):
    frame = pd.DataFrame({"entry (UTC)": ["2026-01-01 00:15"] * 700, "net R": np.linspace(-1, 1.875, 700), "ended by": 'a "stop", 50 %'})
    data, metadata = report.Listing(frame, "trades.csv")._repr_mimebundle_()
    text = page(tmp_path, code({"output_type": "display_data", "data": data, "metadata": metadata}))
    assert text.count('<td data-label="net R">') == 500  # the page shows the newest, the file holds all
    name, link = re.search(r'download="(.*?)" href="(.*?)"', text).groups()
    assert name == "trades.csv" and link.startswith("data:text/csv;")
    taken = pd.read_csv(io.StringIO(unquote(html.unescape(link).partition(",")[2])))
    pd.testing.assert_frame_equal(taken, frame, rtol=1e-7)


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
    page_text = text.replace(re.search(r'<script type="text/plain" id="plotly">.*?plotly.js v.*?</script>', text, re.DOTALL)[0], "")
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
    assert '<td data-label="name" class="text">&lt;b&gt;</td>' in text
    assert '<td data-label="trades">2</td>' in text


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


def traded(n: int) -> pd.DataFrame:
    """Trades of twenty days, two in three lost."""
    at = pd.date_range("2026-01-05 00:15", periods=n, freq="20h", tz="UTC")
    net_r = np.where(np.arange(n) % 3 == 0, 1.8, -1.05)
    bar = 80 * np.arange(n)
    return pd.DataFrame(
        {"entry_time": at, "entry_bar": bar, "exit_bar": bar + 1 + np.arange(n) % 9, "side": 1, "reason": np.where(net_r > 0, 1, 2)}
        | {"net_r": net_r}
    )


def drawn_anatomy(n: int = 24) -> list:
    trades = traded(n)
    start_s = int(trades["entry_time"].iloc[0].timestamp())
    anatomy = anatomy_of(trades, start_s, start_s + 20 * 86_400)
    by = [report.r_by_period, report.r_by_clock, report.r_by_holding, report.streak_counts]
    return [*(draw(anatomy) for draw in by), report.r_histogram(anatomy, trades["net_r"].mean())]


def test_the_anatomy_is_drawn_from_every_trade():
    period, clock, holding, streaks, outcomes = drawn_anatomy()
    total = traded(24)["net_r"].sum()
    assert sum(period.data[0].y) == pytest.approx(total) and sum(period.data[1].y) == pytest.approx(total)
    assert sum(n for n, _ in clock.data[0].customdata) == sum(n for n, _ in holding.data[0].customdata) == 24
    assert sum(outcomes.data[0].y) == 24
    assert list(streaks.data[1].y) == [0, 8] and streaks.layout.xaxis.dtick == 1  # lost twice in a row, eight times
    assert period.layout.xaxis.tick0 == "2026-01-05"


def colours_of(figure) -> set[str]:
    return set(re.findall(r"#[0-9a-fA-F]{3,8}\b", figure.to_json()))


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast of two colours, 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_ink_is_read_on_light_and_on_dark():
    for ink in (INK, QUIET):
        assert min(contrast(ink, "#ffffff"), contrast(ink, "#111111")) > 3.9  # JupyterLab's papers
    for theme, paper in (("light", "#ffffff"), ("dark", "#12161a")):
        assert f"--paper: {'#fff' if theme == 'light' else paper}" in (Path(report.__file__).parent / "page.html").read_text()
        for colour, own in PAGE_COLOURS[theme].items():
            assert contrast(own, paper) > (4.5 if colour in (INK, QUIET) else 3), (theme, colour)


def test_no_figure_has_a_colour_of_one_theme_only():
    """What the page recolours, and what is read on both papers."""
    known = {*PAGE_COLOURS["dark"], "#93a0ab", "#2c3640", "#ffffff"}  # grey; a tip's own paper and ink
    bars = {"time": [0, 900], "open": [1.0, 2], "high": [2.0, 3], "low": [0.5, 1], "close": [2.0, 1]}
    drawn = [
        report.label_distribution({"BUY": 1.0}, {"BUY": 1.0}, 10),
        report.candles(bars, title="t"),
        report.windows_timeline({"train": {"start": 0, "end": 86_400}}, refits=[9]),
        report.worth_and_drawdown([0, 900], [0, 1.5], [0, 0], band=report.NullBand([0, 0], [1, 1], [0, 1])),
        report.confusion([[10]], ["BUY"]),
        report.cost_curve([0, 1], [0.1, 0.0], low=[0, 0], high=[1, 1], spread=1.0, trades=10),
        report.risk_histogram({1: {"growth": [10, 0], "score": [1, 9]}}, [0.15, 1.2]),
        report.importance(["atr_pct"], [0.1], low=[0.05], high=[0.2], noise=0.01, n=10),
        *drawn_anatomy(),
    ]
    for figure in drawn:
        assert colours_of(figure) <= known, figure.layout.title.text


def test_a_legend_has_room_below_the_title():
    drawn = [report.cost_curve([0, 1], [0.1, 0.0], spread=1.0, trades=10), report.confusion([[10]], ["BUY"]), *drawn_anatomy()]
    drawn.append(report.candles({"time": [0], "open": [1.0], "high": [1.0], "low": [1.0], "close": [1.0]}, title="to be drawn on"))
    room = {figure.layout.title.text: figure.layout.margin.t for figure in drawn}
    assert room["Streaks"] == room["to be drawn on"] == TITLE_PX + LEGEND_PX
    assert room["Predicted against true class"] == room["Outcomes"] == TITLE_PX + 8
    title = drawn[0].layout.template.layout.title
    assert (title.y, title.yref, title.yanchor) == (1, "container", "top")


def test_profiles_that_agree_are_one_sentence():
    same = {k: {"growth": np.array([0, 99, 1]), "score": np.array([80, 20, 0])} for k in "12345"}
    text = agreement(same, [0.15, 0.7, 1.2])
    assert text == (
        "All 5 profiles agree which multiplier was best: ×0.70 for 99 % of the states or more under growth; "
        "×0.15 for 80 % of the states or more under score."
    )
    assert agreement(same | {"5": same["1"] | {"score": np.array([20, 80, 0])}}, [0.15, 0.7, 1.2]) == ""
    assert agreement(same | {"5": same["1"] | {"score": np.array([70, 30, 0])}}, [0.15, 0.7, 1.2]) == ""


def test_equity_is_logarithmic_only_when_it_grows_tenfold():
    assert report.equity_and_drawdown([0, 900], [10_000, 13_000]).layout.yaxis.type is None
    assert report.equity_and_drawdown([0, 900], [500, 6_000]).layout.yaxis.type == "log"


def test_every_figure_says_its_subject_its_n_and_its_units():
    bars = pd.DataFrame(
        {"open": [1.0, 2], "high": [2.0, 3], "low": [0.5, 1], "close": [2.0, 1]}, index=pd.date_range("2024-01-01", periods=2, freq="15min")
    )
    bins = {"BUY": {"predicted": [0.3, 0.4], "observed": [0.31, 0.42], "count": [10, 20]}}
    figures = [
        report.label_distribution({"BUY": 1.0}, {"BUY": 1.0}, 10),
        report.label_on_path(bars, report.PathTrade(entry=0, exit=1, entry_price=1, exit_price=2, target=2, stop=0.5, reason="TP")),
        report.windows_timeline({"train": {"start": 0, "end": 86_400}}),
        report.equity_and_drawdown([0, 900], [500, 501]),
        report.worth_and_drawdown([0, 900], [0, 1.5], [0, 0]),
        report.calibration(bins),
        report.confusion([[10]], ["BUY"]),
        report.cost_curve([0, 1], [0.1, 0.0], spread=1.0, trades=10),
        report.risk_histogram({1: {"growth": [10, 0]}}, [0.15, 1.2]),
        report.importance(["atr_pct"], [0.1], low=[0.05], high=[0.2], noise=0.01, n=10),
        *drawn_anatomy(),
    ]
    for figure in figures:
        title, subtitle = figure.layout.title.text, figure.layout.title.subtitle.text
        assert title
        assert not re.search(r"\d", title)
        assert re.search(r"\d", subtitle)
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0, 0, 0, 0)"
    assert figures[3].layout.yaxis.title.text == "equity, USD"
    assert figures[4].layout.yaxis.title.text == "R earned"
    assert figures[7].layout.yaxis.title.text == "expectancy, R a trade"
    assert figures[0].layout.yaxis.title.text == "share of labelled bars, %"
