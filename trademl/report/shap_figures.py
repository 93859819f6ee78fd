"""Figures of a SHAP summary: ranking, dependence of the strongest features, importance from fold to fold, pairs."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trademl.evidence.shap_summary import DependenceCurve, Drift, Interaction, Ranking
from trademl.report.figures import BLUE, CLASS_COLOURS, GREY, RED, SAND, TEAL, finish, importance

COLOURS = [BLUE, RED, TEAL, SAND, GREY, "#7a5a9a", "#8a5a2b", "#4f8f4f"]


def shap_ranking(ranking: Ranking, count: int, *, n: int) -> go.Figure:
    """The `count` strongest features by mean absolute contribution, with intervals over days where there are any, and the noise floor."""
    names, features = [feature.name for feature in ranking.features[:count]], ranking.features[:count]
    mean = [feature.mean for feature in features]
    has_interval = all(feature.low is not None for feature in features)
    low, high = ([getattr(feature, end) for feature in features] if has_interval else mean for end in ("low", "high"))
    noise = ranking.noise_floor if has_interval else None
    return importance(names, mean, low=low, high=high, noise=noise, n=n, unit=f"mean |SHAP|, {ranking.unit}")


def shap_dependence(curves: Sequence[DependenceCurve], *, n: int) -> go.Figure:
    """Contribution against value, a panel a feature and a line an output; the band holds 80 % of each bin's rows."""
    features = list(dict.fromkeys(curve.feature for curve in curves))
    outputs = list(dict.fromkeys(curve.output for curve in curves))
    rows = -(-len(features) // 2)
    fig = make_subplots(rows=rows, cols=2, subplot_titles=features, horizontal_spacing=0.1, vertical_spacing=0.36 / max(rows, 2))
    for curve in curves:
        place = features.index(curve.feature)
        at = {"row": place // 2 + 1, "col": place % 2 + 1}
        colour = CLASS_COLOURS.get(curve.output, BLUE)
        band = {"x": [*curve.value, *curve.value[::-1]], "y": [*curve.high, *curve.low[::-1]], "line": {"width": 0}, "opacity": 0.18}
        fig.add_trace(go.Scatter(**band, fill="toself", fillcolor=colour, mode="lines", hoverinfo="skip", showlegend=False), **at)
        line = {"color": colour, "width": 2}
        own = {"name": curve.output, "legendgroup": curve.output, "showlegend": place == 0 and len(outputs) > 1}
        hover = f"{curve.output}, {curve.feature} %{{x:.4g}}: %{{y:+.4f}}<extra></extra>"
        fig.add_trace(go.Scatter(x=curve.value, y=curve.mean, mode="lines", line=line, hovertemplate=hover, **own), **at)
    fig.update_annotations(font_size=12.5)
    unit = curves[0].unit if curves else ""
    told = f"{n:,} rows; mean and 80 % of the rows in bins of equally many; contribution to {unit}"
    plot = 210 * max(rows, 1)
    below = {"legend": {"y": -36 / plot, "yanchor": "top"}, "margin": {"b": 84}}  # the panels' titles stand on top
    return finish(fig, "How the strongest features act", told, height=176 + plot, hovermode="closest", **below)


def shap_drift(drift: Drift, features: Sequence[str], shown: Sequence[str], *, n: int) -> go.Figure:
    """Share of the importance, fold by fold, of the features `shown`."""
    totals = [sum(fold.means) or 1.0 for fold in drift.folds]
    fig = go.Figure()
    for number, name in enumerate(shown):
        at = features.index(name)
        shares = [fold.means[at] / total for fold, total in zip(drift.folds, totals, strict=True)]
        line = {"color": COLOURS[number % len(COLOURS)], "width": 2}
        hover = f"{name}, from %{{x|%Y-%m-%d}}: %{{y:.1%}}<extra></extra>"
        times = [fold.start_utc[:10] for fold in drift.folds]
        fig.add_trace(go.Scatter(x=times, y=shares, name=name, mode="lines+markers", line=line, hovertemplate=hover))
    fig.update_yaxes(tickformat=".0%", rangemode="tozero", title_text="share of all features")
    known = [value for value in drift.agreement if value is not None]
    span = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (min(known, default=0.0), max(known, default=0.0))))
    agree = f"; ranks of neighbours agree by {span} (1: the same)" if known else ""
    return finish(fig, "Importance from fold to fold", f"{n:,} rows in {len(drift.folds)} folds{agree}", height=440)


def shap_pairs(pairs: Sequence[Interaction], *, n: int) -> go.Figure:
    """The largest interactions, as shares of what the models say."""
    ordered = list(pairs)[::-1]
    names = [f"{pair.first} × {pair.second}" for pair in ordered]
    hover = "%{y}: %{x:.2%}<extra></extra>"
    fig = go.Figure(go.Bar(x=[pair.share for pair in ordered], y=names, orientation="h", marker_color=BLUE, hovertemplate=hover))
    fig.update_xaxes(tickformat=".1%", title_text="share of all effects", rangemode="tozero")
    fig.update_yaxes(ticks="", dtick=1)
    told = f"{n:,} rows; each model in its own unit, weighted as the ensemble weighs them"
    return finish(fig, "Features that act together", told, height=150 + 22 * len(ordered))
