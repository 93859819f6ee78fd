"""The gate refuses noise at the promised rate, opens for a clear edge, and survives everything it may be given."""

import json

import numpy as np
import pandas as pd
import pytest

from trademl.clock import DAY_S
from trademl.errors import BadDataError, UsageError
from trademl.evidence.gate import day_clustered_bound, gate_expectancy

START = 1_704_067_200


def fair_trades(rng, n, days, win_rate=0.8 / 2.3):
    """Bracket trades at 1.875 against 1, centred so that win_rate = 34.8 % has expectancy zero."""
    net = np.where(rng.random(n) < win_rate, 1.875, -1.0)
    return net, START + np.sort(rng.integers(0, days * DAY_S, n))


@pytest.mark.parametrize(("n", "days"), [(30, 10), (60, 60), (400, 80)])
def test_noise_passes_at_most_one_time_in_twenty(n, days):
    rng = np.random.default_rng(n)
    runs = 300
    passed = sum(gate_expectancy(*fair_trades(rng, n, days), draws=400, seed=k).passed for k in range(runs))
    assert passed / runs < 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / runs)


def test_noise_that_hangs_together_by_days_passes_no_more_often():
    rng = np.random.default_rng(5)
    runs, passed = 300, 0
    for k in range(runs):
        common = np.repeat(rng.standard_normal(40), 5)  # the five trades of a day share its weather
        net = 0.8 * common + 0.6 * rng.standard_normal(200)
        passed += gate_expectancy(net, START + np.repeat(np.arange(40), 5) * DAY_S, draws=400, seed=k).passed
    assert passed / runs < 0.09  # drawing single trades would give about 0.22


def test_a_clear_edge_passes_and_says_so():
    net, times = fair_trades(np.random.default_rng(1), 600, 120, win_rate=0.45)
    verdict = gate_expectancy(net, times, seed=3)
    assert verdict.passed
    assert verdict.reasons == ()
    assert "600 trades" in verdict.sentence
    assert verdict.checks["expectancy_lower_bound_r"].value > 0


def test_same_seed_same_verdict_and_any_kind_of_time():
    net, times = fair_trades(np.random.default_rng(2), 200, 50)
    first = gate_expectancy(net, times, seed=9)
    assert first == gate_expectancy(net, times, seed=9)
    index = pd.DatetimeIndex(times.astype("datetime64[s]"), tz="UTC").as_unit("ns")
    for same in (index, pd.Series(index), pd.Series(times), list(times)):
        assert gate_expectancy(net, same, seed=9) == first


@pytest.mark.parametrize("net", [[], [1.0], [1.0] * 29, [-1.0] * 100])
def test_too_few_or_worthless_trades_are_refused_with_a_reason(net):
    times = START + np.arange(len(net)) * 3600 * 7
    verdict = gate_expectancy(net, times, seed=1)
    assert not verdict.passed
    assert verdict.reasons
    text = json.dumps(verdict.to_json(), allow_nan=False)
    assert json.loads(text)["passed"] is False


def test_many_trades_on_one_day_prove_nothing():
    verdict = gate_expectancy([1.0] * 50, [START + 60 * k for k in range(50)], seed=1)
    assert not verdict.passed
    assert "bound" in verdict.reasons[0]


def test_day_clustered_bound_is_the_t_bound_for_one_trade_a_day():
    from scipy.stats import t

    net = np.random.default_rng(3).standard_normal(50)
    bound = day_clustered_bound(net, START + np.arange(50) * DAY_S, 0.05)
    assert bound == pytest.approx(net.mean() - t.ppf(0.95, 49) * net.std(ddof=1) / np.sqrt(50))


def test_refusals():
    with pytest.raises(BadDataError):
        gate_expectancy([1.0, float("nan")], [START, START + DAY_S], seed=1)
    with pytest.raises(UsageError):
        gate_expectancy([1.0], [START], level=0.7, seed=1)
