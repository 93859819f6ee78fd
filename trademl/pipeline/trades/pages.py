"""Tables and pictures of a training, for its report."""

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from trademl.pipeline.stored import Stored
from trademl.pipeline.trades.case import TradeCase
from trademl.pipeline.trades.improvement import TradeParts, group_table
from trademl.trades.models import LEVELS
from trademl.trades.policy import Policy
from trademl.trades.profile import model_rows
from trademl.trades.registry import TradeModel
from trademl.trades.walkforward import thirds_of


def studies_table(case: TradeCase) -> pd.DataFrame | str:
    """What was searched for each model and what became of it; a sentence where nothing was."""
    studies = case.studies
    if studies is None or studies.off:
        return "Nothing was asked for." if studies is None else studies.off
    found = [(model, "parameters", one.sentence) for model, one in studies.tuned.items()]
    found += [(model, "features", one.sentence) for model, one in studies.selected.items()]
    found += [(model, "anything", why) for model, why in studies.failed.items()]
    return pd.DataFrame([(str(model), *more) for model, *more in found], columns=["model", "searched", "what was found"])


class TradePages:
    """What the report shows of a training."""

    def __init__(self, parts: TradeParts):
        self.parts, self.case = parts, parts.case

    def classes(self) -> pd.DataFrame:
        """What each model learned from."""
        return pd.DataFrame(
            [{"model": str(one.model), "trades": one.rows, "target": one.target} for one in model_rows(self.case.rows.labels)]
        )

    def groups(self, column: str) -> pd.DataFrame:
        """Trades, win rate and mean R by asset or session."""
        return pd.DataFrame(group_table(self.case, column)).T.rename_axis(column)

    def advice(self) -> pd.DataFrame:
        """Every claim, and what became of it."""
        claims = self.parts.finding.findings.claims.values()
        return pd.DataFrame([{"topic": str(c.topic), "advice": "given" if c.is_given else "withheld", "why": c.sentence} for c in claims])

    def scores(self) -> pd.DataFrame:
        """All figures of the walk-forward, with intervals."""
        found = []
        for model, figures in self.parts.scores.items():
            found += [{"model": str(model), "figure": name, "value": str(figure)} for name, figure in figures.items()]
        return pd.DataFrame(found)

    def policies(self) -> pd.DataFrame:
        """What each policy made of the judged trades."""
        found = {}
        for policy, result in self.parts.finding.replay.results.items():
            plain = {"trades": result.trades, "R": result.total_r, "USD": result.total_usd, "R a trade": str(result.mean_r)}
            plain |= {"max drawdown R": result.max_drawdown_r, "Sharpe": result.sharpe.value, "Sortino": result.sortino.value}
            found[str(policy)] = plain | {"daily VaR 95 %, R": result.var_95_r}
        return pd.DataFrame(found)

    def equity(self) -> go.Figure:
        """Running sum of R over the judged trades."""
        replay = self.parts.finding.replay
        time = pd.to_datetime(replay.trades.time_s, unit="s")
        figure = go.Figure(layout={"yaxis_title": "R, net of fees"})
        for name, sizes in ((Policy.MODEL, replay.trades.size), (Policy.EVERY_TRADE, np.ones(len(replay.rows)))):
            figure.add_scatter(x=time, y=np.cumsum(sizes * replay.trades.net_r), name=name.replace("_", " "))
        return figure

    def reliability(self) -> go.Figure:
        """Quality on the last third: what was said, and what came of it, by tenths."""
        judged = self.parts.judged.models[TradeModel.SIGNAL_QUALITY]
        places, platt = thirds_of(self.case.rows, judged.at).report, self.parts.finding.findings.platt
        said, won = judged.answer[places, 0], judged.target(self.case.rows)[places]
        figure = go.Figure(layout={"xaxis_title": "said", "yaxis_title": "share that was profitable"})
        figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="perfect", line={"dash": "dot"})
        for name, score in [("raw", said)] + ([] if platt is None else [("calibrated", platt.apply(said))]):
            tenth = np.array_split(np.argsort(score, kind="stable"), 10)
            tenth = [part for part in tenth if len(part)]
            figure.add_scatter(x=[score[p].mean() for p in tenth], y=[won[p].mean() for p in tenth], mode="markers+lines", name=name)
        return figure

    def drivers(self, stored: Stored) -> go.Figure:
        """The ten largest mean |SHAP| of each model, from the report that the revision holds."""
        report = json.loads(stored.read("improvement_report.json"))
        figure = go.Figure(layout={"height": 760, "showlegend": True, "margin": {"l": 220}})
        for model, found in report["feature_importances"].items():
            top = list(found["shap"]["shap_importance"].items())[:10][::-1]
            total = sum(value for _, value in top) or 1.0
            figure.add_bar(x=[value / total for _, value in top], y=[name for name, _ in top], orientation="h", name=model)
        return figure

    def learning_curves(self) -> go.Figure:
        """Gain over no model on the last block, by the number of trades that were learned from."""
        figure = go.Figure(layout={"xaxis_title": "trades learned from", "yaxis_title": "gain over no model"})
        for model, curve in self.parts.curves.items():
            points = [point for point in curve if point.gain.point is not None]
            figure.add_scatter(x=[p.trades for p in points], y=[p.gain.point for p in points], name=str(model), mode="lines+markers")
        return figure

    def levels(self) -> go.Figure:
        """How many trades reached each level, by how they ended."""
        labels = self.case.rows.labels
        figure = go.Figure(layout={"barmode": "stack", "xaxis_title": "highest target reached", "yaxis_title": "trades"})
        for word, own in (("profitable", labels.profitable == 1), ("unprofitable", labels.profitable == 0)):
            figure.add_bar(x=list(range(LEVELS)), y=[int((own & (labels.tp_level == k)).sum()) for k in range(LEVELS)], name=word)
        return figure
