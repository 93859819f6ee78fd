"""The look at the last third: which advice is given at its level, and whether the policy as a whole may be used."""

from dataclasses import dataclass

import numpy as np

from trademl.clock import utc_now
from trademl.errors import BadDataError
from trademl.evidence.champion import Comparison
from trademl.evidence.gate import GateVerdict, Terms
from trademl.evidence.looks import Look, close_look, open_look
from trademl.files import jsonable
from trademl.pipeline.choice import looks_file
from trademl.pipeline.market.looks import carried_looks, ledger_file, stands_for
from trademl.pipeline.trades.case import JudgedTrades, TradeCase
from trademl.pipeline.trades.champion import beside_champion
from trademl.pipeline.trades.gate import policy_verdict
from trademl.pipeline.trades.looks import look_request, sizes_in
from trademl.pipeline.trades.stored import trade_store
from trademl.trades.advice import Topic
from trademl.trades.policy import Replay, replay_sizes, shuffles_for
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
    sizes = sizes_in(look.entries(), rows, at)
    return replay_sizes(rows, at, sizes, shuffles=shuffles_for(look.level), seed=case.recipe.seed)


def gate_verdict(case: TradeCase, replay: Replay, findings: Findings, look: Look, champion: Comparison | None) -> GateVerdict:
    """May the policy be used?"""
    objections = () if champion is None or not champion.is_held else (champion.sentence,)
    terms = Terms(look.alpha, case.settings.gate.min_trades, look.number, findings.threshold is not None, objections)
    return policy_verdict(replay, findings.claims, terms)
