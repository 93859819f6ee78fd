"""Pictures of the trades in groups, from an `Anatomy` of the evidence."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trademl.clock import DAY_S
from trademl.evidence.anatomy import Anatomy, Slice
from trademl.report.figures import BLUE, FAINT, GREY, INK, RED, TEAL, finish, whole_axis

NORMAL_95 = 1.96  # standard errors each way


def r_by_period(anatomy: Anatomy) -> go.Figure:
    """R by week above, by month below."""
    fig = make_subplots(rows=2, cols=1, row_heights=[0.55, 0.45], vertical_spacing=0.2)
    for row, (parts, noun) in enumerate(((anatomy.by_week, "week of"), (anatomy.by_month, "month")), 1):
        _add_totals(fig, parts, noun, row)
    weeks = max(1, round(len(anatomy.by_week) / 8))  # between ticks, which stand on Mondays
    every = {"tick0": anatomy.by_week[0].name, "dtick": weeks * 7 * DAY_S * 1000, "tickformat": "%-d %b"}
    fig.update_xaxes(title_text="week, by its Monday", type="date", **every, row=1, col=1)
    fig.update_xaxes(title_text="month", type="category", row=2, col=1)
    won = sum(part.total_r > 0 for part in anatomy.by_week)
    n = sum(part.trades for part in anatomy.by_week)
    return finish(fig, "R by week and month", f"{n:,} trades; {won} of {len(anatomy.by_week)} weeks above zero", height=480)


def _add_totals(fig: go.Figure, parts: Sequence[Slice], noun: str, row: int) -> None:
    total = [part.total_r for part in parts]
    fig.add_bar(
        x=[part.name for part in parts],
        y=total,
        customdata=[part.trades for part in parts],
        marker_color=[TEAL if value > 0 else RED for value in total],
        hovertemplate=noun + " %{x}: %{y:.1f} R on %{customdata:,} trades<extra></extra>",
        showlegend=False,
        row=row,
        col=1,
    )
    fig.update_yaxes(title_text="R earned", zeroline=True, zerolinecolor=GREY, row=row, col=1)


def r_histogram(
    anatomy: Anatomy,
    expectancy: float,  # mean net R, drawn as a line
) -> go.Figure:
    """How many trades ended with how much R."""
    bins = anatomy.outcomes
    centre, n = [(bin.low + bin.high) / 2 for bin in bins], [bin.trades for bin in bins]
    hover = "%{customdata[0]:.2f} to %{customdata[1]:.2f} R: %{y:,} trades<extra></extra>"
    fig = go.Figure(
        go.Bar(
            x=centre,
            y=n,
            width=0.92 * (bins[0].high - bins[0].low),
            customdata=[(bin.low, bin.high) for bin in bins],
            marker_color=[TEAL if x > 0 else RED for x in centre],
            hovertemplate=hover,
            showlegend=False,
        )
    )
    fig.add_vline(x=expectancy, line={"color": INK, "width": 1.5, "dash": "dot"})
    fig.update_xaxes(title_text="net R of a trade")
    fig.update_yaxes(title_text="trades", **whole_axis(max(n)))
    return finish(fig, "Outcomes", f"{sum(n):,} trades; dotted: their mean, {expectancy:+.3f} R", height=340, bargap=0)


def r_by_clock(anatomy: Anatomy) -> go.Figure:
    """Mean R a trade by hour and by weekday of entry."""
    return _means(
        {"hour of entry, UTC": anatomy.by_hour, "weekday of entry, UTC": anatomy.by_weekday}, "R by hour and weekday", name_every=(3, 1)
    )


def r_by_holding(anatomy: Anatomy) -> go.Figure:
    """Mean R a trade by how long it was held."""
    return _means({"bars held": anatomy.by_holding}, "R by holding time", name_every=(1,))


def _means(panels: dict[str, Sequence[Slice]], title: str, name_every: Sequence[int]) -> go.Figure:
    fig = make_subplots(rows=len(panels), cols=1, vertical_spacing=0.24)
    for row, ((noun, parts), every) in enumerate(zip(panels.items(), name_every, strict=True), 1):
        spread = [None if part.error_r is None else NORMAL_95 * part.error_r for part in parts]
        fig.add_scatter(
            x=[part.name for part in parts],
            y=[part.expectancy_net_r for part in parts],
            error_y={"type": "data", "array": spread, "width": 0, "thickness": 1.4, "color": FAINT},
            customdata=[(part.trades, part.total_r) for part in parts],
            mode="markers",
            marker={"size": 8, "color": BLUE},
            hovertemplate=f"{noun} %{{x}}: %{{y:+.3f}} R a trade<br>%{{customdata[0]:,}} trades, %{{customdata[1]:+.1f}} R<extra></extra>",
            showlegend=False,
            row=row,
            col=1,
        )
        shown = [part.name for part in parts][::every]
        ticks = {"tickvals": shown, "ticktext": [name[:3] if name.isalpha() else name for name in shown]}
        fig.update_xaxes(title_text=noun, type="category", **ticks, row=row, col=1)
        fig.update_yaxes(title_text="R a trade", zeroline=True, zerolinecolor=GREY, row=row, col=1)
    n = sum(part.trades for part in next(iter(panels.values())))
    return finish(
        fig, title, f"{n:,} trades; bars: two standard errors of each mean, trades taken as independent", height=130 + 190 * len(panels)
    )


def streak_counts(anatomy: Anatomy) -> go.Figure:
    """How often so many trades were won, or lost, in a row."""
    fig = go.Figure()
    length = [streak.length for streak in anatomy.streaks]
    for name, colour, counts in (("won", TEAL, [s.won for s in anatomy.streaks]), ("lost", RED, [s.lost for s in anatomy.streaks])):
        fig.add_bar(
            x=length, y=counts, name=name, marker_color=colour, hovertemplate=f"%{{x}} {name} in a row: %{{y:,}} times<extra></extra>"
        )
    fig.update_xaxes(title_text="trades in a row", **whole_axis(max(length)) | {"tick0": 1})
    fig.update_yaxes(title_text="times", **whole_axis(max(max(s.won, s.lost) for s in anatomy.streaks)))
    longest = {name: max((s.length for s in anatomy.streaks if getattr(s, name)), default=0) for name in ("won", "lost")}
    return finish(fig, "Streaks", f"longest: {longest['won']} won, {longest['lost']} lost in a row", height=340)
