"""What stands above a revision's page: the verdict, whose it is, and the words that change how everything below it is read."""

from typing import TYPE_CHECKING, Any

from trademl.clock import iso_z
from trademl.pipeline.stored import Stored, StoredLeaks, StoredLook
from trademl.report import Banner

if TYPE_CHECKING:
    from trademl.evidence.looks import Look

SYNTHETIC = "The generator's market, whose volume knows the outcome on purpose: it shows that the workbench works, and nothing else."
LOOSE = "Settings looser than the gate's limits: a candidate, whatever it shows."


def head_of(stored: Stored) -> dict[str, Any]:
    """`headline`, `subtitle` and `banners` of the page of a stored revision."""
    days = (iso_z(second)[:10] for second in (stored.look.days.start_s, stored.look.days.end_s))
    subtitle = f"revision {stored.name}, {stored.line}, judged {' to '.join(days)}"
    loose = [Banner("loose gate", LOOSE, "warn")] if stored.gate.is_loose else []
    leaks = _of_leaks(stored.leaks) if stored.line.startswith("market-") else []
    banners = [*data_banners(stored), *leaks, *loose, look_banner(stored.look)]
    return {"headline": stored.gate.sentence, "subtitle": subtitle, "banners": banners}


def data_banners(stored: Stored) -> list[Banner]:
    """What must be known of the data that a revision learned from."""
    return [Banner("synthetic", SYNTHETIC, "warn")] if stored.data.embedded else []


def look_banner(look: "Look | StoredLook") -> Banner:
    """The number of the look, and where an earlier verdict stands in place of a new one."""
    if look.standing is None:
        return Banner(f"look {look.number}")
    text = f"The {look.words}. The figures below are of all recorded days; the verdict is that of its day."
    return Banner(f"look {look.number}", text, "warn")


def _of_leaks(leaks: StoredLeaks) -> list[Banner]:
    """An alarm in real data; that of the embedded market was planted."""
    if not leaks.alarms or leaks.is_planted:
        return []
    return [Banner("leak accepted" if leaks.accepted else "leak alarm", " ".join(leaks.sentences), "warn" if leaks.accepted else "bad")]
