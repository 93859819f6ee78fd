"""Metrics against hand-made numbers, scikit-learn and slow references; the bootstrap against simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.errors import BadDataError, UsageError
from trademl.validate import metrics
from trademl.validate.bootstrap import Stat, block_bootstrap, bootstrap_all, draw_days, paired_bootstrap
from trademl.validate.metrics import (
    class_prior,
    daily_returns,
    log_loss_difference,
    longest_losing_run,
    max_drawdown,
    prior_log_loss,
    score,
    sharpe,
    sortino,
    tail_risk,
    trade_stats,
)

DAY = 86_400
T0 = 1_704_067_200

# ---------------------------------------------------------------- classes


@pytest.fixture(scope="module")
def forecasts():
    rng = np.random.default_rng(1)
    p = rng.dirichlet([2, 2, 2], 400)
    return p, (rng.random((400, 1)) > p.cumsum(axis=1)[:, :2]).sum(axis=1), rng.random(400)


@pytest.mark.oracle
def test_class_metrics_agree_with_scikit_learn(forecasts):
    from sklearn import metrics as theirs

    p, y, w = forecasts
    assert metrics.log_loss(p, y, w) == pytest.approx(theirs.log_loss(y, p, sample_weight=w), rel=1e-9)
    assert metrics.accuracy(p, y, w) == pytest.approx(theirs.accuracy_score(y, p.argmax(axis=1), sample_weight=w))
    assert metrics.confusion(y, p.argmax(axis=1)).tolist() == theirs.confusion_matrix(y, p.argmax(axis=1)).tolist()


def test_prior_is_the_entropy_and_needs_every_class_count(forecasts):
    _, y, _ = forecasts
    prior = class_prior(y)
    assert prior_log_loss(prior, y) == pytest.approx(-(prior * np.log(prior)).sum())
    assert class_prior([0, 0, 1], 3).tolist() == [2 / 3, 1 / 3, 0]
    assert prior_log_loss([0.5, 0.5, 0.0], [2]) == pytest.approx(-math.log(1e-7))  # floored, not infinite
    with pytest.raises(BadDataError):
        class_prior([], 3)


@pytest.mark.parametrize(
    ("p", "y", "w", "message"),
    [
        ([[0.5, 0.6]], [0], None, "row 0"),
        ([[1.2, -0.2]], [0], None, "row 0"),
        ([[np.nan, 0.5]], [0], None, "row 0"),
        ([[0.5, 0.5]], [2], None, "classes must be"),
        ([[0.5, 0.5]], [-1], None, "without a label"),
        ([[0.5, 0.5]], [0], [-1.0], "weights"),
        ([[0.5, 0.5]], [0], [0.0], "weights"),
        (np.empty((0, 2)), [], None, "n >= 1"),
        ([[0.5, 0.5]], [0, 1], None, "shape"),
    ],
)
def test_bad_probabilities_are_refused(p, y, w, message):
    with pytest.raises(BadDataError, match=message):
        metrics.log_loss(p, y, w)


# ---------------------------------------------------------------- trades and equity


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 1.875]), max_size=60))
def test_trade_stats_against_a_slow_reference(net):
    stats = trade_stats(net)
    gains, losses = sum(v for v in net if v > 0), -sum(v for v in net if v < 0)
    run = longest = 0
    for v in net:
        run = run + 1 if v < 0 else 0
        longest = max(longest, run)
    assert stats.longest_losing_run == longest == longest_losing_run(net)
    assert stats.n == len(net)
    assert stats.is_without_loss == (losses == 0)
    if not net:
        assert stats.win_rate is stats.profit_factor is stats.expectancy is None
        return
    assert stats.win_rate == sum(v > 0 for v in net) / len(net)
    assert stats.profit_factor == pytest.approx(gains / losses if losses else (10.0 if gains else 1.0))
    assert stats.expectancy == pytest.approx(sum(net) / len(net))


@given(st.lists(st.floats(0.5, 100), min_size=1, max_size=40))
def test_max_drawdown_against_all_pairs(equity):
    slow = max((equity[i] - equity[j]) / equity[i] for i in range(len(equity)) for j in range(i, len(equity)))
    assert max_drawdown(equity) == pytest.approx(slow, abs=1e-12)


def test_daily_returns_literal_days():
    hour = 3600
    time_s = T0 + np.array([0, 12 * hour, DAY - 1, DAY, 3 * DAY, 3 * DAY + hour])  # a day without values is left out
    returns = daily_returns([100, 90, 110, 99, 100, 198], time_s)
    assert returns == pytest.approx([0.10, -0.10, 1.0])
    assert daily_returns([], []).size == 0
    with pytest.raises(BadDataError, match="backwards"):
        daily_returns([1, 2], [DAY, 0])
    with pytest.raises(BadDataError, match="at or below zero"):
        daily_returns([1, -1, 2], [0, DAY, 2 * DAY])


def test_sharpe_and_sortino_by_hand():
    returns = [0.02, -0.01, 0.03, -0.02]
    assert sharpe(returns).value == pytest.approx(0.005 / np.std(returns, ddof=1) * math.sqrt(365))
    assert sortino(returns, 252).value == pytest.approx(0.005 / math.sqrt((0.01**2 + 0.02**2) / 4) * math.sqrt(252))
    assert sharpe(returns, 252).periods_per_year == 252
    assert sharpe([0.01]).reason == "1 daily returns; 2 are needed"
    assert sharpe([0.01, 0.01]).reason == "returns do not vary"
    assert sortino([0.01, 0.02]).reason == "no day lost"


def test_tail_risk_by_hand():
    values = -np.arange(1, 101) / 100
    tail = tail_risk(values, 0.95)
    assert (tail.var, tail.n) == (pytest.approx(0.96), 100)
    assert tail.cvar == pytest.approx(0.98)
    assert tail_risk([]).var is None
    assert tail_risk([0.5]).cvar == -0.5  # a gain is a negative loss
    with pytest.raises(UsageError):
        tail_risk([1], 1.0)


def test_score_keeps_its_inputs():
    made = score(0.4, 1.2, 0.25)
    assert (made.value, made.formula, made.is_floored) == (pytest.approx(0.96), "wr_pf_sqrt_dd", False)
    assert score(0.4, 1.2, 0.0).value == pytest.approx(0.4 * 1.2 / 0.1)
    assert score(0.4, 1.2, 0.0).is_floored
    assert score(None, None, 0.0).value is None


# ---------------------------------------------------------------- bootstrap


@pytest.fixture(scope="module")
def trades():
    rng = np.random.default_rng(2)
    time_s = T0 + rng.integers(0, 90 * DAY, 300)  # in no order
    return np.where(rng.random(300) < 0.4, 1.875, -1.0), time_s


@pytest.mark.parametrize(("stat", "slow"), [(Stat.MEAN, np.mean), (Stat.WIN_RATE, lambda v: (v > 0).mean())])
def test_sums_of_days_equal_expanded_draws(trades, stat, slow):
    fast, long_way = (block_bootstrap(*trades, s, draws=200, seed=3) for s in (stat, slow))
    assert (fast.low, fast.high, fast.point) == pytest.approx((long_way.low, long_way.high, long_way.point))


def test_profit_factor_equals_expanded_draws(trades):
    fast = block_bootstrap(*trades, "profit_factor", draws=200, seed=3)
    slow = block_bootstrap(*trades, lambda v: v[v > 0].sum() / -v[v < 0].sum(), draws=200, seed=3)
    assert (fast.low, fast.high, fast.point) == pytest.approx((slow.low, slow.high, slow.point))
    assert fast.n == 300


def test_seed_order_and_shared_draws(trades):
    values, time_s = trades
    together = bootstrap_all(values, time_s, [Stat.MEAN, Stat.PROFIT_FACTOR], draws=100, seed=3)
    assert together[1] == block_bootstrap(values, time_s, Stat.PROFIT_FACTOR, draws=100, seed=3)
    assert together[0] != block_bootstrap(values, time_s, draws=100, seed=4)
    shuffle = np.random.default_rng(0).permutation(300)
    again = block_bootstrap(values[shuffle], time_s[shuffle], draws=100, seed=3)
    assert (again.low, again.high) == pytest.approx((together[0].low, together[0].high))


def test_stationary_blocks_run_on_and_wrap():
    made = draw_days(T0 + np.arange(100) * DAY, draws=400, seed=1, mean_run=5)
    follows = (np.diff(made.chosen, axis=1) - 1) % 100 == 0
    assert 1 / (1 - follows.mean()) == pytest.approx(5, rel=0.1)  # expected run of consecutive days
    assert made.chosen.shape == (400, 100)
    assert np.bincount(made.chosen.ravel()).std() / 400 < 0.2  # every day is as likely


def test_blocks_are_those_that_arch_draws():
    from arch.bootstrap import StationaryBootstrap

    made = draw_days(T0 + np.arange(40) * DAY, draws=50, seed=3, mean_run=4.5)
    theirs = StationaryBootstrap(4.5, np.arange(40), seed=np.random.default_rng(3))
    assert np.array_equal(made.chosen, [theirs.update_indices() for _ in range(50)])


@pytest.mark.parametrize(
    ("values", "days", "reason"),
    [([], [], "0 values"), ([1.0], [0], "1 value"), ([1.0, 2.0], [0, 0], "1 days; 5"), ([1.0] * 8, [0, 0, 1, 1, 2, 2, 3, 3], "4 days; 5")],
)
@pytest.mark.parametrize("statistic", [Stat.MEAN, Stat.PROFIT_FACTOR, np.mean])
def test_too_little_gives_a_reason_instead_of_an_interval(values, days, reason, statistic):
    made = block_bootstrap(values, T0 + np.array(days, dtype=np.int64) * DAY, statistic, draws=50, seed=1)
    assert made.low is None
    assert made.high is None
    assert reason in made.reason
    assert made.n == len(values)
    assert (made.point is None) == (not values)
    assert not made.is_above_zero
    assert not made.is_below_zero
    assert str(made)


def test_a_record_without_losses_has_the_agreed_profit_factor():
    made = block_bootstrap(np.ones(30), T0 + np.arange(30) * DAY, Stat.PROFIT_FACTOR, draws=50, seed=1)
    assert (made.low, made.point, made.high) == (10.0, 10.0, 10.0)


@pytest.mark.parametrize(("correlation", "least"), [(0.0, 0.90), (0.5, 0.84)])
def test_intervals_cover_the_truth(correlation, least):
    """120 days, three trades a day that share the day's mood, moods correlated from day to day."""
    rng = np.random.default_rng(9)
    time_s = T0 + np.repeat(np.arange(120), 3) * DAY
    covered = day_blind = 0
    for run in range(120):
        noise = rng.normal(size=120)
        mood = noise.copy()
        for d in range(1, 120):
            mood[d] = correlation * mood[d - 1] + math.sqrt(1 - correlation**2) * noise[d]
        values = np.repeat(mood, 3) + rng.normal(0, 0.5, 360)
        made = block_bootstrap(values, time_s, draws=200, seed=run)
        covered += made.low <= 0 <= made.high
        half = 1.96 * values.std(ddof=1) / math.sqrt(360)
        day_blind += abs(values.mean()) <= half
    assert covered / 120 >= least
    assert day_blind < covered - 15  # what treating trades as independent would have cost


def test_paired_difference_sees_what_single_intervals_cannot(trades):
    values, time_s = trades
    values = values - values.mean()
    better = values + np.random.default_rng(5).normal(0.05, 0.1, 300)
    paired = paired_bootstrap((better, time_s), (values, time_s), draws=400, seed=3)
    assert paired.is_above_zero
    assert not block_bootstrap(better, time_s, draws=400, seed=3).is_above_zero
    same = paired_bootstrap((values, time_s), (values, time_s), Stat.PROFIT_FACTOR, draws=50, seed=3)
    assert (same.low, same.point, same.high) == (0.0, 0.0, 0.0)
    swapped = paired_bootstrap((values, time_s), (better, time_s), draws=400, seed=3)
    assert (swapped.low, swapped.high) == pytest.approx((-paired.high, -paired.low))


def test_paired_difference_of_records_of_different_length(trades):
    values, time_s = trades
    some = np.arange(300) % 2 == 0
    made = paired_bootstrap((values[some], time_s[some]), (values, time_s), Stat.WIN_RATE, draws=100, seed=3)
    assert made.n == 150
    assert made.low < made.point < made.high
    assert paired_bootstrap(([], []), (values, time_s), draws=50, seed=3).reason == "0 values"
    with pytest.raises(UsageError, match="mean, win_rate, profit_factor"):
        paired_bootstrap((values, time_s), (values, time_s), np.mean, seed=3)


def test_log_loss_difference_is_weighted_and_signed(forecasts):
    p, y, w = forecasts
    time_s = T0 + np.arange(400) * 6 * 3600
    prior = class_prior(y)
    made = log_loss_difference(p, y, time_s, prior, w, draws=200, seed=1)
    assert made.point == pytest.approx(metrics.log_loss(p, y, w) - prior_log_loss(prior, y, w))
    assert made.is_below_zero  # skill
    assert log_loss_difference(p, y, time_s, p, draws=50, seed=1).point == 0


def test_bad_bootstrap_input():
    with pytest.raises(BadDataError, match="value 1 is nan"):
        block_bootstrap([1.0, np.nan], [T0, T0], seed=1)
    with pytest.raises(BadDataError, match="one shape"):
        block_bootstrap([1.0], [T0, T0], seed=1)
    with pytest.raises(UsageError, match="mean, win_rate, profit_factor"):
        block_bootstrap([1.0], [T0], "median", seed=1)
    with pytest.raises(UsageError, match="weights go with a Stat"):
        block_bootstrap([1.0], [T0], np.mean, seed=1, weights=[1.0])
    with pytest.raises(UsageError, match="level"):
        block_bootstrap([1.0], [T0], seed=1, level=1.5)
