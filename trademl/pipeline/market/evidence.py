"""What may be said of a recipe: its probabilities against the prior, its trades against chance, and the gate."""

import json
from dataclasses import asdict

import numpy as np

from trademl.bot.policy import Policy, risk_head_of
from trademl.bot.records import check_features, costs_of, decision_rule_of, exit_rule_of, label_spec_of
from trademl.clock import epoch_seconds, iso_z
from trademl.errors import LeakageError, UsageError
from trademl.evidence.gate import GateVerdict, gate_expectancy
from trademl.evidence.page import Evidence
from trademl.evidence.page import judge as judge_trades
from trademl.learn.ensemble import MODELS
from trademl.market.backtest import Decisions, run_backtest
from trademl.market.labeling import label_bars
from trademl.market.out_of_sample import OutOfSample, read_oos
from trademl.market.position import first_exit, held_rows
from trademl.market.recipe import EVIDENCE_ACCOUNT, MarketRows, Recipe, trades_in
from trademl.market.specs import CLASSES, AccountSpec, CostSpec
from trademl.market.walkforward import Judged
from trademl.pipeline.market.choice import account_spec
from trademl.pipeline.market.inputs import Inputs, make_features
from trademl.pipeline.market.risk import RiskTrained, head_of_model, sized
from trademl.settings import Settings
from trademl.ship.store import Revision
from trademl.validate.calibration import reliability
from trademl.validate.lineage import Lineage
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


def weigh(
    rows: MarketRows,
    judged: Judged,
    recipe: Recipe,
    settings: Settings,
    symbol: str,
    profile: int,
    risk: RiskTrained | None = None,
) -> tuple[Evidence, GateVerdict]:
    """The honest page of the final window under the account, and the gate over every decision of it."""
    decisions = judged.decisions(rows, recipe, profile)
    final = judged.windows.bars("final")
    trades = trades_in(rows, decisions.side, final, decisions.exit_bar)
    ask = None if risk is None else head_of_model(risk.model, profile, settings)
    if ask is not None:
        decisions = sized(rows.bars, decisions, trades, ask, profile)
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
    costs = costs or costs_of(revision)
    decides = decision_rule_of(revision, profile, is_shipped=False, rule=rule)
    decisions = oos.decisions(decides, costs, "final", exits_on=exit_rule_of(revision) is not None)
    ask = risk_head_of(revision, profile, is_enabled=settings.risk_model.enabled)
    if ask is not None:
        trades = run_backtest(oos.bars, decisions, oos.spec, costs, EVIDENCE_ACCOUNT).trades
        decisions = sized(oos.bars, decisions, trades, ask, profile)
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
    return read_oos(revision.read("oos.parquet"), label_spec_of(revision))


# ---------------------------------------------------------------- the shipped models, on bars that they have not seen


def shipped_evidence(
    revision: Revision,
    inputs: Inputs,
    settings: Settings,
    *,
    profile: int,
    costs: CostSpec,
    account: AccountSpec,
    rule: str | None = None,
    in_sample: bool = False,
) -> tuple[Evidence, str]:
    """The honest page of the shipped models on bars after everything that they saw, and a watermark.

    Earlier bars serve as history only. Without a later bar, or on all bars with `in_sample`: refused, or watermarked.
    """
    manifest = revision.manifest
    check_features(revision, settings.symbol(manifest["symbol"]).round_step)
    revision.verify()
    policy, bars = Policy.of(revision, profile, costs=costs, rule=rule), inputs.bars
    spec = policy.spec
    decided = epoch_seconds(bars.index) + spec.bar_seconds
    lineage, embargo = Lineage.from_json(json.dumps(manifest["lineage"])), manifest["split"]["embargo"]
    seen = lineage.latest()  # of all ancestors: a warm start has seen what its parent saw
    if seen is None:
        raise LeakageError(f"revision {revision.name} keeps no lineage: nothing shows which bars its models saw; retrain")
    unseen_from = seen.label_end_s + embargo
    unseen = np.flatnonzero(decided >= unseen_from)
    if not len(unseen) and not in_sample:
        raise UsageError(
            f"the shipped models saw labels up to {iso_z(seen.label_end_s)} ({seen}) and the bars end at "
            f"{iso_z(decided[-1])}: nothing here is out of sample. Use --oos-only for the probabilities that were given at the time, "
            f"give --bars that go on after {iso_z(unseen_from)}, or --in-sample for figures that prove nothing"
        )
    span = (int(decided[0]), int(decided[-1]) + 1) if in_sample else (int(decided[unseen[0]]), int(decided[-1]) + 1)
    if not in_sample:
        lineage.check(span[0], embargo)
    decisions = shipped_decisions(policy, inputs, settings)
    options = {"seed": settings.run.seed, "null_runs": settings.backtest.null_runs, "bootstrap_draws": settings.backtest.bootstrap_draws}
    return judge_trades(bars, decisions, spec, costs, account, window=span, **options), IN_SAMPLE if in_sample else ""


IN_SAMPLE = "In-sample: the models have seen these bars, and the figures prove nothing"


def shipped_decisions(policy: Policy, inputs: Inputs, settings: Settings) -> Decisions:
    """What the shipped graphs decide at each bar, with the position model's exits if they are on."""
    bars, x = inputs.bars, make_features(inputs, settings)
    labels = label_bars(bars, policy.spec)
    side = policy.sides(x, labels.atr)
    if policy.exits is None:
        return Decisions(side)
    entry = np.flatnonzero((side != 0) & (labels.label >= 0))
    held = held_rows(bars["open"].to_numpy(), bars["close"].to_numpy(), labels, entry, side[entry])
    exit_bar = np.full(len(bars), -1, np.int64)
    exit_bar[entry] = first_exit(held, policy.exit_probability(x[held.bar], held.state), len(entry), policy.exits)
    return Decisions(side, exit_bar)
