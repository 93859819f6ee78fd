"""The gate once more, from the judged trades and the claims that a trade revision keeps."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trademl.errors import RevisionError, TradeMLError
from trademl.evidence.gate import GateVerdict, Terms
from trademl.files import npz_bytes, read_npz
from trademl.pipeline.market.looks import stands_for
from trademl.pipeline.market.recompute import agree, said_by_chain, same_verdict
from trademl.pipeline.stored import Stored
from trademl.pipeline.trades.gate import policy_verdict
from trademl.trades.advice import AdviceRule, Topic
from trademl.trades.policy import PolicyTrades, Replay, replay_trades, shuffles_for
from trademl.trades.worth import Claim, family

JUDGED_TRADES = "judged_trades.npz"


def judged_bytes(replay: Replay) -> bytes:
    """The file of judged trades."""
    return npz_bytes(vars(replay.trades))


def claims_of(stored: Stored) -> dict[Topic, Claim]:
    """The six claims that a revision keeps."""
    return {claim.topic: claim for claim in map(Claim.of, stored.metrics["claims"])}


def derived_verdict(stored: Stored) -> GateVerdict:
    """The verdict that the stored trades, claims, terms and standing verdict give. RevisionError when none can be derived."""
    try:
        trades = PolicyTrades(**read_npz(stored.read(JUDGED_TRADES)))
        terms, places = Terms(**stored.terms), np.arange(len(trades.size))
        replay = replay_trades(trades, places, shuffles=shuffles_for(terms.judged_at), seed=stored.revision.manifest["seed"])
        verdict = policy_verdict(replay, claims_of(stored), terms)
        stands = stored.look.standing
        return verdict if stands is None else stands_for(verdict, stands)
    except (TradeMLError, KeyError, TypeError, ValueError) as refusal:
        raise RevisionError(f"revision {stored.name}: no verdict can be derived from what it keeps ({refusal}); train again") from refusal


def check_verdict(stored: Stored, chain: Path) -> str:
    """What was proven, in words; RevisionError names the first thing that does not follow.

    The six p-values are taken as they are; what they allow to be advised is derived.
    """
    derived = derived_verdict(stored).to_json()
    same_verdict(stored, derived)
    _check_consistent(stored)
    _check_advice(stored)
    trades = derived["checks"].get("trades")
    counted = f"from {trades['value']:,.0f} stored trades and six claims" if trades else "which stands from an earlier judgement"
    return f"the verdict follows {counted}{said_by_chain(stored, chain)}"


def _check_consistent(stored: Stored) -> None:
    terms, look, champion = stored.terms, stored.look, stored.revision.manifest["champion"]
    held = [champion["sentence"]] if champion is not None and champion["is_held"] else []
    same = {
        "gate.terms.number is not look.number": terms["number"] == look.number,
        "gate.level is not look.level": look.standing is not None or agree(stored.gate.level, look.level),
        "gate.terms.objections are not the champion's": list(terms["objections"]) == held,
        "the headline does not end with the verdict": stored.headline is not None and stored.headline.endswith(stored.gate.sentence),
    }
    if wrong := next((what for what, holds in same.items() if not holds), None):
        raise RevisionError(f"revision {stored.name}: {wrong}: the manifest was changed; train again")


def _check_advice(stored: Stored) -> None:
    """Nothing is advised that the claims do not give, and no claim is given that the family's level does not allow."""
    claims, look = claims_of(stored), stored.look
    level = look.level if look.standing is None else look.standing["level"]
    allowed = family(list(claims.values()), level)
    rule = AdviceRule.of(stored.revision.manifest["trades"]["advice"])
    advised: Mapping[Topic, bool] = {
        Topic.CALIBRATION: rule.calibration is not None,
        Topic.THRESHOLD: rule.threshold is not None,
        Topic.SIZE: rule.size_scale is not None,
        Topic.TARGET: rule.is_target_advised,
        Topic.STOP: rule.is_stop_advised,
    }
    for topic, claim in claims.items():
        if claim.is_given and not allowed[topic].is_given:
            raise RevisionError(f"revision {stored.name}: {topic} is given at p = {claim.p_value:.2g}, the family allows none; train again")
        if advised.get(topic, False) and not claim.is_given:
            raise RevisionError(f"revision {stored.name}: {topic} is advised and its claim is not given: the manifest was changed")
