"""What four models see in a bot's trades: whether they rank and calibrate, what they hang on, and how far trades ran.

Each answer is that of a fit that had not seen the trade. The last third of the answered trades belongs to `trademl trades train`, which
judges on it and writes a look: nothing of it is drawn here.
"""

import html
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go

from trademl import report
from trademl.data.record_columns import record_columns
from trademl.data.record_maker import make_records
from trademl.errors import BadDataError, TradeMLError
from trademl.evidence.treeshap import tree_shap
from trademl.explore.panel import Panel, Shown, picker, sentence_html, slider
from trademl.explore.project import project_settings
from trademl.learn.readers import from_xgboost
from trademl.pipeline.trades import TradeFlags, load_trades
from trademl.pipeline.trades.pages import NAMES, ends_of, reliability_figure
from trademl.report.figures import BLUE, GREY, QUIET, RED, SAND, TEAL, finish
from trademl.settings import Settings
from trademl.trades.models import LEVELS, QUANTILE
from trademl.trades.registry import TradeModel
from trademl.trades.rows import TradeRows, trade_rows
from trademl.trades.scores import GAIN, interval_of, scored
from trademl.trades.walkforward import OutOfFold, Recipe, judge_model, thirds_of
from trademl.validate.platt import fit_platt

SAMPLE, SAMPLE_EDGE, SAMPLE_SEED = 1_500, 0.5, 7  # generated records
RECORDS = "records"  # folder of the datasets in which a log is looked for
EVERY = "all"
SHARES = 5  # groups of equally many trades
DRAWN = 15  # features in the ranking
UNITS = {
    TradeModel.SIGNAL_QUALITY: "chance of a profit",
    TradeModel.POSITION_SIZING: "expected R",
    TradeModel.TP_OPTIMIZER: "expected target level",
    TradeModel.SL_OPTIMIZER: "stop, % of entry",
}


@dataclass(frozen=True, eq=False)
class TradeLog:
    """Trades to explore, and where they come from."""

    rows: TradeRows
    told: str  # HTML
    is_made: bool


def sample_log(records: int = SAMPLE, edge: float = SAMPLE_EDGE) -> TradeLog:
    """Generated records with a known edge."""
    made = make_records(records, edge, seed=SAMPLE_SEED)
    rows = trade_rows(record_columns(list(made.records())).values, made.unit)
    told = f"<b>Generated records</b> (made, not real; edge {edge:g}): {len(rows):,} trades. Name your own: <code>explore(data=…)</code>"
    return TradeLog(rows, told, True)


def open_log(data: str, excursion_unit: str = "auto") -> TradeLog:
    """A bot's own log. BadDataError as `trademl trades train` raises it."""
    inputs = load_trades(TradeFlags(data, excursion_unit=excursion_unit))
    rows = inputs.rows()
    return TradeLog(rows, f"<b>{html.escape(data)}</b>: {inputs.records:,} records, {len(rows):,} closed trades", False)


@dataclass(frozen=True)
class Asked:
    """What the controls say."""

    model: TradeModel
    asset: str
    session: str
    feature: str
    stop: float  # percent of entry


class TradesRoom:
    """Everything that the explorer draws, from what it is asked."""

    def __init__(self, log: TradeLog, seed: int):
        self.log, self.rows, self.seed = log, log.rows, seed
        self.judged = lru_cache(maxsize=None)(lambda model: judge_model(self.rows, model, Recipe(seed=seed)))
        self.shap = lru_cache(maxsize=None)(self._shap)

    @property
    def open_rows(self) -> np.ndarray:
        """Trades that may be looked at, int64: those decided before the last third of the answered ones."""
        at = self.judged(TradeModel.SIGNAL_QUALITY).at
        return np.flatnonzero(self.rows.time_s < self.rows.time_s[at[thirds_of(self.rows, at).report[0]]])

    def words(self, column: str) -> list[str]:
        """The words of a column among the trades, the most frequent first."""
        words, counts = np.unique(self.rows.columns[column].astype(str), return_counts=True)
        return words[np.argsort(-counts, kind="stable")].tolist()

    def picked(self, asked: Asked) -> np.ndarray:
        """The open trades of one asset and session, bool (n,)."""
        keep = np.zeros(len(self.rows), bool)
        keep[self.open_rows] = True
        for column, word in (("asset", asked.asset), ("session_session", asked.session)):
            if word != EVERY:
                keep &= self.rows.columns[column].astype(str) == word
        return keep

    def answered(self, asked: Asked) -> tuple[OutOfFold, np.ndarray]:
        """A model's answers, and the places of those on picked trades that have its target. BadDataError when too few are left."""
        judged = self.judged(asked.model)
        known = ~np.isnan(judged.target(self.rows)) & ~np.isnan(judged.answer).any(1)
        places = np.flatnonzero(self.picked(asked)[judged.at] & known)
        if len(places) < 2 * SHARES:
            raise BadDataError(f"{len(places)} answered trades of {asked.asset} assets, {asked.session} sessions: pick more of them")
        return judged, places

    def _shap(self, model: TradeModel) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Contributions (m, features) of each fold's fit on the open trades that it had not seen, their rows (m,), and the features."""
        judged, open_rows = self.judged(model), self.open_rows
        values, rows, x = [], [], self.rows.inputs(model)
        for number, fit in zip(np.unique(judged.fold), judged.fits, strict=True):
            own = np.intersect1d(judged.at[judged.fold == number], open_rows)
            if len(own):
                found = tree_shap(from_xgboost(fit.booster), x[own])
                weight = np.arange(LEVELS) if found.shape[1] == LEVELS else np.ones(1)  # levels: towards the far targets
                values.append(np.tensordot(found, weight, axes=(1, 0)))
                rows.append(own)
        return np.concatenate(values), np.concatenate(rows), tuple(feature.name for feature in self.rows.features(model))

    def ranked(self, model: TradeModel) -> list[str]:
        """Features of a model, the strongest first."""
        values, _, names = self.shap(model)
        return [names[place] for place in np.argsort(-np.abs(values).mean(0), kind="stable")]

    # ---------------------------------------------------------------- figures

    def quality(self, asked: Asked) -> go.Figure:
        """Net R by fifths of what the model said."""
        judged, places = self.answered(asked)
        said = answer_of(judged)[places]
        net, time_s = self.rows.labels.r_multiple[judged.at[places]], self.rows.time_s[judged.at[places]]
        known = ~np.isnan(net)
        said, net, time_s = said[known], net[known], time_s[known]
        groups = np.array_split(np.argsort(said, kind="stable"), SHARES)
        found = [interval_of(net[own], time_s[own], seed=self.seed) for own in groups]
        mean, low, high = ends_of(found)
        spread = {"type": "data", "symmetric": False, "array": high - mean, "arrayminus": mean - low, "color": GREY, "width": 0}
        names = [f"{said[own].min():.2f} to {said[own].max():.2f}" for own in groups]
        figure = go.Figure(go.Bar(x=names, y=mean, error_y=spread, marker_color=np.where(mean > 0, TEAL, RED)))
        figure.add_hline(y=float(net.mean()), line={"color": QUIET, "width": 1.2, "dash": "dot"})
        figure.update_xaxes(title_text=f"{UNITS[asked.model]}, fifths of the trades", type="category")
        figure.update_yaxes(title_text="R a trade, net of fees")
        text = f"{len(net):,} trades, each answered by a fit that had not seen it; dotted: all of them"
        return finish(figure, f"What became of it: {NAMES[asked.model]}", text, height=430)

    def calibration(self, asked: Asked) -> go.Figure:
        """Signal quality: what was said and how often it was so, on the second third; the calibration is that of the first."""
        judged, places = self.answered(Asked(TradeModel.SIGNAL_QUALITY, asked.asset, asked.session, asked.feature, asked.stop))
        thirds = thirds_of(self.rows, judged.at)
        score, won = judged.answer[:, 0], judged.target(self.rows)
        shown = np.intersect1d(places, thirds.choose)
        if len(shown) < 2 * SHARES or len(set(won[thirds.calibrate])) < 2:
            raise BadDataError(f"{len(shown)} trades of the second third: too few to see a calibration")
        platt = fit_platt(score[thirds.calibrate], won[thirds.calibrate], self.rows.time_s[judged.at[thirds.calibrate]])
        way = "" if platt.scale > 0 else "; its slope is negative: it ranks the wrong way, and is never published"
        told = f"{len(shown):,} trades of the second third; Platt of the first{way}"
        return reliability_figure(score[shown], won[shown], platt, told).update_yaxes(range=[0, 1]).update_layout(height=430)

    def drivers(self, asked: Asked) -> go.Figure:
        """Mean absolute contribution of each feature."""
        values, rows, names = self.shap(asked.model)
        keep = self.picked(asked)[rows]
        if keep.sum() < 2 * SHARES:
            raise BadDataError(f"{keep.sum()} answered trades of {asked.asset} assets, {asked.session} sessions: pick more of them")
        size = np.abs(values[keep])
        shown = np.argsort(-size.mean(0), kind="stable")[:DRAWN]
        found = [interval_of(size[:, place], self.rows.time_s[rows[keep]], seed=self.seed) for place in shown]
        mean, low, high = ends_of(found)
        figure = report.importance([names[place] for place in shown], mean, low=low, high=high, n=int(keep.sum()))
        text = f"{keep.sum():,} trades unseen by their fit; intervals over days"
        return finish(figure, f"What drives it: {NAMES[asked.model]}", text, height=460)

    def dependence(self, asked: Asked) -> go.Figure:
        """Contribution of one feature against its value."""
        values, rows, names = self.shap(asked.model)
        if asked.feature not in names:
            raise BadDataError(f"{NAMES[asked.model]} does not look at {asked.feature}")
        place, keep = names.index(asked.feature), self.picked(asked)[rows]
        x = self.rows.inputs(asked.model)[rows[keep], place].astype(float)
        won = self.rows.labels.profitable[rows[keep]] == 1
        figure = go.Figure()
        for name, own, colour in (("won", won, TEAL), ("lost", ~won, RED)):
            style = {"mode": "markers", "marker": {"size": 5, "color": colour, "opacity": 0.6}, "name": name}
            figure.add_scatter(x=x[own], y=values[keep][own, place], hovertemplate="%{x:.3g}: %{y:+.3f}", **style)
        missing = int(np.isnan(x).sum())
        figure.update_xaxes(title_text=asked.feature)
        figure.update_yaxes(title_text="contribution (SHAP)")
        text = f"{len(x) - missing:,} trades" + (f"; {missing:,} lack the value and are not drawn" if missing else "")
        return finish(figure, f"How {asked.feature} acts", text, height=460)

    def excursions(self, asked: Asked) -> go.Figure:
        """How far trades ran for and against the bot, in percent of entry."""
        labels, keep = self.rows.labels, self.picked(asked)
        figure = go.Figure()
        for name, own, colour in (("won", labels.profitable == 1, TEAL), ("lost", labels.profitable == 0, RED)):
            at = np.flatnonzero(keep & own)
            style = {"mode": "markers", "marker": {"size": 6, "color": colour, "opacity": 0.55}, "name": name}
            hover = "against %{x:.2f} %, for %{y:.2f} %"
            figure.add_scatter(x=labels.adverse_pct[at], y=labels.favorable_pct[at], hovertemplate=hover, **style)
        figure.add_vline(x=asked.stop, line={"color": QUIET, "width": 1.5, "dash": "dash"})
        figure.update_xaxes(title_text="most against, % of entry", rangemode="tozero")
        figure.update_yaxes(title_text="most for, % of entry", rangemode="tozero")
        text = "dashed: the slider's stop; losers end at their own"
        return finish(figure, "Excursions", text, height=460)

    def survivors(self, asked: Asked) -> go.Figure:
        """Share of the winners that a stop would have let live, by the stop."""
        adverse = np.sort(self.winners(asked))
        if not len(adverse):
            raise BadDataError("no winning trade has an adverse excursion here: pick more of them")
        figure = go.Figure()
        share = 100 * np.arange(1, len(adverse) + 1) / len(adverse)
        figure.add_scatter(x=adverse, y=share, mode="lines", line={"color": BLUE, "width": 2, "shape": "hv"}, showlegend=False)
        figure.add_hline(y=100 * QUANTILE, line={"color": SAND, "width": 1.2, "dash": "dot"})
        figure.add_vline(x=asked.stop, line={"color": QUIET, "width": 1.5, "dash": "dash"})
        figure.update_xaxes(title_text="stop, % of entry", rangemode="tozero")
        figure.update_yaxes(title_text="winners that survive it, %", range=[0, 103])
        text = f"{len(adverse):,} winning trades; dotted: 95 %, what the stop model aims at"
        return finish(figure, "Which stop the winners survived", text, height=430)

    def winners(self, asked: Asked) -> np.ndarray:
        """Adverse excursions of the picked winners (k,), percent of entry."""
        adverse = self.rows.labels.winner_adverse_pct[self.picked(asked)]
        return adverse[~np.isnan(adverse)]

    def sentence(self, asked: Asked) -> Shown:
        """How many trades, how many won, and what the picked model knew of them."""
        keep, labels = self.picked(asked), self.rows.labels
        known = labels.profitable[keep]
        won = f"{np.nanmean(known):.0%} won" if len(known) else "none"
        winners = self.winners(asked)
        lived = (
            f" A stop of {asked.stop:.2f} % lets {(winners < asked.stop).mean():.0%} of {len(winners):,} winners live."
            if len(winners)
            else ""
        )
        judged, places = self.answered(asked)
        gain = scored(self.rows, judged, places, seed=self.seed)[GAIN[asked.model]]
        what = f"{NAMES[asked.model]}: {GAIN[asked.model].replace('_', ' ')} over no model {gain}"
        word = "better than no model" if gain.is_above_zero else "worse than no model" if gain.is_below_zero else "not told from no model"
        hidden = f"the last {len(self.rows) - len(self.open_rows):,} trades stay shut: <code>trademl trades train</code> judges on them"
        text = f"{self.log.told}; {keep.sum():,} are drawn, {won}; {hidden}.<br><b>{word.capitalize()}</b> ({what}).{lived}"
        return Shown(text, kind="warn" if self.log.is_made else "plain")


def answer_of(judged: OutOfFold) -> np.ndarray:
    """One number a trade of a model's answer: of four chances, the level that is expected. (m,)"""
    return judged.answer @ np.arange(LEVELS) if judged.answer.shape[1] == LEVELS else judged.answer[:, 0]


class TradesPanel(Panel):
    """Pickers of model, asset, session and feature, and a stop that slides."""

    def __init__(self, room: TradesRoom):
        self.room, first = room, TradeModel.SIGNAL_QUALITY
        self._model = first
        stop = float(np.nanmedian(room.rows.column("exec_stopLossDistancePct")))
        controls = {
            "model": picker("model", [(name, model) for model, name in NAMES.items()], first),
            "feature": picker("feature", room.ranked(first), room.ranked(first)[0]),
            "asset": picker("asset", [EVERY, *room.words("asset")], EVERY),
            "session": picker("session", [EVERY, *room.words("session_session")], EVERY),
            "stop": slider("stop, %", stop if np.isfinite(stop) else 2.0, 0.1, 8, 0.05),
        }
        groups = {"WHICH ANSWER": ["model", "feature"], "WHICH TRADES": ["asset", "session"], "A TIGHTER STOP": ["stop"]}
        places = [["quality", "calibration"], ["drivers", "dependence"], ["excursions", "survivors"]]
        super().__init__(controls, places, self._shown, groups=groups)

    def _shown(self, values: dict) -> Shown:
        if values["model"] != self._model:  # its own features
            self._model = values["model"]
            ranked = self.room.ranked(self._model)
            self.controls["feature"].options, self.controls["feature"].value = ranked, ranked[0]
            values = self.values
        asked = Asked(**values)
        shown = self.room.sentence(asked)
        names = ("quality", "calibration", "drivers", "dependence", "excursions", "survivors")
        return Shown(shown.sentence, {name: partial(_or_words, getattr(self.room, name), asked) for name in names}, shown.kind)


def _or_words(draw, asked: Asked) -> go.Figure:
    """The figure, or in its place why there is none."""
    try:
        return draw(asked)
    except BadDataError as refusal:
        words = {"text": html.escape(str(refusal)), "showarrow": False, "font": {"color": QUIET, "size": 13}}
        figure = go.Figure().add_annotation(x=0.5, y=0.5, xref="paper", yref="paper", **words)
        return finish(figure.update_xaxes(visible=False).update_yaxes(visible=False), "Too few trades", "", height=430)


class TradesExplorer(widgets.VBox):
    """The panel of a bot's log; where there is none, or it is refused, the reason and generated records as a way on."""

    def __init__(self, data: str, excursion_unit: str, settings: Settings):
        super().__init__()
        self._settings, self.panel = settings, None
        folder = Path(settings.paths.datasets) / RECORDS
        try:
            if not data and not folder.exists():
                raise BadDataError(f"{folder} is not there, and explore(data=…) names no log: a JSON lines file, or the bot's own folder")
            self.show(open_log(data or str(folder), excursion_unit))
        except TradeMLError as refusal:
            self.button = widgets.Button(description="Open generated records", button_style="primary", layout=widgets.Layout(width="auto"))
            self.button.on_click(lambda _: self.show(sample_log()))
            self.children = [widgets.HTML(sentence_html(html.escape(str(refusal)), "refused")), self.button]

    def show(self, log: TradeLog) -> None:
        """Draw this log."""
        self.panel = TradesPanel(TradesRoom(log, self._settings.run.seed))
        self.children = [self.panel]


def explore(data: str = "", excursion_unit: str = "auto", settings: Settings | None = None) -> TradesExplorer:
    """The explorer of a bot's log, by default of `datasets/records`; without one, generated records are offered."""
    return TradesExplorer(data, excursion_unit, settings or project_settings())
