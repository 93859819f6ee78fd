"""The gate once more, from the out-of-sample table that a revision keeps: what its manifest says must follow from it."""

from pathlib import Path

from trademl import __version__
from trademl.errors import LooksError, RevisionError, TradeMLError
from trademl.evidence.chain import Kind, read_chain
from trademl.evidence.gate import GateVerdict, Terms, judge_trades
from trademl.evidence.nulls import cut_window, random_entries, traded
from trademl.market.rotation import entries_made
from trademl.pipeline.market.looks import stands_for
from trademl.pipeline.market.replay import LOOKBACK, out_of_sample
from trademl.pipeline.stored import Stored

TOLERANCE = 1e-9  # relative and absolute, of every figure


def derived_verdict(stored: Stored) -> GateVerdict:
    """The verdict that the stored entries, terms and standing verdict give. RevisionError when none can be derived."""
    try:
        oos, days = out_of_sample(stored), stored.look.days
        window = cut_window(oos.bars, oos.entries, oos.spec, days.start_s, days.end_s)
        entries = entries_made(window.prepared, window.decisions, stored.costs)
        placed = traded(window, entries, stored.costs)
        null, _ = random_entries(window, entries, placed, stored.costs, lookback=LOOKBACK, curves=0)
        verdict = judge_trades(placed.trades["net_r"], placed.trades["entry_time"], null.band, Terms(**stored.terms))
        stands = stored.look.standing
        return verdict if stands is None else stands_for(verdict, stands)
    except (TradeMLError, KeyError, TypeError, ValueError) as refusal:
        raise RevisionError(f"revision {stored.name}: no verdict can be derived from what it keeps ({refusal}); retrain") from refusal


def check_verdict(stored: Stored, chain: Path) -> str:
    """What was proven, in words; RevisionError names the first thing that does not follow from the stored trades.

    `chain`: the project's looks; where it holds the revision's look, its verdict is the manifest's.
    """
    derived = derived_verdict(stored).to_json()
    same_verdict(stored, derived)
    _check_consistent(stored)
    trades = derived["checks"].get("trades")
    counted = f"from {trades['value']:,.0f} stored trades" if trades else "which stands from an earlier judgement"
    return f"the verdict follows {counted}{said_by_chain(stored, chain)}"


def same_verdict(stored: Stored, derived: dict) -> None:
    """RevisionError where the manifest's verdict is not the derived one; words count under the same version alone."""
    gate = stored.revision.manifest["gate"]
    for name, value, found in _pairs(gate, derived, stored.revision.manifest["trademl_version"] == __version__):
        if not agree(value, found):
            raise RevisionError(
                f"revision {stored.name}: gate.{name} is {value!r}, but its own trades give {found!r}: the verdict was changed; retrain"
            )


TEXTS = ("sentence", "reasons", "record_sentence", "reason", "standing")  # another version may word them otherwise


def _pairs(said: dict, derived: dict, texts: bool, within: str = ""):
    """(key, what the manifest says, what was derived) of every value, a missing one as None; words only with `texts`."""
    for name in sorted({*said, *derived}):
        one, other = said.get(name), derived.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _pairs(one, other, texts, f"{within}{name}.")
        elif texts or name not in TEXTS:
            yield f"{within}{name}", one, list(other) if isinstance(other, tuple) else other


def agree(one, other) -> bool:
    """Whether two figures or words are the same, up to rounding."""
    if isinstance(one, float | int) and isinstance(other, float | int) and not isinstance(one, bool):
        return abs(one - other) <= TOLERANCE * max(1.0, abs(other))
    return one == other


def _check_consistent(stored: Stored) -> None:
    """What the terms, the look, the alarms, the margins and the headline say of each other."""
    terms, look, alarms = stored.terms, stored.look, list(stored.leaks.figures.get("refusals", ()))
    sentence = stored.gate.sentence
    same = {
        "gate.terms.number is not look.number": terms["number"] == look.number,
        "gate.level is not look.level": look.standing is not None or agree(stored.gate.level, look.level),
        "gate.terms.objections are not the leak alarms": list(terms["objections"][: len(alarms)]) == alarms,
        "gate.terms.edge_found is not the margin's": terms["edge_found"] == stored.edge_found,
        "the headline does not end with the verdict": stored.headline is not None and stored.headline.endswith(sentence),
    }
    if wrong := next((what for what, holds in same.items() if not holds), None):
        raise RevisionError(f"revision {stored.name}: {wrong}: the manifest was changed; retrain")


def said_by_chain(stored: Stored, chain: Path) -> str:
    """What the chain of looks adds; RevisionError when its verdict is another one, or it lacks the look of a revision of its project."""
    look, gate = stored.look, stored.revision.manifest["gate"]
    if not chain.is_file():
        return ""
    try:
        whole = read_chain(chain.read_bytes(), str(chain))
    except (OSError, LooksError) as refusal:
        raise RevisionError(f"revision {stored.name}: its look cannot be confirmed: {refusal}") from refusal
    if look.project != whole.project:
        return f"; {chain} is another project's and does not know it"
    if look.hash not in whole.hashes:
        raise RevisionError(f"revision {stored.name}: {chain} holds no look {look.hash[:16]}: the manifest was changed")
    verdicts = [line for line in whole.lines if line["kind"] == Kind.VERDICT]
    if look.standing is None:
        lines, said = [line for line in verdicts if line["look"] == look.hash], (gate["record_passed"], gate["record_sentence"])
    else:
        lines = [line for line in verdicts if line["record"] == look.record]
        said = (look.standing["passed"], look.standing["sentence"])
    if said not in [(line["passed"], line["sentence"]) for line in lines]:
        raise RevisionError(f"revision {stored.name}: {chain} holds another verdict of its look: the manifest was changed")
    return ", and the chain of looks holds the same"
