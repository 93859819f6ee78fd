"""The bars of one call: which are refused before anything is computed from them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from trademl.bot.refusals import TailError, TailFault
from trademl.clock import DAY_S, epoch_seconds, iso_z
from trademl.errors import BadDataError
from trademl.market.context import BAR_SECONDS, COLUMNS, Bars

SKEW_S = 5  # how far the exchange's clock may be ahead of this machine's
FIRST_S, LAST_S = 946_684_800, 4_102_444_800  # 2000 and 2100: what lies outside is in another unit
AHEAD_S = DAY_S  # how far ahead the calendar features look


@dataclass(frozen=True)
class Calendar:
    """Scheduled high-impact events, and until when they are known. BadDataError for what is not a moment between 2000 and 2100."""

    times: np.ndarray  # epoch seconds, or datetime64 in UTC
    all_day_times: np.ndarray = ()
    covers_until: int | None = None  # epoch seconds; None: the last event

    def __post_init__(self):
        for name in ("times", "all_day_times"):
            object.__setattr__(self, name, _moments(getattr(self, name), f"news {name}"))
        if self.covers_until is not None:
            object.__setattr__(self, "covers_until", int(_moments([self.covers_until], "news covers_until")[0]))

    @classmethod
    def of(cls, given) -> "Calendar | None":
        """From a Calendar, plain times, or None."""
        return given if given is None or isinstance(given, cls) else cls(given)

    def knows(self, decision_s: int) -> bool:
        """Whether every event that the features of this moment could see is in it."""
        until = self.covers_until
        if until is None:
            until = int(self.times.max()) if len(self.times) else 0
        return until >= decision_s + AHEAD_S


def _moments(given, what: str) -> np.ndarray:
    """Epoch seconds, int64. A calendar in milliseconds would lie far ahead, where no event is ever near."""
    try:
        times = epoch_seconds(given) if len(given) else np.empty(0, np.int64)
    except TypeError as reason:
        raise BadDataError(f"{what}: {reason}; give epoch seconds or datetime64 in UTC") from None
    bad = (times < FIRST_S) | (times >= LAST_S)
    if times.ndim != 1 or bad.any():
        raise BadDataError(f"{what}: {times[bad][:1].tolist() or times.shape}, expected a list of epoch seconds of 2000 to 2100, UTC")
    return times


def read_bars(given) -> Bars:
    """Arrays from a `Bars`, or from any mapping or frame with the columns open to volume and time (a frame: or its index).

    TailError for missing columns, unequal lengths, prices that cannot be, and time stamps in another unit or clock.
    """
    if not isinstance(given, Bars):
        given = _columns(given)
    try:
        time = np.ascontiguousarray(epoch_seconds(given.time))
        columns = [np.ascontiguousarray(column, np.float64) for column in given[1:]]
    except (TypeError, ValueError) as reason:
        raise TailError(TailFault.VALUES, f"bars: {reason}; times must be UTC datetimes or whole epoch seconds, columns numbers") from None
    shapes = {name: column.shape for name, column in zip(("time", *COLUMNS), (time, *columns))}
    if time.ndim != 1 or len(set(shapes.values())) != 1:
        raise TailError(TailFault.VALUES, f"bars: columns must be one-dimensional and equally long, got shapes {shapes}")
    if len(time) and not FIRST_S <= time[0] <= time[-1] < LAST_S:
        bad = time[0] if not FIRST_S <= time[0] < LAST_S else time[-1]
        raise TailError(
            TailFault.CLOCK, f"bars: time {bad} is not epoch seconds of 2000 to 2100, in order; milliseconds are divided by 1000"
        )
    return Bars(time, *columns)


def _columns(given) -> Bars:
    names = getattr(given, "columns", given)
    if not isinstance(names, Iterable):
        raise TailError(TailFault.VALUES, f"bars: a {type(given).__name__}, expected Bars, or a mapping or frame with their columns")
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise TailError(TailFault.VALUES, f"bars: {', '.join(missing)} missing; columns needed: time, {', '.join(COLUMNS)}")
    if "time" not in names and not hasattr(given, "index"):
        raise TailError(TailFault.VALUES, "bars: time missing; epoch seconds or datetimes (UTC) of each bar's open")
    return Bars(given["time"] if "time" in names else given.index, *(given[name] for name in COLUMNS))


def symbols_of(given) -> set[str]:
    """What symbols the bars name: in a `symbol` entry or column, or in a frame's attrs."""
    is_named = isinstance(given, Mapping) or hasattr(given, "columns")
    named = given["symbol"] if is_named and "symbol" in given else getattr(given, "attrs", {}).get("symbol")
    return set() if named is None else set(map(str, np.unique(np.asarray(named, str))))


@dataclass(frozen=True)
class TailRule:
    """What the bars of a call must be."""

    bars: int  # least number
    missing_share: float  # of the bars that a market without breaks would have had, allowed to be missing

    def missing_allowed(self, slots: int) -> int:
        """Bars that may be missing from this many quarters of an hour."""
        return math.floor(1.5 * self.missing_share * slots)

    def check(self, bars: Bars, now: datetime) -> None:
        """TailError naming the first thing that is wrong."""
        time = bars.time
        self._check_spacing(time)
        if len(time) < self.bars:
            raise TailError(TailFault.SHORT, f"bars: {len(time):,} given, the features look back over {self.bars:,}; keep 2,000")
        self._check_now(int(time[-1]), now)
        slots = int(time[-1] - time[-self.bars]) // BAR_SECONDS + 1
        missing, allowed = slots - self.bars, self.missing_allowed(slots)
        if missing > allowed:
            step = np.diff(time[-self.bars :])
            widest = int(step.argmax())
            raise TailError(
                TailFault.HOLE,
                f"bars: {missing:,} of the last {slots:,} are missing, {allowed:,} are usual for this market; the widest hole is "
                f"{step[widest] // BAR_SECONDS - 1:,} bars after {iso_z(time[-self.bars :][widest])}; fetch them, or, if the market itself "
                "stood still, load with Expect(missing_share=…)",
            )

    def _check_spacing(self, time: np.ndarray) -> None:
        step = np.diff(time)
        regular = np.count_nonzero(step == BAR_SECONDS)
        if not len(step) or (regular == len(step) and time[0] % BAR_SECONDS == 0):  # a market without breaks: nothing else to ask
            return
        usual = BAR_SECONDS if 2 * regular > len(step) else int(np.median(step))
        if usual != BAR_SECONDS:
            raise TailError(TailFault.TIMEFRAME, f"bars: they open {usual} s apart, the models decide on bars of {BAR_SECONDS} s")
        if (step <= 0).any() or (time % BAR_SECONDS).any():
            row = int((step <= 0).argmax()) + 1 if (step <= 0).any() else int((time % BAR_SECONDS != 0).argmax())
            raise TailError(
                TailFault.VALUES, f"bars row {row}: {iso_z(time[row])} is out of order, repeated, or not the open of a quarter of an hour"
            )

    def _check_now(self, last: int, now: datetime) -> None:
        close, at = last + BAR_SECONDS, now.timestamp()
        if last > at + SKEW_S:
            raise TailError(
                TailFault.CLOCK,
                f"bars: the last one opens at {iso_z(last)}, here it is {iso_z(now)}: this clock is behind, or theirs is not UTC",
            )
        if close > at + SKEW_S:
            raise TailError(TailFault.FORMING, f"bars: the last one is still open until {iso_z(close)}, now is {iso_z(now)}; leave it out")
        if at > close + BAR_SECONDS:
            raise TailError(
                TailFault.STALE, f"bars: the last one closed at {iso_z(close)}, now is {iso_z(now)}; a newer one should be there"
            )


def utc(now: datetime) -> datetime:
    """The moment in UTC. TailError for anything but a datetime with a time zone."""
    if not isinstance(now, datetime) or now.tzinfo is None:
        raise TailError(TailFault.CLOCK, f"now = {now!r} has no time zone; give datetime.now(UTC)")
    return now.astimezone(UTC)
