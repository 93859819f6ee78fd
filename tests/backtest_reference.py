"""The backtest once more: one bar after another, plain Python, nothing skipped. Slow and obvious."""

import math

from trademl.market.indicators import atr_sma
from trademl.market.specs import Entry, ExitReason, PricePath, Tie

DAY = 86_400


class Account:
    """Balance, marks and limits."""

    def __init__(self, account, week):
        self.spec, self.balance = account, account.balance
        self.equity = self.peak = self.week_equity = account.balance
        self.week, self.paused, self.halted_at = week, [], None

    def mark(self, i, week, equity):
        """Equity at the close of bar i."""
        if week != self.week:
            self.week, self.week_equity = week, self.equity
        self.equity = equity
        self.peak = max(self.peak, equity)
        halt, pause = self.spec.max_total_drawdown_pct / 100, self.spec.weekly_pause_pct / 100
        was_halted = self.halted_at is not None
        if halt > 0 and self.halted_at is None and equity <= self.peak * (1 - halt):
            self.halted_at = i
        may_pause = pause > 0 and not was_halted and week not in self.paused and self.week_equity > 0
        if may_pause and equity <= self.week_equity * (1 - pause):
            self.paused.append(week)


class Trade:
    """An open position and what ends it."""

    def __init__(self, market, t, side, lots, leave_at):
        spec, costs = market.spec, market.costs
        self.t, self.side, self.lots, self.leave_at = t, side, lots, leave_at
        self.ask = costs.spread if side < 0 else 0.0  # added to the bid, gives what the position is closed at
        self.base = market.base(t)
        self.risk = spec.sl_atr * market.atr[t]
        self.entry = market.entry_price(t, side)
        self.stop = self.base - side * spec.sl_atr * market.atr[t]
        self.target = self.base + side * spec.tp_atr * market.atr[t]
        self.units = lots * costs.contract_size
        self.margin = self.units * self.entry / market.account.leverage

    def worse(self, price, level):
        """Is `price` at or beyond `level` on the losing side?"""
        return price <= level if self.side > 0 else price >= level

    def better(self, price, level):
        """Is `price` at or beyond `level` on the winning side?"""
        return price >= level if self.side > 0 else price <= level


class Market:
    """Bars and settings."""

    def __init__(self, bars, spec, costs, account):
        self.spec, self.costs, self.account = spec, costs, account
        self.time = [int(t.timestamp()) for t in bars.index]
        self.open, self.high, self.low, self.close = ([float(x) for x in bars[name]] for name in ("open", "high", "low", "close"))
        self.atr = atr_sma(bars["high"], bars["low"], bars["close"]).tolist()
        self.path = (self.open, self.high, self.low) if spec.price_path is PricePath.OHLC else (self.close,) * 3
        self.next_open = spec.entry is Entry.NEXT_OPEN

    def base(self, t):
        """The bid price around which the barriers stand."""
        return self.open[t + 1] if self.next_open else self.close[t]

    def entry_price(self, t, side):
        """Buy at the ask, sell at the bid, and slip."""
        return self.base(t) + (self.costs.spread if side > 0 else 0.0) + side * self.costs.slippage

    def fill_time(self, t):
        """Seconds at which a decision of bar t is filled."""
        return self.time[t + 1] if self.next_open else self.time[t] + self.spec.bar_seconds

    def week(self, i):
        """Number of the week in which bar i opens."""
        return week_of(self.time[i])


def week_of(seconds):
    """Number of the week of a moment; Mondays at 00:00 UTC."""
    return (seconds // DAY + 3) // 7


def swap_so_far(market, trade, i):
    """Money for the midnights between the fill and the opening of bar i."""
    if not market.account.swap:
        return 0.0
    nights = market.time[i] // DAY - market.fill_time(trade.t) // DAY
    return trade.lots * (market.costs.swap_long if trade.side > 0 else market.costs.swap_short) * nights


def worth(market, account, trade, i, price):
    """Equity if the open trade's closing price is `price` in bar i."""
    paid = trade.lots * market.costs.commission
    return account.balance - paid + swap_so_far(market, trade, i) + trade.side * (price - trade.entry) * trade.units


def within(market, account, trade, i):
    """(price, reason) of what happens in bar i after its opening, or None."""
    first, top, bottom = (column[i] + trade.ask for column in market.path)
    worst, best = (bottom, top) if trade.side > 0 else (top, bottom)
    if trade.worse(first, trade.stop):
        return first, ExitReason.SL
    if trade.better(first, trade.target):
        return first, ExitReason.TP
    call = market.account.margin_call_pct / 100 * trade.margin
    is_called = worth(market, account, trade, i, worst) <= call
    is_stopped, is_met = trade.worse(worst, trade.stop), trade.better(best, trade.target)
    if is_called:
        level = trade.entry + trade.side * (call - worth(market, account, trade, i, trade.entry)) / trade.units
        if trade.worse(first, level):
            return first, ExitReason.MARGIN
    if is_met and market.spec.tie is Tie.TP_FIRST:
        return trade.target, ExitReason.TP
    if is_called and not (is_stopped and trade.worse(level, trade.stop)):
        return level, ExitReason.MARGIN
    if is_stopped:
        return trade.stop, ExitReason.SL
    if is_met:
        return trade.target, ExitReason.TP
    last = i == trade.t + market.spec.horizon_bars
    if last or i == len(market.close) - 1:
        return market.close[i] + trade.ask, ExitReason.TIMEOUT if last else ExitReason.END
    return None


def settle(market, account, trade, i, price, reason):
    """Close the trade; its row."""
    costs = market.costs
    bid = price - trade.ask
    leave = price if reason is ExitReason.TP else price - trade.side * costs.slippage
    commission, swap = 2 * costs.commission * trade.lots, swap_so_far(market, trade, i)
    pnl = trade.side * (leave - trade.entry) * trade.units - commission + swap
    account.balance += pnl
    return {
        "decision_bar": trade.t,
        "entry_bar": trade.t + market.next_open,
        "exit_bar": i,
        "side": trade.side,
        "entry_price": trade.entry,
        "exit_price": leave,
        "lots": trade.lots,
        "risk_distance": trade.risk,
        "gross_r": trade.side * (bid - trade.base) / trade.risk,
        "net_r": pnl / (trade.units * trade.risk),
        "pnl": pnl,
        "commission": commission,
        "swap": swap,
        "reason": int(reason),
        "balance_after": account.balance,
    }


def try_to_open(market, account, decisions, t, counters):
    """A trade, or None and a count."""
    spec, side = market.account, int(decisions.side[t])
    if account.halted_at is not None:
        counters["skipped_halted"] += 1
    elif t + 1 == len(market.close):
        counters["skipped_no_bar"] += 1
    elif not market.atr[t] > 0:
        counters["skipped_no_atr"] += 1
    elif week_of(market.fill_time(t)) in account.paused:
        counters["skipped_paused"] += 1
    else:
        multiplier = 1.0 if decisions.multiplier is None else float(decisions.multiplier[t])
        money = spec.risk_pct / 100 * multiplier * account.balance
        step_loss = market.spec.sl_atr * market.atr[t] * market.costs.contract_size * spec.lot_step
        steps = min(math.floor(money / step_loss + 1e-9), math.floor(spec.max_lot / spec.lot_step + 1e-9))
        if steps < max(1, math.ceil(spec.min_lot / spec.lot_step - 1e-9)):
            counters["skipped_below_min_lot"] += 1
            return None
        lots = steps * spec.lot_step
        if lots * market.costs.contract_size * market.entry_price(t, side) / spec.leverage > account.balance:
            counters["skipped_no_margin"] += 1
            return None
        counters["trades"] += 1
        return Trade(market, t, side, lots, -1 if decisions.exit_bar is None else int(decisions.exit_bar[t]))
    return None


def run(bars, decisions, spec, costs, account_spec):
    """(rows, equity, balance, counters) of the decisions."""
    market = Market(bars, spec, costs, account_spec)
    account = Account(account_spec, market.week(0))
    names = ("trades", "below_min_lot", "no_margin", "no_atr", "halted", "paused", "no_bar")
    counters = {name if name == "trades" else f"skipped_{name}": 0 for name in names} | {"in_trade": 0}
    rows, equity, balance, trade, decided = [], [], [], None, None
    for i in range(len(bars)):
        if trade and trade.leave_at == i - 1:
            rows.append(settle(market, account, trade, i, market.open[i] + trade.ask, ExitReason.MODEL))
            trade = None
        if decided is not None:
            trade, decided = try_to_open(market, account, decisions, decided, counters), None
        if trade and (end := within(market, account, trade, i)):
            rows.append(settle(market, account, trade, i, *end))
            trade = None
        price = market.close[i] + trade.ask if trade else None
        account.mark(i, market.week(i), worth(market, account, trade, i, price) if trade else account.balance)
        if trade and account.halted_at is not None:
            rows.append(settle(market, account, trade, i, price, ExitReason.HALT))
            trade = None
            equity.append(account.balance)
        else:
            equity.append(account.equity)
        balance.append(account.balance)
        leaves_next = trade and market.next_open and trade.leave_at == i and i + 1 < len(bars)
        if decisions.side[i] and (not trade or leaves_next):
            decided = i
        elif decisions.side[i]:
            counters["in_trade"] += 1
    if decided is not None:
        try_to_open(market, account, decisions, decided, counters)
    counters |= {"paused_weeks": len(account.paused), "halted_at": -1 if account.halted_at is None else account.halted_at}
    return rows, equity, balance, counters
