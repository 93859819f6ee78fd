"""A log whose every line holds the sha256 of the line before it: a line that was changed, removed or inserted later shows.

Every line has schema, seq, prev, kind, line, revision, mode and at_utc; its kind says what else. A torn last line is set aside, never
guessed at.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from trademl.bot.predictor import Mode
from trademl.clock import iso_z
from trademl.errors import BadDataError, UsageError
from trademl.files import canonical_json, digest, strict_json, sync_folder, write_new
from trademl.ship.shapes import HEX16, HEX64, UTC, check_shape

SCHEMA = 1
GENESIS = "0" * 64  # `prev` of the first line
MODES = {Mode.LIVE: "active", Mode.SHADOW: "shadow"}  # as a line names them
COMMON = {
    "schema": int,
    "seq": int,
    "prev": HEX64,
    "kind": str,
    "line": str,
    "revision": HEX16,
    "mode": re.compile("active|shadow"),
    "at_utc": UTC,
}


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


def read_lines(path: Path | str, shapes: Mapping[str, Mapping]) -> LogReport:
    """Every line of a log whose kinds have these shapes, its chain followed. Raises OSError; what is wrong inside stands in `problems`."""
    data = Path(path).read_bytes()
    *lines, torn = data.split(b"\n")
    records, problems, head = [], [], GENESIS
    for number, line in enumerate(lines):
        try:
            record = _parsed(line, shapes)
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


def _parsed(line: bytes, shapes: Mapping[str, Mapping]) -> dict:
    """A line as a record. ValueError when it is not what the log's writer writes."""
    record = strict_json(line)
    kind = record.get("kind")
    if record.get("schema") != SCHEMA or kind not in shapes:
        raise ValueError(f"schema {record.get('schema')!r}, kind {kind!r}; this trademl reads schema {SCHEMA} and {', '.join(shapes)}")
    wanted = set(shapes[kind])
    if set(record) != wanted:
        raise ValueError(f"a {kind} lacks {sorted(wanted - set(record))} and has {sorted(set(record) - wanted)} too many")
    check_shape(record, shapes[kind], kind)
    return record


def plain_number(value: object) -> float:
    """The value as a float. UsageError for what is none."""
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError) as refusal:
        raise UsageError(f"log: {value!r} is not a number") from refusal


def check_moment(at: object) -> None:
    """UsageError for anything but a datetime with a time zone."""
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise UsageError(f"log: at = {at!r} has no time zone; give datetime.now(UTC)")


class ChainedLog:
    """Appends to one log; one process at a time. Each line is on the disk before the call returns."""

    shapes: Mapping[str, Mapping]  # of a line, by its kind

    def __init__(self, path: Path | str):
        """Open or begin a log. A torn last line is moved aside to `<path>.torn-N`; BadDataError for a log that is otherwise broken."""
        self.path = Path(path)
        if not self.path.exists():
            write_new(self.path, b"")
            sync_folder(self.path.parent)
        report = read_lines(self.path, self.shapes)
        if report.problems:
            raise BadDataError(f"{self.path} {report.problems[0]}; move it away to begin a new one, and keep it: it is evidence")
        if report.torn:
            self._set_aside(report.torn)
        self._head, self._size = report.head, self.path.stat().st_size
        self._seq = len(report.records)
        for record in report.records:
            self._remember(record)

    @property
    def head(self) -> str:
        """sha256 of the last line."""
        return self._head

    def _remember(self, record: dict) -> None:
        """What a log keeps in memory of each of its lines, those of before a restart too."""

    def _append(self, kind: str, at: datetime, *, line: str, revision: str, mode: Mode, **fields) -> int:
        """Write one line and return its seq. UsageError for what could not be read again, BadDataError when another process writes, too."""
        check_moment(at)
        record = {"schema": SCHEMA, "seq": self._seq, "prev": self._head, "kind": kind, "at_utc": iso_z(at)}
        record |= {"line": line, "revision": revision, "mode": MODES[mode]} | fields
        try:
            data = canonical_json(record)
            _parsed(data, self.shapes)  # what the log would not read again is not written into it
        except ValueError as refusal:
            raise UsageError(f"log: this {kind} cannot be written: {refusal}") from refusal
        with self.path.open("ab") as stream:
            if stream.tell() != self._size:
                raise BadDataError(f"{self.path}: another process has written to it; one bot keeps one log")
            stream.write(data + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
            self._size = stream.tell()
        self._head, self._seq = digest(data), self._seq + 1
        self._remember(record)
        return record["seq"]

    def _set_aside(self, torn: bytes) -> None:
        number = len(list(self.path.parent.glob(f"{self.path.name}.torn-*")))
        write_new(self.path.with_name(f"{self.path.name}.torn-{number}"), torn)
        sync_folder(self.path.parent)
        with self.path.open("r+b") as stream:
            stream.truncate(self.path.stat().st_size - len(torn))
            os.fsync(stream.fileno())
