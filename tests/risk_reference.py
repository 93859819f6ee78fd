"""The risk replay, slow and obvious: plain Python numbers, one account, one state, one candidate at a time."""

import math

import numpy as np

from trademl.risk.state import equity_state

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def walk(trades, profile, balance, lots):
    """(states, equities, peaks) before each trade at multiplier 1.0, and how many trades were skipped and halts happened."""
    equity = peak = balance
    closed, states, equities, peaks = [], [], [], []
    skipped = halts = 0
    for t in range(len(trades)):
        if equity <= 0:
            break
        states.append(equity_state(closed, equity=equity, start=balance, peak=peak, atr_norm=trades.atr_norm[t]))
        equities.append(equity)
        peaks.append(peak)
        size = lots.lots(equity * profile.base_risk, trades.risk_distance[t])
        if size == 0:
            skipped += 1
            continue
        equity += size * lots.contract_size * trades.risk_distance[t] * trades.net_r[t]
        closed.append(trades.net_r[t])
        peak = max(peak, equity)
        if equity > 0 and 1 - equity / peak >= profile.ceiling:
            halts += 1
            peak = equity
    return np.array(states), equities, peaks, skipped, halts


def original_score(trades, profile, t, equity, peak, multiplier, lots, ahead=20):
    """WR x PF / sqrt(MaxDD %) of one candidate over the next trades; nan for a breach or no trade."""
    results, curve = [], [equity]
    for j in range(t, t + ahead):
        size = lots.lots(equity * profile.base_risk * multiplier, trades.risk_distance[j])
        if size == 0:
            continue
        results.append(size * lots.contract_size * trades.risk_distance[j] * trades.net_r[j])
        equity += results[-1]
        curve.append(equity)
        peak = max(peak, equity)
        if equity <= peak * (1 - profile.ceiling):
            return math.nan
    if not results:
        return math.nan
    gains, losses = sum(x for x in results if x > 0), -sum(x for x in results if x < 0)
    factor = gains / losses if losses else (10.0 if gains else 1.0)
    max_dd = max(100 * (1 - now / max(curve[: i + 1])) for i, now in enumerate(curve))
    return sum(x > 0 for x in results) / len(results) * factor / math.sqrt(max(max_dd, 0.01))


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def growth_scores(net_r, base_risk, ceiling, t, drawdown, candidates, spec, seed):
    """(mean log growth, share of breaches) of each candidate for the state before trade t: every draw walked trade by trade."""
    pool = list(net_r[t - spec.recent : t + spec.ahead])
    starts = len(pool) - spec.block + 1
    x = mix((seed * GOLDEN + t) & MASK)
    futures = []
    for _ in range(spec.draws):
        future = []
        for _ in range(spec.trades // spec.block):
            x = (x + GOLDEN) & MASK
            s = ((mix(x) >> 32) * starts) >> 32
            future += pool[s : s + spec.block]
        futures.append(future)
    growth, breach = [], []
    for multiplier in candidates:
        ends, breaches = [], 0
        for future in futures:
            equity, peak, breached = 1.0, 1 / (1 - drawdown), False
            for r in future:
                equity *= max(1 + base_risk * multiplier * r, 1e-9)
                peak = max(peak, equity)
                breached |= equity <= peak * (1 - ceiling)
            ends.append(math.log(equity))
            breaches += breached
        growth.append(sum(ends) / len(ends))
        breach.append(breaches / len(futures))
    return np.array(growth), np.array(breach)
