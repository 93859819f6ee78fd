"""The look at the last third: which advice is given at its level, and whether the policy as a whole may be used."""

from dataclasses import dataclass

import numpy as np

from trademl.clock import DAY_S, utc_now
from trademl.errors import BadDataError, RevisionError
from trademl.evidence.champion import Comparison, compare, r_by_day
from trademl.evidence.gate import FEWEST_TRADES, LOOSEST_LEVEL, Check, GateVerdict, Terms, percent
from trademl.evidence.looks import Look, close_look, open_look
from trademl.pipeline.choice import looks_file
from trademl.pipeline.market.looks import carried_looks, ledger_file, stands_for
from trademl.pipeline.trades.case import JudgedTrades, TradeCase
from trademl.pipeline.trades.looks import MILLI, look_request, recipe_parts
from trademl.pipeline.trades.stored import answers_of, rule_of, section_of, trade_store
from trademl.ship.revision import Revision
from trademl.trades.advice import Topic, calibrated, size_multipliers
from trademl.trades.policy import Policy, Replay, replay_sizes
from trademl.trades.registry import TradeModel
from trademl.trades.worth import Findings


@dataclass(frozen=True, eq=False)
class TradeFinding:
    """What the look at the last third found."""

    look: Look
    findings: Findings
    replay: Replay
    verdict: GateVerdict
    champion: Comparison | None


def judge_policy(case: TradeCase, judged: JudgedTrades, run_id: str) -> TradeFinding:
    """Take the look, test every claim at its level, replay the policy and judge it. LooksError: no figure may be shown."""
    settings, store = case.settings, trade_store(case.settings, case.inputs.flags.models_dir)
    request = look_request(case, judged, run_id)
    look = open_look(looks_file(settings), request, now=utc_now(), carried=carried_looks([store]), ledger=ledger_file(settings))
    findings = judged.findings(case, look.level)
    replay = replay_look(case, look)
    champion = beside_champion(case, replay, look)
    verdict = gate_verdict(case, replay, findings, look, champion)
    if look.standing is None:
        said = verdict.record_passed, verdict.record_sentence
        close_look(looks_file(settings), look, passed=said[0], sentence=said[1], now=utc_now())
    else:
        verdict = stands_for(verdict, look.to_json()["standing"])
    return TradeFinding(look, findings, replay, verdict, champion)


def replay_look(case: TradeCase, look: Look) -> Replay:
    """The trades of the judged days at the sizes that stand in the chain. BadDataError when the log does not hold them any more."""
    rows = case.rows
    at = np.flatnonzero((rows.time_s >= look.start_s) & (rows.time_s < look.end_s))
    if not len(at):
        raise BadDataError(f"{case.inputs.flags.data}: no trade of the judged days is in this log any more; give the whole log")
    size_at = {int(time): int(size) / MILLI for time, _, size in look.entries().tolist()}
    return replay_sizes(rows, at, np.array([size_at.get(int(time), 0.0) for time in rows.time_s[at]]), seed=case.recipe.seed)


# ---------------------------------------------------------------- the gate


def gate_verdict(case: TradeCase, replay: Replay, findings: Findings, look: Look, champion: Comparison | None) -> GateVerdict:
    """May the policy be used? It must beat every trade, the rule of thumb and random sizing, and all of it must be advised."""
    gate, level = case.settings.gate, look.level
    objections = () if champion is None or not champion.is_held else (champion.sentence,)
    terms = Terms(gate.level, gate.min_trades, look.number, findings.threshold is not None, objections)
    checks = {check.name: check for check in (*_own_checks(terms), *_policy_checks(replay, findings, terms, level), *_run_checks(terms))}
    passed = {name: check.passed for name, check in checks.items()}
    of_record = all(ok for name, ok in passed.items() if name not in ("limits", "objections"))
    reasons = tuple(check.reason for check in checks.values() if not check.passed)
    worth = replay.versus[0].worth
    detectable = None if worth is None or not worth.error else worth.detectable(level)
    sentences = [_sentence(ok, reasons, replay, level) for ok in (not reasons, of_record)]
    unit = None if worth is None else worth.unit
    return GateVerdict(not reasons, reasons, checks, sentences[0], level, terms, detectable, unit, of_record, sentences[1])


def _own_checks(terms: Terms) -> list[Check]:
    loose = [f"gate.level = {terms.level:g} is looser than {LOOSEST_LEVEL:g}"] if terms.level > LOOSEST_LEVEL else []
    loose += [f"gate.min_trades = {terms.min_trades} is below {FEWEST_TRADES}"] if terms.min_trades < FEWEST_TRADES else []
    edge = "" if terms.edge_found else "no threshold was found on the second third"
    return [
        Check("limits", terms.level, LOOSEST_LEVEL, not loose, "; ".join(loose)),
        Check("edge_on_select", float(terms.edge_found), 1.0, terms.edge_found, edge),
    ]


def _policy_checks(replay: Replay, findings: Findings, terms: Terms, level: float) -> list[Check]:
    taken = replay.results[Policy.MODEL].trades
    least = terms.min_trades
    found = [Check("trades", float(taken), float(least), taken >= least, f"{taken} trades were taken, {least} are needed")]
    for one in replay.versus[:2]:
        bound = None if one.worth is None or not one.worth.error else one.worth.bound(level)
        shown = "there is none" if bound is None else f"it is {bound:+.3f} R a trade"
        why = f"not better than {one.other.replace('_', ' ')}: a lower {percent(level)} bound above zero is asked, {shown}"
        found.append(Check(f"above_{one.other}", bound, 0.0, bound is not None and bound > 0, why))
    chance = replay.random_p <= level
    found.append(Check("random_p", replay.random_p, level, chance, f"{percent(replay.random_p)} of random sizings earned as much"))
    for topic in (Topic.THRESHOLD, Topic.SIZE):
        claim = findings.claims[topic]
        found.append(Check(f"advised_{topic}", claim.p_value, claim.needed, claim.is_given, f"{topic} is withheld ({claim.sentence})"))
    return found


def _run_checks(terms: Terms) -> list[Check]:
    return [Check("objections", float(len(terms.objections)), 0.0, not terms.objections, "; ".join(terms.objections))]


def _sentence(passed: bool, reasons: tuple[str, ...], replay: Replay, level: float) -> str:
    model, every = replay.results[Policy.MODEL], replay.results[Policy.EVERY_TRADE]
    figures = f"{model.total_r:+.1f} R on {model.trades:,} of {every.trades:,} trades, every trade taken {every.total_r:+.1f} R"
    return (
        f"Gate passed at {percent(level)}: {figures}." if passed else f"Gate refused at {percent(level)}: {'; '.join(reasons)}. {figures}."
    )


# ---------------------------------------------------------------- the champion


def beside_champion(case: TradeCase, replay: Replay, look: Look) -> Comparison | None:
    """The active revision on those judged trades that it had not seen either; None where there is none, or it cannot be read."""
    try:
        revision = trade_store(case.settings, case.inputs.flags.models_dir).active()
    except RevisionError:
        return None
    if revision is None:
        return None
    seen_until = max(fit["label_end_s"] for fit in revision.manifest["lineage"])
    later = case.rows.time_s[replay.rows] >= seen_until
    time_s, net_r = case.rows.time_s[replay.rows][later], replay.net_r[later]
    theirs = champion_sizes(revision, case, replay.rows[later]) if later.any() else np.empty(0)
    first = int(time_s[0] // DAY_S) if later.any() else 0
    days = int(time_s[-1] // DAY_S) - first + 1 if later.any() else 0
    by_day = (r_by_day(sizes * net_r, time_s, first, days) for sizes in (replay.sizes[later], theirs))
    same = section_of(revision)["recipe"] == recipe_parts(case)
    return compare(*by_day, is_same_recipe=same, level=look.level, name=f"revision {revision.name}")


def champion_sizes(revision: Revision, case: TradeCase, at: np.ndarray) -> np.ndarray:
    """What a stored revision would have traded of the trades `at`: sizes (m,), 0 = not taken."""
    rule, said = rule_of(revision), answers_of(revision, case, at)
    sizes = np.ones(len(at))
    if rule.size_scale is not None:
        sizes = size_multipliers(said[TradeModel.POSITION_SIZING][:, 0], rule.size_scale)
    if rule.threshold is not None:
        sizes = np.where(calibrated(said[TradeModel.SIGNAL_QUALITY][:, 0], rule) >= rule.threshold, sizes, 0.0)
    return sizes
