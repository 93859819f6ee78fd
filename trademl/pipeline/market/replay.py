"""A stored revision's decisions, replayed: on its own final window, or by its shipped models on bars that they have not seen."""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from trademl.bot.policy import Policy, holds_head, is_published, risk_head_of
from trademl.bot.records import check_features, decision_rule_of, exit_rule_of
from trademl.clock import epoch_seconds, iso_z
from trademl.errors import LeakageError, UsageError
from trademl.evidence.gate import Terms
from trademl.evidence.looks import Look
from trademl.evidence.page import Evidence, Judging, make_evidence
from trademl.market.backtest import Decisions, run_backtest
from trademl.market.barriers import prices_of, walk_brackets
from trademl.market.features import FEATURES
from trademl.market.labeling import label_bars
from trademl.market.out_of_sample import OutOfSample, read_out_of_sample
from trademl.market.position import first_exit, held_rows
from trademl.market.rotation import EVIDENCE_ACCOUNT
from trademl.market.specs import AccountSpec, CostSpec, LabelSpec
from trademl.pipeline.market.inputs import Inputs, make_features
from trademl.pipeline.market.looks import decisions_of, entries_of, stands_for, stored_request, take_look, under_look
from trademl.pipeline.market.parameters import account_spec
from trademl.pipeline.market.risk import said_of_head, sized
from trademl.pipeline.market.seen import why_seen
from trademl.pipeline.stored import Stored
from trademl.settings import Settings
from trademl.validate.splits import Span

LOOKBACK = max(feature.lookback for feature in FEATURES)  # bars that a decision knows: rotations stay further away


@dataclass(frozen=True)
class Conditions:
    """Under which costs and rule decisions are judged, and what an account makes of them."""

    profile: int  # the account's, not the judged one
    costs: CostSpec
    account: AccountSpec
    rule: str | None = None  # expected_r or votes; None: the revision's own

    @classmethod
    def of(cls, stored: Stored, settings: Settings) -> "Conditions":
        """The settings' profile and account, and the costs that the revision was judged under."""
        profile = settings.account.profile
        return cls(profile, stored.costs, account_spec(settings, stored.symbol, profile))

    def other_rule(self, stored: Stored) -> str | None:
        """The rule, where it is not the revision's own: another recipe."""
        return None if self.rule in (None, stored.recipe["rule"]) else self.rule

    def what_if(self, stored: Stored) -> str:
        """What was varied without being another recipe; such figures pass no gate. Empty: nothing."""
        now, then = asdict(self.costs), asdict(stored.costs)
        changed = ", ".join(f"{name} {now[name]:g}" for name in now if now[name] != then[name])
        return changed and f"what-if figures, under other costs than those it was judged by ({changed})"


def evidence_on(
    bars: pd.DataFrame,
    decisions: Decisions,
    spec: LabelSpec,
    conditions: Conditions,
    settings: Settings,
    span: Span,
    *,
    terms: Terms,
    on_account: Decisions,
) -> Evidence:
    """All evidence on decisions within a span; those outside are dropped."""
    backtest = settings.backtest
    return make_evidence(
        bars,
        decisions,
        spec,
        conditions.costs,
        conditions.account,
        judging=Judging(settings.run.seed, terms, LOOKBACK, backtest.null_curves, backtest.bootstrap_draws),
        window=(span.start_s, span.end_s),
        on_account=on_account,
    )


# ---------------------------------------------------------------- the final window, by the probabilities given at the time


def out_of_sample(stored: Stored) -> OutOfSample:
    """A revision's out-of-sample table, under its own contract."""
    return read_out_of_sample(stored.read("oos.parquet"), stored.label_spec)


def reread_evidence(stored: Stored, settings: Settings, conditions: Conditions | None = None) -> Evidence:
    """The evidence of a stored revision's judged days, under the verdict that it has. The account is that of `conditions`.

    Another profile brings its limits, its size and its head to the same entries; its own margin would be another recipe.
    """
    oos, conditions = out_of_sample(stored), conditions or Conditions.of(stored, settings)
    evidence = _judged(stored, oos.bars, oos.entries, settings, conditions, stored.look.days, Terms(**stored.terms))
    stands = stored.look.standing
    return evidence if stands is None else evidence.under(stands_for(evidence.verdict, stands))


def _judged(
    stored: Stored, bars: pd.DataFrame, entries: Decisions, settings: Settings, conditions: Conditions, span: Span, terms: Terms
) -> Evidence:
    """The evidence of entries within a span, and of an account that trades them under its profile's head."""
    on_account = with_head(stored, bars, entries, conditions, settings)
    evidence = evidence_on(bars, entries, stored.label_spec, conditions, settings, span, terms=terms, on_account=on_account)
    is_unpublished = on_account is not entries and not is_published(stored.revision, conditions.profile)
    return said_of_head(evidence, is_unpublished=is_unpublished)


def replay_final(stored: Stored, settings: Settings, conditions: Conditions, run_id: str) -> tuple[Evidence, Look]:
    """The final window once more, and its line in the chain of looks.

    Under the revision's own rule and costs: its own evidence, judged again only where the chain does not know it. Other costs
    decide anew, for figures that pass no gate. Another rule is another recipe: it is judged.
    """
    oos, rule, what_if = out_of_sample(stored), conditions.other_rule(stored), conditions.what_if(stored)
    is_own = rule is None and not what_if
    span = stored.look.days if is_own else stored.windows.span("final")
    entries = oos.entries if is_own else decided(stored, oos, conditions)
    made = entries_of(oos.bars, entries, oos.spec, conditions.costs, span)
    asked = {"run_id": run_id, "alpha": stored.terms["level"], "rule": rule, "note": what_if}
    look = take_look(settings, stored.store.models_dir, stored_request(stored, oos.bars, made, span, **asked))
    if is_own and look.standing is not None:
        return reread_evidence(stored, settings, conditions), look
    if not what_if and look.standing is None:  # the record is judged, these days with it
        entries, _ = decisions_of(look.entries(), epoch_seconds(oos.bars.index) + oos.spec.bar_seconds)
        span = Span(look.start_s, look.end_s)
    objections = (what_if,) if what_if else tuple(stored.terms["objections"])
    edge_found = stored.edge_found if rule is None else has_edge(stored, oos, conditions)
    terms = Terms(look.alpha, stored.terms["min_trades"], look.number, edge_found, objections)
    evidence = _judged(stored, oos.bars, entries, settings, conditions, span, terms)
    return (evidence if what_if else under_look(settings, look, evidence)), look


def decided(stored: Stored, oos: OutOfSample, conditions: Conditions, window: str = "final") -> Decisions:
    """What the judged profile decides in a window, by the probabilities given at the time."""
    rule = decision_rule_of(stored.revision, stored.judged_profile, is_shipped=False, rule=conditions.rule)
    return oos.decisions(rule, conditions.costs, window, exits_on=exit_rule_of(stored.revision) is not None)


def has_edge(stored: Stored, oos: OutOfSample, conditions: Conditions) -> bool:
    """Whether a rule's trades earned anything on select."""
    decisions = decided(stored, oos, conditions, "select")
    net_r = run_backtest(oos.bars, decisions, oos.spec, conditions.costs, EVIDENCE_ACCOUNT).trades["net_r"]
    return len(net_r) >= stored.terms["min_trades"] and bool(net_r.mean() > 0)


def with_head(stored: Stored, bars: pd.DataFrame, decisions: Decisions, conditions: Conditions, settings: Settings) -> Decisions:
    """Decisions sized by the profile's head, where it is published or insisted on; the account begins with the first of them."""
    profile, asked = conditions.profile, settings.risk_model
    insists = asked.uses_unpublished(profile) and holds_head(stored.revision, profile)
    head = risk_head_of(stored.revision, profile, is_enabled=asked.enabled, use_unpublished=insists)
    if head is None:
        return decisions
    trades = run_backtest(bars, decisions, stored.label_spec, conditions.costs, EVIDENCE_ACCOUNT).trades
    return sized(decisions, trades, head, conditions.profile)


# ---------------------------------------------------------------- the shipped models, on bars that they have not seen

IN_SAMPLE = "In-sample: the models have seen these bars, and the figures prove nothing"


def replay_bars(
    stored: Stored, inputs: Inputs, settings: Settings, conditions: Conditions, run_id: str, *, in_sample: bool = False
) -> tuple[Evidence, Look | None]:
    """The shipped models on bars after everything that they saw, and their line in the chain of looks; earlier bars serve as history.

    Without a later bar it is refused; `in_sample` takes the bars that they saw, for figures that prove nothing and are no look.
    """
    check_features(stored.revision, settings.symbol(stored.symbol).round_step)
    stored.revision.verify()
    rule, what_if = conditions.other_rule(stored), conditions.what_if(stored)
    if what_if and not in_sample:
        raise UsageError(f"on new bars there are no {what_if}: judge them under its own costs; --oos-only takes other ones")
    span, decisions = _run_shipped(stored, inputs, settings, conditions, in_sample=in_sample)
    bars, spec, min_trades = inputs.bars, stored.label_spec, settings.gate.min_trades
    if in_sample:
        terms = Terms(settings.gate.level, min_trades, edge_found=stored.edge_found, objections=(IN_SAMPLE,))
        return _judged(stored, bars, decisions, settings, conditions, span, terms), None
    made = entries_of(bars, decisions, spec, conditions.costs, span)
    asked = {"run_id": run_id, "alpha": settings.gate.level, "rule": rule}
    look = take_look(settings, stored.store.models_dir, stored_request(stored, bars, made, span, **asked))
    edge_found = stored.edge_found if rule is None else has_edge(stored, out_of_sample(stored), conditions)
    terms = Terms(look.alpha, min_trades, look.number, edge_found)
    if look.standing is None:  # the record is judged, these days with it
        decisions, _ = decisions_of(look.entries(), epoch_seconds(bars.index) + spec.bar_seconds)
        span = Span(look.start_s, look.end_s)
    return under_look(settings, look, _judged(stored, bars, decisions, settings, conditions, span, terms)), look


def _run_shipped(stored, inputs, settings, conditions, *, in_sample) -> tuple[Span, Decisions]:
    """The unseen span (in sample: what was seen), and what the judged profile decides in it."""
    policy = Policy.of(stored.revision, stored.judged_profile, costs=conditions.costs, rule=conditions.rule)
    decided_s = epoch_seconds(inputs.bars.index) + stored.label_spec.bar_seconds
    unseen = _unseen(stored, decided_s, in_sample=in_sample)
    end_s = int(decided_s[-1]) + 1
    if in_sample:  # bars that nobody has judged stay unseen
        span = Span(int(decided_s[0]), int(decided_s[unseen[0]]) if len(unseen) else end_s)
    else:
        span = Span(int(decided_s[unseen[0]]), end_s)
        stored.lineage.check(span.start_s, stored.embargo_s)
        if said := why_seen(stored, inputs.bars, span):
            raise LeakageError(f"the models have seen these prices: {said}. Use --in-sample for figures that prove nothing")
    if span.start_s >= span.end_s:
        raise UsageError("the models saw none of these bars: leave out --in-sample")
    made = shipped_decisions(policy, inputs, settings)
    return span, replace(made, side=np.where((decided_s >= span.start_s) & (decided_s < span.end_s), made.side, 0))


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

    A trade is judged at every close at which it is open, as a bot would: also where the data cut its horizon short and it has no
    label, and until the spread, too, is past its bracket.
    """
    bars, x = inputs.bars, make_features(inputs, settings)
    labels = label_bars(bars, policy.spec)
    side = policy.sides(x, labels.atr)
    if policy.exits is None:
        return Decisions(side)
    long, short = walk_brackets(
        prices_of(bars, policy.spec)[0], policy.spec, spread=policy.costs.spread, full_horizon=False, excursions=False
    )
    labels = replace(labels, long=long, short=short)
    entry = np.flatnonzero((side != 0) & (long.exit_bar >= 0))
    prices = bars["open"].to_numpy(), bars["close"].to_numpy()
    held = held_rows(*prices, labels, entry, side[entry], min_bars_held=policy.exits.min_bars_held)
    exit_bar = np.full(len(bars), -1, np.int64)
    exit_bar[entry] = first_exit(held, policy.exit_probability(x[held.bar], held.state), len(entry), policy.exits)
    return Decisions(side, exit_bar)
