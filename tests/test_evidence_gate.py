"""The gate refuses noise at the promised rate, opens for a clear edge, and says one thing."""

import json

import numpy as np
import pandas as pd
import pytest

from trademl.clock import DAY_S
from trademl.errors import BadDataError, UsageError
from trademl.evidence.gate import Terms, judge_trades, percent
from trademl.evidence.nulls import null_band
from trademl.validate.clusters import clustered

START = 1_704_067_200
CERTAIN = null_band(1.0, np.zeros(100_000))  # no rotation comes near


def fair_trades(rng, n, days, win_rate=0.8 / 2.3):
    """Bracket trades at 1.875 against 1, centred so that win_rate = 34.8 % has expectancy zero."""
    net = np.where(rng.random(n) < win_rate, 1.875, -1.0)
    return net, START + np.sort(rng.integers(0, days * DAY_S, n))


@pytest.mark.parametrize("level", [0.01, 0.05])
@pytest.mark.parametrize(("n", "days"), [(30, 10), (60, 60), (400, 80)])
def test_noise_passes_at_most_at_its_level_by_the_bound_alone(n, days, level):
    rng, runs = np.random.default_rng(n), 600
    passed = sum(judge_trades(*fair_trades(rng, n, days), CERTAIN, Terms(level=level)).passed for _ in range(runs))
    assert passed / runs < level + 2.6 * np.sqrt(level * (1 - level) / runs)


@pytest.mark.parametrize(("block", "unit", "most"), [(1, "day", 0.08), (5, "week", 0.11)])  # the five days lie askew in their weeks
def test_noise_that_hangs_together_passes_no_more_often(block, unit, most):
    """The trades of a day share its weather, and so may the days of a week."""
    rng, runs, passed, units = np.random.default_rng(5), 400, 0, []
    for _ in range(runs):
        weather = np.repeat(rng.standard_normal(210 // block), 5 * block)
        net = 0.8 * weather + 0.6 * rng.standard_normal(weather.size)
        times = START + np.repeat(np.arange(210), 5)[: weather.size] * DAY_S
        passed += judge_trades(net, times, CERTAIN, Terms(level=0.05)).passed
        units.append(clustered(net, times).unit)
    assert passed / runs < most  # single trades as observations would give 0.22 and 0.37
    assert units.count(unit) > 0.8 * runs if unit == "week" else units.count(unit) > 0.6 * runs


def test_a_clear_edge_passes_and_says_so():
    net, times = fair_trades(np.random.default_rng(1), 600, 120, win_rate=0.5)
    verdict = judge_trades(net, times, CERTAIN)
    assert verdict.passed
    assert verdict.reasons == ()
    assert verdict.sentence.startswith("Gate passed at 1 %. On 600 trades the expectancy is +")
    assert "none of 100,000 random entries reach that" in verdict.sentence
    assert verdict.checks["expectancy_lower_bound_r"].value > 0


@pytest.mark.parametrize(
    ("null", "terms", "said"),
    [
        (null_band(1.0, np.r_[np.zeros(90), np.full(10, 2.0)]), Terms(), "11 % of 100 random entries did as well, at most 1 % may"),
        (null_band(1.0, np.zeros(50)), Terms(), "50 rotations cannot show 1 %: 99 are needed"),
        (CERTAIN, Terms(edge_found=False), "no edge was found on select"),
        (CERTAIN, Terms(objections=("leak alarm: volume knows the next bar",)), "leak alarm: volume knows the next bar"),
        (CERTAIN, Terms(level=0.49), "gate.level = 0.49 is looser than 0.05"),
        (CERTAIN, Terms(min_trades=2), "gate.min_trades = 2 is below 30"),
        (CERTAIN, Terms(min_trades=601), "600 trades, 601 are needed"),
    ],
)
def test_each_part_refuses_alone_and_names_its_figure(null, terms, said):
    net, times = fair_trades(np.random.default_rng(1), 600, 120, win_rate=0.6)
    verdict = judge_trades(net, times, null, terms)
    assert not verdict.passed
    assert len(verdict.reasons) == 1
    assert said in verdict.sentence
    assert verdict.sentence.startswith(f"Gate refused at {percent(terms.level)}: ")
    assert "would have been seen in four of five such windows" in verdict.sentence


def test_the_kth_look_is_judged_at_a_kth():
    net, times = fair_trades(np.random.default_rng(4), 600, 120, win_rate=0.45)
    bounds = [judge_trades(net, times, CERTAIN, Terms(number=k)).checks["expectancy_lower_bound_r"].value for k in (1, 7, 20)]
    assert bounds == sorted(bounds, reverse=True)
    seventh = judge_trades(net, times, CERTAIN, Terms(number=7))
    assert seventh.level == 0.01 / 7
    assert "at 0.14 % (look 7 at these days)" in seventh.sentence


def test_a_thousand_random_evidences_never_contradict_themselves():
    rng = np.random.default_rng(8)
    outcomes = set()
    for _ in range(1_000):
        n = int(rng.choice([0, 1, 20, 60, 400]))
        net, times = fair_trades(rng, n, int(rng.integers(1, 90)), rng.uniform(0.3, 0.7))
        null = null_band(net.mean() if n else np.nan, rng.normal(0, 0.1, int(rng.choice([0, 50, 3_000]))))
        terms = Terms(float(rng.choice([0.01, 0.05, 0.3])), int(rng.choice([2, 30])), int(rng.choice([1, 9])), bool(rng.random() < 0.8))
        verdict = judge_trades(net, times, null, terms)
        outcomes.add(verdict.passed)
        assert verdict.passed == all(check.passed for check in verdict.checks.values()) == (not verdict.reasons)
        assert verdict.sentence.startswith("Gate passed" if verdict.passed else "Gate refused")
        assert all(reason in verdict.sentence for reason in verdict.reasons)
        told = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
        assert (told["passed"], told["reasons"], told["sentence"]) == (verdict.passed, list(verdict.reasons), verdict.sentence)
        if verdict.passed:
            assert verdict.checks["expectancy_lower_bound_r"].value > 0
            assert null.p_value <= verdict.level
    assert outcomes == {True, False}


def test_any_kind_of_time():
    net, times = fair_trades(np.random.default_rng(2), 200, 50)
    first = judge_trades(net, times, CERTAIN)
    index = pd.DatetimeIndex(times.astype("datetime64[s]"), tz="UTC").as_unit("ns")
    for same in (index, pd.Series(index), pd.Series(times), list(times)):
        assert judge_trades(net, same, CERTAIN) == first


@pytest.mark.parametrize("net", [[], [1.0], [1.0] * 29, [-1.0] * 100])
def test_too_few_or_worthless_trades_are_refused_with_a_reason(net):
    times = START + np.arange(len(net)) * 3600 * 7
    null = CERTAIN if net else null_band(np.nan, np.zeros(10))
    verdict = judge_trades(net, times, null)
    assert not verdict.passed
    assert verdict.reasons
    assert json.loads(json.dumps(verdict.to_json(), allow_nan=False))["passed"] is False
    assert "no trade was made" in verdict.sentence if not net else f"{len(net)} trade" in verdict.sentence


def test_many_trades_on_one_day_prove_nothing():
    verdict = judge_trades([1.0] * 50, [START + 60 * k for k in range(50)], CERTAIN)
    assert verdict.reasons == ("all trades lie on one day: there is no lower bound",)
    assert verdict.detectable_r is None


def test_the_error_is_the_t_error_for_one_trade_a_day():
    from scipy.stats import t

    net = np.random.default_rng(3).standard_normal(50)
    worth = clustered(net, START + np.arange(50) * DAY_S)
    error = net.std(ddof=1) / np.sqrt(50)
    assert worth.bound(0.05) == pytest.approx(net.mean() - t.ppf(0.95, 49) * error)
    assert worth.detectable(0.05) == pytest.approx((t.ppf(0.95, 49) + t.ppf(0.8, 49)) * error)


def test_an_edge_of_the_detectable_size_is_seen_in_four_of_five():
    rng = np.random.default_rng(6)
    sizes, seen = [], 0
    for _ in range(400):
        net, times = rng.standard_normal(300), START + np.repeat(np.arange(100), 3) * DAY_S
        sizes.append(clustered(net, times).detectable(0.01))
        seen += judge_trades(net + np.mean(sizes), times, CERTAIN).passed
    assert 0.72 < seen / 400 < 0.88


def test_refusals():
    with pytest.raises(BadDataError):
        judge_trades([1.0, float("nan")], [START, START + DAY_S], CERTAIN)
    with pytest.raises(BadDataError):
        judge_trades([1.0], [START, START + DAY_S], CERTAIN)
    for wrong in ({"level": 0.7}, {"min_trades": 1}, {"number": 0}):
        with pytest.raises(UsageError):
            Terms(**wrong)
