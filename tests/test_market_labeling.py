"""Labels against the slow reference, by their properties, on the real file, and against bad input."""

from dataclasses import fields, replace

import labels_reference as slow
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.errors import BadDataError, UsageError
from trademl.market.barriers import SideOutcome, prices_of
from trademl.market.labeling import Labels, label_bars, near_news
from trademl.market.specs import ExitReason, Label, LabelSpec

PRICES = ["open", "high", "low", "close"]
SIDE = tuple(f.name for f in fields(SideOutcome))
QUIET = (1000.0, 1005.0, 995.0, 1000.0)  # 14 of these: ATR 10, so the stop is 8 away and the target 15
WARM = 13  # the first bar with an ATR
SHORT_LIFE = LabelSpec(horizon_bars=2)


def frame(rows, start="2024-01-01", freq="15min"):
    """Bars from rows of open, high, low, close."""
    rows = np.asarray(rows, dtype=float).reshape(-1, 4)
    index = pd.date_range(start, periods=len(rows), freq=freq, tz="UTC", name="time").as_unit("ns")
    return pd.DataFrame(rows, index, PRICES).assign(volume=1.0)


def after_quiet(*rows):
    """14 quiet bars, then the rows."""
    return frame([QUIET] * 14 + list(rows))


@st.composite
def markets(draw, most=70, gaps=True):
    """A small rough market in quarters around 768, with stretches that stand still: what floats can mirror exactly."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, size = draw(st.integers(15, most)), draw(st.sampled_from([2, 6]))
    step = rng.integers(-size, size + 1, (2, n)) * (rng.random(n) < draw(st.sampled_from([0.4, 1.0])))
    jump = np.where(rng.random(n) < (draw(st.sampled_from([0.0, 0.2])) if gaps else 0), rng.integers(-20, 21, n), 0)
    o = 768 + np.cumsum(step[0] + np.where(np.arange(n) % 2, jump, -jump)) / 4
    c = o + step[1] / 4
    up, down = rng.integers(0, size, (2, n)) * (step[1] != 0) / 4
    return frame(np.column_stack([o, np.maximum(o, c) + up, np.minimum(o, c) - down, c]))


def specs(**fixed):
    """Contracts of every mode, with near targets, equal distances and short lives."""
    pairs = st.sampled_from([(1.5, 0.8), (0.8, 1.0), (1.0, 1.0), (0.5, 2.0), (3.0, 0.5)])
    modes = {"entry": ["next_open", "close"], "tie": ["sl_first", "tp_first"], "price_path": ["ohlc", "close"]}
    modes |= {"horizon_bars": [1, 2, 5, 16, 17]}
    free = {name: st.sampled_from(values) for name, values in modes.items()} | {k: st.just(v) for k, v in fixed.items()}
    return st.builds(lambda pair, **more: LabelSpec(tp_atr=pair[0], sl_atr=pair[1], **more), pairs, **free)


def assert_same(mine: Labels, theirs: Labels, swapped=False, scale=1.0):
    """Every output equal, bit for bit; sides swapped and prices scaled where asked."""
    for name in ("label", "ambiguous", "end_bar", "weight", "concurrency"):
        expected = getattr(theirs, name)
        if swapped and name == "label":
            expected = np.where(np.isin(expected, (0, 1)), 1 - expected, expected)
        np.testing.assert_array_equal(getattr(mine, name), expected, err_msg=name)
    pairs = [(mine.long, theirs.short), (mine.short, theirs.long)] if swapped else [(mine.long, theirs.long), (mine.short, theirs.short)]
    for a, b in pairs:
        for name in SIDE:
            if not (swapped and name == "exit_price"):
                factor = scale if name == "exit_price" else 1
                np.testing.assert_array_equal(getattr(a, name), factor * getattr(b, name), err_msg=name)


def assert_agrees_with_reference(bars, spec):
    mine, theirs = label_bars(bars, spec), slow.labels(bars, spec)
    for name in ("label", "ambiguous", "end_bar", "concurrency"):
        np.testing.assert_array_equal(getattr(mine, name), theirs[name], err_msg=name)
    np.testing.assert_allclose(mine.weight, theirs["weight"], rtol=1e-9)
    for side in ("long", "short"):
        for name in SIDE:
            got, expected = getattr(getattr(mine, side), name), np.array([one[name] for one in theirs[side]])
            if name in ("reason", "exit_bar", "exit_price"):
                np.testing.assert_array_equal(got, expected, err_msg=f"{side}.{name}")
            else:
                np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9, err_msg=f"{side}.{name}")


# ------------------------------------------------------------------------------------------------ the slow reference


@settings(max_examples=300)
@given(markets(), specs())
def test_agrees_with_the_slow_reference(bars, spec):
    assert_agrees_with_reference(bars, spec)


@settings(max_examples=15)
@given(markets(most=400, gaps=False), st.integers(30, 200))
def test_agrees_on_long_horizons(bars, horizon):
    assert_agrees_with_reference(bars, LabelSpec(horizon_bars=horizon, tp_atr=9.0, sl_atr=4.0))


def test_agrees_on_real_bars(real_bars):
    for spec in (LabelSpec(), LabelSpec(entry="close", tie="tp_first", tp_atr=0.8, sl_atr=1.0)):
        assert_agrees_with_reference(real_bars.iloc[5000:8000], spec)


# ------------------------------------------------------------------------------------------------ by hand

# rows after the decision -> side, reason, exit bar, exit price, R, MAE, MFE, MAE to the target
UP = (1000.0, 1016.0, 999.0, 1010.0)
TRADES = {
    "target": ([UP, QUIET], "long", "TP", 14, 1015, 1.875, 0, 1.875, 1 / 8),
    "stop, and the target later": ([(1000, 1001, 992, 995), UP], "long", "SL", 14, 992, -1, 1, 0, 1),
    "gap through the stop": ([QUIET, (980, 985, 970, 975)], "long", "SL", 15, 980, -2.5, 2.5, 5 / 8, np.nan),
    "gap through the target": ([(1000, 1001, 998, 1000), (1020, 1021, 990, 1000)], "long", "TP", 15, 1020, 2.5, 2 / 8, 2.5, 2 / 8),
    "both in one bar": ([(1000, 1020, 990, 1000), QUIET], "long", "SL", 14, 992, -1, 1, 0, 10 / 8),
    "time-out": ([QUIET, (1000, 1003, 997, 1001)], "long", "TIMEOUT", 15, 1001, 1 / 8, 5 / 8, 5 / 8, np.nan),
    "short target": ([(1000, 1001, 985, 990), QUIET], "short", "TP", 14, 985, 1.875, 0, 1.875, 1 / 8),
    "short gap through the stop": ([QUIET, (1010, 1011, 1009, 1010)], "short", "SL", 15, 1010, -1.25, 1.25, 5 / 8, np.nan),
    "short time-out": ([QUIET, (1000, 1003, 997, 1002)], "short", "TIMEOUT", 15, 1002, -2 / 8, 5 / 8, 5 / 8, np.nan),
}


@pytest.mark.parametrize("name", TRADES)
def test_one_trade_by_hand(name):
    after, side, reason, *expected = TRADES[name]
    one = getattr(label_bars(after_quiet(*after), SHORT_LIFE), side)
    assert ExitReason(one.reason[WARM]).name == reason
    np.testing.assert_allclose([getattr(one, f)[WARM] for f in SIDE[1:7]], expected)


def test_a_gap_fills_at_the_open_to_the_bit():
    price = 0.1 + 0.2
    gap = label_bars(frame([(1.0, 1.05, 0.95, 1.0)] * 14 + [(1, 1, 1, 1), (price,) * 4]), SHORT_LIFE)
    assert gap.long.exit_price[WARM] == gap.short.exit_price[WARM] == price


def test_nearer_target_lets_both_sides_win_and_the_earlier_one_counts():
    spec = LabelSpec(tp_atr=0.5, sl_atr=2.0, horizon_bars=2)
    both = [(1000, 1006, 994, 1000), QUIET]
    up_down = [(1000, 1006, 999, 1000), (1000, 1001, 994, 1000)]
    assert label_bars(after_quiet(*both), spec).label[WARM] == Label.HOLD
    assert label_bars(after_quiet(*up_down), spec).label[WARM] == Label.BUY
    assert (
        label_bars(after_quiet(*[(2000 - o, 2000 - low, 2000 - h, 2000 - c) for o, h, low, c in up_down]), spec).label[WARM] == Label.SELL
    )


def test_incomplete_tail_has_no_label():
    bars = frame([QUIET] * 30)
    labels = label_bars(bars, LabelSpec(horizon_bars=5))
    np.testing.assert_array_equal(np.flatnonzero(labels.label >= 0), np.arange(WARM, 25))  # bar 24 lives until bar 29, the last
    assert (labels.label[25:] == Label.NONE).all() and np.isnan(labels.weight[25:]).all() and (labels.end_time[25:] == -1).all()


# ------------------------------------------------------------------------------------------------ properties


@given(markets(), specs(tie="sl_first"))
def test_both_sides_never_win_when_the_target_is_not_nearer(bars, spec):
    labels = label_bars(bars, replace(spec, tp_atr=max(spec.tp_atr, spec.sl_atr)))
    assert not ((labels.long.reason == ExitReason.TP) & (labels.short.reason == ExitReason.TP)).any()


@given(markets(), specs(), st.integers(-6, 6))
def test_scaling_prices_changes_nothing(bars, spec, power):
    scale = 2.0**power
    scaled = bars.assign(**{name: bars[name] * scale for name in PRICES})
    assert_same(label_bars(scaled, spec), label_bars(bars, spec), scale=scale)


@given(markets(), specs(), st.integers(-1000, 1000))
def test_shifting_time_changes_nothing(bars, spec, hours):
    shifted = bars.set_axis(bars.index + pd.Timedelta(hours=hours))
    here, there = label_bars(bars, spec), label_bars(shifted, spec)
    assert_same(there, here)
    known = here.end_bar >= 0
    assert (there.end_time[known] - here.end_time[known] == 3600 * hours).all()


@given(markets(), specs(), st.sampled_from([1.0, 1.3, 2.0, 5.0]))
def test_a_wider_stop_never_loses_earlier(bars, spec, factor):
    narrow, wide = label_bars(bars, spec), label_bars(bars, replace(spec, sl_atr=spec.sl_atr * factor))
    for a, b in ((narrow.long, wide.long), (narrow.short, wide.short)):
        lost = b.reason == ExitReason.SL
        assert (a.reason[lost] == ExitReason.SL).all() and (a.exit_bar[lost] <= b.exit_bar[lost]).all()
        assert (b.reason[a.reason == ExitReason.TP] == ExitReason.TP).all()


@given(markets(), specs())
def test_a_longer_life_keeps_what_was_decided(bars, spec):
    here, longer = label_bars(bars, spec), label_bars(bars, replace(spec, horizon_bars=spec.horizon_bars + 3))
    for a, b in ((here.long, longer.long), (here.short, longer.short)):
        decided = (b.reason >= 0) & np.isin(a.reason, (ExitReason.TP, ExitReason.SL))
        for name in ("reason", "exit_bar", "exit_price", "r", "mae", "mfe"):
            np.testing.assert_array_equal(getattr(a, name)[decided], getattr(b, name)[decided])


@given(markets(), specs())
def test_the_future_beyond_the_horizon_is_not_seen(bars, spec):
    whole, part = label_bars(bars, spec), label_bars(bars.iloc[:-5], spec)
    known = np.flatnonzero(part.label >= 0)
    np.testing.assert_array_equal(part.label[known], whole.label[known])
    np.testing.assert_array_equal(part.long.mae_to_tp[known], whole.long.mae_to_tp[known])


@given(markets(), specs())
def test_mirrored_prices_swap_buy_and_sell(bars, spec):
    spec = replace(spec, sl_atr={0.8: 0.75}.get(spec.sl_atr, spec.sl_atr), tp_atr={0.8: 0.75}.get(spec.tp_atr, spec.tp_atr))
    mirrored = bars.assign(open=1536 - bars.open, high=1536 - bars.low, low=1536 - bars.high, close=1536 - bars.close)
    assert_same(label_bars(mirrored, spec), label_bars(bars, spec), swapped=True)


@given(markets(), specs())
def test_uniqueness_adds_up_to_the_bars_that_labels_cover(bars, spec):
    labels = label_bars(bars, spec)
    known = np.flatnonzero(labels.label >= 0)
    lengths = labels.end_bar[known] + 1 - known
    assert (labels.weight[known] * lengths).sum() == pytest.approx((labels.concurrency > 0).sum())
    assert labels.concurrency.sum() == lengths.sum()
    assert ((labels.weight[known] > 0) & (labels.weight[known] <= 1 + 1e-12)).all()
    assert labels.effective_n == pytest.approx(labels.weight[known].sum())


@given(markets(), specs())
def test_what_the_outputs_say_of_one_another(bars, spec):
    labels = label_bars(bars, spec)
    known = labels.label >= 0
    np.testing.assert_array_equal(labels.end_bar[known], np.maximum(labels.long.exit_bar, labels.short.exit_bar)[known])
    for side in (labels.long, labels.short):
        won, lost = side.reason == ExitReason.TP, side.reason == ExitReason.SL
        assert (side.r[won] >= spec.tp_atr / spec.sl_atr - 1e-9).all() and (side.r[lost] <= -1 + 1e-9).all()
        assert (side.mae[known] >= np.maximum(-side.r[known], 0) - 1e-9).all() and (
            side.mfe[known] >= np.maximum(side.r[known], 0) - 1e-9
        ).all()
        np.testing.assert_allclose(side.mae[lost], -side.r[lost])
        assert np.isfinite(side.mae_to_tp[won]).all()


def test_a_closed_weekend_is_no_time():
    bars = frame(np.random.default_rng(3).normal(0, 4, (300, 1)).cumsum(axis=0) + 1000 + np.array([0.0, 3, -3, 1]))
    open_hours = pd.date_range("2024-01-04", periods=900, freq="15min", tz="UTC", name="time")
    weekly = bars.set_axis(open_hours[open_hours.day_of_week < 5][:300])
    assert (weekly.index[1:] - weekly.index[:-1]).max() > pd.Timedelta(days=2)
    here, there = label_bars(bars), label_bars(weekly)
    assert_same(there, here)
    last = np.flatnonzero(there.label >= 0)[0]
    assert there.end_time[last] == weekly.index[there.end_bar[last]].timestamp() + 900


# ------------------------------------------------------------------------------------------------ news


def test_news_near_a_busy_bar_means_hold():
    bars = after_quiet(UP, QUIET)
    close_of_warm = int(bars.index[WARM].timestamp()) + 900
    surge = np.full(len(bars), 3.01)
    event = np.array([close_of_warm + 1800])
    plain = label_bars(bars, SHORT_LIFE)
    held = label_bars(bars, SHORT_LIFE, event, volume_surge=surge)
    assert plain.label[WARM] == Label.BUY and held.label[WARM] == Label.HOLD
    assert held.long.reason[WARM] == ExitReason.TP and held.end_bar[WARM] == plain.end_bar[WARM]  # only the class is overridden
    for events, volume in ((event + 1, surge), (event, np.full(len(bars), 3.0)), (event[:0], surge), (event, np.full(len(bars), np.nan))):
        assert label_bars(bars, SHORT_LIFE, events, volume_surge=volume).label[WARM] == Label.BUY
    assert (held.label[WARM + 1 :] == Label.NONE).all()  # a bar without a label does not get one from the news


@given(st.lists(st.integers(0, 40_000), max_size=8), st.lists(st.integers(0, 40_000), min_size=1, max_size=8))
def test_near_is_thirty_minutes_either_way(events, moments):
    expected = [any(abs(event - moment) <= 1800 for event in events) for moment in moments]
    assert near_news(np.array(moments), np.array(events, np.int64)).tolist() == expected


def test_volume_surge_comes_from_the_bars():
    bars = frame([QUIET] * 120)
    bars.loc[bars.index[110], "volume"] = 3.5
    bars.iloc[111, :4] = UP
    event = np.array([int(bars.index[111].timestamp())])
    assert label_bars(bars, SHORT_LIFE).label[110] == Label.BUY
    assert label_bars(bars, SHORT_LIFE, event).label[110] == Label.HOLD


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("column", PRICES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_price_that_is_not_finite_is_refused_and_named(column, value):
    bars = frame([QUIET] * 30)
    bars.loc[bars.index[7], column] = value
    with pytest.raises(BadDataError, match=rf"row 8 .*01:45.*not a finite number.* {column} {value}"):
        label_bars(bars)


@pytest.mark.parametrize("n", [0, 1, 2, 13, 14, 15, 48, 61])
def test_fewer_bars_than_a_horizon_have_no_label(n):
    labels = label_bars(frame([QUIET] * n))
    assert labels.label.tolist() == [Label.NONE] * n and labels.effective_n == 0 and labels.concurrency.tolist() == [0] * n
    assert all(np.isnan(share) for share in labels.share().values())
    assert (labels.end_time == -1).all()


def test_the_first_label_there_can_be():
    assert (label_bars(frame([QUIET] * 62)).label >= 0).sum() == 1


@pytest.mark.parametrize("entry", ["next_open", "close"])
@pytest.mark.parametrize("path", ["ohlc", "close"])
def test_flat_bars_have_no_atr_and_no_label(entry, path):
    labels = label_bars(frame([(1000.0,) * 4] * 100), LabelSpec(entry=entry, price_path=path))
    assert (labels.label == Label.NONE).all() and (labels.atr[13:] == 0).all()


def test_flat_bars_after_a_lively_one_wait_for_the_time_out():
    labels = label_bars(frame([QUIET] * 14 + [(1000.0,) * 4] * 60))
    assert labels.label[WARM] == Label.HOLD and labels.long.reason[WARM] == ExitReason.TIMEOUT and labels.long.r[WARM] == 0
    assert (labels.label[27:] == Label.NONE).all()


@pytest.mark.parametrize("order", [[0, 2, 1], [0, 0, 1]])
def test_time_that_goes_back_or_repeats_is_refused(order):
    with pytest.raises(BadDataError, match=r"row [23] .*time repeats, goes back"):
        label_bars(frame([QUIET] * 3).iloc[order])


@pytest.mark.parametrize("timeframe", ["15m", "M15", "0min", "min", "", "-1h", "1h", "30min"])
def test_another_timeframe_is_refused(timeframe):
    with pytest.raises(UsageError, match=r"timeframe = .* is not supported: readers and features know 15min only"):
        LabelSpec(timeframe=timeframe)


def test_a_horizon_beyond_the_data_costs_no_memory():
    assert (label_bars(after_quiet(UP, QUIET), LabelSpec(horizon_bars=10**9)).label == Label.NONE).all()


def test_missing_columns():
    bars = after_quiet(UP, QUIET)
    with pytest.raises(BadDataError, match="lack high, close"):
        label_bars(bars.drop(columns=["high", "close"]))
    without = bars.drop(columns="volume")
    assert label_bars(without, SHORT_LIFE).label[WARM] == Label.BUY
    with pytest.raises(BadDataError, match="volume"):
        label_bars(without, SHORT_LIFE, np.array([0]))
    with pytest.raises(UsageError, match="volume_surge"):
        label_bars(without, SHORT_LIFE, np.array([0]), volume_surge=np.ones(3))


def test_the_bars_are_not_changed_and_whole_prices_will_do():
    bars = frame(np.random.default_rng(3).normal(0, 4, (90, 1)).cumsum(axis=0) + 1000 + np.array([0.0, 3, -3, 1]))
    before = bars.copy()
    label_bars(bars)
    pd.testing.assert_frame_equal(bars, before)
    whole = bars.round().astype(int)
    assert_same(label_bars(whole), label_bars(whole.astype(float)))


@pytest.mark.parametrize("change", [{}, {"entry": "close"}, {"price_path": "close"}])
@pytest.mark.parametrize("kind", [float, int, np.float32])
def test_the_kernels_are_given_one_kind_of_array_whatever_the_frame(kind, change):
    """Each further mixture would be compiled anew, for half a minute."""
    prices, _ = prices_of(after_quiet(QUIET).astype(kind), LabelSpec(**change))
    assert {(each.dtype, each.flags.c_contiguous, each.flags.writeable) for each in prices} == {(np.dtype(float), True, False)}


# ------------------------------------------------------------------------------------------------ the real file


@pytest.fixture(scope="module")
def real_bars(shared_data):
    bars = pd.read_csv(shared_data / "market" / "btcusd_m15_2024-04_2026-04.csv.gz", index_col="time", parse_dates=["time"])
    return bars[[*PRICES, "volume"]].astype(float)


def test_the_real_market_gives_the_known_shares(real_bars):
    labels = label_bars(real_bars)
    share = labels.share()
    assert [round(100 * share[name], 1) for name in ("SELL", "BUY", "HOLD")] == pytest.approx([35.0, 34.2, 30.8], abs=0.3)
    known = labels.label >= 0
    assert 0.007 < labels.ambiguous[known].mean() < 0.014
    assert np.nanmean(labels.weight) == pytest.approx(0.166, abs=0.001) and labels.effective_n == pytest.approx(11_640, rel=0.01)


def test_closes_only_mislabels_a_quarter_of_the_real_market(real_bars):
    true, legacy = label_bars(real_bars), label_bars(real_bars, LabelSpec(price_path="close"))
    share = legacy.share()
    assert [round(100 * share[name], 1) for name in ("SELL", "BUY", "HOLD")] == pytest.approx([37.4, 38.0, 24.6], abs=0.3)
    known = (true.label >= 0) & (legacy.label >= 0)
    assert (true.label != legacy.label)[known].mean() == pytest.approx(0.24, abs=0.01)
    assert (true.label != Label.BUY)[known & (legacy.label == Label.BUY)].mean() > 0.18
