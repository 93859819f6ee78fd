"""Time: UTC everywhere, half-open intervals [start, end), epoch seconds inside kernels."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

DAY_S = 86_400
WEEK_S = 7 * DAY_S
MONDAY_S = 3 * DAY_S  # 1970-01-01 was a Thursday: (s + MONDAY_S) // WEEK_S numbers weeks from Monday 00:00 UTC


def epoch_seconds(time) -> "np.ndarray":
    """Epoch seconds (int64, shape (n,)) of UTC times: a DatetimeIndex, datetime64 of any unit, or int64 seconds.

    Naive datetime64 is taken as UTC. Integers are taken as seconds already; floats are refused.
    """
    import numpy as np  # here: `trademl --help` and the settings ask this module for no array

    values = getattr(time, "asi8", None)  # DatetimeIndex, with or without a zone, keeps UTC ticks here
    if values is not None:
        return values // _ticks_per_second(np.datetime_data(time.dtype if isinstance(time.dtype, np.dtype) else f"M8[{time.unit}]")[0])
    array = np.asarray(time)
    if array.dtype.kind == "M":
        return array.astype("datetime64[s]").astype(np.int64)
    if array.dtype.kind in "iu":
        return array.astype(np.int64, copy=False)
    raise TypeError(f"times must be datetimes or whole epoch seconds, got dtype {array.dtype}")


def _ticks_per_second(unit: str) -> int:
    return {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]


def timeframe_seconds(timeframe: str) -> int:
    """Seconds of a bar: "15min" gives 900. Minutes, hours and days only."""
    for suffix, seconds in (("min", 60), ("h", 3600), ("d", DAY_S)):
        count = timeframe.removesuffix(suffix)
        if count != timeframe and count.isdecimal() and int(count) > 0:
            return int(count) * seconds
    raise ValueError(f"timeframe = {timeframe!r} is not one of the form 15min, 1h, 1d")


def utc_now() -> datetime:
    """The one place that asks the clock."""
    return datetime.now(UTC)


def iso_z(moment) -> str:
    """ISO 8601 with a Z, seconds precision: from a datetime or epoch seconds."""
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(int(moment), UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
