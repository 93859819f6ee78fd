"""The 55 features: seconds on two years of M15 bars and on a million, beside pandas, and what a live bar costs.

python benchmarks/features.py [ROWS ...]     (default: 70000 1000000; one thread)

The naive line is a SUBSET, 20 of the 55, written with pandas' own rolling and ewm: the fast, running-sum kind. It promises no equal bits
between batch and live, which is what the other lines pay for. The rank is shown by itself, because it is the one expensive window.
"""

import statistics
import sys
import time

import numpy as np
import pandas as pd

from trademl.market.context import Bars
from trademl.market.features import FEATURES, MIN_HISTORY_BARS, feature_matrix, last_row
from trademl.market.indicators import rolling_rank

REPEATS = 7


def median_s(call, repeats=REPEATS) -> float:
    """Median wall time of a call, seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def walk(n, seed=0) -> pd.DataFrame:
    """A random walk of n M15 bars."""
    rng = np.random.default_rng(seed)
    close = 60_000 * np.exp(np.cumsum(rng.standard_t(4, n) * 0.0004))
    open_ = np.append(60_000.0, close[:-1])
    shadow = np.abs(rng.normal(0, 5e-4, (2, n)))
    high, low = np.maximum(open_, close) * (1 + shadow[0]), np.minimum(open_, close) * (1 - shadow[1])
    index = pd.date_range("2000-01-01", periods=n, freq="15min", tz="UTC")
    return pd.DataFrame({"open": open_, "high": high, "low": low, "close": close, "volume": rng.lognormal(4, 1, n)}, index)


def naive_20(b):
    """Twenty of the 55 as one would write them in pandas."""
    c, v = b.close, b.volume
    tr = np.maximum(b.high, c.shift()) - np.minimum(b.low, c.shift())
    atr, returns, middle, sigma = tr.rolling(14).mean(), np.log(c).diff(), c.rolling(20).mean(), c.rolling(20).std(ddof=0)
    e = {n: c.ewm(span=n, adjust=False).mean() for n in (12, 20, 26, 50, 200)}
    macd = e[12] - e[26]
    signal = macd.ewm(span=9, adjust=False).mean()
    up, down = c.diff().clip(lower=0).rolling(14).sum(), (-c.diff()).clip(lower=0).rolling(14).sum()
    top, bottom = b.high.rolling(96).max(), b.low.rolling(96).min()
    columns = [atr / c, atr / tr.rolling(96).mean(), tr / atr.shift(), returns.rolling(20).std()]
    columns += [(middle + 2 * sigma - c) / atr, (c - middle + 2 * sigma) / atr, 4 * sigma / middle]
    columns += [c / e[n] - 1 for n in (20, 50, 200)] + [signal / atr, (macd - signal) / atr]
    columns += [returns, np.log(c / c.shift(4)), np.log(c / c.shift(16)), up / (up + down)]
    columns += [(c - bottom) / (top - bottom), v / v.rolling(20).mean(), v / v.rolling(96).mean().shift()]
    columns += [v.rolling(10).mean() / v.rolling(50).mean() - 1]
    return pd.concat(columns, axis=1).to_numpy()


def main(sizes):
    """Print the table."""
    print(f"{'bars':>10}  {'what':<44}{'median':>10}  {'against ours':>12}")
    for n in sizes:
        bars = walk(n)
        arrays = [bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume")]
        news = np.arange(bars.index[0].timestamp(), bars.index[-1].timestamp(), 40 * 3600).astype(np.int64)
        repeats = REPEATS if n <= 200_000 else 3
        ours = median_s(lambda a=arrays, t=bars.index, e=news: feature_matrix(t, *a, e), repeats)
        x = arrays[3] / 7
        lines = [
            (f"feature_matrix, {len(FEATURES)} features", ours),
            ("naive pandas, 20 of them (subset)", median_s(lambda b=bars: naive_20(b), repeats)),
            ("rank over 1,920 bars, ours", median_s(lambda x=x: rolling_rank(x, 1920), repeats)),
            (
                "rank over 1,920 bars, pandas rolling().rank()",
                median_s(lambda x=x: pd.Series(x).rolling(1920).rank(method="max", pct=True), repeats),
            ),
        ]
        for what, seconds in lines:
            print(f"{n:>10,}  {what:<46}{seconds * 1e3:>8,.1f} ms{seconds / ours:>11.2f}x")
    tail = [x[-MIN_HISTORY_BARS:] for x in arrays]
    live = median_s(lambda: feature_matrix(bars.index[-MIN_HISTORY_BARS:], *tail, news), 50)
    print(f"{MIN_HISTORY_BARS:>10,}  {'feature_matrix':<46}{live * 1e3:>8,.1f} ms")
    bot = Bars(bars.index[-MIN_HISTORY_BARS:], *tail)
    live = median_s(lambda: last_row(bot, news), 500)
    print(f"{MIN_HISTORY_BARS:>10,}  {'last_row, as a bot calls it at each close':<46}{live * 1e3:>8,.1f} ms")


if __name__ == "__main__":
    main([int(x.replace(",", "")) for x in sys.argv[1:]] or [70_000, 1_000_000])
