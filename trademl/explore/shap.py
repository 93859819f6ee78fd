"""What drives a revision's answers: ranking, dependence, pairs and drift from the summary that it keeps, and any one decision.

`recipe` is what the evidence rests on: each fold's models on bars that they had not seen. The shipped model has seen them: a description.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go

from trademl.evidence.shap_summary import ALL, Ranking, ShapSummary, Subject, Whose, noise_words
from trademl.explore.panel import WIDE_NAME, WIDTH, Panel, Shown, picker, stepper, whole
from trademl.explore.revision import RevisionExplorer
from trademl.pipeline.market.decision import explain_decision
from trademl.pipeline.market.explain import PAIR_ROWS, explain_shipped
from trademl.pipeline.stored import Stored
from trademl.report.figures import GREY, QUIET, RED, TEAL, finish
from trademl.report.shap_figures import shap_dependence, shap_drift, shap_pairs, shap_ranking
from trademl.settings import Settings

WHOSE = {"the recipe": Whose.RECIPE, "the shipped model": Whose.SHIPPED}
DRAWN = 12  # features of one decision
DRIFTING = 6  # features in the drift


@dataclass(frozen=True)
class Asked:
    """What the controls say."""

    whose: Whose
    subject: str
    output: str
    unit: str
    count: int  # features in the ranking
    feature: str  # of the dependence
    decision: int  # row of the judged rows


class ShapRoom:
    """Everything that the SHAP explorer draws, from what it is asked."""

    def __init__(self, stored: Stored, settings: Settings):
        self.stored, self.settings = stored, settings
        self.decision = lru_cache(maxsize=64)(lambda row: explain_decision(stored, str(row)))

    @cached_property
    def _shipped(self) -> ShapSummary:
        return explain_shipped(self.stored, self.settings)

    def summary(self, whose: Whose) -> ShapSummary:
        """The kept summary, or that of the shipped model, computed when it is first asked for."""
        return self.stored.shap_summary if whose is Whose.RECIPE else self._shipped

    def subject(self, asked: Asked) -> Subject:
        """The ensemble or head that is asked for."""
        return self.summary(asked.whose).subject(asked.subject)

    def _ranking(self, asked: Asked) -> Ranking:
        return self.subject(asked).ranking(asked.output, asked.unit)

    @property
    def decisions(self) -> int:
        """Judged bars that can be explained one by one."""
        return len(self.stored.judged_rows.time_s)

    # ---------------------------------------------------------------- figures

    def ranking(self, asked: Asked) -> go.Figure:
        """Mean absolute contributions with their intervals over days, beside the noise floor."""
        ranking, subject = self._ranking(asked), self.subject(asked)
        figure = shap_ranking(ranking, asked.count, n=subject.rows)
        words = "no noise floor was measured" if ranking.noise_floor is None else "the grey band: what shuffled copies of features reach"
        title = {"text": f"What drives {asked.subject}: {asked.output}", "subtitle": {"text": f"{subject.rows:,} rows; {words}"}}
        return figure.update_layout(title=title, height=max(430, 130 + 18 * asked.count))

    def dependence(self, asked: Asked) -> go.Figure:
        """Contribution of a feature against its value, a line an output."""
        curves = [curve for curve in self.subject(asked).dependence if curve.feature == asked.feature]
        if not curves:
            return _empty("How a feature acts", f"{asked.feature}: the summary keeps curves of the strongest features")
        figure = shap_dependence(curves, n=self.subject(asked).rows)
        figure.update_layout(
            xaxis={"domain": [0, 1], "title": {"text": asked.feature}}, xaxis2={"visible": False}, yaxis2={"visible": False}
        )
        text = f"mean and 80 % of the rows in bins of equally many; contribution to {curves[0].unit}"
        figure.layout.annotations = ()
        return figure.update_layout(title={"text": f"How {asked.feature} acts", "subtitle": {"text": text}}, height=430)

    def drift(self, asked: Asked) -> go.Figure:
        """Importance from fold to fold."""
        subject = self.subject(asked)
        if subject.drift is None:
            return _empty("Importance from fold to fold", "one model answered all rows: nothing can drift")
        strongest = [feature.name for feature in subject.ranking().features[:DRIFTING]]
        return shap_drift(subject.drift, subject.features, strongest, n=subject.rows).update_layout(height=430)

    def pairs(self, asked: Asked) -> go.Figure:
        """Features that act together."""
        subject = self.subject(asked)
        return shap_pairs(subject.interactions, n=min(PAIR_ROWS, subject.rows)).update_layout(height=430)

    def one(self, row: int) -> go.Figure:
        """The largest parts of one decision's expected R, with their standard errors."""
        found = self.decision(row)
        reasons = found.reasons[:DRAWN][::-1]
        rest = sum(reason.contribution_r for reason in found.reasons[DRAWN:])
        names = [f"the other {len(found.reasons) - len(reasons)}", *(f"{r.feature} = {r.value:.3g}" for r in reasons)]
        parts = np.array([rest, *(reason.contribution_r for reason in reasons)])
        error = {"type": "data", "array": [0.0, *(reason.error_r for reason in reasons)], "color": QUIET, "thickness": 1.2, "width": 0}
        colours = np.where(parts >= 0, TEAL, RED)
        hover = "%{y}: %{x:+.3f} R<extra></extra>"
        figure = go.Figure(go.Bar(x=parts, y=names, orientation="h", error_x=error, marker_color=colours, hovertemplate=hover))
        figure.add_vline(x=0, line={"color": GREY, "width": 1})
        figure.update_xaxes(title_text=f"contribution to the expected R of {found.explained_side}")
        figure.update_yaxes(ticks="", dtick=1)
        text = f"other bars {found.base_r:+.2f} R + these parts = {found.expected_r:+.2f} R net of cost"
        return finish(figure, f"{found.side} at {found.time_utc[:16].replace('T', ' ')}", text, height=430)

    # ---------------------------------------------------------------- words

    def sentence(self, asked: Asked) -> Shown:
        """What it hangs on, where the noise lies, and whose answers these are."""
        ranking, summary = self._ranking(asked), self.summary(asked.whose)
        strongest = ", ".join(f"{feature.name} ({feature.share:.0%})" for feature in ranking.features[:4])
        words = f"{summary.words[0].upper()}{summary.words[1:]}"
        noise = noise_words(ranking)
        text = f"<b>The answers of {asked.subject} hang on {strongest}</b> ({asked.output}, in {ranking.unit}); {noise}. {words}"
        return Shown(text, kind="plain" if asked.whose is Whose.RECIPE else "warn")

    def reason(self, row: int) -> str:
        """One decision in words."""
        return self.decision(row).words(4).replace("\n", "<br>")


def _empty(title: str, why: str) -> go.Figure:
    note = {"text": why, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "font": {"color": QUIET}}
    figure = go.Figure(layout={"annotations": [note]})
    return finish(figure.update_xaxes(visible=False).update_yaxes(visible=False), title, "", height=430)


class ShapPanel(Panel):
    """Whose answers, of which ensemble, class and unit; which feature, and which decision."""

    def __init__(self, stored: Stored, settings: Settings):
        self.room = room = ShapRoom(stored, settings)
        subjects = [subject.name for subject in stored.shap_summary.subjects if subject.rankings]
        controls = {
            "whose": picker("whose", list(WHOSE.items()), Whose.RECIPE),
            "subject": picker("what", subjects, subjects[0]),
            "output": picker("class", [ALL], ALL),
            "unit": picker("unit", ["probability"], "probability"),
            "count": whole("features shown", 15, 5, len(stored.feature_names)),
            "feature": picker("dependence of", ["none"], "none"),
            "decision": whole("judged bar", 0, 0, max(room.decisions - 1, 0)),
        }
        groups = {
            "WHOSE ANSWERS": ["whose", "subject"],
            "OF WHAT": ["output", "unit", "count"],
            "WHICH FEATURE, WHICH BAR": ["feature", "decision"],
        }
        self.why = widgets.HTML()
        self.date = widgets.DatePicker(description="or on the day", style=WIDE_NAME, layout=WIDTH)
        self.date.observe(self._jump, names="value")
        super().__init__(controls, [["ranking", "dependence"], ["one", "drift"], ["pairs"]], self._shown, groups=groups)
        steps = stepper(self, "decision", (("earlier bar", -1), ("next bar", 1)))
        self.children = [*self.children[:-1], self.why, widgets.HBox([steps, self.date]), self.children[-1]]

    def _shown(self, values: dict) -> Shown:
        room = self.room
        subject = room.summary(values["whose"]).subject(values["subject"])
        _offer(self.controls["output"], list(dict.fromkeys(ranking.output for ranking in subject.rankings)))
        output = self.controls["output"].value
        _offer(self.controls["unit"], [ranking.unit for ranking in subject.rankings if ranking.output == output])
        _offer(self.controls["feature"], list(dict.fromkeys(curve.feature for curve in subject.dependence)))
        names = ("subject", "output", "unit", "count", "feature", "decision")
        asked = Asked(values["whose"], *(self.controls[name].value for name in names))
        figures = {name: partial(getattr(room, name), asked) for name in ("ranking", "dependence", "drift", "pairs")}
        if room.decisions:
            figures["one"] = partial(room.one, asked.decision)
            self.why.value = f'<div style="padding:4px 12px;line-height:1.45;font-size:14px">{room.reason(asked.decision)}</div>'
        shown = room.sentence(asked)
        return Shown(shown.sentence, figures, shown.kind)

    def _jump(self, change: dict) -> None:
        """To the first judged bar of the day or after it."""
        if change["new"] is not None:
            day = int(np.datetime64(change["new"], "s").astype(np.int64))
            found = int(np.searchsorted(self.room.stored.judged_rows.time_s, day))
            self.put(decision=min(found, self.controls["decision"].max))


def _offer(control: widgets.Dropdown, options: list[str]) -> None:
    """Bound a picker to these, keeping what is picked where it is among them."""
    options = options or ["none"]
    if list(control.options) != options:
        kept = control.value if control.value in options else options[0]
        control.options = options
        control.value = kept


def explore(revision: str = "", settings: Settings | None = None) -> RevisionExplorer:
    """The explorer of a stored revision, by default the newest; without one, the embedded market is offered."""
    return RevisionExplorer(ShapPanel, revision, settings)
