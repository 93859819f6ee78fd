"""Risk replay: the kernels against the slow reference, hand-made cases, and what market-spec 7 demands."""

from dataclasses import replace

import numpy as np
import pytest
import risk_reference as slow
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.errors import BadDataError, UsageError
from trademl.risk.growth import CANDIDATES, GrowthSpec, best_constant, growth_scores, log_growth, pick_candidate
from trademl.risk.profiles import PROFILES
from trademl.risk.replay import BALANCES, Objective, replay
from trademl.risk.state import STATE_FEATURES
from trademl.risk.trades import LotSpec, sequence_of

P1, P5 = PROFILES[0], PROFILES[4]
QUICK = GrowthSpec(draws=40)


def coin(win_rate, n, seed=0, cost=0.0, **columns):
    rng = np.random.default_rng(seed)
    return sequence_of(np.where(rng.random(n) < win_rate, 1.875, -1.0) - cost, **columns)


def rough(n, seed):
    """Results, stops and volatility that vary, so that lot rounding and skipping matter."""
    rng = np.random.default_rng(seed)
    return sequence_of(rng.normal(0.05, 1.4, n), risk_distance=rng.uniform(80, 900, n), atr_norm=rng.uniform(0.001, 0.01, n))


def test_the_grids():
    assert pytest.approx(np.linspace(0.15, 1.20, 9)) == CANDIDATES
    assert BALANCES == (500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000)


# --- against the reference


@pytest.mark.parametrize("profile", [P1, PROFILES[3], P5], ids=lambda p: f"p{p.number}")
def test_states_and_original_scores_are_the_reference(profile):
    trades, lots, balances = rough(110, 4), LotSpec(min_lot=0.03), (500.0, 2000.0)
    done = replay(trades, profile, objective="wr_pf_sqrt_dd", balances=balances, lots=lots)
    reference = {b: slow.walk(trades, profile, b, lots) for b in balances}
    assert done.counters["skipped_below_min_lot"] == sum(r[3] for r in reference.values())
    assert done.counters["skipped_below_min_lot"] > 0
    assert done.counters["halts"] == sum(r[4] for r in reference.values())
    for row in range(len(done.labels)):
        t, b = done.trade_index[row], done.balance[row]
        states, equities, peaks, *_ = reference[b]
        assert done.states[row] == pytest.approx(states[t], rel=1e-12, abs=1e-12)
        if row % 7 == 0:
            expected = [slow.original_score(trades, profile, t, equities[t], peaks[t], m, lots) for m in CANDIDATES]
            assert done.scores[row] == pytest.approx(expected, rel=1e-9, nan_ok=True)
    best = np.where(np.isnan(done.scores), -np.inf, done.scores).argmax(axis=1)
    assert (done.labels == np.array(CANDIDATES)[best]).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**40), draw=st.integers(0, 10**6), ceiling=st.sampled_from([0.1, 0.2, 0.65]), down=st.floats(0, 0.09))
def test_growth_scores_are_the_reference(seed, draw, ceiling, down):
    net_r = np.random.default_rng(draw).normal(0.1, 1.4, 62)
    spec = GrowthSpec(draws=7)
    growth, breach = growth_scores(net_r, 0.02, ceiling, np.full((3, 1), down), spec=spec, seed=seed)
    for row, t in enumerate((40, 41, 42)):
        expected = slow.growth_scores(net_r, 0.02, ceiling, t, down, CANDIDATES, spec, seed)
        assert growth[row] == pytest.approx(expected[0], rel=1e-9, abs=1e-12)
        assert breach[row, 0] == pytest.approx(expected[1], abs=1e-9)


def test_one_simulation_serves_all_balances():
    net_r = coin(0.42, 80, 3).net_r
    down = np.array([[0.0, 0.05, 0.15]] * 21)
    growth, breach = growth_scores(net_r, 0.02, 0.2, down, spec=QUICK, seed=5)
    for account in range(3):
        alone = growth_scores(net_r, 0.02, 0.2, down[:, [account]], spec=QUICK, seed=5)
        assert (alone[0] == growth).all()
        assert (alone[1][:, 0] == breach[:, account]).all()
    assert (np.diff(breach, axis=1) >= 0).all()  # deeper is never safer


def test_a_state_does_not_depend_on_how_many_others_there_are():
    trades = coin(0.42, 120, 3)
    whole, head = (replay(t, P1, balances=(5000.0,), spec=QUICK, seed=2) for t in (trades, trades.part(0, 90)))
    assert (whole.labels[: len(head.labels)] == head.labels).all()
    assert (whole.states[: len(head.labels)] == head.states).all()


def test_same_seed_same_labels():
    trades = coin(0.40, 150, 1)
    one, two, other = (replay(trades, P1, spec=QUICK, seed=s) for s in (1, 1, 2))
    assert (one.scores.tobytes(), one.states.tobytes()) == (two.scores.tobytes(), two.states.tobytes())
    assert one.scores.tobytes() != other.scores.tobytes()


def test_a_feature_never_sees_its_own_trade():
    trades = rough(120, 8)
    changed = np.array(trades.net_r)
    changed[70:] = 3.0
    altered = replace(trades, net_r=changed)
    a, b = (replay(t, P5, spec=QUICK) for t in (trades, altered))
    early = [r.states[r.trade_index <= 70] for r in (a, b)]
    assert len(early[0]) > 100
    assert (early[0] == early[1]).all()


# --- shape of the result


def test_rows_are_ordered_by_trade_then_balance():
    done = replay(coin(0.45, 90), P1, balances=(1000.0, 5000.0), spec=QUICK)
    assert done.states.shape == (31 * 2, 7)
    assert done.scores.shape == (31 * 2, 9)
    assert done.trade_index.tolist() == np.repeat(np.arange(40, 71), 2).tolist()
    assert done.balance.tolist() == [1000.0, 5000.0] * 31
    assert done.features == STATE_FEATURES
    assert done.histogram.sum() == pytest.approx(1)


def test_entropy_and_edge_share():
    done = replay(coin(0.45, 90), P1, spec=QUICK)
    half = replace(done, labels=np.repeat([CANDIDATES[0], CANDIDATES[4]], 10))
    assert half.entropy == pytest.approx(1.0)
    assert half.edge_share == 0.5
    constant = replace(done, labels=np.full(10, CANDIDATES[8]))
    assert (constant.entropy, constant.edge_share) == (0.0, 1.0)


# --- cases by hand


def test_sure_winners_take_the_most():
    done = replay(sequence_of(np.full(80, 1.0)), P1, balances=(5000.0,), spec=QUICK)
    assert (done.labels == CANDIDATES[-1]).all()
    assert done.scores[0] == pytest.approx(100 * np.log1p(0.0075 * np.array(CANDIDATES)))


def test_sure_losers_take_the_least():
    done = replay(sequence_of(np.full(80, -1.0)), P5, balances=(5000.0,), spec=QUICK)
    assert (done.labels == CANDIDATES[0]).all()
    assert done.counters["states_no_candidate"] > 0
    assert done.counters["halts"] >= 1


def test_the_peak_resets_after_a_halt():
    # at 3 % a trade, 35 losses pass the 65 % ceiling once: 0.97 ** 35 = 0.344
    done = replay(sequence_of(np.full(80, -1.0)), P5, balances=(1e5,), spec=QUICK)
    down = dict(zip(done.trade_index, done.states[:, 1]))
    assert down[40] == pytest.approx(1 - 0.97**5, abs=1e-3)
    assert done.states[:, 1].max() < 0.65


def test_original_objective_without_a_loss_prefers_the_least_on_a_tie():
    done = replay(sequence_of(np.full(80, 1.0)), P1, objective="wr_pf_sqrt_dd", balances=(1e7,), lots=LotSpec(max_lot=1e9))
    assert done.scores == pytest.approx(10 / np.sqrt(0.01))
    assert (done.labels == CANDIDATES[0]).all()


def test_the_original_objective_is_degenerate():
    for win_rate in (0.36, 0.50):
        for profile in (P1, P5):
            done = replay(coin(win_rate, 800, 2), profile, objective=Objective.WR_PF_SQRT_DD)
            assert done.histogram[0] >= 0.59
            assert done.histogram[-1] <= 0.03


def test_a_gap_that_takes_everything_is_ruin_not_an_error():
    assert log_growth(-40.0, 0.036) == np.log(1e-9)
    trades = sequence_of(np.r_[np.full(50, 1.0), -60.0, np.full(40, 1.0)])
    done = replay(trades, P5, balances=(5000.0,), spec=QUICK)
    assert done.counters["accounts_ruined"] == 1
    assert done.trade_index.max() == 50  # no states after the account is gone
    assert np.isfinite(done.states).all()
    assert (done.labels == CANDIDATES[0]).all()  # with the gap ahead no size survives


def test_pick_candidate():
    nan = np.nan
    assert pick_candidate(np.array([[nan, 2, 2, 1], [nan] * 4, [nan, -3, nan, -2]])).tolist() == [1, 0, 3]


# --- what cannot be


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"balances": (0.0,)}, r"balances: 0.0 must be"),
        ({"balances": (500.0, -1.0)}, r"balances: -1.0"),
        ({"balances": (np.nan,)}, r"balances: nan"),
        ({"balances": ()}, r"at least one"),
        ({"candidates": (0.5, 0.2)}, r"increasing"),
        ({"candidates": (0.0, 0.5)}, r"> 0"),
        ({"candidates": ()}, r"candidates"),
        ({"objective": "sharpe"}, r"constrained_growth, wr_pf_sqrt_dd"),
    ],
)
def test_settings_that_are_refused(options, names):
    with pytest.raises(UsageError, match=names):
        replay(coin(0.4, 100), P1, **options)


@pytest.mark.parametrize("n", [0, 1, 59])
def test_too_few_trades(n):
    with pytest.raises(BadDataError, match=rf"{n} trades; .*60 in all"):
        replay(coin(0.4, n), P1)


def test_sixty_trades_have_one_state():
    assert replay(coin(0.4, 60), P1, balances=(5000.0,)).trade_index.tolist() == [40]


@pytest.mark.parametrize("objective", list(Objective))
def test_a_lot_step_larger_than_affordable_leaves_no_state(objective):
    done = replay(coin(0.4, 100), P1, objective=objective, balances=(500.0, 1000.0), lots=LotSpec(lot_step=1.0, min_lot=1.0))
    assert len(done.labels) == 0
    assert done.counters == {
        "skipped_below_min_lot": 200,
        "halts": 0,
        "accounts_ruined": 0,
        "states_unaffordable": 82,
        "states_no_candidate": 0,
    }
    assert done.histogram.tolist() == [0] * 9
    assert (done.entropy, done.edge_share) == (0, 0)


def test_risk_below_the_minimum_lot_is_skipped_not_rounded_up():
    # $500 at 0.75 % is 3.75; a stop of 390 costs 3.90 at the minimum lot: only candidates from 1.06875 up can trade
    trades = coin(0.5, 100, risk_distance=390.0)
    done = replay(trades, P1, objective="wr_pf_sqrt_dd", balances=(500.0,))
    assert done.counters["skipped_below_min_lot"] == 100
    assert np.isnan(done.scores[:, :7]).all()
    assert np.isfinite(done.scores[:, 7:]).all()
    assert (done.labels >= CANDIDATES[7]).all()
    assert (done.states[:, 2] == 0.5).all()  # a trade that was never opened is not part of the history


@pytest.mark.parametrize(
    "wrong",
    [{"draws": 0}, {"block": 7}, {"block": 100, "trades": 100}, {"max_breach": 1.0}, {"recent": -1}, {"ahead": 1.5}],
)
def test_impossible_bootstrap(wrong):
    with pytest.raises(UsageError, match="growth bootstrap"):
        GrowthSpec(**wrong)


def test_growth_scores_refuse_a_wrong_frame():
    with pytest.raises(UsageError, match=r"61 trades need \(2, accounts\)"):
        growth_scores(np.ones(61), 0.02, 0.2, np.zeros((1, 1)))
    with pytest.raises(UsageError, match=r"fraction in \[0, 1\)"):
        growth_scores(np.ones(60), 0.02, 0.2, np.ones((1, 1)))


# --- what market-spec 7 demands


def exact(win_rate, n, seed, cost):
    """Shuffled +1.875 / -1 with exactly this share of wins, so that the luck of one sequence stays out."""
    net_r = np.full(n, -1.0)
    net_r[: round(win_rate * n)] = 1.875
    np.random.default_rng(seed).shuffle(net_r)
    return sequence_of(net_r - cost)


# Mean multiplier at 2 % base risk. Net of 0.04 R the six figures of market-spec 7 come out within 0.07; on gross results two of
# them do not (0.33 against 0.22, 0.91 against 0.82): the specification does not say which, nor how long its sequences were.
MEANS = [
    # win rate, profile whose ceiling it is, market-spec 7, ours gross
    (0.36, 1, 0.22, 0.33),
    (0.40, 1, 0.43, 0.47),
    (0.50, 1, 0.88, 0.88),
    (0.36, 5, 0.64, 0.67),
    (0.40, 5, 0.82, 0.91),
    (0.50, 5, 1.14, 1.18),
]


@pytest.mark.parametrize(("win_rate", "number", "spec_mean", "gross_mean"), MEANS)
def test_mean_multipliers_of_the_spec(win_rate, number, spec_mean, gross_mean):
    profile = replace(PROFILES[number - 1], base_risk_pct=2.0)
    options = {"balances": (50_000.0,), "spec": GrowthSpec(draws=200), "seed": 1}
    net, gross = (replay(exact(win_rate, 3000, 1, cost), profile, **options).labels.mean() for cost in (0.04, 0.0))
    assert net == pytest.approx(spec_mean, abs=0.08)
    assert gross == pytest.approx(gross_mean, abs=0.05)


def test_at_equal_base_risk_profile_1_is_the_conservative_one():
    trades = coin(0.42, 500, 4)
    one, five = (replay(trades, replace(p, base_risk_pct=2.0), balances=(5000.0,), seed=1) for p in (P1, P5))
    assert (one.labels <= five.labels).mean() >= 0.98
    assert one.labels.mean() < five.labels.mean() - 0.2


@pytest.mark.parametrize("win_rate", [0.34, 0.38, 0.45, 0.55])
def test_effective_risk_of_profile_1_is_at_most_profile_5s(win_rate):
    trades = coin(win_rate, 900, 5)
    one, five = (replay(trades, p, balances=(1000.0, 5000.0), seed=3) for p in (P1, P5))
    cautious, bold = P1.base_risk_pct * one.labels, P5.base_risk_pct * five.labels
    by_state = dict(zip(zip(five.trade_index, five.balance), bold))
    pairs = [(a, by_state[t, b]) for t, b, a in zip(one.trade_index, one.balance, cautious) if (t, b) in by_state]
    assert len(pairs) > 800
    assert np.mean([a <= b for a, b in pairs]) >= 0.98
    assert cautious.mean() <= bold.mean()


def test_profile_5_reaches_the_top_in_strong_runs():
    done = replay(coin(0.50, 600, 6), P5, balances=(5000.0,), seed=1)
    strong = done.states[:, STATE_FEATURES.index("rolling_wr_20")] >= 0.55
    assert strong.sum() > 20
    assert (done.labels[strong] == 1.20).mean() > 0.9


def test_best_constant_follows_edge_and_ceiling():
    weak, strong = coin(0.36, 1500, 7).net_r, coin(0.50, 1500, 7).net_r
    picked = {(name, c): best_constant(r, 0.02, c)[0] for name, r in (("weak", weak), ("strong", strong)) for c in (0.2, 0.65)}
    assert picked["weak", 0.2] < picked["strong", 0.2] < picked["strong", 0.65] == CANDIDATES[-1]
