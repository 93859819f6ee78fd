"""Leak alarms of a retrain: what columns, calendar and judged decisions know of the future. The verdict takes them as one object."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from trademl.data.releases import ReleaseProfile, release_profile
from trademl.errors import LooksError
from trademl.evidence.looks import Look
from trademl.market.decision import decide
from trademl.market.definitions import Source, columns_of
from trademl.market.features import FEATURE_NAMES
from trademl.market.recipe import rule_of
from trademl.market.specs import CLASSES
from trademl.market.walkforward import Judged
from trademl.pipeline.data_check import PLANTED
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.inputs import Inputs
from trademl.validate.bootstrap import block_bootstrap
from trademl.validate.dependence import Dependence, without_each
from trademl.validate.leaks import LeakReport, inspect_leaks
from trademl.validate.metrics import class_prior, log_loss, prior_log_loss

SHOWN = 12  # columns that the manifest keeps, the strongest first; alarmed ones always


@dataclass(frozen=True)
class LeakAlarms:
    """Everything that was looked at for leaks, and whether it refuses the gate."""

    columns: LeakReport
    releases: ReleaseProfile | None  # None: no calendar, or fewer than twelve releases
    dependence: Dependence | None = None  # None: nothing was judged yet
    is_planted: bool = False  # the embedded market, whose volume knows the outcome on purpose
    accepted: str | None = None  # the reason of --accept-leak

    @property
    def found(self) -> tuple[str, ...]:
        """One sentence for each alarm."""
        shifted = () if self.releases is None or not self.releases.is_alarmed else (self.releases.sentence,)
        judged = () if self.dependence is None else self.dependence.alarms
        return (*self.columns.alarms, *shifted, *judged)

    def refusals(self) -> tuple[str, ...]:
        """Why the gate must refuse: the alarms, unless the edge was planted or a person accepted them with a reason."""
        return () if self.is_planted or self.accepted else self.found

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a person is told."""
        if not self.found:
            return (self.columns.sentence, *([] if self.releases is None else [self.releases.sentence]))
        if self.is_planted:
            others = len(self.found) - 1
            return (f"{PLANTED}: {self.found[0]}{f'; and {others} more alarm' + 's' * (others > 1) if others else ''}",)
        if self.accepted:
            return tuple(f"leak accepted ({self.accepted}): {alarm}" for alarm in self.found)
        return tuple(f"leak alarm: {alarm}; find where it comes from, or accept it with --accept-leak REASON" for alarm in self.found)

    def record(self) -> dict:
        """The manifest's `market.leaks`: the figures themselves, so that nobody needs the data to read them."""
        columns = [leak for place, leak in enumerate(self.columns.columns) if place < SHOWN or leak.is_alarmed]
        return {
            "alarms": list(self.found),
            "refusals": list(self.refusals()),
            "accepted": self.accepted,
            "planted": self.is_planted,
            "sentences": list(self.sentences),
            "columns": [asdict(leak) | {"limit": leak.limit} for leak in columns],
            "volume_lead": None if self.columns.volume is None else list(self.columns.volume.correlation),
            "releases": None if self.releases is None else asdict(self.releases),
            "dependence": None if self.dependence is None else self.dependence.record(),
        }


def inspect_inputs(inputs: Inputs, x: np.ndarray, accepted: str | None = None) -> LeakAlarms:
    """What the columns of bars and features (n, 55) know of the moves after them, and whether the calendar fits the bars' stamps."""
    columns = inspect_leaks(inputs.bars, dict(zip(FEATURE_NAMES, x.T, strict=True)))
    releases = None if inputs.events is None else release_profile(inputs.bars, inputs.events)
    return LeakAlarms(columns, releases, is_planted=inputs.choice.is_synthetic, accepted=accepted)


def inspect_decisions(case: Case, judged: Judged, look: Look, alarms: LeakAlarms) -> LeakAlarms:
    """The alarms with what the decisions of the final window hang on: a figure of that window, for one who has taken its look."""
    if look.end_s <= judged.windows.span("final").start_s:
        raise LooksError("the look is not at this run's final window; take it with `look_at_final`")
    return replace(alarms, dependence=dependence_of(case, judged))


def dependence_of(case: Case, judged: Judged) -> Dependence:
    """What the judged decisions of the final window are worth before cost, and what is left without each source of inputs."""
    rows, final, seed = case.rows, judged.windows.rows("final"), case.recipe.seed
    y, w, past = rows.labels.label[final], rows.labels.weight[final], judged.signal.past
    raw = judged.signal.model_probabilities[final]
    r, decided = _gross_r(case, judged, raw)
    groups = {str(source): columns_of(source) for source in Source}
    prior = class_prior(rows.labels.label[past], len(CLASSES), rows.labels.weight[past])
    return Dependence(
        decisions=len(r),
        edge_r=float(r.mean()) if len(r) else None,
        low_r=block_bootstrap(r, rows.time_s[final][decided], "mean", draws=case.recipe.bootstrap_draws, level=0.98, seed=seed).low,
        without=without_each(lambda x: _edge(case, judged, x), rows.x[final], groups, seed=seed),
        log_loss=log_loss(judged.frozen.signal_blend.probabilities(raw), y, w),
        prior_log_loss=prior_log_loss(prior, y, w),
        win_rate=float((r > 0).mean()) if len(r) else None,
        driftless_win_rate=rows.spec.driftless_win_rate,
    )


def _edge(case: Case, judged: Judged, x: np.ndarray) -> float:
    """Mean gross R of the decisions on other inputs (rows of final, 55); 0 where none is made."""
    r, _ = _gross_r(case, judged, answers(judged, x))
    return float(r.mean()) if len(r) else 0.0


def answers(judged: Judged, x: np.ndarray) -> np.ndarray:
    """What each fold's models say of its rows of final, had their inputs been x (rows, 55): (rows, 3 models, 3 classes)."""
    final, z = judged.windows.rows("final"), judged.frozen.scaler.transform(x)
    raw = np.full((len(final), *judged.signal.model_probabilities.shape[1:]), np.nan)
    for fold, model in zip(judged.signal.folds, judged.signal.models, strict=True):
        at = np.flatnonzero(np.isin(final, fold.test_rows))
        if len(at):
            raw[at] = model.model_probabilities(z[at])
    return raw


def _gross_r(case: Case, judged: Judged, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(gross R of each decision, which rows of final decide) under the profile's rule, for answers (rows, 3, 3)."""
    rows, frozen, final = case.rows, judged.frozen, judged.windows.rows("final")
    rule = rule_of(frozen.worth, case.recipe, case.profile, frozen.margins[case.profile].margin_r)
    side = decide(rule, frozen.signal_blend.probabilities(raw), rows.cost_r[final], raw)
    decided = np.flatnonzero(side)
    r = np.where(side > 0, rows.labels.long.r[final], rows.labels.short.r[final])
    return r[decided], decided
