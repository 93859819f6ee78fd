"""The labels once more: one bar after another, plain Python, nothing skipped. Slow and obvious."""

import math

from trademl.market.indicators import atr_sma
from trademl.market.specs import Entry, ExitReason, Label, PricePath, Tie

NAN = float("nan")
FLOATS = ("exit_price", "r", "mae", "mfe", "mae_to_tp")


def trade(spec, path, close, base, atr, t, side):
    """One side's trade, decided at bar t, as a dict of SideOutcome's fields and `tied`."""
    first, top, bottom = path
    risk, goal = spec.sl_atr * atr, spec.tp_atr * atr
    stop, target = base - side * risk, base + side * goal
    lived = range(t + 1, t + spec.horizon_bars + 1)

    def at_or_below(price, level):  # in the direction of the trade: a short is a long upside down
        return price <= level if side > 0 else price >= level

    def at_or_above(price, level):
        return price >= level if side > 0 else price <= level

    def moved(price):  # R in favour of the trade
        return side * (price - base) / risk

    worst, best = (bottom, top) if side > 0 else (top, bottom)
    seen = []  # every price that the trade lived through, in R
    for j in lived:
        seen.append(moved(first[j]))
        stopped, met, tied = at_or_below(worst[j], stop), at_or_above(best[j], target), False
        if at_or_below(first[j], stop):
            reason, price, r = ExitReason.SL, first[j], moved(first[j])
        elif at_or_above(first[j], target):
            reason, price, r = ExitReason.TP, first[j], moved(first[j])
        elif stopped and (not met or spec.tie is Tie.SL_FIRST):
            reason, price, r, tied = ExitReason.SL, stop, -1.0, met
        elif met:
            reason, price, r, tied = ExitReason.TP, target, spec.tp_atr / spec.sl_atr, stopped
        else:
            seen += [moved(best[j]), moved(worst[j])]
            if j == lived[-1]:
                reason, price, r = ExitReason.TIMEOUT, close[j], moved(close[j])
            else:
                continue
        seen.append(r)
        break
    to_target, adverse = NAN, [0.0]
    for k in lived:
        jumped = at_or_above(first[k], target)
        adverse.append(-moved(first[k]) if jumped else -moved(worst[k]))
        if jumped or at_or_above(best[k], target):
            to_target = max(adverse)
            break
    return {
        "reason": int(reason),
        "exit_bar": j,
        "exit_price": price,
        "r": r,
        "mae": max(0.0, -min(seen)),
        "mfe": max(0.0, max(seen)),
        "mae_to_tp": to_target,
        "tied": tied,
    }


def class_of(long, short):
    """BUY, SELL or HOLD; where both won, the earlier one, and none in one bar."""
    long_won, short_won = (side["reason"] == ExitReason.TP for side in (long, short))
    if long_won and short_won:
        if long["exit_bar"] == short["exit_bar"]:
            return Label.HOLD
        return Label.BUY if long["exit_bar"] < short["exit_bar"] else Label.SELL
    return Label.BUY if long_won else Label.SELL if short_won else Label.HOLD


NONE = {"reason": -1, "exit_bar": -1, "tied": False} | dict.fromkeys(FLOATS, NAN)


def labels(bars, spec):
    """Dict of lists: label, long, short (dicts), ambiguous, end_bar, concurrency, weight."""
    open_, high, low, close = ([float(x) for x in bars[name]] for name in ("open", "high", "low", "close"))
    n, atr = len(close), atr_sma(high, low, close).tolist()
    path = (open_, high, low) if spec.price_path is PricePath.OHLC else (close, close, close)
    out = {"label": [], "long": [], "short": [], "ambiguous": [], "end_bar": []}
    for t in range(n):
        label, long, short = Label.NONE, NONE, NONE
        if t + spec.horizon_bars < n and not math.isnan(atr[t]) and atr[t] > 0:
            base = open_[t + 1] if spec.entry is Entry.NEXT_OPEN else close[t]
            long, short = (trade(spec, path, close, base, atr[t], t, side) for side in (1, -1))
            label = class_of(long, short)
        out["label"].append(int(label))
        out["long"].append(long)
        out["short"].append(short)
        out["ambiguous"].append(long["tied"] or short["tied"])
        out["end_bar"].append(max(long["exit_bar"], short["exit_bar"]))
    spans = [(t, end) for t, end in enumerate(out["end_bar"]) if end >= 0]
    out["concurrency"] = [sum(t <= j <= end for t, end in spans) for j in range(n)]
    out["weight"] = [NAN] * n
    for t, end in spans:
        out["weight"][t] = sum(1 / out["concurrency"][j] for j in range(t, end + 1)) / (end + 1 - t)
    return out
