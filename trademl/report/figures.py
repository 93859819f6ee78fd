"""Figures of the reports: plotly, from plain arrays and mappings, in one quiet style.

Titles name the subject and claim nothing; the subtitle says how many rows stand behind the picture. Paper is transparent and ink of a
middle tone, readable on light and on dark, so a figure follows JupyterLab's theme; the page puts sharper ink in its place (`PAGE_COLOURS`).
Times may be datetimes, ISO text, datetime64 or epoch seconds (UTC). Long series are thinned to `MAX_POINTS` points a trace.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trademl.evidence.figures import thin

INK, QUIET, PAPER = "#6c7884", "#727e8a", "rgba(0, 0, 0, 0)"
RULE, AXIS, FAINT = "rgba(127, 139, 150, 0.22)", "rgba(127, 139, 150, 0.55)", "rgba(127, 139, 150, 0.35)"
BLUE, TEAL, RED, SAND, GREY = "#3d7ab0", "#2f8f87", "#c75b46", "#b8923c", "#93a0ab"
BAND, FALL = "rgba(61, 122, 176, 0.16)", "rgba(199, 91, 70, 0.2)"
PAGE_COLOURS = {  # theme of the page -> colour of a figure -> the page's colour
    "light": {INK: "#1d2733", QUIET: "#5f6b78", BLUE: "#2b5c8a", TEAL: "#2a7f78", RED: "#bf5340"},
    "dark": {INK: "#e3e8ed", QUIET: "#a3afba", BLUE: "#6ea8dc", TEAL: "#4fb5ab", RED: "#e27e69", SAND: "#d7b566"},
}
CLASS_COLOURS = {"SELL": RED, "BUY": TEAL, "HOLD": GREY}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
TITLE_PX, LEGEND_PX = 62, 30  # heights of a title with its subtitle, and of a legend's line
_AXIS = {
    "automargin": True,
    "gridcolor": RULE,
    "linecolor": AXIS,
    "ticks": "outside",
    "tickcolor": AXIS,
    "ticklen": 4,
    "zeroline": False,
    "title": {"font": {"size": 12, "color": QUIET}, "standoff": 10},
    "ticklabelstandoff": 3,
    "tickfont": {"size": 11.5},
}


def template() -> go.layout.Template:
    """The one style: no paper, few colours, no frame, numbers with thousands separators; title on top, legend below it."""
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": INK},
            "title": {
                "x": 0,
                "xref": "container",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"l": 8, "t": 12},
                "font": {"size": 17},
                "subtitle": {"font": {"size": 12.5, "color": QUIET}},
            },
            "paper_bgcolor": PAPER,
            "plot_bgcolor": PAPER,
            "colorway": [BLUE, RED, TEAL, SAND, GREY],
            "xaxis": _AXIS | {"showgrid": False, "showline": True},
            "yaxis": _AXIS | {"showline": False},
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
            "margin": {"l": 56, "r": 20, "t": TITLE_PX + LEGEND_PX, "b": 44},
            "height": 400,
            "separators": ".,",
            "hoverlabel": {"bgcolor": "#2c3640", "bordercolor": "#2c3640", "font": {"family": FONT, "size": 12, "color": "#ffffff"}},
            "bargap": 0.35,
            "bargroupgap": 0.08,
        }
    )


def finish(fig: go.Figure, title: str, subtitle: str, **layout: Any) -> go.Figure:
    """The figure in the one style; its margin holds the title, and the legend below it where there is one."""
    margin = {"t": TITLE_PX + (LEGEND_PX if _has_legend(fig) else 8)} | layout.pop("margin", {})
    return fig.update_layout(template=template(), title={"text": title, "subtitle": {"text": subtitle}}, margin=margin, **layout)


def _has_legend(fig: go.Figure) -> bool:
    named = [trace for trace in fig.data if trace.showlegend is not False and trace.type not in ("heatmap", "table")]
    return bool(named) and (len(fig.data) > 1 or bool(named[0].showlegend))  # plotly's own rule


def whole_axis(most: float) -> dict[str, Any]:
    """Ticks of an axis that counts from 0 to `most`: at whole numbers only."""
    return {"tickformat": ",d", "tick0": 0} | ({"dtick": 1} if most <= 8 else {})


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def times(values: Any) -> np.ndarray:
    """Times of any accepted kind as datetime64[s] (n,), UTC."""
    values = getattr(values, "tz_convert", lambda _: values)(None) if getattr(values, "tz", None) is not None else values
    array = np.asarray(values)
    if array.dtype.kind == "M":
        return array.astype("datetime64[s]")
    if array.dtype.kind in "iuf":
        return array.astype(np.int64).astype("datetime64[s]")
    return np.array([np.datetime64(_naive(value), "s") for value in array.ravel()]).reshape(array.shape)


def _naive(value: Any) -> Any:
    if isinstance(value, str):
        return value.removesuffix("Z").removesuffix("+00:00")
    offset = getattr(value, "utcoffset", lambda: None)()
    return value.replace(tzinfo=None) - offset if offset is not None else value


def label_distribution(
    shares: Mapping[str, float],  # class -> share of the labelled bars, 0..1
    driftless: Mapping[str, float],  # the same on a path without drift: what the barriers alone give
    n: int,  # labelled bars
    *,
    effective_n: float | None = None,  # independent labels that they amount to
) -> go.Figure:
    """Share of each class beside what a driftless path gives."""
    names = list(shares)
    fig = go.Figure()
    for data, label, colours, pattern in (
        (shares, "these bars", [CLASS_COLOURS.get(name, BLUE) for name in names], ""),
        (driftless, "driftless path", [FAINT] * len(names), "/"),
    ):
        values = [100 * float(data[name]) for name in names]
        marker = {"color": colours, "pattern": {"shape": pattern, "fgcolor": GREY, "size": 5, "solidity": 0.25}}
        hover = "%{x}: %{y:.2f} %<extra>" + label + "</extra>"
        fig.add_bar(
            x=names, y=values, name=label, marker=marker, text=[f"{v:.1f}" for v in values], textposition="outside", hovertemplate=hover
        )
    worth = f", worth about {effective_n:,.0f} independent ones" if effective_n else ""
    top = 100 * max([*shares.values(), *driftless.values()])
    fig.update_yaxes(title_text="share of labelled bars, %", range=[0, top * 1.15])
    fig.update_traces(cliponaxis=False)
    fig.update_traces(selector={"name": "these bars"}, showlegend=False)
    swatch = {"symbol": "square", "size": 12, "color": INK}
    fig.add_scatter(x=[None], y=[None], mode="markers", marker=swatch, name="these bars", legendrank=1)
    return finish(fig, "Labels by class", f"{n:,} labelled bars{worth}")


def candles(
    bars: Any,  # frame or mapping with open, high, low, close (m,); its index or `time` are the bars' opening times
    *,
    title: str,
    subtitle: str = "",
    panels: Sequence[float] = (),  # heights of empty panels below, as shares of the price panel; fill them with row=2, col=1
) -> go.Figure:
    """Bars as candlesticks: the one look of price, alone or above panels that share its time axis."""
    rows, edge = 1 + len(panels), {"color": QUIET, "width": 1}
    price = {name: np.asarray(bars[name], dtype=np.float64) for name in ("open", "high", "low", "close")}
    colours = {"increasing": {"fillcolor": PAPER, "line": edge}, "decreasing": {"fillcolor": QUIET, "line": edge}}
    fig = make_subplots(rows=rows, cols=1, shared_xaxes=True, row_heights=[1, *panels], vertical_spacing=0.03)
    fig.add_candlestick(x=_moments(bars), **price, name="bars", showlegend=False, **colours, row=1, col=1)
    fig.update_xaxes(rangeslider_visible=False)
    fig.update_xaxes(title_text="bar open, UTC", row=rows, col=1)
    fig.update_yaxes(title_text="price", row=1, col=1)
    margin = {"t": TITLE_PX + LEGEND_PX}  # who draws on it names what is drawn
    return finish(fig, title, subtitle, height=int(400 * (1 + 0.75 * sum(panels))), margin=margin)


def _moments(bars: Any) -> np.ndarray:
    return times(bars["time"] if isinstance(bars, Mapping) else bars.index)


@dataclass(frozen=True)
class PathTrade:
    """A trade to draw on a stretch of bars; positions count from the first bar of the stretch."""

    entry: int  # position of the bar at whose open the trade is filled
    exit: int  # position of the bar that ends the trade
    entry_price: float
    exit_price: float
    target: float  # take-profit price
    stop: float  # stop-loss price
    horizon: int | None = None  # position of the last bar of the horizon
    side: str = "long"
    reason: str = ""  # e.g. TP, SL, timeout


def label_on_path(
    bars: Any,  # frame or mapping with open, high, low, close (m,): the stretch to draw; its index or `time` are the bars' opening times
    trade: PathTrade,
) -> go.Figure:
    """One labelled trade on its price path: barriers, entry, exit."""
    ended = f", ended by {trade.reason}" if trade.reason else ""
    shown = f"held {_count(trade.exit - trade.entry + 1, 'bar')}{ended}; {_count(len(bars['close']), 'bar')} shown"
    fig = candles(bars, title=f"A {trade.side} trade between its barriers", subtitle=shown)
    moments = _moments(bars)
    end = moments[min(trade.horizon if trade.horizon is not None else trade.exit, len(moments) - 1)]
    for level, colour, label in ((trade.target, TEAL, "target"), (trade.entry_price, INK, "entry"), (trade.stop, RED, "stop")):
        line = {"color": colour, "width": 1.6, "dash": "solid" if label == "entry" else "dash"}
        fig.add_scatter(
            x=[moments[trade.entry], end],
            y=[level, level],
            mode="lines",
            name=label,
            line=line,
            hovertemplate=f"{label} %{{y:,.2f}}<extra></extra>",
        )
    won = TEAL if (trade.exit_price - trade.entry_price) * (1 if trade.side == "long" else -1) > 0 else RED
    mark = {"symbol": ["triangle-right", "x"], "size": [12, 11], "color": [INK, won], "line": {"color": PAPER, "width": 1}}
    moved = {"x": [moments[trade.entry], moments[trade.exit]], "y": [trade.entry_price, trade.exit_price]}
    fig.add_scatter(**moved, mode="markers", marker=mark, name="in, out", showlegend=False)
    return fig


def windows_timeline(
    windows: Mapping[str, Any],  # name -> {"start", "end"} (half-open), in time order; other keys are ignored
    *,
    refits: Any = (),  # (k,) times at which the recipe is refitted
    gaps: Sequence[tuple[Any, Any]] = (),  # purged stretches [start, end): label ends and embargo; derived from `windows` when empty
    n: Mapping[str, int] | None = None,  # usable rows by window
) -> go.Figure:
    """Which window judges what: bars in time order, the purged gaps between them, and the refit dates."""
    spans = {name: times([w["start"], w["end"]]) for name, w in windows.items() if isinstance(w, Mapping) and {"start", "end"} <= set(w)}
    names = list(spans)
    colours = {"train": BLUE, "tune": SAND, "select": TEAL, "final": RED}
    labels = {"refits": "refits"}
    fig = go.Figure()
    for name, (start, end) in spans.items():
        rows = f"{n[name]:,} rows" if n and name in n else ""
        hover = f"{name}: {start.astype('datetime64[D]')} to {end.astype('datetime64[D]')} {rows}<extra></extra>"
        width = float((end - start).astype("timedelta64[ms]").astype(np.int64))
        bar = {"marker": {"color": colours.get(name, GREY)}, "width": 0.5, "orientation": "h", "showlegend": False}
        fig.add_bar(y=[name], x=[width], base=[str(start)], hovertemplate=hover, **bar)
        labels[name] = f'{name}<br><span style="font-size:10.5px;color:{QUIET}">{rows}</span>' if rows else name
    ordered = list(spans.values())
    between = [times(gap) for gap in gaps] or [np.array([a[1], b[0]]) for a, b in pairwise(ordered) if b[0] > a[1]]
    for start, end in between:
        fig.add_vrect(x0=str(start), x1=str(end), fillcolor=GREY, opacity=0.45, line_width=0)
    if between:
        swatch = {"symbol": "square", "size": 11, "color": GREY}
        fig.add_scatter(x=[None], y=[names[0]], mode="markers", marker=swatch, name="purged and embargoed")
    moments = times(refits)
    if len(moments):
        mark = {"symbol": "line-ns", "size": 14, "line": {"color": INK, "width": 1.6}}
        hover = "refit %{x|%Y-%m-%d}<extra></extra>"
        fig.add_scatter(
            x=moments, y=["refits"] * len(moments), mode="markers", marker=mark, name="refit", hovertemplate=hover, showlegend=False
        )
        names.append("refits")
    fig.update_xaxes(type="date", showgrid=True)
    ticks = {"tickvals": names, "ticktext": [labels[name] for name in names]}
    fig.update_yaxes(categoryorder="array", categoryarray=names[::-1], showgrid=False, ticks="", **ticks)
    count = f"{sum(n.values()):,} rows; " if n else ""
    dates = f"{ordered[0][0].astype('datetime64[D]')} to {ordered[-1][1].astype('datetime64[D]')}"
    return finish(
        fig, "Windows in time order", f"{count}{_count(len(moments), 'refit')}; {dates}", height=150 + 42 * len(names), barmode="overlay"
    )


@dataclass(frozen=True, eq=False)
class NullBand:
    """What random entries at the same frequency earned, at the times of the curve that it is drawn behind."""

    low: Any  # (n,) edges, in the unit of the curve
    high: Any
    median: Any = None
    name: str = "random entries, 5 to 95 %"


def worth_and_drawdown(
    time: Any,  # (n,)
    worth_r: Any,  # (n,) R earned, open trades marked
    drawdown_r: Any,  # (n,) below the highest R of all bars, >= 0
    *,
    band: NullBand | None = None,
    trades: int | None = None,
) -> go.Figure:
    """R earned at a fixed risk a trade with its null above, drawdown below."""
    moments, fall = times(time), -np.asarray(drawdown_r, dtype=np.float64)
    fig = _two_panels()
    if band is not None:
        _add_band(fig, moments, band)
    _add_curve(fig, moments, np.asarray(worth_r, dtype=np.float64), "R earned", "%{y:,.1f} R")
    _add_fall(fig, moments, fall, "%{y:.1f} R")
    _axis_titles(fig, "R earned", "drawdown, R")
    text = f"{_trades(trades)}the same risk on each; deepest drawdown {abs(fall.min(initial=0.0)):.1f} R"
    return finish(fig, "What the trades earned", text, height=520, hovermode="x")


def equity_and_drawdown(
    time: Any,  # (n,)
    equity: Any,  # (n,) marked to market, account currency
    *,
    drawdown_pct: Any = None,  # (n,) below the peak of all bars, >= 0, when the series given is thinned; None: that of the series
    trades: int | None = None,
    currency: str = "USD",
) -> go.Figure:
    """Equity of an account above, drawdown from the peak below. Equity that grows tenfold is drawn on a logarithmic axis."""
    moments, equity = times(time), np.asarray(equity, dtype=np.float64)
    fall = _fall(equity) if drawdown_pct is None else -np.asarray(drawdown_pct, dtype=np.float64)
    fig = _two_panels()
    _add_curve(fig, moments, equity, "equity", "%{y:,.2f}")
    _add_fall(fig, moments, fall, "%{y:.2f} %")
    _axis_titles(fig, f"equity, {currency}", "drawdown, %")
    if equity.size and 0 < 10 * equity.min() < equity.max():
        fig.update_yaxes(type="log", row=1, col=1)
    text = f"{_trades(trades)}marked to market; deepest drawdown {abs(fall.min(initial=0.0)):.1f} %"
    return finish(fig, "Equity and drawdown", text, height=520, hovermode="x")


def _two_panels() -> go.Figure:
    fig = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.06)
    return fig.update_xaxes(showline=False, ticks="", row=1, col=1)


def _axis_titles(fig: go.Figure, upper: str, lower: str) -> None:
    fig.update_yaxes(title_text=upper, row=1, col=1)
    fig.update_yaxes(title_text=lower, row=2, col=1)


def _trades(trades: int | None) -> str:
    return f"{trades:,} trades, " if trades is not None else ""


def _add_band(fig: go.Figure, moments: np.ndarray, band: NullBand) -> None:
    low, high = np.asarray(band.low, dtype=np.float64), np.asarray(band.high, dtype=np.float64)
    keep, edge = thin(low, high), {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    fig.add_scatter(x=moments[keep], y=high[keep], showlegend=False, **edge, row=1, col=1)
    fig.add_scatter(x=moments[keep], y=low[keep], name=band.name, fill="tonexty", fillcolor=BAND, **edge, row=1, col=1)
    if band.median is not None:
        median = np.asarray(band.median, dtype=np.float64)
        keep, line = thin(median), {"color": QUIET, "width": 1.4, "dash": "dot"}
        fig.add_scatter(x=moments[keep], y=median[keep], name="random entries, median", mode="lines", line=line, row=1, col=1)


def _add_curve(fig: go.Figure, moments: np.ndarray, values: np.ndarray, name: str, shown: str) -> None:
    keep, hover = thin(values), f"%{{x|%Y-%m-%d %H:%M}}<br>{shown}<extra>{name}</extra>"
    line = {"color": BLUE, "width": 1.8}
    fig.add_scatter(x=moments[keep], y=values[keep], name=name, mode="lines", line=line, hovertemplate=hover, row=1, col=1)


def _add_fall(fig: go.Figure, moments: np.ndarray, fall: np.ndarray, shown: str) -> None:
    keep, hover = thin(fall), f"%{{x|%Y-%m-%d %H:%M}}<br>{shown}<extra>drawdown</extra>"
    style = {"mode": "lines", "line": {"color": RED, "width": 1.2}, "fill": "tozeroy", "fillcolor": FALL}
    fig.add_scatter(x=moments[keep], y=fall[keep], name="drawdown", showlegend=False, hovertemplate=hover, **style, row=2, col=1)


def _fall(equity: np.ndarray) -> np.ndarray:
    """Percent below the peak so far, (n,), as numbers <= 0."""
    peak = np.maximum.accumulate(equity)
    return 100 * (equity / np.where(peak > 0, peak, 1) - 1)


def calibration(
    bins: Mapping[str, Mapping[str, Any]],  # class -> {"predicted", "observed", "count"} arrays by bin, optional "low" and "high"
    *,
    n: int | None = None,  # rows judged; the largest class sum otherwise
) -> go.Figure:
    """Reliability: how often a class came true where it was given a probability."""
    fig = go.Figure()
    everything = np.concatenate([np.r_[np.asarray(b["predicted"], float), np.asarray(b["observed"], float)] for b in bins.values()])
    top = min(1.0, float(np.nanmax(everything, initial=0.1)) * 1.15)
    fig.add_scatter(
        x=[0, top], y=[0, top], mode="lines", name="perfect", line={"color": GREY, "width": 1.2, "dash": "dot"}, hoverinfo="skip"
    )
    for name, b in bins.items():
        x, y, count = (np.asarray(b[key], dtype=np.float64) for key in ("predicted", "observed", "count"))
        size = 5 + 13 * np.sqrt(count / max(count.max(initial=1.0), 1.0))
        colour = CLASS_COLOURS.get(name, BLUE)
        bars = None
        if "low" in b and "high" in b:
            up, down = np.asarray(b["high"], float) - y, y - np.asarray(b["low"], float)
            bars = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "width": 0, "thickness": 1.2, "color": colour}
        hover = "given %{x:.3f}, came true %{y:.3f}<br>%{customdata:,} rows<extra>" + name + "</extra>"
        fig.add_scatter(
            x=x,
            y=y,
            error_y=bars,
            customdata=count,
            mode="lines+markers",
            name=name,
            hovertemplate=hover,
            line={"color": colour, "width": 1.4},
            marker={"size": size, "color": colour, "line": {"color": PAPER, "width": 1}},
        )
    fig.update_xaxes(title_text="probability given", range=[0, top], showgrid=True)
    fig.update_yaxes(title_text="share that came true", range=[0, top])
    total = n if n is not None else int(max(np.sum(b["count"]) for b in bins.values()))
    return finish(fig, "Calibration by class", f"{total:,} rows; the larger a dot, the more rows", height=460)


def confusion(
    matrix: Any,  # (k, k) counts: row = true class, column = decided class
    classes: Sequence[str],
) -> go.Figure:
    """Counts of true against predicted class, coloured by the share within the true class."""
    counts = np.asarray(matrix, dtype=np.float64)
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    text = [[f"{count:,.0f}<br>{part:.1f} %" for count, part in zip(row, parts)] for row, parts in zip(counts, share)]
    scale = [[0, "rgba(61, 122, 176, 0.05)"], [1, "rgba(61, 122, 176, 0.6)"]]
    fig = go.Figure(
        go.Heatmap(
            z=share,
            x=list(classes),
            y=list(classes),
            text=text,
            texttemplate="%{text}",
            textfont={"color": INK},
            colorscale=scale,
            zmin=0,
            zmax=100,
            xgap=3,
            ygap=3,
            showscale=False,
            hovertemplate="true %{y}, predicted %{x}: %{text}<extra></extra>",
        )
    )
    fig.update_xaxes(title_text="predicted", showline=False, ticks="")
    fig.update_yaxes(title_text="true", autorange="reversed", showgrid=False, ticks="")
    return finish(fig, "Predicted against true class", f"{counts.sum():,.0f} rows", height=420)


def cost_curve(
    multiples: Any,  # (k,) spread as a multiple of the configured one
    expectancy_r: Any,  # (k,) mean net R a trade
    *,
    low: Any = None,  # (k,) bootstrap 95 % bounds
    high: Any = None,
    spread: float,  # the configured spread, price units
    trades: int,
) -> go.Figure:
    """Expectancy under dearer and cheaper trading."""
    x, y = np.asarray(multiples, dtype=np.float64), np.asarray(expectancy_r, dtype=np.float64)
    fig = go.Figure()
    if low is not None and high is not None:
        edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
        fig.add_scatter(x=x, y=np.asarray(high, float), showlegend=False, **edge)
        fig.add_scatter(x=x, y=np.asarray(low, float), name="95 % interval", fill="tonexty", fillcolor=BAND, **edge)
    hover = "spread ×%{x:g}: %{y:.3f} R<extra></extra>"
    fig.add_scatter(x=x, y=y, mode="lines+markers", name="mean net R", line={"color": BLUE}, marker={"size": 8}, hovertemplate=hover)
    fig.add_hline(y=0, line={"color": INK, "width": 1})
    fig.update_xaxes(title_text=f"spread, multiples of {spread:,.2f}", tickvals=x, ticktext=[f"×{value:g}" for value in x])
    fig.update_yaxes(title_text="expectancy, R a trade")
    return finish(fig, "Cost curve", f"{trades:,} trades at each cost")


def risk_histogram(
    counts: Mapping[Any, Mapping[str, Any]],  # profile -> objective -> (k,) states whose best candidate it is
    candidates: Any,  # (k,) risk multipliers
) -> go.Figure:
    """Which risk multiplier each profile's replay chose, under both objectives."""
    profiles, x = list(counts), [f"{value:.2f}" for value in np.asarray(candidates, dtype=np.float64)]
    fig = make_subplots(rows=len(profiles), cols=1, shared_xaxes=True, vertical_spacing=0.035)
    colours = dict(zip(dict.fromkeys(name for by in counts.values() for name in by), (BLUE, SAND, TEAL)))
    total = 0
    for row, profile in enumerate(profiles, 1):
        for name, values in counts[profile].items():
            values = np.asarray(values, dtype=np.float64)
            share = 100 * values / max(values.sum(), 1)
            hover = f"profile {profile}, ×%{{x}}: %{{y:.1f}} %<extra>{name}</extra>"
            fig.add_bar(
                x=x,
                y=share,
                name=name,
                legendgroup=name,
                showlegend=row == 1,
                marker_color=colours[name],
                hovertemplate=hover,
                row=row,
                col=1,
            )
            total = max(total, int(values.sum()))
        fig.update_yaxes(title_text=f"profile {profile}", range=[0, 105], tickvals=[0, 50, 100], row=row, col=1)
    fig.update_xaxes(type="category", showline=True)
    fig.update_xaxes(title_text="risk multiplier chosen (bars: % of states)", row=len(profiles), col=1)
    return finish(
        fig, "Best risk multiplier by profile", f"{total:,} replayed states a profile", height=150 + 100 * len(profiles), bargap=0.2
    )


def importance(
    names: Sequence[str],
    mean: Any,  # (k,) mean |SHAP|
    *,
    low: Any,  # (k,) interval over time blocks
    high: Any,
    noise: float | None = None,  # upper bound of the shuffled columns: what is not above it is marked
    n: int,  # rows explained
    unit: str = "mean |SHAP|",
) -> go.Figure:
    """Ranked importance with intervals, beside what shuffled columns reach."""
    mean, low, high = (np.asarray(values, dtype=np.float64) for values in (mean, low, high))
    order = np.argsort(mean)
    above = low[order] > (noise if noise is not None else -np.inf)
    spread = {
        "type": "data",
        "symmetric": False,
        "array": (high - mean)[order],
        "arrayminus": (mean - low)[order],
        "width": 0,
        "thickness": 1.4,
        "color": GREY,
    }
    marker = {"size": 8, "color": np.where(above, BLUE, FAINT)}
    fig = go.Figure(
        go.Scatter(
            x=mean[order],
            y=[names[i] for i in order],
            error_x=spread,
            mode="markers",
            marker=marker,
            hovertemplate="%{y}: %{x:.4f}<extra></extra>",
        )
    )
    if noise is not None:
        fig.add_vrect(x0=0, x1=noise, fillcolor=RULE, opacity=0.7, line_width=0, layer="below")
    fig.update_xaxes(title_text=unit, rangemode="tozero")
    fig.update_yaxes(ticks="", dtick=1)
    text = f"{n:,} rows; {int(above.sum())} of {len(names)} features above shuffled columns" if noise is not None else f"{n:,} rows"
    return finish(fig, "Feature importance", text, height=130 + 18 * len(names))


def study_course(
    courses: Mapping[
        str, tuple[Sequence[int], Sequence[float | None], float | None]
    ],  # panel -> trial numbers, losses, loss of the settings
    *,
    noun: str = "log loss on the tune window",
) -> go.Figure:
    """Each trial of a study, the best so far, and the loss of the configured values. A trial without a loss was given up early."""
    fig = make_subplots(rows=1, cols=len(courses), subplot_titles=list(courses), shared_yaxes=True, horizontal_spacing=0.05)
    given_up = 0
    for column, (numbers, losses, configured) in enumerate(courses.values(), start=1):
        done = [(n, loss) for n, loss in zip(numbers, losses, strict=True) if loss is not None]
        given_up += len(numbers) - len(done)
        x, y = [n for n, _ in done], np.array([loss for _, loss in done], dtype=np.float64)
        where, first = {"row": 1, "col": column}, column == 1
        marks = {"mode": "markers", "marker": {"size": 6, "color": GREY}, "name": "trial", "showlegend": first, "legendgroup": "trial"}
        fig.add_trace(go.Scatter(x=x, y=y, hovertemplate="trial %{x}: %{y:.5f}<extra></extra>", **marks), **where)
        if len(y):
            line = {"mode": "lines", "line": {"color": BLUE, "shape": "hv", "width": 2}, "showlegend": first, "legendgroup": "best"}
            fig.add_trace(go.Scatter(x=x, y=np.minimum.accumulate(y), name="best so far", hoverinfo="skip", **line), **where)
        if configured is not None:
            fig.add_hline(y=configured, line={"color": RED, "dash": "dot", "width": 1}, **where)
        fig.update_xaxes(title_text="trial", **whole_axis(max(numbers, default=0)), **where)
    n = sum(len(numbers) for numbers, _, _ in courses.values())
    fig.update_yaxes(title_text=noun, col=1, row=1)
    subtitle = f"{_count(n, 'trial')}, {given_up:,} of them given up early; dotted: the settings' own values"
    below = {"y": -0.16, "yanchor": "top"}
    return finish(fig, "The course of the search", subtitle, hovermode="closest", legend=below, margin={"b": 80})


def study_importance(
    shares: Mapping[str, Mapping[str, float]],  # panel -> setting -> share of importance
    *,
    n: int,  # trials behind it
) -> go.Figure:
    """Which settings decided the outcome of a study, one panel a model, shares summing to 1."""
    fig = make_subplots(rows=1, cols=max(1, len(shares)), subplot_titles=list(shares), horizontal_spacing=0.16)
    for column, panel in enumerate(shares.values(), start=1):
        names = sorted(panel, key=panel.get)
        bar = go.Bar(x=[panel[name] for name in names], y=names, orientation="h", marker_color=BLUE, showlegend=False)
        fig.add_trace(bar.update(hovertemplate="%{y}: %{x:.2f}<extra></extra>"), row=1, col=column)
        fig.update_xaxes(title_text="share", range=[0, 1], row=1, col=column)
    return finish(fig, "What the outcome hung on", f"{_count(n, 'trial')}; PED-ANOVA", hovermode="closest")
