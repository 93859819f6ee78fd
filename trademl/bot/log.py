"""The bot's log: one line of JSON a decision, fill or exit, each bound to the one before by its hash.

    {"schema":1,"seq":7,"prev":"<sha256 of the line before>","kind":"decision","line":"market-btcusd-15min","revision":"<16 hex>",
     "mode":"active","bar_utc":"2026-04-01T12:00:00Z","at_utc":"2026-04-01T12:15:01Z","bar":[o,h,l,c,v],"tail_sha256":"<64 hex>",
     "p":[sell,buy,hold],"expected_r":[long,short],"cost_r":0.05,"side":1,"stop":210.5,"target":394.7,"multiplier":1.0,"reason":[]}

`bar_utc` is the open of the deciding bar, `at_utc` when it was decided; `stop`, `target` and `bar` are in price units; what was unknown
is null. A fill has `decision_seq`, `price` and `lots` beside schema, seq, prev, kind, line, revision, mode and at_utc; an exit `reason`
too. R is never taken from here. A changed, removed or inserted line breaks the chain; a torn last line is set aside, never guessed at.
"""

import math
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from trademl.bot.predictor import Decision, Mode
from trademl.bot.tail import read_bars
from trademl.clock import iso_z
from trademl.errors import BadDataError, UsageError
from trademl.files import canonical_json, digest, strict_json, sync_folder, write_new
from trademl.ship.shapes import HEX16, HEX64, NUMBER, UTC, check_shape

SCHEMA = 1
GENESIS = "0" * 64  # `prev` of the first line
_MODES = {Mode.LIVE: "active", Mode.SHADOW: "shadow"}
_COMMON = {
    "schema": int,
    "seq": int,
    "prev": HEX64,
    "kind": str,
    "line": str,
    "revision": HEX16,
    "mode": re.compile("active|shadow"),
    "at_utc": UTC,
}
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
SHAPES = {"decision": _COMMON | _DECISION, "fill": _COMMON | _FILL, "exit": _COMMON | _FILL | {"reason": str}}  # of a line, by its kind


@dataclass(frozen=True)
class LogReport:
    """What a log holds, and what is wrong with it."""

    records: tuple[dict, ...]
    problems: tuple[str, ...]  # each with its line
    head: str  # sha256 of the last whole line: what a later check anchors at
    torn: bytes  # what stands after the last whole line

    @property
    def is_whole(self) -> bool:
        """Nothing was changed, removed or inserted, and nothing is torn."""
        return not self.problems and not self.torn


def read_log(path: Path | str) -> LogReport:
    """Every line of a log, its chain followed. Raises OSError; what is wrong inside stands in `problems`."""
    data = Path(path).read_bytes()
    *lines, torn = data.split(b"\n")
    records, problems, head = [], [], GENESIS
    for number, line in enumerate(lines):
        try:
            record = _parsed(line)
            if record["prev"] != head:
                problems.append(
                    f"line {number + 1}: the chain is broken here: this line or the one before was changed, removed or inserted"
                )
            elif record["seq"] != number:
                problems.append(f"line {number + 1}: seq = {record['seq']!r}, expected {number}")
            records.append(record)
        except ValueError as refusal:
            problems.append(f"line {number + 1}: {refusal}")
        head = digest(line)
    return LogReport(tuple(records), tuple(problems), head, torn)


def _parsed(line: bytes) -> dict:
    """A line as a record. ValueError when it is not what `DecisionLog` writes."""
    record = strict_json(line)
    kind = record.get("kind")
    if record.get("schema") != SCHEMA or kind not in SHAPES:
        raise ValueError(f"schema {record.get('schema')!r}, kind {kind!r}; this trademl reads schema {SCHEMA} and {', '.join(SHAPES)}")
    wanted = set(SHAPES[kind])
    if set(record) != wanted:
        raise ValueError(f"a {kind} lacks {sorted(wanted - set(record))} and has {sorted(set(record) - wanted)} too many")
    check_shape(record, SHAPES[kind], kind)
    return record


def _number(value) -> float:
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError) as refusal:
        raise UsageError(f"log: {value!r} is not a number") from refusal


class DecisionLog:
    """Appends to one log; one process at a time. Each line is on the disk before the call returns."""

    def __init__(self, path: Path | str):
        """Open or begin a log. A torn last line is moved aside to `<path>.torn-N`; BadDataError for a log that is otherwise broken."""
        self.path = Path(path)
        if not self.path.exists():
            write_new(self.path, b"")
            sync_folder(self.path.parent)
        report = read_log(self.path)
        if report.problems:
            raise BadDataError(f"{self.path} {report.problems[0]}; move it away to begin a new one, and keep it: it is evidence")
        if report.torn:
            self._set_aside(report.torn)
        self._head, self._size = report.head, self.path.stat().st_size
        self._seq = len(report.records)
        self._decided = {record["bar_utc"]: record["seq"] for record in reversed(report.records) if record["kind"] == "decision"}

    @property
    def head(self) -> str:
        """sha256 of the last line."""
        return self._head

    def seq_of(self, bar_s: int) -> int | None:
        """The first decision logged for the bar that opened then (epoch seconds): after a restart, what is decided already."""
        return self._decided.get(iso_z(bar_s))

    def decision(self, decision: Decision, bars_tail) -> int:
        """Log a decision with the bars that it was made on; returns its seq, which fills and exits name."""
        bars = read_bars(bars_tail)
        if not len(bars.time) or int(bars.time[-1]) != decision.bar_s:
            raise UsageError(f"log: the bars do not end with the deciding bar {iso_z(decision.bar_s)}; give those that were decided on")
        seq = self._append(
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
        self._decided.setdefault(iso_z(decision.bar_s), seq)
        return seq

    def fill(self, decision: Decision, decision_seq: int, price: float, lots: float, at: datetime) -> int:
        """Log that a decision was filled."""
        return self._append("fill", decision, at, decision_seq=decision_seq, price=_number(price), lots=_number(lots))

    def exit(self, decision: Decision, decision_seq: int, price: float, lots: float, at: datetime, reason: str) -> int:
        """Log that the trade of a decision was closed."""
        return self._append("exit", decision, at, decision_seq=decision_seq, price=_number(price), lots=_number(lots), reason=reason)

    def _append(self, kind: str, decision: Decision, at: datetime, **fields) -> int:
        if "decision_seq" in fields and fields["decision_seq"] not in self._decided.values():
            raise UsageError(f"log: decision_seq = {fields['decision_seq']!r} is not the first decision of a bar in {self.path}")
        if not isinstance(at, datetime) or at.tzinfo is None:
            raise UsageError(f"log: at = {at!r} has no time zone; give datetime.now(UTC)")
        record = {"schema": SCHEMA, "seq": self._seq, "prev": self._head, "kind": kind, "at_utc": iso_z(at)}
        record |= {"line": decision.line, "revision": decision.revision, "mode": _MODES[decision.mode]}
        try:
            line = canonical_json(record | fields)
            _parsed(line)  # what the log would not read again is not written into it
        except ValueError as refusal:
            raise UsageError(f"log: this {kind} cannot be written: {refusal}") from refusal
        with self.path.open("ab") as stream:
            if stream.tell() != self._size:
                raise BadDataError(f"{self.path}: another process has written to it; one bot keeps one log")
            stream.write(line + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
            self._size = stream.tell()
        self._head, self._seq = digest(line), self._seq + 1
        return record["seq"]

    def _set_aside(self, torn: bytes) -> None:
        number = len(list(self.path.parent.glob(f"{self.path.name}.torn-*")))
        write_new(self.path.with_name(f"{self.path.name}.torn-{number}"), torn)
        sync_folder(self.path.parent)
        with self.path.open("r+b") as stream:
            stream.truncate(self.path.stat().st_size - len(torn))
            os.fsync(stream.fileno())
