"""Risk heads: what is published and what never, on sequences of which we know what is in them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from trademl.errors import BadDataError, UsageError
from trademl.risk.growth import GrowthSpec
from trademl.risk.multiplier import Head, HeadSpec, RiskModel, TrainingSpec, fit_head, time_folds, train_heads, validation_error
from trademl.risk.profiles import PROFILES
from trademl.risk.replay import Objective, replay
from trademl.risk.state import STATE_FEATURES, equity_state, head_input
from trademl.risk.trades import sequence_of
from trademl.risk.verdict import (
    FAMILY_LEVEL,
    Verdict,
    assert_later,
    breach_rate,
    drawdown_rule,
    judge_head,
    lower_bound,
    simulate_policy,
    split_trades,
)

P1, P3, P5 = PROFILES[0], PROFILES[2], PROFILES[4]
QUICK = TrainingSpec(balances=(500.0, 5000.0), growth=GrowthSpec(draws=60), validate=False)
STATE = np.array([1.1, 0.05, 0.6, 0.5, 1.4, 0.0, 0.004])


def coin(win_rate, n, seed=0):
    return sequence_of(np.where(np.random.default_rng(seed).random(n) < win_rate, 1.875, -1.0))


def spells(good, bad, length, n, seed, calm=None):
    """Win rates that come in spells; with `calm`, volatility tells them apart."""
    rng = np.random.default_rng(seed)
    state = np.cumsum(rng.random(n) < 1 / length) % 2
    net_r = np.where(rng.random(n) < np.where(state, good, bad), 1.875, -1.0)
    return sequence_of(net_r, atr_norm=None if calm is None else np.where(state, calm, 3 * calm) * np.exp(rng.normal(0, 0.2, n)))


@pytest.fixture(scope="module")
def nothing():
    """Heads trained on a coin."""
    return train_heads(coin(0.42, 700, 3), PROFILES, spec=replace(QUICK, validate=True, seed=1))


@pytest.fixture(scope="module")
def something():
    """Heads trained on strong spells."""
    return train_heads(spells(0.65, 0.15, 150, 3000, 0), (P1, P5), spec=replace(QUICK, seed=1))


# --- published or not


def test_nothing_is_published_on_a_coin(nothing):
    assert nothing.published == ()
    for number in range(1, 6):
        assert (nothing.multiplier(number, np.tile(STATE, (3, 1))) == 1.0).all()
        assert nothing.heads[number].verdict.reasons
        assert nothing.heads[number].verdict.sentence.startswith("multiplier 1.0: ")


@pytest.mark.parametrize(("win_rate", "seed"), [(0.36, 10), (0.40, 11), (0.45, 12), (0.50, 13)])
def test_nothing_is_published_on_other_coins(win_rate, seed):
    assert train_heads(coin(win_rate, 600, seed), PROFILES, spec=replace(QUICK, seed=seed)).published == ()


@pytest.mark.slow
@pytest.mark.parametrize("win_rate", [0.36, 0.42, 0.50])
def test_on_iid_trades_at_most_two_revisions_in_a_hundred_publish_anything(win_rate):
    published = [train_heads(coin(win_rate, 1000, 5000 + s), PROFILES, spec=replace(QUICK, seed=s)).published for s in range(100)]
    assert sum(map(bool, published)) <= 2


def test_strong_spells_are_published(something):
    assert something.published == (1, 5)
    good, bad = (np.array([1.0, 0.05, w, w, f, losses, 0.004]) for w, f, losses in ((0.7, 4.0, 0), (0.1, 0.2, 6)))
    for number in (1, 5):
        assert something.multiplier(number, good)[0] > something.multiplier(number, bad)[0] + 0.3


@pytest.mark.slow
def test_power_grows_with_what_there_is_to_know():
    def share(good, bad, calm):
        return np.mean(
            [bool(train_heads(spells(good, bad, 150, 3000, s, calm), (P3,), spec=replace(QUICK, seed=s)).published) for s in range(8)]
        )

    strong, visible, weak = share(0.65, 0.15, None), share(0.55, 0.30, 0.002), share(0.44, 0.40, None)
    assert strong >= 0.75
    assert visible >= 0.3
    assert weak <= 0.13


@pytest.mark.parametrize("seed", range(3))
def test_error_below_constant_one_is_no_evidence(seed):
    trades = coin(0.34, 1500, seed)
    errors = validation_error(replay(trades, P1, balances=(5000.0,), spec=GrowthSpec(draws=60)), trades)
    assert errors["val_mae"] < errors["val_mae_one"]  # on a coin, where there is nothing to know


def test_a_published_head_is_held_to_the_clamp(something):
    class Wild:
        def predict(self, states, **_):
            return np.linspace(-5, 5, len(states))

    wild = replace(something.heads[1], booster=Wild())
    answers = RiskModel({1: wild}, something.objective, {}).multiplier(1, np.tile(STATE, (5, 1)))
    assert answers.tolist() == [0.10, 0.10, 0.10, 1.25, 1.25]


# --- what a head has seen


@pytest.mark.leakage
def test_a_head_does_not_see_the_trades_that_judge_it():
    trades = coin(0.42, 600, 2)
    changed = np.array(trades.net_r)
    changed[360:] = -changed[360:]
    one, two = (train_heads(t, (P1,), spec=QUICK).heads[1] for t in (trades, replace(trades, net_r=changed)))
    assert one.booster.model_to_string() == two.booster.model_to_string()
    assert one.best_constant == two.best_constant
    assert one.verdict.figures["gain_per_trade"] != two.verdict.figures["gain_per_trade"]


@pytest.mark.leakage
def test_judging_trades_must_come_after():
    trades = coin(0.42, 400, 2)
    with pytest.raises(BadDataError, match="judged on later trades only"):
        train_heads(trades.part(0, 300), (P1,), later=trades.part(299, 400), spec=QUICK)
    assert_later(trades.part(0, 300), trades.part(300, 400))
    assert train_heads(trades.part(0, 300), (P1,), later=trades.part(300, 400), spec=QUICK).heads[1].verdict.figures["trades"] == 100


@pytest.mark.leakage
def test_folds_keep_a_trade_together_and_purge_what_it_shares():
    at = np.arange(40, 581)
    seen = []
    for fit, test in time_folds(at, coin(0.4, 600)):
        assert np.abs(fit[:, None] - test[None, :]).min() >= 60  # 40 before and 20 after: nothing in common
        assert len(fit) >= len(at) - len(test) - 2 * 60
        seen += test.tolist()
    assert sorted(seen) == at.tolist()


def test_no_error_where_folds_would_be_too_small():
    trades = coin(0.4, 300)
    assert validation_error(replay(trades, P1, balances=(5000.0,), spec=GrowthSpec(draws=20)), trades)["val_mae"] is None


def test_split():
    earlier, later = split_trades(coin(0.4, 100), 0.3)
    assert (len(earlier), len(later)) == (70, 30)
    for share in (0, 1, -1, 2):
        with pytest.raises(UsageError, match="judge_share"):
            split_trades(coin(0.4, 100), share)


# --- same again


def test_same_bytes_again_and_in_other_company():
    trades = coin(0.42, 500, 4)
    five = train_heads(trades, PROFILES, spec=replace(QUICK, seed=9))
    one = train_heads(trades, (P3,), spec=replace(QUICK, seed=9, family_level=FAMILY_LEVEL / 5))
    assert five.heads[3].booster.model_to_string() == one.heads[3].booster.model_to_string()
    assert five.heads[3].verdict == one.heads[3].verdict
    assert five.metadata("t") == train_heads(trades, PROFILES, spec=replace(QUICK, seed=9)).metadata("t")


# --- files and keys


@pytest.mark.contract
def test_metadata_keys(nothing):
    metadata = nothing.metadata("2026-01-01T00:00:00Z")
    assert metadata["trained_at"] == "2026-01-01T00:00:00Z"
    assert set(metadata["val_mae"]) == {"1", "2", "3", "4", "5"}
    assert all(isinstance(v, float) for v in metadata["val_mae"].values())
    assert metadata["features"] == list(STATE_FEATURES)
    assert metadata["objective"] == "constrained_growth"
    assert metadata["published"] == []
    assert json.loads(json.dumps(metadata, allow_nan=False)) == metadata
    first = metadata["profiles"]["1"]
    assert first["multiplier"] == 1.0
    assert set(first["labels"]) == {"constrained_growth", "wr_pf_sqrt_dd"}
    assert sum(first["labels"]["wr_pf_sqrt_dd"]["histogram"]) == pytest.approx(1)
    assert {"best_constant", "own_average"} == set(first["figures"]["lower_bound"])
    assert set(first["figures"]["growth_per_trade"]) == {"head", "best_constant", "own_average", "one", "drawdown_rule"}


def test_boosters_and_text(nothing):
    assert sorted(nothing.boosters) == [1, 2, 3, 4, 5]
    assert nothing.boosters[2].feature_name() == list(STATE_FEATURES)
    assert "[num_threads: 1]" in nothing.boosters[2].model_to_string()


# --- what cannot be


def test_unknown_profile(nothing):
    with pytest.raises(UsageError, match="profile 9 has no head"):
        nothing.multiplier(9, STATE)


@pytest.mark.parametrize("number", [1, P1], ids=["number", "profile"])
def test_profile_or_number(nothing, number):
    assert nothing.multiplier(number, STATE).tolist() == [1.0]


@pytest.mark.parametrize("states", [np.ones((2, 6)), np.ones((1, 2, 7)), np.full(7, np.nan)])
def test_states_that_are_refused_published_or_not(nothing, something, states):
    for model in (nothing, something):
        with pytest.raises(UsageError, match="risk state"):
            model.multiplier(1, states)


def test_input_is_float32_valued():
    assert (head_input(STATE) == STATE.astype(np.float32)).all()
    assert head_input(STATE).dtype == np.float64


@pytest.mark.parametrize("n", [0, 10, 200])
def test_too_few_trades_to_train(n):
    model = train_heads(coin(0.4, n), (P1,), spec=QUICK)
    assert model.boosters == {}
    assert model.multiplier(1, STATE).tolist() == [1.0]
    assert "training trades are too few" in model.heads[1].verdict.sentence
    json.dumps(model.metadata(), allow_nan=False)


def test_too_few_trades_to_judge():
    model = train_heads(coin(0.4, 300), (P1,), judge_share=0.1, spec=QUICK)
    assert list(model.boosters) == [1]
    assert model.published == ()
    assert "30 later trades are too few to judge" in model.heads[1].verdict.sentence


def test_accounts_too_small_for_the_minimum_lot():
    model = train_heads(coin(0.4, 500), (P1,), spec=replace(QUICK, balances=(20.0,)))
    assert model.boosters == {}
    assert "below the minimum lot" in model.heads[1].verdict.sentence


def test_constant_labels_still_make_a_head():
    model = train_heads(sequence_of(np.full(500, 1.0)), (P5,), spec=QUICK)
    assert model.heads[5].raw_multiplier(STATE) == pytest.approx([1.2])
    assert model.published == ()  # no better than the constant 1.20


def test_original_objective_can_be_asked_for():
    model = train_heads(coin(0.4, 400), (P1,), spec=replace(QUICK, objective=Objective.WR_PF_SQRT_DD))
    assert model.heads[1].raw_multiplier(STATE)[0] < 0.4
    assert model.metadata()["objective"] == "wr_pf_sqrt_dd"


def test_leaves_hold_trades_not_rows():
    done = replay(coin(0.42, 300), P1, spec=GrowthSpec(draws=30))
    tree = fit_head(done.states, done.labels, done.trade_index, HeadSpec(rounds=3)).trees_to_dataframe()
    leaves = tree[tree["left_child"].isna()]
    assert leaves["count"].min() >= 30 * 10


# --- the judge


def test_a_policy_moves_the_account_as_a_bot_would():
    trades = coin(0.45, 60, 5)
    seen = []

    def policy(state):
        seen.append(state)
        return 0.5 if state[5] >= 2 else 2.0

    run = simulate_policy(trades, P3, policy)
    assert set(run.multiplier) == {0.5, 1.25}
    equity = np.cumprod(np.r_[1.0, 1 + 0.015 * run.multiplier * trades.net_r])
    assert np.exp(np.cumsum(run.growth)) == pytest.approx(equity[1:])
    peak = np.maximum.accumulate(equity)
    assert run.max_drawdown == pytest.approx((1 - equity / peak).max())
    for t in (0, 7, 30, 59):
        expected = equity_state(trades.net_r[:t], equity=equity[t], start=1.0, peak=peak[t], atr_norm=trades.atr_norm[t])
        assert seen[t] == pytest.approx(expected)


def test_drawdown_rule():
    rule = drawdown_rule(P1)
    assert [rule([1, d]) for d in (0.0, 0.1, 0.2, 0.5)] == pytest.approx([1.0, 0.5, 0.15, 0.15])


def test_lower_bound_covers():
    rng = np.random.default_rng(0)
    below = [lower_bound(rng.normal(size=400), level=0.10, block=5, draws=500, seed=s) < 0 for s in range(200)]
    assert 0.83 <= np.mean(below) <= 0.95


def test_lower_bound_of_a_constant_is_the_constant():
    assert lower_bound(np.full(300, 0.7), level=0.01) == pytest.approx(0.7)
    assert lower_bound(np.full(7, 0.7), level=0.01) == pytest.approx(0.7)  # shorter than a block


def test_breach_rate():
    losing, winning = np.log1p(np.full(200, -0.01)), np.log1p(np.full(200, 0.01))
    assert breach_rate(losing, 0.5) == 1.0  # 0.99 ** 100 = 0.37
    assert breach_rate(losing, 0.7) == 0.0
    assert breach_rate(winning, 0.01) == 0.0
    mixed = np.log1p(np.random.default_rng(1).normal(0, 0.02, 500))
    assert 0 < breach_rate(mixed, 0.3) < breach_rate(mixed, 0.2) < 1


def test_a_head_that_says_the_constant_is_not_published():
    verdict = judge_head(coin(0.5, 400, 8), P1, lambda state: 0.9, 0.9)
    assert verdict.figures["lower_bound"] == pytest.approx({"best_constant": 0.0, "own_average": 0.0}, abs=1e-15)
    assert not verdict.published


def test_a_larger_size_alone_is_not_skill():
    verdict = judge_head(coin(0.55, 800, 8), P1, lambda state: 1.2, 0.15)
    assert verdict.figures["lower_bound"]["best_constant"] > 0  # it earns more than a constant that was chosen too small
    assert not verdict.published
    assert any("its own average" in reason for reason in verdict.reasons)


def test_a_higher_breach_rate_is_not_published():
    def reckless(state):
        return 1.25 if state[3] > 0.42 else 0.9

    verdict = judge_head(spells(0.65, 0.15, 100, 1500, 1), P1, reckless, 0.15)
    assert any("breach" in reason for reason in verdict.reasons)


def test_judge_refuses_a_meaningless_level():
    with pytest.raises(UsageError, match="level"):
        judge_head(coin(0.5, 200), P1, lambda state: 1.0, 1.0, level=0.0)


def test_a_policy_that_answers_nonsense_is_refused():
    with pytest.raises(UsageError, match="not a finite number"):
        judge_head(coin(0.5, 200), P1, lambda state: np.nan, 1.0)


def test_a_head_without_a_booster_answers_one():
    head = Head(P1, None, Verdict(False, ("none",)), {}, None)
    assert head.raw_multiplier(np.tile(STATE, (4, 1))).tolist() == [1.0] * 4
