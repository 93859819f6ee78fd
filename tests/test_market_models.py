"""Ensemble, decision rule and position rows: edges, refusals and properties against the exported package."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.data.synthetic import synthetic_market
from trademl.errors import BadDataError, UsageError
from trademl.learn.ensemble import MODELS, Rounds, choose_blend, fit_ensemble, native_files, native_probabilities
from trademl.learn.fits import Batch, Target, fit_scaler, sample_weights
from trademl.market.decision import DecisionRule, Rule, class_mean_r, decide, expected_r
from trademl.market.labeling import label_bars
from trademl.market.open_trade import ExitRule
from trademl.market.position import choose_entries, first_exit, held_rows, r_with_exits
from trademl.market.recipe import MISSING_CLASS
from trademl.market.specs import CLASSES, Label
from trademl.settings import load_settings
from trademl.ship.export import check_parity, ensemble_graph

SIDES = Target("signal", CLASSES, MISSING_CLASS)
PARAMS = replace(load_settings(environ={}).ensemble, rf_trees=10, xgb_max_rounds=20, lgb_max_rounds=20)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(5)
    z = rng.normal(size=(1_500, 8)).astype(np.float32)
    z[:, 7] = 0  # a constant column
    y = np.clip(np.round(z[:, 0] + rng.normal(size=1_500)) + 1, 0, 2).astype(np.int8)
    return Batch(z, y, np.ones(1_500))


class TestScaler:
    def test_width_is_checked(self):
        scaler = fit_scaler(np.eye(3))
        with pytest.raises(BadDataError, match="3 features"):
            scaler.transform(np.zeros((2, 4)))

    @given(st.floats(-1e9, 1e9), st.integers(1, 400))
    def test_a_constant_column_becomes_zero_whatever_its_value(self, value, n):
        """The deviation of a constant 0.1 over many rows is 1e-17, not 0; dividing by it would make noise of rounding."""
        x = np.column_stack([np.full(n, value), np.linspace(0, 1, n)])
        scaler = fit_scaler(x)
        assert scaler.scale[0] == 1
        assert (scaler.transform(x)[:, 0] == 0).all()

    def test_constant_columns_stay_finite_and_the_division_is_in_float64(self):
        x = np.column_stack([np.full(5, 3.0), np.arange(5) * 1e12])
        z = fit_scaler(x).transform(x)
        assert np.isfinite(z).all() and (z[:, 0] == 0).all()
        assert (z[:, 1] == ((x[:, 1] - x[:, 1].mean()) / x[:, 1].std()).astype(np.float32)).all()


class TestEnsemble:
    def test_the_same_seed_gives_the_same_files_for_any_number_of_threads(self, table):
        made = [fit_ensemble(table, PARAMS, SIDES, seed=3, threads=t, until=Rounds(12, 12)) for t in (1, 2)]
        assert native_files(made[0], "signal") == native_files(made[1], "signal")
        other = fit_ensemble(table, PARAMS, SIDES, seed=4, threads=2, until=Rounds(12, 12))
        assert native_files(other, "signal") != native_files(made[0], "signal")

    def test_flat_trees_say_what_the_libraries_say_with_a_constant_column(self, table):
        fitted = fit_ensemble(table, PARAMS, SIDES, seed=3, until=Rounds(12, 12))
        assert np.abs(fitted.model_probabilities(table[0]) - native_probabilities(fitted, table[0])).max() < 1e-5

    def test_early_stopping_keeps_the_best_rounds(self, table):
        fitted = fit_ensemble(table.take(slice(900)), PARAMS, SIDES, seed=3, until=table.take(slice(900, None)))
        assert 1 <= fitted.rounds.xgb <= 20 and 1 <= fitted.rounds.lgb <= 20
        assert fitted.by_xgb.num_boosted_rounds() == fitted.rounds.xgb

    @pytest.mark.parametrize("labels", [np.full(90, 2), np.tile([0, 1], 45), np.array([], int), np.full(90, 3)])
    def test_a_batch_without_a_class_is_refused(self, labels):
        with pytest.raises(BadDataError, match="every one of the 3 must occur"):
            SIDES.check(labels)

    @pytest.mark.parametrize(
        ("labels", "shown"),
        [
            (np.full(90, 2), "signal: 90 rows hold classes SELL: 0, BUY: 0, HOLD: 90;"),
            (np.array([0, 1, 2, 3, -1]), "classes -1: 1, SELL: 1, BUY: 1, HOLD: 1, 3: 1;"),
            (np.array([], np.int8), "signal: 0 rows hold classes SELL: 0, BUY: 0, HOLD: 0;"),
        ],
    )
    def test_the_refusal_names_the_classes_and_the_next_step(self, table, labels, shown):
        z = table[0][: len(labels)]
        with pytest.raises(BadDataError, match=r"another bracket \(\[labeling\] tp_atr") as refusal:
            fit_ensemble(Batch(z, labels, np.ones(len(z))), PARAMS, SIDES, seed=3, until=Rounds(2, 2))
        assert shown in str(refusal.value)

    def test_a_constant_column_is_asked_by_nobody_and_the_graph_agrees(self, table):
        """Whatever it holds later: native libraries and graph give one answer, and the same as before."""
        x = table[0].astype(np.float64)
        x[:, 7] = 0.1
        scaler = fit_scaler(x)
        fitted = fit_ensemble(table._replace(z=scaler.transform(x)), PARAMS, SIDES, seed=3, until=Rounds(12, 12))
        assert all(7 not in one.feature for one in fitted.tables)
        unchanged = np.ones(3), np.zeros(3)
        classes = ["SELL", "BUY", "HOLD"]
        graph = ensemble_graph(
            (scaler.mean, scaler.scale), fitted.tables, np.ones(3) / 3, unchanged, names=MODELS, classes=classes, metadata={}
        )
        before = native_probabilities(fitted, scaler.transform(x))
        x[:, 7] = np.random.default_rng(1).normal(size=len(x)) * 1e6
        after = native_probabilities(fitted, scaler.transform(x))
        assert (before == after).all()
        assert check_parity(graph, x, after.mean(axis=1), after).flips == 0

    def test_weights_are_one_product_with_mean_one(self):
        unique, y, age = np.array([0.1, 0.2, 0.2, 0.4]), np.array([0, 0, 1, 1]), np.array([30, 20, 10, 0])
        plain = sample_weights(unique, y, age, PARAMS)
        assert plain.mean() == pytest.approx(1) and np.allclose(plain / plain[0], unique / unique[0])
        recent = sample_weights(unique, y, age, replace(PARAMS, recency_half_life_bars=10))
        assert recent[3] / recent[0] == pytest.approx(4 * 2**3)
        even = sample_weights(unique, y, age, replace(PARAMS, class_weight="balanced"))
        assert even[:2].sum() == pytest.approx(even[2:].sum())
        with pytest.raises(UsageError, match="none, balanced"):
            sample_weights(unique, y, age, replace(PARAMS, class_weight="twice"))

    def test_the_blend_is_not_worse_than_its_best_member_where_it_was_chosen(self, table):
        fitted = fit_ensemble(table, PARAMS, SIDES, seed=3, until=Rounds(12, 12))
        p, y, w = fitted.model_probabilities(table[0]), table[1], table[2]
        blend = choose_blend(p, y, w).probabilities(p)

        def loss(q):
            return -np.log(q[np.arange(len(y)), y]).mean()

        assert loss(blend) <= min(loss(p[:, m]) for m in range(3)) + 1e-6


WORTH = np.array([[-1.0, 1.875, -0.7], [1.875, -1.0, -0.7]])


class TestDecision:
    @given(st.lists(st.tuples(*[st.floats(0.01, 1)] * 3), min_size=1, max_size=30), st.floats(0, 0.5), st.floats(0, 0.5))
    def test_a_side_is_traded_only_when_it_is_the_better_one_and_worth_its_cost(self, raw, margin, cost):
        p = np.array(raw) / np.sum(raw, axis=1, keepdims=True)
        cost_r = np.full(len(p), cost)
        value = expected_r(p, WORTH, cost_r)
        side = decide(DecisionRule(WORTH, margin), p, cost_r)
        traded = side != 0
        chosen = np.where(side > 0, value[:, 0], value[:, 1])
        assert (chosen[traded] > margin).all() and (chosen[traded] >= value.max(axis=1)[traded]).all()
        tied = np.abs(value[:, 0] - value[:, 1]) <= 1e-9
        assert (tied | (value.max(axis=1) <= margin))[~traded].all()
        assert (decide(DecisionRule(WORTH, margin), p[:, [1, 0, 2]], cost_r) == -side).all()  # mirrored classes, mirrored side

    def test_votes_need_agreement_confidence_and_distance(self):
        p = np.array([[0.1, 0.7, 0.2]] * 3 + [[0.1, 0.58, 0.32], [0.05, 0.62, 0.55]])
        agree, split = [[0, 1, 0], [0, 1, 0], [1, 0, 0]], [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
        models = np.array([agree, split, [[0, 1, 0]] * 3, agree, agree], float)
        side = decide(DecisionRule(WORTH, rule=Rule.VOTES, confidence=0.6, gap=0.1), p, np.zeros(5), models)
        assert side.tolist() == [1, 0, 1, 0, 0]

    def test_an_unknown_rule_lists_the_right_ones(self):
        with pytest.raises(UsageError, match="expected_r, votes"):
            DecisionRule(WORTH, rule="hunch")

    def test_a_class_without_rows_is_worth_nothing(self):
        worth = class_mean_r(np.array([1, 1]), np.array([2.0, 1.0]), np.array([-1.0, -1.0]), np.array([1.0, 3.0]))
        assert worth[:, Label.BUY].tolist() == [1.25, -1.0] and not worth[:, [Label.SELL, Label.HOLD]].any()


@pytest.fixture(scope="module")
def market():
    bars = synthetic_market(1_200, edge=0.0, seed=2).bars
    return bars, label_bars(bars), bars["open"].to_numpy(), bars["close"].to_numpy()


class TestPosition:
    def test_rows_are_the_closes_at_which_the_bracket_has_not_ended_the_trade(self, market):
        _, labels, open_, close = market
        entry = np.flatnonzero(labels.label >= 0)[::7]
        side = np.where(np.arange(len(entry)) % 2, 1, -1).astype(np.int8)
        rows = held_rows(open_, close, labels, entry, side)
        for k in range(0, len(entry), 11):
            t, outcome = entry[k], labels.long if side[k] > 0 else labels.short
            mine = rows.entry == k
            assert rows.bar[mine].tolist() == list(range(t + 1, outcome.exit_bar[t]))
            shown = side[k] * (close[rows.bar[mine]] - open_[t + 1]) / (labels.spec.sl_atr * labels.atr[t])
            assert np.allclose(rows.state[mine, 2], shown) and (rows.state[mine, 3] == side[k]).all()
            assert (rows.final_r[mine] == outcome.r[t]).all()

    def test_later_first_question_leaves_fewer_rows(self, market):
        _, labels, open_, close = market
        entry = np.flatnonzero(labels.label >= 0)
        side = np.ones(len(entry), np.int8)
        early, late = (held_rows(open_, close, labels, entry, side, min_bars_held=k) for k in (1, 4))
        assert len(late.bar) == ((early.bar - entry[early.entry]) >= 4).sum()

    def test_an_exit_fills_at_the_next_open_and_no_exit_is_the_brackets_own(self, market):
        _, labels, open_, close = market
        entry = np.flatnonzero(labels.label >= 0)
        side = np.full(len(entry), -1, np.int8)
        rows = held_rows(open_, close, labels, entry, side)
        leave = first_exit(rows, np.ones(len(rows.bar)), len(entry), ExitRule(0.8))
        lived = labels.short.exit_bar[entry] > entry + 1
        assert (leave[lived] == entry[lived] + 1).all() and (leave[~lived] == -1).all()
        r = r_with_exits(open_, close, labels, entry, side, leave)
        k = np.flatnonzero(lived)[0]
        t = entry[k]
        assert r[k] == pytest.approx(-(open_[t + 2] - open_[t + 1]) / (labels.spec.sl_atr * labels.atr[t]))
        assert (r[~lived] == labels.short.r[entry[~lived]]).all()
        assert (first_exit(rows, np.zeros(len(rows.bar)), len(entry), ExitRule(0.8)) == -1).all()

    @given(st.integers(0, 60), st.floats(0.01, 0.9), st.integers(0, 99))
    def test_entries_are_the_decided_ones_first_and_as_many_as_asked(self, n_decided, share, seed):
        decided = np.zeros(200, np.int8)
        decided[:n_decided] = -1
        allowed = np.arange(200) % 5 != 4
        bar, side = choose_entries(decided, allowed, share=share, seed=seed)
        assert len(bar) == int(np.ceil(share * allowed.sum())) and len(set(bar)) == len(bar)
        assert allowed[bar].all() and (np.diff(bar) > 0).all() and set(side) <= {-1, 1}
        known = set(np.flatnonzero((decided != 0) & allowed))
        assert known <= set(bar) if len(known) <= len(bar) else set(bar) <= known
        again = choose_entries(decided, allowed, share=share, seed=seed)
        assert (again[0] == bar).all() and (again[1] == side).all()

    def test_no_rows_at_all(self, market):
        _, labels, open_, close = market
        rows = held_rows(open_, close, labels, np.empty(0, np.int64), np.empty(0, np.int8))
        assert len(rows.bar) == 0 and len(rows.weight()) == 0 and len(rows.target(0.25)) == 0
        assert isinstance(pd.DataFrame(rows.state), pd.DataFrame)
