"""Small files of bars in anybody's dialect, for the tests of the readers."""

import numpy as np
import pandas as pd

COLUMNS = ("open", "high", "low", "close", "volume")


def market(rows=300, start="2024-01-08", seed=3, decimals=2, price=42_000.0, step="15min"):
    """A canonical frame that looks real enough: fat tails, clusters, a tick grid."""
    rng = np.random.default_rng(seed)
    size = np.exp(np.convolve(rng.normal(0, 0.3, rows + 20), np.ones(20) / 4, "valid")[:rows]) * 8e-4
    close = price * np.exp(np.cumsum(size * rng.standard_t(4, rows)))
    open_ = np.r_[price, close[:-1]]
    span = np.abs(rng.normal(0, 5e-4, rows)) * price
    frame = pd.DataFrame(
        {"open": open_, "high": np.maximum(open_, close) + span, "low": np.minimum(open_, close) - span, "close": close},
        index=pd.date_range(start, periods=rows, freq=step, tz="UTC", name="time").as_unit("ns"),
    )
    frame["high"] += 10.0**-decimals  # no candle without a range
    frame = frame.round(decimals)
    frame["volume"] = np.round(rng.lognormal(4, 1, rows) + 0.001, 3)
    return frame


def weekly(weeks=8, start="2024-02-12", close_hour=17, seed=3):
    """FX hours: from Sunday 17:00 to Friday 17:00 New York."""
    frame = market(weeks * 7 * 96, start=start, decimals=5, price=1.08, seed=seed)
    ny = frame.index.tz_convert("America/New_York")
    day, hour = ny.day_of_week, ny.hour
    return frame[~(((day == 4) & (hour >= close_hour)) | (day == 5) | ((day == 6) & (hour < close_hour)))]


def lines(frame, stamps=None, sep=",", header="time,open,high,low,close,volume", decimals=2):
    """The lines of a CSV; `stamps` a strftime format or a list of texts."""
    if stamps is None:
        stamps = "%Y-%m-%dT%H:%M:%SZ"
    times = frame.index.strftime(stamps) if isinstance(stamps, str) else stamps
    row = sep.join(["%s", *[f"%.{decimals}f"] * 4, "%.15g"])
    rows = [row % values for values in zip(times, *(frame[name].tolist() for name in COLUMNS), strict=True)]
    return ([header.replace(",", sep)] if header else []) + rows


def write(path, rows, newline="\n", encoding="utf-8"):
    path.write_bytes((newline.join(rows) + newline).encode(encoding))
    return path


def kinds(report):
    return {issue.kind: issue for issue in report.issues}
