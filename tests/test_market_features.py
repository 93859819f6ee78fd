"""The 55 features: an independent reference, the three proofs against look-ahead, the contract, and the refusals."""

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pandas as pd
import pytest
from features_reference import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.errors import BadDataError, UsageError
from trademl.market import features as module
from trademl.market.context import Bars, Context, schedule_at
from trademl.market.definitions import FEATURE_NAMES, Feature, volume_surge_of
from trademl.market.features import (
    FEATURES,
    MIN_HISTORY_BARS,
    compute_features,
    feature_hash,
    feature_matrix,
    last_row,
    warmup_bars,
)
from trademl.market.indicators import atr_sma

COLUMNS = ("open", "high", "low", "close", "volume")
START = pd.Timestamp("2024-03-01", tz="UTC")  # a clock change lies ahead
WARMUP = warmup_bars()


def walk(n, seed=0, kind="continuous", price=60_000.0):
    """A random walk as a canonical frame; `kind` adds what real files have."""
    rng = np.random.default_rng(seed)
    index = pd.date_range(START, periods=2 * n, freq="15min", name="time").as_unit("ns")
    if kind == "weekends":  # FX: closed from Friday 21:00 to Sunday 21:00, and single bars are missing
        hour = index.day_of_week * 24 + index.hour
        index = index[~((hour >= 4 * 24 + 21) & (hour < 6 * 24 + 21)) & (rng.random(len(index)) > 0.01)]
    index = index[:n]
    move = rng.standard_t(4, n) * 0.0015
    close = price * np.exp(np.cumsum(move))
    open_ = np.append(price, close[:-1]) * np.exp(rng.normal(0, 1e-4, n))
    shadow = np.abs(rng.normal(0, 8e-4, (2, n)))
    high, low = np.maximum(open_, close) * (1 + shadow[0]), np.minimum(open_, close) * (1 - shadow[1])
    bars = pd.DataFrame({"open": open_, "high": high, "low": low, "close": close, "volume": rng.lognormal(4, 1, n)}, index=index)
    if kind == "ticks":  # a coarse price step: ties everywhere
        tick = price * 1e-3
        bars[list(COLUMNS[:4])] = np.round(bars[list(COLUMNS[:4])] / tick) * tick
        bars["volume"] = np.round(bars["volume"])
    if kind == "halts":  # an exchange that stands still, for minutes and for days
        for start, length in ((n // 3, 4), (n // 2, 130), (n - 160, 40)):
            still = slice(start, start + length)
            bars.iloc[still, :4] = bars["close"].iloc[start - 1]
            bars.iloc[still, 4] = 0.0
    return bars


def events(bars, seed=1):
    """Epoch seconds of some timed and some all-day events around the bars."""
    rng = np.random.default_rng(seed)
    first, last = (int(bars.index[i].timestamp()) for i in (0, -1))
    timed = np.sort(rng.integers(first // 300, last // 300, max(len(bars) // 150, 1)) * 300)
    return timed, np.sort(rng.integers(first // 86_400, last // 86_400 + 1, 5) * 86_400)


def matrix(bars, news=None, **options):
    return feature_matrix(bars.index, *(bars[name].to_numpy() for name in COLUMNS), news, **options)


def same(a, b):
    """Equal to the last bit, NaN where NaN."""
    np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- against the specification


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["continuous", "weekends", "ticks", "halts"])
def test_all_55_agree_with_a_slow_reference(kind):
    bars = walk(2_600, seed=3, kind=kind)
    timed, all_day = events(bars)
    got = pd.DataFrame(matrix(bars, timed, all_day_times=all_day), bars.index, FEATURE_NAMES)
    want, allowed = reference(bars, timed, all_day)
    assert list(want.columns) == list(FEATURE_NAMES)  # names and order of the specification
    settled = slice(WARMUP, None)
    off = (got - want).abs().iloc[settled] > allowed.iloc[settled]
    assert not got.iloc[settled].isna().any().any()
    assert not off.any().any(), f"{off.sum()[off.any()]}"


@pytest.mark.oracle
def test_short_lookbacks_agree_with_the_reference_as_soon_as_they_appear():
    bars = walk(500, seed=11)
    got = matrix(bars)
    want, allowed = reference(bars)
    late = ("price_vs", "ema", "macd")  # pandas' EMAs settle later
    short = [(i, f) for i, f in enumerate(FEATURES) if f.lookback <= 400 and not f.name.startswith(late)]
    assert len(short) == 45
    for i, feature in short:
        row = slice(feature.lookback, None)
        assert (np.abs(got[row, i] - want[feature.name].to_numpy()[row]) <= allowed[feature.name].to_numpy()[row]).all(), feature.name


def test_names_and_groups_are_the_specification():
    groups = {}
    for f in FEATURES:
        groups.setdefault(f.group, []).append(f.name)
    assert [len(names) for names in groups.values()] == [9, 8, 8, 8, 5, 7, 6, 4]
    assert len(set(FEATURE_NAMES)) == 55
    assert FEATURE_NAMES[0] == "atr_pct"
    assert FEATURE_NAMES[33] == "volume_ratio"
    assert FEATURE_NAMES[-1] == "is_news_risk_window"


# ---------------------------------------------------------------- the three proofs


@pytest.mark.leakage
@pytest.mark.parametrize("kind", ["continuous", "weekends", "ticks", "halts"])
def test_a_prefix_gives_the_same_rows(kind):
    bars = walk(2_700, seed=5, kind=kind)
    news, _ = events(bars)
    full = matrix(bars, news)
    for rows in (1, 2, 15, 97, 1_000, 1_934, 1_935, 2_301, 2_402, 2_503, 2_604):
        same(matrix(bars.iloc[:rows], news), full[:rows])


@pytest.mark.leakage
@settings(max_examples=15, deadline=None)
@given(row=st.integers(0, 2_198), seed=st.integers(0, 10_000), factor=st.sampled_from([0.01, 0.5, 3.0, 1e4]))
def test_corrupting_the_future_changes_nothing_earlier(row, seed, factor):
    bars = walk(2_200, seed=7)
    news, _ = events(bars)
    corrupted = bars.copy()
    noise = np.random.default_rng(seed).uniform(0.5, 2.0, (len(bars) - row - 1, 5))
    corrupted.iloc[row + 1 :] = corrupted.iloc[row + 1 :] * factor * noise
    same(matrix(corrupted, news)[: row + 1], matrix(bars, news)[: row + 1])


@pytest.mark.leakage
def test_every_row_reacts_to_its_own_bar():
    """The other side of the proof: the newest bar is used, nothing lags by accident."""
    bars = walk(2_200, seed=7)
    changed = bars.copy()
    changed.iloc[-1] = changed.iloc[-1] * [1.0, 1.01, 0.99, 1.005, 5.0]
    moved = matrix(changed)[-1] != matrix(bars)[-1]
    used = {f.name for f, changed in zip(FEATURES, moved) if changed}
    assert used >= {"atr_pct", "return_1", "rsi_14", "volume_surge", "vwap_dist", "range_position", "price_vs_ema200"}


@pytest.mark.leakage
@pytest.mark.parametrize("kind", ["continuous", "weekends", "ticks", "halts"])
def test_the_bots_2000_bars_give_the_trainers_row_to_the_last_bit(kind):
    bars = walk(4_500, seed=9, kind=kind)
    news, all_day = events(bars)
    full = matrix(bars, news, all_day_times=all_day)
    for newest in [*range(2_000, 4_500, 83), *range(4_340, 4_400, 7)]:  # the second run crosses a halt
        tail = bars.iloc[newest + 1 - MIN_HISTORY_BARS : newest + 1]
        same(matrix(tail, news, all_day_times=all_day)[-1], full[newest])


@pytest.mark.leakage
@pytest.mark.parametrize("kind", ["continuous", "weekends", "ticks", "halts"])
def test_the_last_row_alone_is_the_matrix_row_to_the_last_bit(kind):
    """Of a bot's tail, of a longer one, and of prefixes in which some or nearly all features are still withheld."""
    bars = walk(4_500, seed=9, kind=kind)
    news, all_day = events(bars)
    full = matrix(bars, news, all_day_times=all_day)
    for newest in [0, 1, 13, 14, 99, 100, 461, 1_932, 1_933, 1_934, *range(2_000, 4_500, 61), *range(4_340, 4_400, 7)]:
        for first in {0, max(0, newest + 1 - MIN_HISTORY_BARS)}:
            tail = bars.iloc[first : newest + 1]
            got = last_row(Bars(tail.index, *(tail[name].to_numpy() for name in COLUMNS)), news, all_day_times=all_day)
            np.testing.assert_array_equal(got.view(np.int64), full[newest].view(np.int64))


def test_a_tail_takes_over_what_was_computed_before_it():
    bars = walk(2_500)
    whole = Context(Bars(bars.index, *(bars[name].to_numpy() for name in COLUMNS)))
    middle = whole.tail(500)
    assert np.isnan(middle.tail(100).ema(50)).all()  # computed in the tail, of a hundred bars
    for name, ask in {"atr": lambda c: c.atr, "di": lambda c: c.di(), "hours": lambda c: c.higher(3_600).newest}.items():
        longer, short = ask(whole), ask(middle.tail(100))
        assert np.shares_memory(longer, short), name
        assert np.array_equal(longer[..., -100:], short), name


def test_of_years_of_bars_no_blocks_are_kept():
    bars = walk(2_500)
    columns = [np.tile(bars[name].to_numpy(), 5) for name in COLUMNS]
    years = Context(Bars(np.arange(12_500) * 900, *columns))
    month = years.tail(2_500)
    assert years.mean("volume", 96)[-1] == Context(Bars(bars.index, *(c[-2_500:] for c in columns))).mean("volume", 96)[-1]
    assert not [key for key in years._kept if key[0] == "blocks"]
    assert month.mean("volume", 50)[-1] == years.mean("volume", 50)[-1]
    assert [len(value) for key, value in month._kept.items() if key[0] == "blocks"] == [5]  # of 2, 4 … 32 values


def test_the_last_row_refuses_what_the_matrix_refuses():
    bars = walk(50)
    arrays = Bars(bars.index, *(bars[name].to_numpy() for name in COLUMNS))
    with pytest.raises(BadDataError, match="there are none"):
        last_row(Bars(*(column[:0] for column in arrays)), None)
    with pytest.raises(BadDataError, match="close is nan"):
        last_row(arrays._replace(close=np.append(arrays.close[:-1], np.nan)), None)
    with pytest.raises(BadDataError, match="news times"):
        last_row(arrays, [0.5])
    with pytest.raises(UsageError, match="round_step"):
        last_row(arrays, None, round_step=0)
    with pytest.raises(UsageError, match="features repeat"):
        last_row(arrays, None, features=FEATURES[:1] * 2)


@pytest.mark.leakage
@pytest.mark.parametrize("kind", ["continuous", "weekends"])
def test_each_lookback_settles_its_feature(kind):
    bars = walk(2_500, seed=13, kind=kind)
    full = matrix(bars)
    by_lookback = {}
    for i, f in enumerate(FEATURES):
        by_lookback.setdefault(f.lookback, []).append(i)
    for newest in (2_303, 2_304, 2_305, 2_318, 2_367, 2_398, 2_399, 2_400):  # the phases of an hour and of a day
        for lookback, columns in by_lookback.items():
            chosen = tuple(FEATURES[i] for i in columns)
            exact = matrix(bars.iloc[newest + 1 - lookback : newest + 1], features=chosen)
            same(exact[-1], full[newest, columns])
            assert np.isfinite(exact[-1]).all()
            assert np.isnan(exact[:-1]).all()


# ---------------------------------------------------------------- real files


def real_btc(folder):
    return pd.read_csv(folder / "market" / "btcusd_m15_2024-04_2026-04.csv.gz", parse_dates=["time"], index_col="time")


def real_news(folder):
    rows = pd.read_csv(folder / "market" / "news_2015_2026.csv.gz")
    rows = rows[(rows.currency == "USD") & (rows.impact == "high")]
    seconds = pd.to_datetime(rows.time, utc=True).astype("datetime64[s, UTC]").astype("int64")
    timed = rows.time_kind == "scheduled"
    return seconds[timed].to_numpy(), seconds[~timed].to_numpy()


def real_eurusd(folder):
    """The broker's clock is taken as it stands: what matters here are the closed weekends and the ticks."""
    names = ["date", "clock", *COLUMNS]
    rows = pd.read_csv(folder / "import" / "mt4_eurusd_m15_eet_junk_tail.csv.gz", header=None, names=names, skipfooter=2, engine="python")
    rows.index = pd.to_datetime(rows.date + " " + rows.clock, format="%Y.%m.%d %H:%M", utc=True)
    return rows[list(COLUMNS)].astype(float)


@pytest.mark.leakage
def test_real_btc_rows_live_and_in_training(shared_data):
    bars = real_btc(shared_data)
    news, all_day = real_news(shared_data)
    bars.iloc[50_000:50_004, :4] = bars.close.iloc[49_999]  # as the perpetuals of 2024-10-28: four flat bars without volume
    bars.iloc[50_000:50_004, 4] = 0.0
    full = matrix(bars, news, all_day_times=all_day)
    assert np.isnan(full[:WARMUP]).any(axis=1).all()
    assert np.isfinite(full[WARMUP:]).all()
    assert_in_range(full[WARMUP:])
    rng = np.random.default_rng(0)
    for newest in [*rng.integers(2_000, len(bars), 300), *range(49_999, 50_006)]:
        tail = bars.iloc[newest + 1 - MIN_HISTORY_BARS : newest + 1]
        arrays = Bars(tail.index, *(tail[name].to_numpy() for name in COLUMNS))
        same(last_row(arrays, news, all_day_times=all_day), full[newest])
        same(matrix(tail, news, all_day_times=all_day)[-1], full[newest])


@pytest.mark.leakage
def test_real_eurusd_rows_live_and_in_training(shared_data):
    bars = real_eurusd(shared_data).iloc[-20_000:]
    full = matrix(bars, round_step=0.01)
    assert np.isfinite(full[WARMUP:]).all()
    assert_in_range(full[WARMUP:])
    for newest in np.random.default_rng(1).integers(2_000, len(bars), 120):
        same(matrix(bars.iloc[newest + 1 - MIN_HISTORY_BARS : newest + 1], round_step=0.01)[-1], full[newest])


@pytest.mark.oracle
def test_real_rows_agree_with_the_reference(shared_data):
    for bars, step in ((real_btc(shared_data).iloc[20_000:23_000], 1000.0), (real_eurusd(shared_data).iloc[10_000:13_000], 0.01)):
        news, all_day = real_news(shared_data)
        first, last = (int(bars.index[i].timestamp()) for i in (0, -1))
        around = [x[(x > first - 10 * 86_400) & (x < last + 10 * 86_400)] for x in (news, all_day)]  # the reference walks all events
        want, allowed = reference(bars, *around, round_step=step)
        got = matrix(bars, news, all_day_times=all_day, round_step=step)
        off = np.abs(got - want.to_numpy())[WARMUP:] > allowed.to_numpy()[WARMUP:]
        assert not off.any(), [name for name, bad in zip(FEATURE_NAMES, off.any(axis=0)) if bad]


def assert_in_range(rows):
    for i, f in enumerate(FEATURES):
        assert f.low <= rows[:, i].min(), f.name
        assert rows[:, i].max() <= f.high, f.name


# ---------------------------------------------------------------- warm-up, halts, small inputs


@pytest.mark.parametrize("kind", ["continuous", "weekends", "ticks", "halts"])
def test_values_are_withheld_until_the_lookback_is_there_and_finite_after(kind):
    full = matrix(walk(2_500, seed=17, kind=kind))
    for i, f in enumerate(FEATURES):
        assert np.isnan(full[: f.lookback - 1, i]).all(), f.name
        assert np.isfinite(full[f.lookback - 1 :, i]).all(), f.name
    assert_in_range(full[WARMUP:])
    assert WARMUP == max(f.lookback for f in FEATURES) - 1 < MIN_HISTORY_BARS


def test_a_market_that_never_moves_is_neutral():
    bars = walk(2_200)
    bars[list(COLUMNS[:4])] = 60_123.45
    bars["volume"] = 0.0
    last = dict(zip(FEATURE_NAMES, matrix(bars)[-1]))
    middle = {"range_position": 0.5, "daily_range_position": 0.5, "rsi_14": 0.5, "atr_percentile": 1.0, "news_minutes_away": 1.0}
    of_the_clock = {"session_hour_sin", "session_hour_cos", "is_asian_session", "is_london_session", "is_ny_session", "is_weekend"}
    assert {name: x for name, x in last.items() if name not in of_the_clock} == {
        name: middle.get(name, 0.0) for name in FEATURE_NAMES if name not in of_the_clock
    }


def test_a_market_that_moves_without_volume_is_neutral_in_volume():
    bars = walk(2_200, seed=37).assign(volume=0.0)
    last = matrix(bars)[-1]
    assert [last[i] for i, f in enumerate(FEATURES) if f.group == "volume"] == [0.0] * 5
    assert last[FEATURE_NAMES.index("atr_pct")] > 0


@pytest.mark.parametrize(
    ("close", "want"),
    [(60_000, 0.0), (60_050, 0.5), (59_950, -0.5), (60_499, 4.99), (60_500, -5.0), (61_000, 0.0)],  # half-way looks up
)
def test_distance_to_round_prices(close, want):
    price = np.full(20, float(close))
    column = FEATURES[FEATURE_NAMES.index("round_number_dist")]

    def at(step, reach):  # bars of a range, and so an ATR, of 2 * reach
        return feature_matrix(
            900 * np.arange(20), price, price + reach, price - reach, price, price, None, round_step=step, features=(column,)
        )[-1, 0]

    assert at(1000.0, 50.0) == pytest.approx(want)
    assert at(1000.0, 1.0) == pytest.approx(np.clip(50 * want, -10, 10))


@pytest.mark.parametrize("rows", [0, 1, 2, 13, 14, 96, WARMUP])
def test_fewer_bars_than_the_warm_up(rows):
    got = matrix(walk(2_000).iloc[:rows], np.array([], np.int64))
    assert got.shape == (rows, 55)
    assert got.dtype == np.float64
    assert np.isnan(got).any(axis=1).all()


def test_inputs_are_not_changed_and_their_layout_does_not_matter():
    bars = walk(2_100)
    wide = np.repeat(bars.to_numpy(), 2, axis=0)
    kept = bars.copy()
    strided = feature_matrix(bars.index, *(wide[::2, i] for i in range(5)), None)
    listed = feature_matrix(bars.index, *(bars[name].tolist() for name in COLUMNS), None)
    same(strided, matrix(bars))
    same(listed, matrix(bars))
    pd.testing.assert_frame_equal(bars, kept)
    assert bars["close"].to_numpy(copy=True).flags.writeable


# ---------------------------------------------------------------- invariance


@pytest.mark.parametrize("kind", ["continuous", "halts"])
def test_scale_of_price_and_volume_does_not_matter(kind):
    bars = walk(2_300, seed=19, kind=kind)
    base = matrix(bars)
    exact = bars * [8.0, 8.0, 8.0, 8.0, 4.0]  # powers of two keep every bit
    same(matrix(exact, round_step=8_000.0), base)
    tenfold = bars * [10.0, 10.0, 10.0, 10.0, 3.0]
    np.testing.assert_allclose(matrix(tenfold, round_step=10_000.0), base, rtol=1e-7, atol=1e-9)


def test_time_zones_and_units_of_the_same_moments_do_not_matter():
    bars = walk(2_600, seed=23)  # 27 days from 1 March: both clocks of Berlin
    index = bars.index.append(pd.date_range(bars.index[-1], periods=601, freq="15min", tz="UTC")[1:])
    bars = pd.DataFrame(np.vstack([bars.to_numpy(), bars.to_numpy()[:600]]), index, COLUMNS)
    assert bars.index.tz_convert("Europe/Berlin")[0].utcoffset() != bars.index.tz_convert("Europe/Berlin")[-1].utcoffset()
    base = matrix(bars)
    columns = [bars[name].to_numpy() for name in COLUMNS]
    seconds = bars.index.as_unit("s").asi8
    berlin, naive = bars.index.tz_convert("Europe/Berlin"), bars.index.tz_localize(None)
    for time in (berlin, naive, seconds, seconds.astype("datetime64[s]"), bars.index.as_unit("us")):
        same(feature_matrix(time, *columns, None), base)


def one_feature(name, moments, news=None, all_day=None):
    """A session or news feature at decision times given as text."""
    feature = next(f for f in FEATURES if f.name == name)
    values = []
    for moment in moments:
        opened = np.array([int(pd.Timestamp(moment, tz="UTC").timestamp()) - 900])
        values.append(feature_matrix(opened, *np.ones((5, 1)), news, all_day_times=all_day, features=(feature,))[0, 0])
    return values


@pytest.mark.parametrize("day", ["2024-01-17", "2024-07-17"])  # winter and summer
@pytest.mark.parametrize(
    ("name", "moments", "want"),
    [
        ("is_asian_session", ["23:59", "00:00", "07:59", "08:00"], [0, 1, 1, 0]),
        ("is_london_session", ["06:59", "07:00", "15:59", "16:00"], [0, 1, 1, 0]),
        ("is_ny_session", ["12:59", "13:00", "20:59", "21:00"], [0, 1, 1, 0]),
    ],
)
def test_session_boundaries(day, name, moments, want):
    assert one_feature(name, [f"{day} {m}" for m in moments]) == want


def test_weekend_and_hour():
    assert one_feature("is_weekend", ["2024-04-12 23:45", "2024-04-13 00:00", "2024-04-14 23:45", "2024-04-15 00:00"]) == [0, 1, 1, 0]
    assert np.allclose(one_feature("session_hour_sin", ["2024-04-12 00:00", "2024-04-12 06:00", "2024-04-12 18:00"]), [0, 1, -1])
    assert np.allclose(one_feature("session_hour_cos", ["2024-04-12 00:00", "2024-04-12 06:00", "2024-04-12 12:00"]), [1, 0, -1])


EVENT = np.array([int(pd.Timestamp("2024-04-10 12:30", tz="UTC").timestamp())])


@pytest.mark.parametrize(
    ("name", "moments", "want"),
    [
        ("is_news_near", ["11:59", "12:00", "12:30", "13:00", "13:01"], [0, 1, 1, 1, 0]),
        ("is_news_risk_window", ["11:29", "11:30", "12:30", "14:30", "14:31"], [0, 1, 1, 1, 0]),
        ("news_minutes_away", ["12:00", "12:30", "12:31"], [30 / 1440, 0, 1]),
        ("news_count_today", ["00:00", "12:30", "23:59"], [1, 1, 1]),
    ],
)
def test_news_boundaries(name, moments, want):
    assert one_feature(name, [f"2024-04-10 {m}" for m in moments], EVENT) == want
    assert one_feature(name, ["2024-04-08 12:30", "2024-04-12 12:30"], EVENT) == [float(name == "news_minutes_away")] * 2


def test_all_day_events_count_today_and_nothing_else():
    midnight = EVENT // 86_400 * 86_400
    for name, want in (("is_news_near", 0), ("is_news_risk_window", 0), ("news_minutes_away", 1), ("news_count_today", 1)):
        assert one_feature(name, ["2024-04-10 00:00"], np.array([], np.int64), midnight) == [want]
    assert one_feature("news_count_today", ["2024-04-10 09:00"], np.repeat(EVENT, 3), midnight) == [4]


def test_no_calendar_is_constant_and_an_unsorted_one_is_sorted():
    bars = walk(300)
    assert np.unique(matrix(bars)[:, 51:], axis=0).tolist() == [[0, 1, 0, 0]]
    timed, _ = events(bars)
    same(matrix(bars, timed[::-1]), matrix(bars, timed))
    same(matrix(bars, pd.to_datetime(timed, unit="s", utc=True)), matrix(bars, timed))
    assert schedule_at(np.array([0]), []).to_next.tolist() == [np.inf]


@pytest.mark.leakage
@pytest.mark.parametrize(("name", "hours"), [("h1_trend", 1), ("h4_rsi_norm", 4), ("d1_return", 24)])
def test_a_higher_bar_is_invisible_until_it_is_over(name, hours):
    bars = walk(2_200, seed=29)
    column = FEATURE_NAMES.index(name)
    decided = bars.index + pd.Timedelta(minutes=15)
    values = matrix(bars)[:, column]
    changes = decided[1:][(values[1:] != values[:-1]) & ~np.isnan(values[:-1])]
    assert len(changes) > 5
    assert ((changes.hour % hours == 0) & (changes.minute == 0)).all()
    shaken = bars.copy()
    unfinished = bars.index.floor(f"{hours}h") == bars.index[-2].floor(f"{hours}h")  # the bucket of the last but one row...
    assert decided[-2] < bars.index[-2].floor(f"{hours}h") + pd.Timedelta(hours=hours)  # ...which is not over then
    shaken.loc[unfinished, list(COLUMNS[:4])] *= 1.5
    assert matrix(shaken)[-2, column] == values[-2]


def test_a_bucket_with_missing_bars_counts_when_its_time_is_over():
    bars = walk(400, seed=31)
    hour_end = 200  # 02:00 on the third day: remove the last two bars of the hour before
    gappy = bars.drop(bars.index[[hour_end - 2, hour_end - 1]])
    hours = Context(Bars(gappy.index, *(gappy[name] for name in COLUMNS))).higher(3600)
    seen = pd.Series(hours.seen(hours.close), gappy.index)
    at = bars.index
    assert seen[at[hour_end - 3]] == bars.close.iloc[hour_end - 5]  # 01:15: still the hour before
    assert seen[at[hour_end]] == bars.close.iloc[hour_end - 3]  # 02:00: the hour that ended with what it had


# ---------------------------------------------------------------- the contract


@pytest.mark.contract
def test_the_hash_follows_everything_that_makes_a_column():
    base = feature_hash()
    swapped = (FEATURES[1], FEATURES[0], *FEATURES[2:])
    longer = (replace(FEATURES[0], lookback=16), *FEATURES[1:])
    wider = (replace(FEATURES[0], high=2.0), *FEATURES[1:])
    others = [feature_hash(swapped), feature_hash(longer), feature_hash(wider), feature_hash(FEATURES[:-1]), feature_hash(round_step=0.01)]
    assert len({base, *others}) == 6
    assert feature_hash(round_step=1000) == base
    assert feature_hash((replace(FEATURES[0], meaning="the same in other words"), *FEATURES[1:])) == base


@pytest.mark.contract
def test_the_hash_follows_the_version(monkeypatch):
    base = feature_hash()
    monkeypatch.setattr(module, "DEFINITIONS_VERSION", module.DEFINITIONS_VERSION + 1)
    assert feature_hash() != base


@pytest.mark.contract
def test_golden_values_belong_to_this_version():
    """Whoever changes a formula lands here: raise DEFINITIONS_VERSION, and only then these numbers."""
    assert module.DEFINITIONS_VERSION == 1
    assert feature_hash() == GOLDEN_HASH
    bars = walk(2_000, seed=2024)
    timed, all_day = events(bars, seed=2024)
    np.testing.assert_allclose(matrix(bars, timed, all_day_times=all_day)[-1], GOLDEN_ROW, rtol=1e-9, atol=1e-12)


@pytest.mark.contract
def test_a_56th_feature_is_one_row_and_one_function():
    mine = Feature("body_atr", "|close - open| / ATR", "ATR", 0, np.inf, 15, lambda c: np.abs(c.close - c.open) / c.atr)
    wider = (*FEATURES, mine)
    bars = walk(2_100)
    got = matrix(bars, features=wider)
    assert got.shape == (2_100, 56)
    same(got[:, :55], matrix(bars))
    same(got[:, 55], np.abs(got[:, FEATURE_NAMES.index("candle_direction")]))
    assert feature_hash(wider) != feature_hash()
    assert warmup_bars((mine,)) == 14
    same(matrix(bars, features=FEATURES[3:6]), matrix(bars)[:, 3:6])
    assert matrix(bars, features=()).shape == (2_100, 0)


@pytest.mark.contract
def test_a_feature_cannot_harm_its_neighbours():
    def vandal(c):
        c.atr[:] = 0.0

    with pytest.raises(ValueError, match="read-only"):
        matrix(walk(100), features=(Feature("vandal", "", "", 0, 1, 1, vandal),))
    with pytest.raises(FrozenInstanceError):
        FEATURES[0].name = "other"


@pytest.mark.contract
def test_a_frame_around_the_matrix():
    bars = walk(2_050)
    frame = compute_features(bars)
    assert list(frame.columns) == list(FEATURE_NAMES)
    assert frame.index.equals(bars.index)
    assert (frame.dtypes == np.float64).all()
    same(frame.to_numpy(), matrix(bars))


@pytest.mark.contract
def test_a_frame_takes_the_calendar_as_it_is_read():
    pytest.importorskip("trademl.data.news")
    bars = walk(400)
    rows = [("2024-03-02 13:30", "USD", "high", "scheduled"), ("2024-03-02 13:30", "EUR", "high", "scheduled")]
    rows += [("2024-03-03 10:00", "USD", "low", "scheduled"), ("2024-03-04 00:00", "USD", "high", "all_day")]
    calendar = pd.DataFrame(rows, columns=["time", "currency", "impact", "time_kind"]).assign(event="x")
    calendar["time"] = pd.to_datetime(calendar["time"], utc=True).astype("datetime64[ns, UTC]")
    timed = np.array([int(pd.Timestamp("2024-03-02 13:30", tz="UTC").timestamp())])
    all_day = np.array([int(pd.Timestamp("2024-03-04", tz="UTC").timestamp())])
    same(compute_features(bars, calendar).to_numpy(), matrix(bars, timed, all_day_times=all_day))


@pytest.mark.contract
def test_a_bot_needs_numpy_and_nothing_else():
    code = "import sys, trademl.market.features; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pandas", "scipy", "numba", "sklearn", "plotly", "pyarrow"} & set(loaded)
    foreign = set(loaded) - set(sys.stdlib_module_names) - {"numpy", "trademl"}
    assert not {name for name in foreign if not name.startswith(("_", "sitecustomize"))}, foreign


def test_shared_functions_on_plain_arrays():
    bars = walk(300)
    atr = atr_sma(bars.high, bars.low, bars.close)
    before = bars.close.shift()
    tr = np.maximum(bars.high, before.fillna(bars.high)) - np.minimum(bars.low, before.fillna(bars.low))
    np.testing.assert_allclose(atr, tr.rolling(14).mean(), rtol=1e-9)
    assert np.isnan(atr[:13]).all()
    assert atr_sma(bars.high, bars.low, bars.close, window=1)[0] == bars.high.iloc[0] - bars.low.iloc[0]
    same(volume_surge_of(bars.volume)[96:], matrix(bars)[96:, FEATURE_NAMES.index("volume_surge")])
    assert atr_sma([], [], []).shape == volume_surge_of([]).shape == (0,)


# ---------------------------------------------------------------- refusals


def spoiled(column, value, row=700):
    bars = walk(1_000)
    bars.iloc[row, COLUMNS.index(column)] = value
    return bars


@pytest.mark.fault
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0])
@pytest.mark.parametrize("column", COLUMNS)
def test_a_hole_is_refused_by_row(column, value):
    with pytest.raises(BadDataError, match=rf"row 700 \(2024-03-08T07:00:00Z\): {column} is {value}.*finite number"):
        matrix(spoiled(column, value))


@pytest.mark.fault
def test_zero_is_a_volume_but_not_a_price():
    with pytest.raises(BadDataError, match=r"close is 0\.0, it must be a finite number > 0"):
        matrix(spoiled("close", 0.0))
    assert np.isfinite(matrix(spoiled("volume", 0.0))[700, FEATURE_NAMES.index("volume_surge")])


@pytest.mark.fault
def test_times_that_are_not_m15_bars_in_order_are_refused():
    bars = walk(400)
    columns = [bars[name].to_numpy() for name in COLUMNS]
    seconds = bars.index.as_unit("s").asi8
    with pytest.raises(BadDataError, match=r"row 1 .* opens -900 s after row 0"):
        feature_matrix(seconds[::-1], *columns, None)
    with pytest.raises(BadDataError, match="opens 0 s after row 0"):
        feature_matrix(np.full(400, seconds[0]), *columns, None)
    with pytest.raises(BadDataError, match="opens 300 s after"):
        feature_matrix(seconds[0] + 300 * np.arange(400), *columns, None)
    with pytest.raises(BadDataError, match="no two of 400 bars open 900 s apart"):
        feature_matrix(seconds[0] + 3600 * np.arange(400), *columns, None)
    with pytest.raises(BadDataError, match="whole epoch seconds"):
        feature_matrix(seconds.astype(float), *columns, None)
    with pytest.raises(BadDataError, match="news times"):
        feature_matrix(seconds, *columns, [1.5])


@pytest.mark.fault
def test_columns_that_do_not_fit_are_refused():
    bars = walk(400)
    o, h, low, c, v = (bars[name].to_numpy() for name in COLUMNS)
    with pytest.raises(BadDataError, match="equally long"):
        feature_matrix(bars.index, o, h, low, c, v[:-1], None)
    with pytest.raises(BadDataError, match="one-dimensional"):
        feature_matrix(bars.index, *(x[:, None] for x in (o, h, low, c, v)), None)
    with pytest.raises(BadDataError, match="high is below low nearly everywhere"):
        feature_matrix(bars.index, o, low, h, c, v, None)
    with pytest.raises(BadDataError, match="plain numbers"):
        feature_matrix(bars.index, np.full(400, "much"), h, low, c, v, None)
    with pytest.raises(BadDataError, match="need a DatetimeIndex"):
        compute_features(bars.reset_index(drop=True))
    with pytest.raises(BadDataError, match="columns open, high, low, close, volume, got"):
        compute_features(bars.drop(columns="volume"))


@pytest.mark.fault
def test_registry_entries_that_cannot_work_are_refused():
    bars = walk(50)
    with pytest.raises(UsageError, match="round_step = 0"):
        matrix(bars, round_step=0)
    with pytest.raises(UsageError, match="round_step = nan"):
        feature_hash(round_step=np.nan)
    with pytest.raises(UsageError, match="features repeat atr_pct"):
        matrix(bars, features=(FEATURES[0], FEATURES[0]))
    with pytest.raises(UsageError, match="gave shape \\(3,\\) for 50 bars"):
        matrix(bars, features=(Feature("short", "", "", 0, 1, 1, lambda c: np.ones(3)),))
    with pytest.raises(UsageError, match="lookback 0"):
        Feature("none", "", "", 0, 1, 0, np.ones)
    with pytest.raises(UsageError, match="usable as a column name"):
        Feature("two words", "", "", 0, 1, 1, np.ones)


GOLDEN_HASH = "447d6302e65d347966dda4840ba45f76368d2891a7782fd93d4e6fbd9bed37a3"
GOLDEN_ROW = [
    0.00222754062799,
    0.793516280028,
    0.115104166667,
    1.02197235883,
    0.00113325707845,
    0.55745933356,
    1.12189797751,
    1.25710611365,
    0.00530012641755,
    -0.00011458698622,
    -0.00183202139256,
    -0.00545356203112,
    -1,
    -0.378927753608,
    0.45073919401,
    -0.112349049442,
    -0.657892423963,
    0.000864532024425,
    0.00111152194379,
    -0.002352951588,
    0.470709806081,
    0.495874104351,
    0.0414364531779,
    -0.25,
    0.0870083094686,
    0.453502429945,
    0.453502429945,
    -0.0188576756867,
    0.42409290768,
    0.0867235872265,
    0.517792373943,
    3,
    1.46786917076,
    0.426916296186,
    0.403422237468,
    0.0474386252001,
    0.112966520662,
    -0.510712425128,
    1,
    1,
    -1,
    1,
    -0.199939302223,
    -0.220373599462,
    -0.021716001139,
    -0.866025403784,
    0.5,
    0,
    0,
    1,
    0,
    0,
    1,
    1,
    0,
]
