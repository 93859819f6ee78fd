"""The bot's log: one line of JSON a decision, fill or exit, each bound to the one before by its hash.

    {"schema":1,"seq":7,"prev":"<sha256 of the line before>","kind":"decision","line":"market-btcusd-15min","revision":"<16 hex>",
     "mode":"active","bar_utc":"2026-04-01T12:00:00Z","at_utc":"2026-04-01T12:15:01Z","bar":[o,h,l,c,v],"tail_sha256":"<64 hex>",
     "p":[sell,buy,hold],"expected_r":[long,short],"cost_r":0.05,"side":1,"stop":210.5,"target":394.7,"multiplier":1.0,"reason":[]}

`bar_utc` is the open of the deciding bar, `at_utc` when it was decided; `stop`, `target` and `bar` are in price units; what was unknown
is null. A fill has `decision_seq`, `price` and `lots` beside schema, seq, prev, kind, line, revision, mode and at_utc; an exit `reason`
too. R is never taken from here. A changed, removed or inserted line breaks the chain; a torn last line is set aside, never guessed at.
"""

import math
from datetime import datetime
from pathlib import Path

import numpy as np

from trademl.bot.chained import COMMON, ChainedLog, LogReport, plain_number, read_lines
from trademl.bot.predictor import Decision
from trademl.bot.tail import read_bars
from trademl.clock import iso_z
from trademl.errors import UsageError
from trademl.files import digest
from trademl.ship.shapes import HEX64, NUMBER, UTC

_FILL = {"decision_seq": int, "price": NUMBER, "lots": NUMBER}
_DECISION = {
    "bar_utc": UTC,
    "bar": [NUMBER],
    "tail_sha256": HEX64,
    "p": ([NUMBER], None),
    "expected_r": ([NUMBER], None),
    "cost_r": (int, float, None),
    "side": int,
    "stop": NUMBER,
    "target": NUMBER,
    "multiplier": NUMBER,
    "reason": [str],
}
SHAPES = {"decision": COMMON | _DECISION, "fill": COMMON | _FILL, "exit": COMMON | _FILL | {"reason": str}}  # of a line, by its kind


def read_log(path: Path | str) -> LogReport:
    """Every line of a log, its chain followed. Raises OSError; what is wrong inside stands in `problems`."""
    return read_lines(path, SHAPES)


class DecisionLog(ChainedLog):
    """Appends to one log; one process at a time. Each line is on the disk before the call returns."""

    shapes = SHAPES

    def __init__(self, path: Path | str):
        """Open or begin a log. A torn last line is moved aside to `<path>.torn-N`; BadDataError for a log that is otherwise broken."""
        self._decided: dict[str, int] = {}
        super().__init__(path)

    def seq_of(self, bar_s: int) -> int | None:
        """The first decision logged for the bar that opened then (epoch seconds): after a restart, what is decided already."""
        return self._decided.get(iso_z(bar_s))

    def decision(self, decision: Decision, bars_tail) -> int:
        """Log a decision with the bars that it was made on; returns its seq, which fills and exits name."""
        bars = read_bars(bars_tail)
        if not len(bars.time) or int(bars.time[-1]) != decision.bar_s:
            raise UsageError(f"log: the bars do not end with the deciding bar {iso_z(decision.bar_s)}; give those that were decided on")
        return self._log(
            "decision",
            decision,
            decision.decided_at,
            bar_utc=iso_z(decision.bar_s),
            bar=[float(column[-1]) for column in bars[1:]],
            tail_sha256=digest(b"".join(np.ascontiguousarray(column, column.dtype.newbyteorder("<")).tobytes() for column in bars)),
            p=None if decision.probabilities is None else list(decision.probabilities.values()),
            expected_r=None if decision.expected_r is None else list(decision.expected_r.values()),
            cost_r=decision.cost_r if math.isfinite(decision.cost_r) else None,
            side=decision.side,
            stop=decision.stop_distance,
            target=decision.target_distance,
            multiplier=decision.size_multiplier,
            reason=[reason.name.lower() for reason in decision.reasons],
        )

    def fill(self, decision: Decision, decision_seq: int, price: float, lots: float, at: datetime) -> int:
        """Log that a decision was filled."""
        return self._log("fill", decision, at, decision_seq=decision_seq, price=plain_number(price), lots=plain_number(lots))

    def exit(self, decision: Decision, decision_seq: int, price: float, lots: float, at: datetime, reason: str) -> int:
        """Log that the trade of a decision was closed."""
        return self._log("exit", decision, at, decision_seq=decision_seq, price=plain_number(price), lots=plain_number(lots), reason=reason)

    def _remember(self, record: dict) -> None:
        if record["kind"] == "decision":
            self._decided.setdefault(record["bar_utc"], record["seq"])

    def _log(self, kind: str, decision: Decision, at: datetime, **fields) -> int:
        if "decision_seq" in fields and fields["decision_seq"] not in self._decided.values():
            raise UsageError(f"log: decision_seq = {fields['decision_seq']!r} is not the first decision of a bar in {self.path}")
        return self._append(kind, at, line=decision.line, revision=decision.revision, mode=decision.mode, **fields)
