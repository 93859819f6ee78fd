"""The look at the last third: which advice is given at its level, and whether the policy as a whole may be used."""

from dataclasses import dataclass

import numpy as np

from trademl.clock import utc_now
from trademl.errors import BadDataError
from trademl.evidence.champion import Comparison
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
from trademl.evidence.looks import Look, close_look, open_look
from trademl.files import jsonable
from trademl.pipeline.market.looks import carried_looks, ledger_file, looks_file, stands_for
from trademl.pipeline.trades.case import JudgedTrades, TradeCase
from trademl.pipeline.trades.champion import beside_champion
from trademl.pipeline.trades.looks import look_request, sizes_in
from trademl.pipeline.trades.stored import trade_store
from trademl.trades.advice import Topic
from trademl.trades.policy import Policy, Replay, replay_sizes
from trademl.trades.worth import Claim, Findings, find_claims, none_of, standing_findings


@dataclass(frozen=True, eq=False)
class TradeFinding:
    """What the look at the last third found."""

    look: Look
    findings: Findings
    replay: Replay
    verdict: GateVerdict
    champion: Comparison | None


def judge_policy(case: TradeCase, judged: JudgedTrades, run_id: str) -> TradeFinding:
    """Take the look, test every claim at its level, replay the policy and judge it. LooksError: no figure may be shown.

    A run that repeats a standing verdict tests nothing: it advises what was advised then.
    """
    settings, store = case.settings, trade_store(case.settings, case.inputs.flags.models_dir)
    request = look_request(case, judged, run_id)
    look = open_look(looks_file(settings), request, now=utc_now(), carried=carried_looks([store]), ledger=ledger_file(settings))
    findings = findings_at(case, judged, look)
    replay = replay_look(case, look)
    champion = beside_champion(case, replay, look)
    verdict = gate_verdict(case, replay, findings, look, champion)
    if look.standing is None:
        said = {"passed": verdict.record_passed, "sentence": verdict.record_sentence}
        detail = {"claims": [claim.record() for claim in findings.claims.values()]}
        close_look(looks_file(settings), look, **said, now=utc_now(), detail=jsonable(detail))
    else:
        verdict = stands_for(verdict, look.to_json()["standing"])
    return TradeFinding(look, findings, replay, verdict, champion)


def findings_at(case: TradeCase, judged: JudgedTrades, look: Look) -> Findings:
    """What is advised: tested at the look's level, or what the standing verdict advised when it was given."""
    if look.standing is None:
        return find_claims(case.rows, judged.models, level=look.level, seed=case.recipe.seed)
    told = f"the {look.standing.words} does not say what was advised; nothing is until the next one"
    claims = {topic: none_of(topic, told) for topic in Topic}
    claims |= {claim.topic: claim for claim in map(Claim.of, look.standing.detail.get("claims", ()))}
    return standing_findings(case.rows, judged.models, claims, look.standing.level)


def replay_look(case: TradeCase, look: Look) -> Replay:
    """The trades of the judged days at the sizes that stand in the chain. BadDataError when the log does not hold them any more."""
    rows = case.rows
    at = np.flatnonzero((rows.time_s >= look.start_s) & (rows.time_s < look.end_s))
    if not len(at):
        raise BadDataError(f"{case.inputs.flags.data}: no trade of the judged days is in this log any more; give the whole log")
    return replay_sizes(rows, at, sizes_in(look.entries(), rows, at), seed=case.recipe.seed)


# ---------------------------------------------------------------- the gate


def gate_verdict(case: TradeCase, replay: Replay, findings: Findings, look: Look, champion: Comparison | None) -> GateVerdict:
    """May the policy be used? It must earn something, beat every trade, the rule of thumb and random sizing, and all be advised."""
    objections = () if champion is None or not champion.is_held else (champion.sentence,)
    terms = Terms(look.alpha, case.settings.gate.min_trades, look.number, findings.threshold is not None, objections)
    checks = [
        limits_check(terms),
        edge_check(terms, "no threshold was found on the second third"),
        *_policy_checks(replay, findings, terms),
        objections_check(terms),
    ]
    return verdict_of(checks, replay.worth, terms, lambda verdict: _sentence(verdict, replay))


def _policy_checks(replay: Replay, findings: Findings, terms: Terms) -> list[Check]:
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
        claim = findings.claims[topic]
        found.append(Check.of(f"advised_{topic}", claim.p_value, claim.needed, claim.is_given, f"{topic} is withheld ({claim.sentence})"))
    return found


def _sentence(verdict: GateVerdict, replay: Replay) -> str:
    model, every = replay.results[Policy.MODEL], replay.results[Policy.EVERY_TRADE]
    figures = f"{model.total_r:+.1f} R on {model.trades:,} of {every.trades:,} trades, every trade taken {every.total_r:+.1f} R"
    level = percent(verdict.level)
    return f"Gate passed at {level}: {figures}." if verdict.passed else f"Gate refused at {level}: {'; '.join(verdict.reasons)}. {figures}."
