"""Prices recognised by their content: stamps say which bars were learned from only if they are true, a sequence of moves always."""

import pandas as pd

from trademl.errors import LeakageError, RevisionError
from trademl.pipeline.stored import Stored
from trademl.validate.fingerprints import Fingerprints, days_moved, fingerprints, overlap
from trademl.validate.splits import Span, Windows

MOST = 0.02  # share of a window's content that may have been seen before by chance


def refuse_repeats(bars: pd.DataFrame, windows: Windows) -> None:
    """LeakageError when what select and final hold stands in earlier bars too, such as a year that was copied and stamped anew."""
    start_s, end_s = windows.span("select").start_s, windows.span("final").end_s
    prints = fingerprints(bars)
    before, judged = prints.within(-(2**62), start_s), prints.within(start_s, end_s)
    if said := _words(before, judged):
        raise LeakageError(f"the judged days repeat earlier prices: {said}. A model would know them; give every stretch of prices once")


def why_seen(stored: Stored, bars: pd.DataFrame, span: Span) -> str:
    """In words, that the prices within a span are some that a revision was trained on; empty when they are not."""
    text = stored.data.prints
    if text is None:
        raise RevisionError(f"revision {stored.name} keeps no fingerprints: nothing shows which prices its models saw; retrain")
    return _words(Fingerprints.from_text(text), fingerprints(bars).within(span.start_s, span.end_s))


def _words(seen: Fingerprints, asked: Fingerprints) -> str:
    share, moved = overlap(seen, asked), days_moved(seen, asked)
    if share <= MOST:
        return ""
    when = f"{abs(moved)} day{'' if abs(moved) == 1 else 's'} {'earlier' if moved > 0 else 'later'}"
    return f"{share:.0%} of their moves were seen before, with stamps {when}"
