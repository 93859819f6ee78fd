"""What may be said of a recipe: its probabilities against the prior, its trades against chance, and the gate."""

from dataclasses import asdict, dataclass

from trademl.evidence.gate import GateVerdict
from trademl.evidence.page import Evidence
from trademl.learn.ensemble import MODELS
from trademl.market.recipe import trades_in
from trademl.market.specs import CLASSES
from trademl.market.walkforward import Judged
from trademl.pipeline.market.case import Case
from trademl.pipeline.market.replay import Conditions, evidence_on, terms_of
from trademl.pipeline.market.risk import RiskHeads, head_of, sized
from trademl.validate.calibration import reliability
from trademl.validate.metrics import accuracy, class_prior, confusion, log_loss, log_loss_difference, prior_log_loss


@dataclass(frozen=True)
class Finding:
    """What the final window showed of a recipe; the verdict is part of it."""

    evidence: Evidence

    @property
    def verdict(self) -> GateVerdict:
        """Whether the gate lets it pass."""
        return self.evidence.verdict


def judge_final(case: Case, judged: Judged, heads: RiskHeads | None = None) -> Finding:
    """The evidence of the final window: every decision at fixed risk under the gate, and beside it the case's account."""
    rows, settings = case.rows, case.settings
    decisions = judged.decisions(rows, case.recipe, case.profile)
    trades = trades_in(rows, decisions.side, judged.windows.bars("final"), decisions.exit_bar)
    on_account = sized(decisions, trades, head_of(heads, case.profile, settings), case.profile)
    conditions = Conditions(case.profile, rows.costs, case.account)
    terms = terms_of(settings, judged.frozen.margins[case.profile].edge_found)
    window = judged.windows.span("final")
    return Finding(evidence_on(rows.bars, decisions, rows.spec, conditions, settings, window, terms=terms, on_account=on_account))


def score_signal(case: Case, judged: Judged) -> dict:
    """Log loss against the class prior on select and final, each model's own, confusion and reliability."""
    rows, settings = case.rows, case.settings
    label, weight = rows.labels.label, rows.labels.weight
    prior = class_prior(label[judged.signal.past], len(CLASSES), weight[judged.signal.past])
    scores = {}
    for window in ("select", "final"):
        at = judged.windows.rows(window)
        p, y, w = judged.probabilities[at], label[at], weight[at]
        by_model = judged.signal.model_probabilities[at]
        gain = log_loss_difference(
            p, y, rows.time_s[at], prior, w, draws=settings.backtest.bootstrap_draws, level=0.95, seed=settings.run.seed
        )
        scores[window] = {
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
    return scores | {"prior": prior.tolist()}
