"""What stands above a page: the verdict, whose it is, and the words that change how everything below it is read."""

from typing import Any

from trademl.clock import iso_z
from trademl.evidence.looks import Look
from trademl.evidence.page import Evidence
from trademl.pipeline.market.replay import IN_SAMPLE
from trademl.pipeline.stored import Stored, StoredLeaks, StoredLook
from trademl.report import Banner

SYNTHETIC = "The generator's market, whose volume knows the outcome on purpose: it shows that the workbench works, and nothing else."
LOOSE = "Settings looser than the gate's limits: a candidate, whatever it shows."


def head_of(stored: Stored) -> dict[str, Any]:
    """`headline`, `subtitle` and `banners` of the page of a stored revision."""
    days = (iso_z(second)[:10] for second in (stored.look.days.start_s, stored.look.days.end_s))
    subtitle = f"revision {stored.name}, {stored.line}, judged {' to '.join(days)}"
    loose = [Banner("loose gate", LOOSE, "warn")] if stored.gate.is_loose else []
    leaks = _of_leaks(stored.leaks) if stored.line.startswith("market-") else []
    banners = [*_of_market(stored), *leaks, *loose, _of_look(stored.look)]
    return {"headline": stored.gate.sentence, "subtitle": subtitle, "banners": banners}


def backtest_head(stored: Stored, evidence: Evidence, look: Look | None, *, in_sample: bool) -> dict[str, Any]:
    """The same of the page of a backtest, by its own verdict."""
    days = " to ".join(evidence.window[edge][:10] for edge in ("start_utc", "end_utc"))
    banners = _of_market(stored)
    if in_sample:
        banners.append(Banner("in-sample", f"{IN_SAMPLE}.", "bad"))
    banners += [Banner("what-if", f"{why}.", "warn") for why in evidence.verdict.terms.objections if why.startswith("what-if")]
    banners += [] if look is None else [_of_look(look)]
    return {"headline": evidence.sentence, "subtitle": f"backtest of revision {stored.name}, {stored.line}, {days}", "banners": banners}


def _of_market(stored: Stored) -> list[Banner]:
    return [Banner("synthetic", SYNTHETIC, "warn")] if stored.data.embedded else []


def _of_leaks(leaks: StoredLeaks) -> list[Banner]:
    """An alarm in real data; that of the embedded market was planted."""
    if not leaks.alarms or leaks.is_planted:
        return []
    return [Banner("leak accepted" if leaks.accepted else "leak alarm", " ".join(leaks.sentences), "warn" if leaks.accepted else "bad")]


def _of_look(look: Look | StoredLook) -> Banner:
    """The number of the look, and where an earlier verdict stands in place of a new one."""
    if look.standing is None:
        return Banner(f"look {look.number}")
    text = f"The {look.words}. The figures below are of all recorded days; the verdict is that of its day."
    return Banner(f"look {look.number}", text, "warn")
