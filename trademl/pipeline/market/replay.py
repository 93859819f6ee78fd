"""A stored revision's decisions, replayed: on its own final window, or by its shipped models on bars that they have not seen."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from trademl.bot.policy import Policy, risk_head_of
from trademl.bot.records import check_features, decision_rule_of, exit_rule_of
from trademl.clock import epoch_seconds, iso_z
from trademl.errors import LeakageError, UsageError
from trademl.evidence.page import Evidence, Resampling, make_evidence
from trademl.market.backtest import Decisions, run_backtest
from trademl.market.barriers import prices_of, walk_brackets
from trademl.market.labeling import label_bars
from trademl.market.out_of_sample import OutOfSample, read_out_of_sample
from trademl.market.position import first_exit, held_rows
from trademl.market.recipe import EVIDENCE_ACCOUNT
from trademl.market.specs import AccountSpec, CostSpec, LabelSpec
from trademl.pipeline.market.inputs import Inputs, make_features
from trademl.pipeline.market.parameters import account_spec
from trademl.pipeline.market.risk import sized
from trademl.pipeline.stored import Stored
from trademl.settings import Settings
from trademl.validate.splits import Span


@dataclass(frozen=True)
class Conditions:
    """Under which profile, costs, account and rule decisions are replayed."""

    profile: int
    costs: CostSpec
    account: AccountSpec
    rule: str | None = None  # expected_r or votes; None: the revision's own

    @classmethod
    def of(cls, stored: Stored, settings: Settings) -> "Conditions":
        """The settings' profile and account, and the costs that the revision was judged under."""
        profile = settings.account.profile
        return cls(profile, stored.costs, account_spec(settings, stored.symbol, profile))


def evidence_on(
    bars: pd.DataFrame, decisions: Decisions, spec: LabelSpec, conditions: Conditions, settings: Settings, span: Span
) -> Evidence:
    """All evidence on decisions within a span; those outside are dropped."""
    return make_evidence(
        bars,
        decisions,
        spec,
        conditions.costs,
        conditions.account,
        resampling=Resampling(settings.run.seed, settings.backtest.null_runs, settings.backtest.bootstrap_draws),
        window=(span.start_s, span.end_s),
    )


# ---------------------------------------------------------------- the final window, by the probabilities given at the time


def out_of_sample(stored: Stored) -> OutOfSample:
    """A revision's out-of-sample table, under its own contract."""
    return read_out_of_sample(stored.read("oos.parquet"), stored.label_spec)


def reread_evidence(stored: Stored, settings: Settings, conditions: Conditions | None = None) -> Evidence:
    """The evidence of a stored revision's final window, under any conditions; default: `Conditions.of`."""
    oos, conditions = out_of_sample(stored), conditions or Conditions.of(stored, settings)
    rule = decision_rule_of(stored.revision, conditions.profile, is_shipped=False, rule=conditions.rule)
    exits_on = exit_rule_of(stored.revision) is not None
    decisions = oos.decisions(rule, conditions.costs, "final", exits_on=exits_on)
    decisions = with_head(stored, oos.bars, decisions, conditions, settings)
    return evidence_on(oos.bars, decisions, oos.spec, conditions, settings, stored.windows.span("final"))


def with_head(stored: Stored, bars: pd.DataFrame, decisions: Decisions, conditions: Conditions, settings: Settings) -> Decisions:
    """Decisions sized by the profile's published head, if there is one; the account begins with the first of them."""
    head = risk_head_of(stored.revision, conditions.profile, is_enabled=settings.risk_model.enabled)
    if head is None:
        return decisions
    trades = run_backtest(bars, decisions, stored.label_spec, conditions.costs, EVIDENCE_ACCOUNT).trades
    return sized(decisions, trades, head, conditions.profile)


# ---------------------------------------------------------------- the shipped models, on bars that they have not seen

IN_SAMPLE = "In-sample: the models have seen these bars, and the figures prove nothing"


def shipped_evidence(
    stored: Stored, inputs: Inputs, settings: Settings, conditions: Conditions, *, in_sample: bool = False
) -> tuple[Evidence, str]:
    """The evidence of the shipped models on bars after everything that they saw, and a watermark.

    Earlier bars serve as history only. Without a later bar, or on all bars with `in_sample`: refused, or watermarked.
    """
    check_features(stored.revision, settings.symbol(stored.symbol).round_step)
    stored.revision.verify()
    policy = Policy.of(stored.revision, conditions.profile, costs=conditions.costs, rule=conditions.rule)
    decided_s = epoch_seconds(inputs.bars.index) + policy.spec.bar_seconds
    span = Span(int(decided_s[0]), int(decided_s[-1]) + 1)
    unseen = _unseen(stored, decided_s, in_sample=in_sample)
    if not in_sample:
        span = replace(span, start_s=int(decided_s[unseen[0]]))
        stored.lineage.check(span.start_s, stored.embargo_s)
    decisions = shipped_decisions(policy, inputs, settings)
    inside = (decided_s >= span.start_s) & (decided_s < span.end_s)
    decisions = with_head(stored, inputs.bars, replace(decisions, side=np.where(inside, decisions.side, 0)), conditions, settings)
    return evidence_on(inputs.bars, decisions, policy.spec, conditions, settings, span), IN_SAMPLE if in_sample else ""


def _unseen(stored: Stored, decided_s: np.ndarray, *, in_sample: bool) -> np.ndarray:
    """Bars that are decided after everything that the models and their ancestors saw; UsageError when there is none."""
    seen = stored.lineage.latest()  # of all ancestors: a warm start has seen what its parent saw
    if seen is None:
        raise LeakageError(f"revision {stored.name} keeps no lineage: nothing shows which bars its models saw; retrain")
    unseen_from = seen.label_end_s + stored.embargo_s
    unseen = np.flatnonzero(decided_s >= unseen_from)
    if not len(unseen) and not in_sample:
        raise UsageError(
            f"the shipped models saw labels up to {iso_z(seen.label_end_s)} ({seen}) and the bars end at "
            f"{iso_z(decided_s[-1])}: nothing here is out of sample. Use --oos-only for the probabilities that were given at the time, "
            f"give --bars that go on after {iso_z(unseen_from)}, or --in-sample for figures that prove nothing"
        )
    return unseen


def shipped_decisions(policy: Policy, inputs: Inputs, settings: Settings) -> Decisions:
    """What the shipped graphs decide at each bar, with the position model's exits if they are on.

    A trade whose horizon the data cut short has no label, and is judged at every close all the same, as a bot would.
    """
    bars, x = inputs.bars, make_features(inputs, settings)
    labels = label_bars(bars, policy.spec)
    side = policy.sides(x, labels.atr)
    if policy.exits is None:
        return Decisions(side)
    long, short = walk_brackets(prices_of(bars, policy.spec)[0], policy.spec, full_horizon=False, excursions=False)
    labels = replace(labels, long=long, short=short)
    entry = np.flatnonzero((side != 0) & (long.exit_bar >= 0))
    prices = bars["open"].to_numpy(), bars["close"].to_numpy()
    held = held_rows(*prices, labels, entry, side[entry], min_bars_held=policy.exits.min_bars_held)
    exit_bar = np.full(len(bars), -1, np.int64)
    exit_bar[entry] = first_exit(held, policy.exit_probability(x[held.bar], held.state), len(entry), policy.exits)
    return Decisions(side, exit_bar)
