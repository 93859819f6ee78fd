"""The 55 features a second time: slow pandas, written from the specification's text and sharing no code with the package.

`reference(bars, news, all_day, round_step)` gives the values and, beside them, how far a value may be off: pandas' recursive EMA never
forgets, and sums made in another order round otherwise, so a sign at an exact tie and a rank among ties are only known within bounds.
"""

import numpy as np
import pandas as pd

QUARTER = pd.Timedelta(minutes=15)


def windows(s, n):
    """Every full window of a series as a row of a matrix, with NaN rows before."""
    out = np.full((len(s), n), np.nan)
    if len(s) >= n:
        out[n - 1 :] = np.lib.stride_tricks.sliding_window_view(s.to_numpy(float), n)
    return out


def mean(s, n):
    return pd.Series(windows(s, n).mean(axis=1), s.index)


def total(s, n):
    return pd.Series(windows(s, n).sum(axis=1), s.index)


def rank_bounds(s, n):
    """Share of the last n values <= the current one, without and with those that differ by rounding only."""
    w = windows(s, n)
    near = 1e-9 * np.abs(w[:, -1:])
    known = np.where(np.isnan(w).any(axis=1), np.nan, 1.0)
    return (
        pd.Series((w <= w[:, -1:] - near).mean(axis=1) * known, s.index) + known / n * (near[:, 0] > 0),
        pd.Series((w <= w[:, -1:] + near).mean(axis=1) * known, s.index),
    )


def div(a, b, empty=0.0):
    """a / b, `empty` where b is zero."""
    return (a / b.where(b != 0)).where((b != 0) | a.isna(), empty)


def cutler(s):
    move = s.diff()
    gain, loss = total(move.clip(lower=0), 14), total((-move).clip(lower=0), 14)
    return div(gain, gain + loss, 0.5)


def from_completed(bars, rule, formula):
    """For each row: `formula` of the closes of all higher-timeframe bars that ended by its decision time."""
    closes = bars.close.groupby(bars.index.floor(rule)).last()
    ended = (closes.index + pd.Timedelta(rule)).searchsorted(bars.index + QUARTER, side="right")
    answers = {k: formula(closes.iloc[:k]) for k in np.unique(ended)}
    return [answers[k] for k in ended]


def sign_of_means(history, fast, slow):
    """Sign of the difference of two means, and whether the two are equal but for rounding."""
    if len(history) < slow:
        return np.nan, False
    gap = history.iloc[-fast:].mean() - history.iloc[-slow:].mean()
    return float(np.sign(gap)), abs(gap) < 1e-9 * history.iloc[-1]


def higher_rsi(history):
    """2 RSI - 1 of the last 14 changes."""
    if len(history) < 15:
        return np.nan
    moves = np.diff(history.to_numpy()[-15:])
    return 0.0 if not moves.any() else moves.sum() / np.abs(moves).sum()


def reference(bars, news=None, all_day=(), round_step=1000.0):
    """Values and tolerances, two frames with one column per feature."""
    o, h, lo, c, v = bars.open, bars.high, bars.low, bars.close, bars.volume
    f, slack = {}, {}
    before = c.shift()
    tr = pd.concat([h - lo, (h - before).abs(), (lo - before).abs()], axis=1).max(axis=1)
    atr = mean(tr, 14)
    returns = np.log(c).diff()

    f["atr_pct"] = atr / c
    f["atr_expansion"] = div(atr, mean(tr, 96))
    low_rank, high_rank = rank_bounds(f["atr_pct"], 1920)
    f["atr_percentile"], slack["atr_percentile"] = (low_rank + high_rank) / 2, (high_rank - low_rank) / 2
    f["tr_norm"] = div(tr, atr.shift())
    short, long = (pd.Series(windows(returns, n).std(axis=1, ddof=1), c.index) for n in (20, 96))
    f["volatility_20"] = short
    f["volatility_ratio"] = div(short, long)
    middle, sigma = mean(c, 20), pd.Series(windows(c, 20).std(axis=1), c.index)
    f["bb_upper"] = div(middle + 2 * sigma - c, atr)
    f["bb_lower"] = div(c - middle + 2 * sigma, atr)
    f["bb_width"] = 4 * sigma / middle

    e = {n: c.ewm(span=n, adjust=False).mean() for n in (12, 20, 26, 50, 200)}
    for n in (20, 50, 200):
        f[f"price_vs_ema{n}"] = c / e[n] - 1
    f["ema_stack"] = ((e[20] > e[50]) & (e[50] > e[200])) * 1.0 - ((e[20] < e[50]) & (e[50] < e[200])) * 1.0
    slack["ema_stack"] = (((e[20] - e[50]).abs() < 1e-7 * c) | ((e[50] - e[200]).abs() < 1e-7 * c)) * 2.0
    f["ema_slope_5"] = div(e[20] - e[20].shift(5), atr)
    up, down = h.diff(), -lo.diff()
    plus = total(up.where((up > down) & (up > 0), 0.0).where(up.notna()), 14)
    minus = total(down.where((down > up) & (down > 0), 0.0).where(up.notna()), 14)
    plus, minus = div(plus, total(tr, 14)), div(minus, total(tr, 14))
    f["trend_strength"] = mean(div((plus - minus).abs(), plus + minus), 14)
    f["di_diff"] = plus - minus
    macd = e[12] - e[26]
    signal = macd.ewm(span=9, adjust=False).mean()
    f["macd_signal"] = div(signal, atr)

    for n in (1, 4, 16):
        f[f"return_{n}"] = np.log(c) - np.log(c.shift(n))
    f["momentum_10"] = div(c - c.shift(10), atr)
    rsi = f["rsi_14"] = cutler(c)
    f["rsi_slope"] = rsi - rsi.shift(5)
    (a, b), (p, q) = rank_bounds(c, 20), rank_bounds(rsi + 1, 20)
    f["rsi_divergence"], slack["rsi_divergence"] = (a + b - p - q) / 2, (b - a + q - p) / 2
    f["macd_hist"] = div(macd - signal, atr)

    top, bottom = h.rolling(96).max(), lo.rolling(96).min()
    f["range_position"] = div(c - bottom, top - bottom, 0.5)
    day = bars.index.floor("D")
    top, bottom = h.groupby(day).cummax(), lo.groupby(day).cummin()
    f["daily_range_position"] = div(c - bottom, top - bottom, 0.5)
    f["drawdown_pct"] = c / h.rolling(50).max() - 1
    f["candle_direction"] = div(c - o, atr)
    f["upper_wick"] = div(h - pd.concat([o, c], axis=1).max(axis=1), h - lo)
    f["lower_wick"] = div(pd.concat([o, c], axis=1).min(axis=1) - lo, h - lo)
    run, runs = 0, []
    for turn in np.sign(c - o):
        run = 0 if turn == 0 else (run + turn if run * turn > 0 else turn)
        runs.append(max(-10, min(10, run)))
    f["consecutive_direction"] = pd.Series(runs, c.index)
    steps = c / round_step
    nearest = np.floor(steps) + (steps - np.floor(steps) >= 0.5)
    f["round_number_dist"] = div(c - nearest * round_step, atr).clip(-10, 10)

    f["volume_ratio"] = div(v, mean(v, 20))
    f["volume_surge"] = div(v, mean(v, 96).shift())
    f["volume_trend"] = div(mean(v, 10), mean(v, 50), 1.0) - 1
    f["volume_delta"] = div(total(np.sign(c - o) * v, 20), total(v, 20))
    traded = total(v, 96)
    vwap = div(total((h + lo + c) / 3 * v, 96), traded)
    f["vwap_dist"] = div(c - vwap, atr).where(traded != 0, 0.0)

    for name, rule, fast, slow in (("m30", "30min", 20, 50), ("h1", "1h", 20, 50), ("h4", "4h", 20, 50), ("d1", "1D", 5, 20)):
        signs = from_completed(bars, rule, lambda x, fast=fast, slow=slow: sign_of_means(x, fast, slow))
        f[f"{name}_trend"], slack[f"{name}_trend"] = [s for s, _ in signs], [2.0 * tie for _, tie in signs]
    for name, rule in (("h1", "1h"), ("h4", "4h")):
        f[f"{name}_rsi_norm"] = from_completed(bars, rule, higher_rsi)
    f["d1_return"] = from_completed(bars, "1D", lambda x: np.log(x.iloc[-1] / x.iloc[-2]) if len(x) > 1 else np.nan)

    d = bars.index + QUARTER
    hour = d.hour + d.minute / 60 + d.second / 3600
    f["session_hour_sin"], f["session_hour_cos"] = np.sin(2 * np.pi * hour / 24), np.cos(2 * np.pi * hour / 24)
    f["is_asian_session"] = d.hour.isin(range(8))
    f["is_london_session"] = d.hour.isin(range(7, 16))
    f["is_ny_session"] = d.hour.isin(range(13, 21))
    f["is_weekend"] = d.day_name().isin(["Saturday", "Sunday"])

    f |= calendar(d, news, all_day)
    values = pd.DataFrame({name: np.asarray(x, float) for name, x in f.items()}, index=bars.index)
    allowed = 1e-6 * (1 + values.abs())
    for name, x in slack.items():
        allowed[name] += np.asarray(x, float)
    return values, allowed


def calendar(d, news, all_day):
    """The four news features, minute by minute from the text."""
    if news is None:
        never = d.hour * 0
        return {"is_news_near": never, "news_minutes_away": never + 1, "news_count_today": never, "is_news_risk_window": never}
    near, away, today, risk = [], [], [], []
    for now in d.as_unit("s").asi8:
        minutes = (np.asarray(news) - now) / 60  # > 0: ahead
        ahead, behind = minutes[minutes >= 0], -minutes[minutes <= 0]
        near.append((np.abs(minutes) <= 30).any())
        away.append(min([*ahead, 1440]) / 1440)
        today.append((np.asarray([*news, *all_day]) // 86_400 == now // 86_400).sum())
        risk.append((ahead <= 60).any() or (behind <= 120).any())
    return {"is_news_near": near, "news_minutes_away": away, "news_count_today": today, "is_news_risk_window": risk}
