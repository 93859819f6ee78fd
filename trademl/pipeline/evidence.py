"""What may be said of a recipe: its probabilities against the prior, its trades against chance, and the gate."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from trademl.evidence.gate import GateVerdict, gate_expectancy
from trademl.evidence.honesty import Evidence
from trademl.evidence.honesty import judge as judge_trades
from trademl.market.decision import DecisionRule, Rule
from trademl.market.ensemble import MODELS
from trademl.market.oos import OutOfSample, read_oos
from trademl.market.recipe import MarketRows, Recipe, trades_in
from trademl.market.specs import CLASSES, AccountSpec, CostSpec, LabelSpec
from trademl.market.walkforward import Judged
from trademl.pipeline.market import account_spec
from trademl.risk.profiles import profile as profile_of
from trademl.settings import Settings
from trademl.ship.store import Revision
from trademl.validate.calibration import reliability
from trademl.validate.metrics import accuracy, class_prior, confusion, log_loss, log_loss_difference, prior_log_loss


def score_signal(rows: MarketRows, judged: Judged, settings: Settings) -> dict:
    """Log loss against the class prior on select and final, each model's own, confusion and reliability."""
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


def weigh(rows: MarketRows, judged: Judged, recipe: Recipe, settings: Settings, symbol: str, profile: int) -> tuple[Evidence, GateVerdict]:
    """The honest page of the final window under the account, and the gate over every decision of it."""
    decisions = judged.decisions(rows, recipe, profile)
    final = judged.windows.bars("final")
    span = judged.windows.span("final")
    evidence = judge_trades(
        rows.bars,
        decisions,
        rows.spec,
        rows.costs,
        account_spec(settings, symbol, profile),
        seed=recipe.seed,
        null_runs=settings.backtest.null_runs,
        bootstrap_draws=recipe.bootstrap_draws,
        window=(span.start_s, span.end_s),
    )
    trades = trades_in(rows, decisions.side, final, decisions.exit_bar)
    verdict = gate_expectancy(
        trades.net_r.to_numpy(),
        trades.entry_time,
        min_trades=settings.gate.min_trades,
        level=settings.gate.level,
        draws=recipe.bootstrap_draws,
        seed=recipe.seed,
    )
    return evidence, verdict


def reread_evidence(
    revision: Revision,
    settings: Settings,
    *,
    profile: int,
    costs: CostSpec | None = None,
    account: AccountSpec | None = None,
    rule: str | None = None,
) -> Evidence:
    """The honest page of a stored revision's final window, under any account, cost or profile."""
    manifest = revision.manifest
    oos = out_of_sample(revision)
    costs = costs or CostSpec(**manifest["costs"])
    decision = manifest["decision"] | ({"rule": rule} if rule else {})
    decisions = oos.decisions(stored_rule(decision, profile), costs, "final", exits_on=decision["exits_on"])
    span = manifest["split"]["windows"]["final"]
    return judge_trades(
        oos.bars,
        decisions,
        oos.spec,
        costs,
        account or account_spec(settings, symbol_of(revision), profile),
        seed=settings.run.seed,
        null_runs=settings.backtest.null_runs,
        bootstrap_draws=settings.backtest.bootstrap_draws,
        window=(span["start_s"], span["end_s"]),
    )


def symbol_of(revision: Revision) -> str:
    """The symbol as the settings name it."""
    return revision.manifest["symbol"]


def out_of_sample(revision: Revision) -> OutOfSample:
    """A revision's out-of-sample table, under its own contract."""
    fields = {k: v for k, v in revision.manifest["label_spec"].items() if k in LabelSpec.__dataclass_fields__}
    return read_oos(revision.read("oos.parquet"), LabelSpec(**fields))


def stored_rule(decision: Mapping, profile: int) -> DecisionRule:
    """A profile's rule out of a manifest's `decision` record."""
    margin = decision["margins"][str(profile)]["margin_r"]
    return DecisionRule(np.array(decision["worth"]), margin, Rule(decision["rule"]), profile_of(profile).confidence, decision["votes_gap"])
