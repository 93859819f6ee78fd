"""The window functions against loops that anybody can read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trademl.market import indicators as ind

VALUES = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))
SERIES = st.integers(0, 130).flatmap(lambda n: arrays(np.float64, n, elements=VALUES))
WINDOWS = st.integers(1, 70)


def slow(x, window, reduce):
    """`reduce` of every full window, NaN before."""
    return np.array([reduce(x[t - window + 1 : t + 1]) if t + 1 >= window else np.nan for t in range(len(x))])


@settings(max_examples=80, deadline=None)
@given(x=SERIES, window=WINDOWS)
def test_windows_agree_with_loops(x, window):
    scale = 1e-9 * (1 + np.abs(x).max(initial=0))
    np.testing.assert_allclose(ind.rolling_sum(x, window), slow(x, window, np.sum), atol=window * scale)
    np.testing.assert_allclose(ind.rolling_mean(x, window), slow(x, window, np.mean), atol=scale)
    np.testing.assert_allclose(ind.rolling_std(x, window), slow(x, window, np.std), atol=1e3 * scale)
    np.testing.assert_array_equal(ind.rolling_max(x, window), slow(x, window, np.max))
    np.testing.assert_array_equal(ind.rolling_min(x, window), slow(x, window, np.min))
    np.testing.assert_array_equal(ind.rolling_rank(x, window), slow(x, window, lambda w: np.mean(w <= w[-1])))


@settings(max_examples=60, deadline=None)
@given(x=SERIES, window=WINDOWS, start=st.integers(0, 60), decay=st.sampled_from([1.0, 0.9, 0.5]))
def test_equal_windows_give_equal_bits_wherever_they_stand(x, window, start, decay):
    start = min(start, len(x))
    late = slice(start + window - 1, None)
    for function in (ind.rolling_sum, lambda a, n: ind.rolling_mean(a, n, decay), ind.rolling_std, ind.rolling_rank):
        np.testing.assert_array_equal(function(x[start:], window)[window - 1 :], function(x, window)[late])


@settings(max_examples=60, deadline=None)
@given(x=SERIES, window=WINDOWS, decay=st.sampled_from([1.0, 0.9, 0.5]))
def test_the_newest_window_alone_has_the_bits_of_the_rolled_one(x, window, decay):
    if len(x) < window:
        return
    assert ind.fold_newest(x, window, ind.mean_of(decay)) == ind.rolling_mean(x, window, decay)[-1]
    assert ind.rank_newest(x, window) == ind.rolling_rank(x, window)[-1]
    assert np.isnan(ind.rank_newest(np.append(x[1:], np.nan), window))


def test_newest_means_of_long_windows_and_the_newest_atr_have_the_rolled_bits():
    close = 60_000 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.002, 2_100)))
    high, low = close * 1.001, close * 0.999
    for end in range(1_900, 2_100, 13):
        for span in (9, 20, 50, 200):
            assert ind.ema_newest(close[:end], span) == ind.ema(close[:end], span)[-1]
        for window in (14, 96, 1_843):
            assert ind.mean_newest(close[:end], window) == ind.rolling_mean(close[:end], window)[-1]
        bars = (high[:end], low[:end], close[:end])
        assert ind.atr_newest(*bars) == ind.atr_sma(*bars)[-1]


@settings(max_examples=40, deadline=None)
@given(x=st.floats(1e-3, 1e6), window=WINDOWS, span=st.integers(2, 60))
def test_a_constant_is_its_own_mean_exactly(x, window, span):
    still = np.full(max(window, ind.ema_bars(span)) + 3, x)
    assert ind.rolling_mean(still, window)[-1] == x
    assert ind.ema(still, span)[-1] == x
    assert ind.rolling_std(still, window)[-1] == 0


def test_weights_of_an_ema():
    impulse = np.zeros(900)
    impulse[500] = 1.0
    got = ind.ema(impulse, 20)[500:600]
    np.testing.assert_allclose(got, 2 / 21 * (1 - 2 / 21) ** np.arange(100), rtol=1e-7)
    for span in (9, 12, 20, 26, 50, 200):
        decay = 1 - 2 / (span + 1)
        assert decay ** ind.ema_bars(span) <= ind.EMA_TAIL < decay ** (ind.ema_bars(span) - 1)


def test_holes_reach_their_own_windows_and_no_further():
    x = np.arange(40.0)
    x[:5] = np.nan
    for function in (ind.rolling_sum, ind.rolling_mean, ind.rolling_std, ind.rolling_max, ind.rolling_rank):
        got = function(x, 4)
        assert np.isnan(got[:8]).all()
        assert np.isfinite(got[8:]).all()


def test_ranks_across_blocks(monkeypatch):
    x = np.random.default_rng(0).integers(0, 50, 1_000).astype(float)
    whole = ind.rolling_rank(x, 300)
    monkeypatch.setattr(ind, "RANK_BLOCK", 97)
    np.testing.assert_array_equal(ind.rolling_rank(x, 300), whole)


def test_ranks_of_more_values_than_sixteen_bits_hold():
    x = np.random.default_rng(0).permutation(70_000).astype(float)
    got = ind.rolling_rank(x, 69_990)
    want = [np.mean(x[t - 69_989 : t + 1] <= x[t]) for t in range(69_989, 70_000)]
    np.testing.assert_array_equal(got[69_989:], want)


@pytest.mark.parametrize("far", [0.0, 1e6])
def test_a_price_far_from_zero_costs_no_digits(far):
    x = far + np.random.default_rng(1).normal(0, 1e-3, 500)
    np.testing.assert_allclose(ind.rolling_std(x, 20)[19:], slow(x, 20, np.std)[19:], rtol=1e-6)


def test_so_far_today_restarts_with_the_day_and_minds_gaps():
    rng = np.random.default_rng(2)
    time = np.sort(rng.choice(5 * 96, 300, replace=False)) * 900 + 1_712_880_000
    x = rng.normal(size=300)
    for accumulate, reduce in ((np.maximum, np.max), (np.minimum, np.min)):
        want = [reduce(x[(time // 86_400 == time[t] // 86_400) & (time <= time[t])]) for t in range(300)]
        np.testing.assert_array_equal(ind.so_far_today(time, x, accumulate), want)
    assert ind.so_far_today(np.empty(0, np.int64), np.empty(0), np.maximum).shape == (0,)


def test_windows_that_share_blocks_are_those_that_do_not():
    x = np.random.default_rng(4).lognormal(4, 1, 300)
    rolled = ((ind.rolling_sum, {}), (ind.rolling_mean, {}), (ind.rolling_mean, {"decay": 0.9}), (ind.rolling_std, {"ddof": 1}))
    for function, options in rolled:
        shared = []
        for window in (20, 96, 7, 128, 96):
            np.testing.assert_array_equal(function(x, window, **options, blocks=shared), function(x, window, **options))
        assert len(shared) == 7  # of 2, 4 … 128 values
