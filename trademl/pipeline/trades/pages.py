"""Tables and pictures of a training, for its report."""

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trademl import report
from trademl.data.records import RecordsReport
from trademl.pipeline.stored import Stored
from trademl.pipeline.trades.case import TradeCase
from trademl.pipeline.trades.improvement import TradeParts, group_table
from trademl.report.figures import BLUE, GREY, QUIET, RED, SAND, TEAL, finish
from trademl.trades.models import LEVELS
from trademl.trades.policy import Policy
from trademl.trades.profile import model_rows
from trademl.trades.registry import TradeModel
from trademl.trades.scores import GAIN
from trademl.trades.walkforward import thirds_of
from trademl.validate.bootstrap import Interval
from trademl.validate.platt import Platt

NAMES = {
    TradeModel.SIGNAL_QUALITY: "signal quality",
    TradeModel.POSITION_SIZING: "position size",
    TradeModel.TP_OPTIMIZER: "target",
    TradeModel.SL_OPTIMIZER: "stop",
}
BINS = 5  # groups of equally many trades in the reliability
DRAWN = 8  # features of each model
STACKED_PX = 104  # above panels that have titles of their own


def issues_table(read: RecordsReport) -> pd.DataFrame:
    """What was found while the log was read, errors first."""
    found = [{"found": one.kind, "severity": str(one.severity), "message": one.message, "next step": one.remedy} for one in read.issues]
    return pd.DataFrame(found, columns=["found", "severity", "message", "next step"]).set_index("found")


def studies_table(case: TradeCase) -> pd.DataFrame | str:
    """What was searched for each model and what became of it; a sentence where nothing was."""
    studies = case.studies
    if studies is None or studies.off:
        return "Nothing was asked for." if studies is None else studies.off
    found = [(model, "parameters", one.sentence) for model, one in studies.tuned.items()]
    found += [(model, "features", one.sentence) for model, one in studies.selected.items()]
    found += [(model, "anything", why) for model, why in studies.failed.items()]
    rows = [(NAMES[model], *more) for model, *more in found]
    return pd.DataFrame(rows, columns=["model", "searched", "what was found"]).set_index("model")


class TradePages:
    """What the report shows of a training."""

    def __init__(self, parts: TradeParts):
        self.parts, self.case = parts, parts.case

    def classes(self) -> pd.DataFrame:
        """What each model learned from: how many trades, and how its target is spread."""
        found = [{"model": NAMES[one.model], "trades": f"{one.rows:,}", "target": one.target} for one in model_rows(self.case.rows.labels)]
        return pd.DataFrame(found).set_index("model")

    def groups(self, column: str) -> pd.DataFrame:
        """Trades, win rate and mean R by asset or session."""
        found = {
            word: {
                "trades": f"{one['trades']:,}",
                "won": f"{one['win_rate']:.1%}",
                "R a trade": "unknown" if one["mean_r"] is None else f"{one['mean_r']:+.3f}",
            }
            for word, one in group_table(self.case, column).items()
        }
        return pd.DataFrame(found).T.rename_axis(column.removeprefix("session_"))

    def advice(self) -> pd.DataFrame:
        """Every claim, and what became of it."""
        claims = self.parts.finding.findings.claims.values()
        found = [{"topic": str(c.topic), "advice": "given" if c.is_given else "withheld", "why": c.sentence} for c in claims]
        return pd.DataFrame(found).set_index("topic")

    def scores(self) -> pd.DataFrame:
        """All figures of the walk-forward, with intervals."""
        found = []
        for model, figures in self.parts.scores.items():
            found += [{"model": NAMES[model], "figure": name.replace("_", " "), "value": str(figure)} for name, figure in figures.items()]
        return pd.DataFrame(found).set_index("model")

    def policies(self) -> pd.DataFrame:
        """What each policy made of the judged trades."""
        found = {}
        for policy, result in self.parts.finding.replay.results.items():
            days = result.sharpe.n
            found[str(policy).replace("_", " ")] = {
                "trades": f"{result.trades:,}",
                "R": f"{result.total_r:+,.1f}",
                "USD": f"{result.total_usd:+,.0f}",
                "R a trade": str(result.mean_r),
                "won": "none" if result.win_rate is None else f"{result.win_rate:.1%}",
                "max drawdown, R": f"{result.max_drawdown_r:.1f}",
                f"Sharpe, a year ({days} days)": _ratio(result.sharpe.value),
                f"Sortino, a year ({days} days)": _ratio(result.sortino.value),
                "daily VaR 95 %, R": _ratio(result.var_95_r),
            }
        return pd.DataFrame(found).T.rename_axis("policy")

    def equity(self) -> go.Figure:
        """Running sum of R over the judged trades."""
        replay = self.parts.finding.replay
        time = pd.to_datetime(replay.trades.time_s, unit="s")
        figure = go.Figure()
        for name, sizes, colour in ((Policy.MODEL, replay.trades.size, BLUE), (Policy.EVERY_TRADE, np.ones(len(replay.rows)), GREY)):
            line = {"color": colour, "width": 1.8}
            figure.add_scatter(x=time, y=np.cumsum(sizes * replay.trades.net_r), name=name.replace("_", " "), mode="lines", line=line)
        figure.update_yaxes(title_text="R, net of fees")
        return finish(figure, "The judged trades", f"{len(replay.rows):,} trades, by the time of the decision", height=430)

    def reliability(self) -> go.Figure:
        """Quality on the last third: what was said, and what came of it, by fifths."""
        judged = self.parts.judged.models[TradeModel.SIGNAL_QUALITY]
        places, platt = thirds_of(self.case.rows, judged.at).report, self.parts.finding.findings.platt
        said, won = judged.answer[places, 0], judged.target(self.case.rows)[places]
        return reliability_figure(said, won, platt, f"{len(places):,} trades of the last third; bars: two standard errors")

    def drivers(self, stored: Stored) -> go.Figure:
        """The largest mean |SHAP| of each model, as shares of its largest, from the report that the revision holds."""
        kept = json.loads(stored.read("improvement_report.json"))["feature_importances"]
        models = [model for model in TradeModel if model in kept]
        figure = _stacked([NAMES[model] for model in models])
        for row, model in enumerate(models, start=1):
            top = list(kept[model]["shap"]["shap_importance"].items())[:DRAWN][::-1]
            largest = max(value for _, value in top) or 1.0
            names, shares = [name for name, _ in top], [100 * value / largest for _, value in top]
            hover = "%{y}: %{x:.0f} %<extra></extra>"
            figure.add_bar(x=shares, y=names, orientation="h", marker_color=BLUE, showlegend=False, hovertemplate=hover, row=row, col=1)
        figure.update_yaxes(ticks="", dtick=1, tickfont={"size": 10.5})
        figure.update_xaxes(range=[0, 102])
        figure.update_xaxes(title_text="share of the strongest, %", row=len(models), col=1)
        text = f"SHAP of the shipped models on up to {max(kept[model]['shap']['rows'] for model in models):,} trades: what they look at"
        return finish(figure, "Mean contributions", text, height=130 + 225 * len(models), margin={"t": STACKED_PX})

    def learning_curves(self) -> go.Figure:
        """Gain over no model on the last block, by the number of trades that were learned from."""
        curves = {model: [p for p in curve if p.gain.point is not None] for model, curve in self.parts.curves.items()}
        figure = _stacked([f"{NAMES[model]}: {GAIN[model].replace('_', ' ')}" for model in curves])
        for row, points in enumerate(curves.values(), start=1):
            y, low, high = ends_of([p.gain for p in points])
            bars = {"type": "data", "symmetric": False, "array": high - y, "arrayminus": y - low, "color": GREY, "width": 0}
            style = {"mode": "lines+markers", "line": {"color": BLUE, "width": 1.6}, "error_y": bars, "showlegend": False}
            figure.add_scatter(x=[p.trades for p in points], y=y, **style, row=row, col=1)
            figure.add_hline(y=0, line={"color": RED, "width": 1, "dash": "dot"}, row=row, col=1)
        figure.update_xaxes(rangemode="tozero").update_xaxes(title_text="trades learned from", row=len(curves), col=1)
        text = "on the last block; above the dotted line: better than no model; intervals over days"
        return finish(figure, "Gain by the number of trades", text, height=130 + 190 * len(curves), margin={"t": STACKED_PX})

    def levels(self) -> go.Figure:
        """How many trades reached each level, by how they ended."""
        labels = self.case.rows.labels
        figure = go.Figure(layout={"barmode": "stack"})
        for word, own, colour in (("profitable", labels.profitable == 1, TEAL), ("unprofitable", labels.profitable == 0, RED)):
            counts = [int((own & (labels.tp_level == k)).sum()) for k in range(LEVELS)]
            figure.add_bar(x=list(range(LEVELS)), y=counts, name=word, marker_color=colour)
        figure.update_xaxes(title_text="highest target reached", dtick=1).update_yaxes(title_text="trades")
        known = int((~np.isnan(labels.tp_level)).sum())
        return finish(figure, "Targets reached", f"{known:,} trades, {np.nanmean(labels.profitable):.1%} of all profitable", height=400)


def _stacked(titles: list[str]) -> go.Figure:
    """Panels below each other, each with its title."""
    figure = make_subplots(rows=len(titles), cols=1, subplot_titles=titles, vertical_spacing=0.07)
    return figure.update_annotations(font={"size": 12.5, "color": QUIET})


def ends_of(found: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, lower and upper ends (n,) of figures that have a point; where there is no interval its ends are the point."""
    low = [one.point if one.low is None else one.low for one in found]
    high = [one.point if one.high is None else one.high for one in found]
    return tuple(np.array(values, float) for values in ([one.point for one in found], low, high))


def reliability_figure(said: np.ndarray, won: np.ndarray, platt: Platt | None, told: str) -> go.Figure:
    """What signal quality said, raw and calibrated where there is a calibration, and what came of it (0 or 1): (n,)"""
    bins = {"raw": reliability_bins(said, won)}
    if platt is not None:
        bins["calibrated"] = reliability_bins(platt.apply(said), won)
    figure = report.calibration(bins, n=len(said))
    for trace, colour in zip(figure.data[1:], (SAND, BLUE)):
        trace.update(line_color=colour, marker_color=colour, error_y_color=colour)
    figure.update_xaxes(title_text="chance of a profit that was said").update_yaxes(title_text="share that was profitable")
    return finish(figure, "Signal quality: said, and so", told)


def reliability_bins(said: np.ndarray, won: np.ndarray) -> dict[str, np.ndarray]:
    """Bins of equally many trades as `report.calibration` draws them, with two standard errors. said, won (0 or 1): (n,)"""
    parts = [part for part in np.array_split(np.argsort(said, kind="stable"), BINS) if len(part)]
    seen, count = np.array([won[own].mean() for own in parts]), np.array([len(own) for own in parts])
    error = 2 * np.sqrt(np.maximum(seen * (1 - seen), 1e-9) / count)
    low, high = np.maximum(seen - error, 0), np.minimum(seen + error, 1)
    return {"predicted": np.array([said[own].mean() for own in parts]), "observed": seen, "count": count, "low": low, "high": high}


def _ratio(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"
