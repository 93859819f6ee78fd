"""The backtest against tables worked out by hand, against the slow reference, and against bad input."""

from dataclasses import replace

import backtest_reference as slow
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.errors import BadDataError, UsageError
from trademl.market.backtest import Decisions, prepare, run_backtest
from trademl.market.labeling import label_bars
from trademl.market.specs import AccountSpec, CostSpec, ExitReason, LabelSpec
from trademl.risk.trades import TradeSequence

QUIET = (1000.0, 1005.0, 995.0, 1000.0)  # 14 of these: ATR 10, so the stop is 8 away and the target 15
COSTS = CostSpec(spread=2, slippage=0.5, commission=3)
ACCOUNT = AccountSpec(balance=10_000, risk_pct=1, leverage=500, max_lot=1000)
SPEC = LabelSpec(horizon_bars=3)
WARM = 13  # the first bar with an ATR


@pytest.fixture(scope="module", autouse=True)
def long_bars():
    """The kernels know any timeframe; nights, weeks and months are quicker to walk in long bars."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trademl.market.specs.TIMEFRAMES", ("15min", "1h", "4h", "1d"))
        yield


def bars_of(after, timeframe="15min", start="2024-01-01", warm=14):
    """`warm` quiet bars, then the rows given."""
    rows = np.array([QUIET] * warm + list(after), dtype=float)
    index = pd.date_range(start, periods=len(rows), freq=timeframe.replace("1d", "1D"), tz="UTC", name="time").as_unit("ns")
    return pd.DataFrame(rows, index, ["open", "high", "low", "close"]).assign(volume=1.0)


def decide_at(n, *signals, **more):
    """Decisions over n bars from (bar, side) pairs."""
    side = np.zeros(n, np.int8)
    for bar, way in signals:
        side[bar] = way
    return Decisions(side, **more)


def trade(after, side, spec=SPEC, costs=COSTS, account=ACCOUNT, **more):
    """The one trade decided at the last quiet bar, with its result."""
    bars = bars_of(after)
    result = run_backtest(bars, decide_at(len(bars), (WARM, side), **more), spec, costs, account)
    assert len(result.trades) == 1
    return result.trades.iloc[0], result


# ------------------------------------------------------------------------------------------------ one trade, by hand

UP, DOWN = (1000.0, 1016.0, 999.0, 1010.0), (1000.0, 1001.0, 983.0, 990.0)

# after the decision, side -> reason, bar, entry, exit, bid exit
FILLS = {
    "long meets its target, a limit without slippage": ([UP], 1, "TP", 14, 1002.5, 1015.0, 1015.0),
    "long is stopped and slips": ([(1000, 1001, 991, 995)], 1, "SL", 14, 1002.5, 991.5, 992.0),
    "long opens below its stop": ([QUIET, (980, 985, 970, 975)], 1, "SL", 15, 1002.5, 979.5, 980.0),
    "long opens above its target": ([QUIET, (1020, 1021, 1019, 1020)], 1, "TP", 15, 1002.5, 1020.0, 1020.0),
    "long touches both: the stop": ([(1000, 1020, 990, 1000)], 1, "SL", 14, 1002.5, 991.5, 992.0),
    "long times out at the close": ([QUIET, QUIET, (1000, 1003, 997, 1001)], 1, "TIMEOUT", 16, 1002.5, 1000.5, 1001.0),
    "long runs out of data": ([QUIET, (1000, 1003, 997, 1002)], 1, "END", 15, 1002.5, 1001.5, 1002.0),
    "short meets its target when the ask does": ([DOWN], -1, "TP", 14, 999.5, 985.0, 983.0),
    "short whose bid alone meets it": ([(1000, 1001, 984, 990), QUIET, QUIET], -1, "TIMEOUT", 16, 999.5, 1002.5, 1000.0),
    "short is stopped when the ask is": ([(1000, 1006, 999, 1005)], -1, "SL", 14, 999.5, 1008.5, 1006.0),
    "short opens above its stop": ([QUIET, (1010, 1011, 1009, 1010)], -1, "SL", 15, 999.5, 1012.5, 1010.0),
    "short opens below its target": ([QUIET, (980, 981, 979, 980)], -1, "TP", 15, 999.5, 982.0, 980.0),
}


@pytest.mark.parametrize("name", FILLS)
def test_fills_and_money_by_hand(name):
    after, side, reason, bar, entry, leave, bid = FILLS[name]
    one, result = trade(after, side)
    lots = 12.5  # 1 % of 10,000 over a stop 8 away
    pnl = side * (leave - entry) * lots - 2 * 3 * lots
    assert ExitReason(one.reason).name == reason
    assert (one.decision_bar, one.entry_bar, one.exit_bar) == (WARM, 14, bar)
    assert (one.entry_price, one.exit_price, one.lots, one.risk_distance) == (entry, leave, lots, 8.0)
    assert (one.commission, one.swap, one.multiplier) == (75.0, 0.0, 1.0)
    assert one.pnl == pytest.approx(pnl) and one.balance_after == pytest.approx(10_000 + pnl)
    assert one.gross_r == pytest.approx(side * (bid - 1000) / 8) and one.net_r == pytest.approx(pnl / 100)
    assert one.atr_norm == pytest.approx(10 / 1000)  # of the deciding close
    assert one.entry_time == result.trades.entry_time[0] == pd.Timestamp("2024-01-01 03:30", tz="UTC")
    assert one.exit_time == pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(minutes=15 * (bar + 1))
    assert result.balance[-1] == result.equity[-1] == pytest.approx(one.balance_after)


def test_net_is_gross_less_the_round_trip():
    for side, after in ((1, [(1000, 1001, 991, 995)]), (-1, [(1000, 1006, 999, 1005)])):
        one, _ = trade(after, side)
        assert one.net_r == pytest.approx(one.gross_r - COSTS.in_r(8.0))


def test_short_that_the_spread_stops_is_no_loser_by_its_label():
    one, _ = trade([(1000, 1007, 999, 1000), (1000, 1001, 982, 990)], -1)
    assert (one.reason, one.label_reason) == (ExitReason.SL, ExitReason.TP)


def test_ties_and_close_only_path():
    both = [(1000, 1020, 990, 1000)]
    assert trade(both, 1, replace(SPEC, tie="tp_first"))[0].exit_price == 1015.0
    one, _ = trade([(1000, 1020, 990, 1000), (1000, 1000, 985, 990), QUIET], 1, replace(SPEC, price_path="close"))
    assert (one.reason, one.exit_bar, one.exit_price) == (ExitReason.SL, 15, 989.5)  # at the close that is below, not at the stop


def test_entry_at_the_close():
    spec = replace(SPEC, entry="close")
    bars = bars_of([(1003.0, 1004, 1001, 1002), UP])
    bars.iloc[WARM, 3] = 1002.0
    one = run_backtest(bars, decide_at(len(bars), (WARM, 1)), spec, CostSpec(), ACCOUNT).trades.iloc[0]
    assert (one.entry_bar, one.entry_price, one.entry_time) == (WARM, 1002.0, bars.index[WARM] + pd.Timedelta(minutes=15))


def test_model_exit_fills_at_the_next_open_and_gives_way_to_the_bracket():
    leave = np.full(18, -1)
    leave[WARM] = 14
    one, _ = trade([QUIET, (1004, 1005, 1000, 1001), QUIET, QUIET], 1, exit_bar=leave)
    assert (one.reason, one.exit_bar, one.exit_price, one.label_reason) == (ExitReason.MODEL, 15, 1003.5, ExitReason.TIMEOUT)
    assert one.exit_time == pd.Timestamp("2024-01-01 03:45", tz="UTC")
    assert trade([UP, QUIET, QUIET, QUIET], 1, exit_bar=leave)[0].reason == ExitReason.TP
    leave[WARM] = 16
    assert trade([QUIET] * 4, 1, exit_bar=leave)[0].reason == ExitReason.TIMEOUT  # at the close, before the open after it


def test_the_next_trade_begins_after_the_last_one():
    bars = bars_of([UP, QUIET, QUIET, QUIET, QUIET])
    every = decide_at(len(bars), *((t, 1) for t in range(WARM, len(bars))))
    done = run_backtest(bars, every, SPEC, CostSpec(), ACCOUNT)
    assert done.trades.decision_bar.tolist() == [13, 14, 17]  # the target was met in bar 14: its close may decide again
    assert (done.counters.in_trade, done.counters.skipped_no_bar) == (2, 1)
    leave = np.where(every.side != 0, np.arange(len(bars)) + 2, -1)
    leave[-1] = -1
    done = run_backtest(bars, Decisions(every.side, leave), SPEC, CostSpec(), ACCOUNT)
    assert done.trades.decision_bar.tolist() == [13, 14, 16]  # out at the open of 17, in again at the same open
    assert done.trades.exit_time[1] == done.trades.entry_time[2]
    assert len(TradeSequence.from_backtest(done.trades)) == 3


# ------------------------------------------------------------------------------------------------ the account, by hand


@pytest.mark.parametrize(
    ("account", "multiplier", "lots"),
    [
        ({}, None, 12.5),
        ({"risk_pct": 0.999}, None, 12.48),  # 12.4875 cut down
        ({"max_lot": 5}, None, 5.0),
        ({"lot_step": 0.3, "min_lot": 0.3}, None, 12.3),
        ({}, 0.5, 6.25),
        ({}, 1.25, 15.62),  # 15.625 cut down
        ({}, 0.1, 1.25),
    ],
)
def test_lots(account, multiplier, lots):
    more = {} if multiplier is None else {"multiplier": np.full(15, multiplier)}
    one, result = trade([UP], 1, account=replace(ACCOUNT, **account), **more)
    assert one.lots == pytest.approx(lots)
    assert result.counters.risk_taken == pytest.approx(lots * 8)


@pytest.mark.parametrize(
    ("account", "counter"),
    [
        ({"balance": 7.0}, "skipped_below_min_lot"),  # 0.07 over a stop 8 away is 0.00875 lots
        ({"lot_step": 20, "min_lot": 20}, "skipped_below_min_lot"),
        ({"leverage": 1.2}, "skipped_no_margin"),  # 12.5 lots at 1002.5 are 12,531 in all
    ],
)
def test_what_cannot_be_afforded_is_counted(account, counter):
    bars = bars_of([UP])
    result = run_backtest(bars, decide_at(15, (WARM, 1)), SPEC, COSTS, replace(ACCOUNT, **account))
    assert getattr(result.counters, counter) == 1 and len(result.trades) == 0
    assert (result.equity == result.balance).all() and result.balance[-1] == result.account.balance


def test_swap_at_each_midnight():
    spec = LabelSpec(horizon_bars=12, timeframe="4h")
    costs = CostSpec(swap_long=-2, swap_short=1)
    bars = bars_of([QUIET] * 12, "4h")  # filled on Wednesday at 08:00, timed out in the bar that opens on Friday at 04:00
    for side, swap in ((1, -2), (-1, 1)):
        done = run_backtest(bars, decide_at(26, (WARM, side)), spec, costs, ACCOUNT)
        assert done.trades.swap[0] == done.trades.pnl[0] == 12.5 * 2 * swap
        assert done.equity[17] - done.equity[16] == done.equity[18] - done.equity[17] - 12.5 * swap == 0.0
        assert (done.balance[:25] == 10_000).all() and done.balance[25] == 10_000 + done.trades.pnl[0]
        assert run_backtest(bars, decide_at(26, (WARM, side)), spec, costs, replace(ACCOUNT, swap=False)).trades.swap[0] == 0


def test_a_bracket_hit_in_the_bar_before_midnight_pays_no_night():
    spec, costs = LabelSpec(horizon_bars=12, timeframe="4h"), CostSpec(swap_long=-2)
    bars = bars_of([QUIET, QUIET, QUIET, UP], "4h")  # the target is met in the bar that closes at midnight
    done = run_backtest(bars, decide_at(18, (WARM, 1)), spec, costs, ACCOUNT)
    assert (done.trades.exit_bar[0], done.trades.swap[0]) == (17, 0.0)


def test_margin_call_at_its_price():
    account = AccountSpec(balance=1000, risk_pct=10, leverage=12.5, margin_call_pct=99.5)  # 12.5 lots at 1000 use all of it
    one, _ = trade([(1000, 1001, 999, 1000)], 1, costs=CostSpec(), account=account)
    assert (one.reason, one.exit_price, one.pnl) == (ExitReason.MARGIN, pytest.approx(999.6), pytest.approx(-5))
    one, _ = trade([(1000, 1001, 999.9, 1000), (999, 999, 998, 999)], 1, costs=CostSpec(slippage=0), account=account)
    assert (one.reason, one.exit_price) == (ExitReason.MARGIN, 999.0)  # opened beyond it
    one, _ = trade([(1000, 1001, 990, 995)], 1, costs=CostSpec(), account=account)
    assert one.reason == ExitReason.MARGIN  # nearer than the stop
    far = replace(account, margin_call_pct=85)
    assert trade([(1000, 1001, 990, 995)], 1, costs=CostSpec(), account=far)[0].reason == ExitReason.SL
    both = [(1000, 1020, 999, 1000)]
    assert trade(both, 1, costs=CostSpec(), account=account)[0].reason == ExitReason.MARGIN
    assert trade(both, 1, replace(SPEC, tie="tp_first"), CostSpec(), account)[0].reason == ExitReason.TP


def test_hard_halt_closes_and_ends_trading():
    account = replace(ACCOUNT, risk_pct=10, max_total_drawdown_pct=5)  # 125 lots: 4 down is 5 %
    bars = bars_of([(1000, 1001, 996.5, 997), (997, 997, 995, 996), QUIET, QUIET])
    done = run_backtest(bars, decide_at(len(bars), (WARM, 1), (15, 1), (16, -1)), SPEC, CostSpec(), account)
    assert done.trades.reason.tolist() == [ExitReason.HALT] and done.trades.exit_bar[0] == done.counters.halted_at == 15
    assert done.trades.pnl[0] == -500 and done.counters.skipped_halted == 2
    assert done.equity.tolist()[13:] == [10_000, 10_000 - 3 * 125, 9_500, 9_500, 9_500]
    assert done.balance.tolist()[13:] == [10_000, 10_000, 9_500, 9_500, 9_500]


def test_halt_is_counted_from_the_peak_of_marked_equity():
    account = replace(ACCOUNT, risk_pct=10, max_total_drawdown_pct=10)
    bars = bars_of([(1000, 1012, 999, 1012), (1012, 1012, 1000, 1001), QUIET])  # 11,500 marked, then 10,125
    done = run_backtest(bars, decide_at(len(bars), (WARM, 1)), SPEC, CostSpec(), account)
    assert (done.counters.halted_at, done.trades.reason[0]) == (15, ExitReason.HALT)


def test_weekly_pause_lets_the_open_trade_run_and_ends_on_monday():
    account = replace(ACCOUNT, risk_pct=10, weekly_pause_pct=5)
    down, back = (1000, 1001, 993, 994), (994, 1001, 993, 1000)
    bars = bars_of([down, back, QUIET, QUIET, QUIET, QUIET, QUIET, QUIET], "1d", start="2024-01-01", warm=14)
    spec = replace(SPEC, timeframe="1d")
    signals = decide_at(len(bars), (WARM, 1), (16, 1), (18, 1), (20, 1))  # bar 14 is Monday 15 January; 21 the Monday after
    done = run_backtest(bars, signals, spec, CostSpec(), account)
    assert done.equity[14] == 9_250 and done.equity[15] == 10_000  # the loss was made good: the week stays paused
    assert done.trades.reason[0] == ExitReason.TIMEOUT
    assert done.trades.decision_bar.tolist() == [13, 20]
    assert (done.counters.skipped_paused, done.counters.paused_weeks) == (2, 1)


def test_weekly_pause_holds_for_a_trade_filled_at_the_last_close_before_a_gap():
    account = replace(ACCOUNT, risk_pct=10, weekly_pause_pct=5)
    bars = bars_of([(1000, 1001, 991, 992), QUIET, QUIET, QUIET])
    bars.index = bars.index[:16].append(bars.index[16:] + pd.Timedelta(days=20))  # bar 15 is the last for weeks
    signals = decide_at(len(bars), (WARM, 1), (15, 1), (16, 1))
    for entry, decided, skipped in (("close", [13, 16], 1), ("next_open", [13, 15, 16], 0)):  # by the moment of the fill
        done = run_backtest(bars, signals, replace(SPEC, entry=entry, horizon_bars=1), CostSpec(), account)
        assert (done.trades.decision_bar.tolist(), done.counters.skipped_paused) == (decided, skipped)


def test_nothing_is_paused_after_the_halt():
    account = replace(ACCOUNT, risk_pct=10, max_total_drawdown_pct=5, weekly_pause_pct=8)
    bars = bars_of([(1000, 1001, 994, 997), QUIET, QUIET])  # 6.25 % down at the close, 8.75 % when out
    done = run_backtest(bars, decide_at(len(bars), (WARM, 1)), SPEC, CostSpec(slippage=2), account)
    assert (done.counters.halted_at, done.counters.paused_weeks) == (14, 0) and done.equity[-1] < 9_200


# ------------------------------------------------------------------------------------------------ bad and odd input

SMALL = bars_of([UP, QUIET])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: b.assign(close=b.close.where(b.index != b.index[3])), "row 4 .* not a finite"),
        (lambda b: b.assign(high=b.high.where(b.index != b.index[5], np.inf)), "row 6 .* not a finite"),
        (lambda b: b.assign(low=0.0), "not above zero"),
        (lambda b: b.assign(high=b.low), "outside low..high"),
        (lambda b: b.iloc[[0, 2, 1]], "row 3 .* time repeats, goes back"),
        (lambda b: b.iloc[[0, 1, 1]], "row 3 .* time repeats"),
        (lambda b: b.iloc[:0], "empty"),
        (lambda b: b.drop(columns="high"), "lack high"),
        (lambda b: b.reset_index(drop=True), "DatetimeIndex"),
        (lambda b: b.tz_localize(None), "UTC"),
        (lambda b: pd.concat([b, b[["close"]]], axis=1), "2 columns named close"),
        (lambda b: b.assign(low="n/a"), "low is not all numbers"),
    ],
)
def test_bad_bars_are_refused(change, says):
    with pytest.raises(BadDataError, match=says):
        prepare(change(SMALL))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Decisions(np.zeros(15)), "15 bars, the bars are 16"),
        (lambda: Decisions(np.full(16, 2)), r"side\[0\] = .*2.* must be"),
        (lambda: Decisions(np.full(16, np.nan)), "must be"),
        (lambda: Decisions(np.zeros((16, 2))), "shape"),
        (lambda: decide_at(16, (3, 1), exit_bar=np.zeros(15, int)), "exit_bar has shape"),
        (lambda: decide_at(16, (3, 1), exit_bar=np.full(16, 3)), r"exit_bar\[3\]"),
        (lambda: decide_at(16, (3, 1), exit_bar=np.full(16, np.nan)), "whole bar numbers"),
        (lambda: decide_at(16, (3, 1), multiplier=np.full(16, np.nan)), r"multiplier\[3\]"),
        (lambda: decide_at(16, (3, 1), multiplier=np.full(16, -1.0)), r"multiplier\[3\]"),
    ],
)
def test_bad_decisions_are_refused(make, says):
    with pytest.raises(UsageError, match=says):
        run_backtest(SMALL, make())


def test_bad_settings_are_refused():
    for wrong in ({"balance": 0}, {"leverage": 0}, {"lot_step": 0}, {"risk_pct": float("nan")}):
        with pytest.raises(UsageError):
            AccountSpec(**wrong)
    with pytest.raises(UsageError, match="no size"):
        run_backtest(SMALL, decide_at(16), account=AccountSpec(lot_step=200, min_lot=1, max_lot=100))
    with pytest.raises(UsageError, match="another LabelSpec"):
        run_backtest(prepare(SMALL), decide_at(16), SPEC)


def test_no_signal_gives_an_empty_table_of_the_same_types():
    none, some = (run_backtest(SMALL, decide_at(16, *signals)) for signals in ((), ((WARM, 1),)))
    assert len(none.trades) == 0 and len(some.trades) == 1
    assert none.trades.dtypes.equals(some.trades.dtypes)
    assert (none.equity == 10_000).all() and none.counters.rounding_loss == 0
    assert len(TradeSequence.from_backtest(none.trades)) == 0


@pytest.mark.parametrize("entry", ["next_open", "close"])
@pytest.mark.parametrize("n", [1, 2, 14, 16])
def test_short_and_flat_markets(n, entry):
    bars = bars_of([], warm=n)
    bars[["open", "high", "low", "close"]] = 1000.0
    done = run_backtest(bars, Decisions(np.ones(n)), replace(SPEC, entry=entry))
    assert len(done.trades) == 0 and done.counters.skipped_no_atr == n - 1 and done.counters.skipped_no_bar == 1


def test_spread_wider_than_the_stop():
    one, _ = trade([QUIET, QUIET, QUIET], -1, costs=CostSpec(spread=9))
    assert (one.reason, one.exit_bar, one.exit_price, one.gross_r) == (ExitReason.SL, 14, 1009.0, 0.0)  # stopped where it opened
    one, _ = trade([QUIET, QUIET, QUIET], 1, costs=CostSpec(spread=9))
    assert (one.reason, one.net_r) == (ExitReason.TIMEOUT, -9 / 8)


def test_a_gap_may_take_more_than_the_account_has_and_nothing_trades_after_it():
    bars = bars_of([QUIET, (500, 501, 499, 500), QUIET, QUIET])
    done = run_backtest(bars, decide_at(len(bars), (WARM, 1), (15, 1)), SPEC, CostSpec(), replace(ACCOUNT, risk_pct=50))
    assert done.balance[-1] < 0 and len(done.trades) == 1 and done.counters.skipped_below_min_lot == 1
    long_after = bars_of([QUIET, (500, 501, 499, 500), *[QUIET] * 30], "1d")
    signals = decide_at(len(long_after), (WARM, 1), (30, 1), (40, 1))
    account = replace(ACCOUNT, risk_pct=50, weekly_pause_pct=8)
    done = run_backtest(long_after, signals, replace(SPEC, timeframe="1d"), CostSpec(), account)
    assert (done.counters.paused_weeks, done.counters.skipped_paused, done.counters.skipped_below_min_lot) == (1, 0, 2)


# ------------------------------------------------------------------------------------------------ the slow reference


@st.composite
def cases(draw):
    """A small, rough market on a coarse grid, with everything switched on."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(15, 90))
    jump = draw(st.sampled_from([0.0, 0.3]))
    step = rng.integers(-6, 7, n)
    o = 1000.0 + np.cumsum(step) + np.where(rng.random(n) < jump, rng.integers(-14, 15, n), 0)
    c = o + rng.integers(-5, 6, n)
    h, low = np.maximum(o, c) + rng.integers(0, 6, n), np.minimum(o, c) - rng.integers(0, 6, n)
    timeframe = draw(st.sampled_from(["15min", "4h", "1d"]))
    one_of = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    bars = bars_of(np.column_stack([o, h, low, c]), timeframe, start="2024-01-04", warm=0)
    bars = bars[rng.random(n) >= one_of(0.0, 0.3)]  # data have holes
    n = len(bars)
    spec = LabelSpec(
        tp_atr=one_of(1.5, 0.7, 1.0), sl_atr=one_of(0.8, 0.5, 2.0), horizon_bars=one_of(1, 3, 8), timeframe=timeframe,
        entry=one_of("next_open", "close"), tie=one_of("sl_first", "tp_first"), price_path=one_of("ohlc", "ohlc", "close"),
    )  # fmt: skip
    costs = CostSpec(
        spread=one_of(0.0, 1.0, 3.0, 20.0), commission=one_of(0.0, 1.5), slippage=one_of(0.0, 0.5),
        swap_long=one_of(0.0, -1.3), swap_short=one_of(0.0, 0.4), contract_size=one_of(1.0, 100.0),
    )  # fmt: skip
    account = AccountSpec(
        balance=one_of(500.0, 10_000.0), leverage=one_of(8.0, 27.0, 500.0), risk_pct=one_of(0.5, 2.0, 20.0), max_lot=one_of(2.0, 1000.0),
        max_total_drawdown_pct=one_of(0.0, 8.0, 40.0), weekly_pause_pct=one_of(0.0, 3.0), margin_call_pct=one_of(0.0, 50.0, 98.0, 99.9),
        swap=one_of(True, False),
    )  # fmt: skip
    side = np.where(rng.random(n) < one_of(0.1, 0.5, 1.0), rng.choice([-1, 1], n), 0)
    exit_bar = np.where(rng.random(n) < 0.5, np.arange(n) + rng.integers(1, 6, n), -1) if one_of(True, False) else None
    multiplier = rng.uniform(0, 1.5, n) if one_of(True, False) else None
    return bars, Decisions(side, exit_bar, multiplier), spec, costs, account


@settings(max_examples=300, deadline=None)
@given(cases())
def test_agrees_with_the_slow_reference(case):
    done = run_backtest(*case)
    rows, equity, balance, counters = slow.run(*case)
    assert {name: getattr(done.counters, name) for name in counters} == counters
    assert len(done.trades) == len(rows)
    if rows:
        expected = pd.DataFrame(rows)
        pd.testing.assert_frame_equal(done.trades[list(expected.columns)], expected, check_dtype=False, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(done.equity, equity, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(done.balance, balance, rtol=1e-9, atol=1e-9)
    assert len(TradeSequence.from_backtest(done.trades)) == len(rows)  # in order, one at a time


@settings(max_examples=60, deadline=None)
@given(cases())
def test_without_costs_a_trade_is_its_label(case):
    bars, decisions, spec, *_ = case
    labels = label_bars(bars, spec)
    done = run_backtest(bars, Decisions(decisions.side), spec, CostSpec(), AccountSpec(balance=1e9, leverage=1e9, margin_call_pct=0))
    for one in done.trades[done.trades.decision_bar < len(bars) - spec.horizon_bars].itertuples():  # without a full horizon: no label
        side = labels.long if one.side > 0 else labels.short
        assert one.reason == one.label_reason == side.reason[one.decision_bar]
        assert one.gross_r == pytest.approx(side.r[one.decision_bar], abs=1e-9) == pytest.approx(one.net_r, abs=1e-9)
        assert one.exit_bar == side.exit_bar[one.decision_bar]
