"""The gate of a trade policy, from its replayed trades and its claims alone: a stored revision keeps both."""

from collections.abc import Mapping

from trademl.evidence.gate import (
    Check,
    GateVerdict,
    Terms,
    bound_check,
    edge_check,
    limits_check,
    objections_check,
    percent,
    trades_check,
    verdict_of,
)
from trademl.trades.advice import Topic
from trademl.trades.policy import Policy, Replay
from trademl.trades.worth import Claim


def policy_verdict(replay: Replay, claims: Mapping[Topic, Claim], terms: Terms) -> GateVerdict:
    """May the policy be used? It must earn something, beat every trade, the rule of thumb and random sizing, and all be advised."""
    checks = [
        limits_check(terms),
        edge_check(terms, "no threshold was found on the second third"),
        *_policy_checks(replay, claims, terms),
        objections_check(terms),
    ]
    return verdict_of(checks, replay.worth, terms, lambda verdict: _sentence(verdict, replay))


def _policy_checks(replay: Replay, claims: Mapping[Topic, Claim], terms: Terms) -> list[Check]:
    level, taken = terms.judged_at, replay.results[Policy.MODEL].trades
    found = [trades_check(taken, terms.min_trades), bound_check(taken, replay.worth, level)]
    for one in replay.versus[:2]:
        bound = None if one.worth is None or not one.worth.error else one.worth.bound(level)
        shown = "there is none" if bound is None else f"it is {bound:+.3f} R a trade"
        why = f"not better than {one.other.replace('_', ' ')}: a lower {percent(level)} bound above zero is asked, {shown}"
        found.append(Check.of(f"above_{one.other}", bound, 0.0, bound is not None and bound > 0, why))
    chance = replay.random_p <= level
    found.append(Check.of("random_p", replay.random_p, level, chance, f"{percent(replay.random_p)} of random sizings earned as much"))
    for topic in (Topic.THRESHOLD, Topic.SIZE):
        claim = claims[topic]
        found.append(Check.of(f"advised_{topic}", claim.p_value, claim.needed, claim.is_given, f"{topic} is withheld ({claim.sentence})"))
    return found


def _sentence(verdict: GateVerdict, replay: Replay) -> str:
    model, every = (replay.results[policy] for policy in (Policy.MODEL, Policy.EVERY_TRADE))
    followed = "Followed in full" if verdict.passed else "Followed in full all the same"
    figures = f"{followed}: {model.total_r:+.1f} R on {model.trades:,} of {every.trades:,} trades"
    said = "Gate passed at" if verdict.passed else "Gate refused at"
    reasons = "" if verdict.passed else f": {'; '.join(verdict.reasons)}"
    return f"{said} {percent(verdict.level)}{reasons}. {figures}; every trade at its own size: {every.total_r:+.1f} R."
