"""What may be said of a recipe: its probabilities against the prior, its trades against chance, and the gate."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from trademl.evidence.champion import Comparison
from trademl.evidence.gate import GateVerdict, Terms
from trademl.evidence.looks import Look
from trademl.evidence.page import Evidence
from trademl.learn.ensemble import MODELS
from trademl.market.backtest import Decisions
from trademl.market.recipe import trades_in
from trademl.market.specs import CLASSES
from trademl.market.walkforward import Judged
from trademl.pipeline.market.alarms import LeakAlarms
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.champion import beside_champion
from trademl.pipeline.market.looks import decisions_of, look_request, take_look, under_look
from trademl.pipeline.market.replay import Conditions, evidence_on
from trademl.pipeline.market.risk import RiskHeads, head_of, said_of_head, sized
from trademl.validate.calibration import reliability
from trademl.validate.metrics import accuracy, class_prior, confusion, log_loss, log_loss_difference, prior_log_loss
from trademl.validate.splits import Span


@dataclass(frozen=True)
class Finding:
    """What the judged days showed of a recipe; the verdict is part of the evidence."""

    evidence: Evidence
    look: Look
    entries: Decisions  # that were judged: those of the recipe's record, and this run's on new days
    champion: Comparison | None  # with the active revision; None: there was none

    @property
    def verdict(self) -> GateVerdict:
        """Whether the gate lets it pass."""
        return self.evidence.verdict


def look_at_final(case: Case, judged: Judged, run_id: str) -> Look:
    """This run's place in the project's chain of looks. Before it is taken, no figure of the final window may be shown."""
    return take_look(case.settings, case.choice.models_dir, look_request(case, judged, run_id))


def judge_final(case: Case, judged: Judged, look: Look, alarms: LeakAlarms, heads: RiskHeads | None = None) -> Finding:
    """The evidence of the look's days: every entry at fixed risk under the gate, and beside it the case's account."""
    rows, settings = case.rows, case.settings
    entries, lost = decisions_of(look.entries(), rows.time_s)
    if lost:
        look = replace(look, remarks=(*look.remarks, f"{lost} recorded entries lie on bars that the file no longer has"))
    trades = trades_in(rows, entries.side, np.arange(len(rows.time_s)), entries.exit_bar)
    on_account = sized(entries, trades, head_of(heads, case.profile, settings), case.profile)
    edge_found = judged.frozen.margins[case.profile].edge_found
    champion = beside_champion(case, judged, look)
    held = (champion.sentence,) if champion is not None and champion.is_held else ()
    terms = Terms(look.alpha, settings.gate.min_trades, look.number, edge_found, (*alarms.refusals(), *held))
    conditions = Conditions(case.profile, rows.costs, case.account)
    days = Span(look.start_s, look.end_s)
    evidence = evidence_on(rows.bars, entries, rows.spec, conditions, settings, days, terms=terms, on_account=on_account)
    is_unpublished = on_account is not entries and case.profile not in heads.model.published
    return Finding(said_of_head(under_look(settings, look, evidence), is_unpublished=is_unpublished), look, entries, champion)


def score_signal(case: Case, judged: Judged) -> dict:
    """`score_window` of select and final, and the class prior."""
    scores = {window: score_window(case, judged, window) for window in ("select", "final")}
    return scores | {"prior": _prior(case, judged).tolist()}


def _prior(case: Case, judged: Judged) -> np.ndarray:
    label, weight = case.rows.labels.label, case.rows.labels.weight
    return class_prior(label[judged.signal.past], len(CLASSES), weight[judged.signal.past])


def score_window(case: Case, judged: Judged, window: str) -> dict:
    """Log loss against the class prior in a window, each model's own, confusion and reliability."""
    rows, settings, prior = case.rows, case.settings, _prior(case, judged)
    label, weight, at = rows.labels.label, rows.labels.weight, judged.windows.rows(window)
    p, y, w = judged.probabilities[at], label[at], weight[at]
    by_model = judged.signal.model_probabilities[at]
    gain = log_loss_difference(p, y, rows.time_s[at], prior, w, draws=settings.backtest.bootstrap_draws, level=0.95, seed=settings.run.seed)
    return {
        "n": len(at),
        "effective_n": float(w.sum()),
        "log_loss": log_loss(p, y, w),
        "prior_log_loss": prior_log_loss(prior, y, w),
        "log_loss_minus_prior": asdict(gain),
        "log_loss_by_model": {name: log_loss(by_model[:, m], y, w) for m, name in enumerate(MODELS)},
        "accuracy": accuracy(p, y, w),
        "confusion": confusion(y, p.argmax(axis=1), len(CLASSES)).tolist(),
        "reliability": asdict(reliability(p, y, w=w)),
        "class_shares": class_prior(y, len(CLASSES), w).tolist(),
    }
