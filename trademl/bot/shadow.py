"""What a revision suggested for each trade, and what the bot did: one line of JSON a decision, for `trademl trades shadow`.

    {"schema":1,"seq":7,"prev":"<sha256 of the line before>","kind":"suggestion","line":"trades-all-records","revision":"<16 hex>",
     "mode":"shadow","at_utc":"2026-04-01T12:00:01Z","id":"1775044800000-4f9x2kq1z","asset":"BTC","decided_ms":1775044800000,
     "size_usd":1000.0,"suggested_usd":1400.0,"actual_usd":1000.0,"accept":true,"multiplier":1.4,"tp_level":null,"stop_pct":null,
     "quality":0.58,"expected_r":0.21}

`id`, `asset` and `decided_ms` are those of the bot's own record, by which its outcome is found later. Sizes are notional, as
`execution.positionSizeUsd` is: the bot's own before any advice, what the advice makes of it, and what was traded (0: not traded).
What was withheld is null.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from trademl.bot.advisor import TradeAdvisor
from trademl.bot.chained import COMMON, ChainedLog, LogReport, check_moment, plain_number, read_lines
from trademl.clock import iso_z, utc_now
from trademl.errors import UsageError
from trademl.ship.shapes import NUMBER
from trademl.trades.advice import Advice

_MAYBE = (int, float, None)
_SUGGESTION = {
    "id": str,
    "asset": str,
    "decided_ms": int,
    "size_usd": NUMBER,
    "suggested_usd": NUMBER,
    "actual_usd": NUMBER,
    "accept": (bool, None),
    "multiplier": _MAYBE,
    "tp_level": (int, None),
    "stop_pct": _MAYBE,
    "quality": _MAYBE,
    "expected_r": _MAYBE,
}
SHADOW_SHAPES = {"suggestion": COMMON | _SUGGESTION}


def read_shadow(path: Path | str) -> LogReport:
    """Every line of a shadow log, its chain followed. Raises OSError; what is wrong inside stands in `problems`."""
    return read_lines(path, SHADOW_SHAPES)


def suggested_size(advice: Advice, size_usd: float) -> float:
    """What the advice makes of the bot's own size: 0 where the trade is not accepted, the size as it is where nothing is advised."""
    if advice.accept is False:
        return 0.0
    return size_usd * (1.0 if advice.size_multiplier is None else advice.size_multiplier)


class ShadowLog(ChainedLog):
    """Appends to one log of suggestions; one process at a time. Each line is on the disk before the call returns."""

    shapes = SHADOW_SHAPES

    def __init__(self, path: Path | str):
        """Open or begin a log. A torn last line is moved aside to `<path>.torn-N`; BadDataError for a log that is otherwise broken."""
        self._logged: dict[tuple[str, str], int] = {}  # (revision, id) -> seq
        self._newest: dict[tuple[str, str], int] = {}  # (revision, asset) -> decided_ms
        super().__init__(path)

    def seq_of(self, advisor: TradeAdvisor, record_id: str) -> int | None:
        """The line of this record's suggestion by this advisor; None: not logged yet. For a bot that was started again."""
        return self._logged.get((advisor.name, record_id))

    def suggestion(
        self,
        advisor: TradeAdvisor,
        record: Mapping,  # as the bot writes it
        advice: Advice,  # of this advisor on this record
        size_usd: float,  # notional that the bot would trade without advice
        actual_usd: float | None = None,  # that it trades; 0: it does not; None: `size_usd`, as a bot that follows nobody
        at: datetime | None = None,  # None: now
    ) -> int:
        """Log what was suggested and what is done, before the trade is closed; returns the line's seq."""
        size_usd = plain_number(size_usd)
        actual_usd = size_usd if actual_usd is None else plain_number(actual_usd)
        at = utc_now() if at is None else at
        check_moment(at)
        self._check(advisor, record, (size_usd, actual_usd), at)
        return self._append(
            "suggestion",
            at,
            line=advisor.line,
            revision=advisor.name,
            mode=advisor.mode,
            id=record["id"],
            asset=record["asset"],
            decided_ms=record["timestamp"],
            size_usd=size_usd,
            suggested_usd=suggested_size(advice, size_usd),
            actual_usd=actual_usd,
            accept=None if advice.accept is None else bool(advice.accept),
            multiplier=advice.size_multiplier,
            tp_level=advice.tp_level,
            stop_pct=advice.stop_pct,
            quality=_known(advice.quality),
            expected_r=_known(advice.expected_r),
        )

    def _check(self, advisor: TradeAdvisor, record: Mapping, sizes: tuple[float, float], at: datetime) -> None:
        name, asset, time = (record.get(key) for key in ("id", "asset", "timestamp"))
        if not (isinstance(name, str) and name and isinstance(asset, str) and asset and type(time) is int):
            given = f"id {name!r}, asset {asset!r}, timestamp {time!r}"
            raise UsageError(
                f"shadow log: a record needs id, asset and timestamp (epoch ms), by which its outcome is found; it has {given}"
            )
        size, actual = sizes
        if not (math.isfinite(size) and size > 0 and math.isfinite(actual) and actual >= 0):
            rule = "the bot's own size must be above 0, the traded one at least 0"
            raise UsageError(f"shadow log, record {name}: size_usd = {size!r}, actual_usd = {actual!r}: {rule}")
        if (advisor.name, name) in self._logged:
            line = self._logged[advisor.name, name] + 1
            raise UsageError(f"shadow log: record {name} is logged in line {line}; after a restart ask `seq_of` first")
        newest = self._newest.get((advisor.name, asset), time)
        if time < newest:
            raise UsageError(
                f"shadow log, record {name}: timestamp {time} lies before {newest}, the newest one of {asset}; log in time order"
            )
        if at.timestamp() < time // 1_000:
            raise UsageError(f"shadow log, record {name}: it is {iso_z(at)}, before timestamp {time}; timestamps are epoch milliseconds")

    def _remember(self, record: dict) -> None:
        self._logged.setdefault((record["revision"], record["id"]), record["seq"])
        self._newest[record["revision"], record["asset"]] = record["decided_ms"]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
