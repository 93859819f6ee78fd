"""A paper bot over recorded bars: decides at every close, holds one trade, survives a restart. It never sends an order.

python examples/paper_bot.py MODELS_DIR PUBLIC_KEY SYMBOL BARS.csv NEWS.csv STATE_DIR [BARS_TO_PLAY]

BARS.csv: time (epoch seconds of the open, UTC), open, high, low, close, volume. NEWS.csv: time of scheduled high-impact events.
STATE_DIR keeps log.jsonl (what was decided, filled and closed) and state.json (the next bar, the account, the open trade).
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from trademl.bot import AccountState, Bars, Calendar, DecisionLog, Expect, OpenPosition, load_approved
from trademl.files import canonical_json, strict_json, write_atomically

HISTORY, BAR_S, START = 2_000, 900, 10_000.0


def closes_at(trade: dict, bars: Bars, t: int) -> tuple[float, str] | None:
    """Bid price and reason if the bracket ends the trade in bar t: the stop counts first."""
    side, entry = trade["side"], trade["entry_price"]
    stop, target = entry - side * trade["stop_distance"], entry + side * trade["target_distance"]
    worst, best = (bars.low[t], bars.high[t]) if side > 0 else (bars.high[t], bars.low[t])
    if side * (worst - stop) <= 0:
        return stop, "stop"
    if side * (best - target) >= 0:
        return target, "target"
    held = t - int(np.searchsorted(bars.time, trade["decided_bar_s"]))
    return (float(bars.close[t]), "timeout") if held >= trade["horizon_bars"] else None


def play(predictor, bars: Bars, calendar: Calendar, folder: Path, steps: int) -> None:
    """Decide at the next `steps` closes, from where the state stands."""
    folder.mkdir(parents=True, exist_ok=True)
    log, path, costs = DecisionLog(folder / "log.jsonl"), folder / "state.json", predictor.loaded.policy.costs
    begin = {"next": HISTORY - 1, "account": AccountState.opened(predictor.line, predictor.loaded.profile, START).record(), "trade": None}
    state = strict_json(path.read_bytes()) if path.exists() else begin
    for t in range(state["next"], min(state["next"] + steps, len(bars.time) - 1)):
        account, trade, tail = AccountState.of(state["account"]), state["trade"], Bars(*(x[t + 1 - HISTORY : t + 1] for x in bars))
        now, end = datetime.fromtimestamp(int(bars.time[t]) + BAR_S + 1, UTC), trade and closes_at(trade, bars, t)
        held = trade and not end and OpenPosition(**{name: trade[name] for name in OpenPosition.__dataclass_fields__})
        decision = predictor.predict(tail, calendar, account, held or None, now) if not end else None
        if held and decision.position.leave:
            end = float(bars.open[t + 1]), "model"
        if end:  # only then is it known what the account has become: the next trade's size is asked for after it
            net_r = trade["side"] * (end[0] - trade["entry_price"]) / trade["stop_distance"] - costs.in_r(trade["stop_distance"])
            account = account.after(net_r, account.equity * (1 + trade["risk"] * net_r))
            decision = predictor.predict(tail, calendar, account, None, now)
            log.exit(decision, trade["seq"], end[0], trade["lots"], now, end[1])
            trade = None
        seq = log.decision(decision, tail)
        if trade is None and decision.may_trade:  # filled at the next open
            lots = account.equity * decision.effective_risk / (decision.stop_distance * costs.contract_size)
            trade = {"side": decision.side, "entry_price": float(bars.open[t + 1]), "stop_distance": decision.stop_distance}
            trade |= {"target_distance": decision.target_distance, "horizon_bars": decision.horizon_bars, "lots": lots, "seq": seq}
            trade |= {"decided_bar_s": decision.bar_s, "risk": decision.effective_risk}
            log.fill(decision, seq, trade["entry_price"], lots, now)
        state = {"next": t + 1, "account": account.record(), "trade": trade}
        write_atomically(path, canonical_json(state))
    print(f"{state['next']} bars seen, equity {state['account']['equity']:.2f}, {len(state['account']['closed_net_r'])} trades closed")


if __name__ == "__main__":
    models_dir, key, symbol, bars_file, news_file, folder, *steps = sys.argv[1:]
    table = np.genfromtxt(bars_file, delimiter=",", names=True)
    arrays = Bars(table["time"].astype(np.int64), *(table[name] for name in Bars._fields[1:]))
    events = np.atleast_1d(np.genfromtxt(news_file, delimiter=",", names=True)["time"]).astype(np.int64)
    known = Calendar(events, covers_until=int(max(events[-1], arrays.time[-1] + 3 * 86_400)))  # a recorded calendar is complete
    live = load_approved(models_dir, [key], profile=3, expect=Expect(symbol))
    play(live, arrays, known, Path(folder), int(steps[0]) if steps else len(arrays.time))
