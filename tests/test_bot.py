"""The core that decides: what a manifest becomes, and that the replay asks the very same code."""

from dataclasses import replace

import numpy as np
import pytest

from trademl.bot.policy import Policy, risk_head_of
from trademl.bot.records import check_features, costs_of, decision_rule_of, exit_rule_of, label_spec_of
from trademl.errors import RevisionError, UsageError
from trademl.learn.ensemble import native_probabilities
from trademl.market.account import exits_of
from trademl.market.barriers import prices_of
from trademl.market.decision import cost_in_r, decide
from trademl.market.open_trade import EXIT, ExitRule, OpenTrade, position_input
from trademl.market.position import first_exit, held_rows
from trademl.market.recipe import rule_of
from trademl.market.specs import CostSpec, LabelSpec
from trademl.pipeline.market import evidence
from trademl.pipeline.market.replay import Conditions, out_of_sample, reread_evidence, shipped_decisions, with_head
from trademl.pipeline.market.risk import head_of
from trademl.risk.state import clamp_multiplier, equity_state, head_input


def with_decision(revision, **changes):
    """The revision, its manifest's decision changed."""
    section = revision.manifest["market"]
    return replace(revision, manifest=revision.manifest | {"market": section | {"decision": section["decision"] | changes}})


@pytest.fixture(scope="module")
def policy(small_run):
    return Policy.of(with_decision(small_run.stored.revision, exits_on=True), profile=5)


class TestRecords:
    def test_a_manifest_gives_back_what_the_run_decided_by(self, small_run):
        revision, case, frozen = small_run.stored.revision, small_run.case, small_run.judged.frozen
        assert label_spec_of(revision) == case.rows.spec
        assert costs_of(revision) == case.rows.costs
        for profile in frozen.margins:
            judged = rule_of(frozen.worth, case.recipe, profile, frozen.margins[profile].margin_r)
            stored = decision_rule_of(revision, profile, is_shipped=False)
            assert (stored.margin_r, stored.rule, stored.confidence, stored.gap) == (
                judged.margin_r,
                judged.rule,
                judged.confidence,
                judged.gap,
            )
            assert np.array_equal(stored.worth, judged.worth)
        assert np.array_equal(decision_rule_of(revision, 3, is_shipped=True).worth, small_run.shipped.worth)

    def test_the_exit_rule_is_the_recipes_or_none_where_exits_are_off(self, small_run):
        revision, recipe = small_run.stored.revision, small_run.case.recipe
        assert exit_rule_of(with_decision(revision, exits_on=True)) == recipe.exit_rule
        assert exit_rule_of(with_decision(revision, exits_on=True, min_bars_held=5)) == replace(recipe.exit_rule, min_bars_held=5)
        assert exit_rule_of(with_decision(revision, exits_on=False)) is None

    def test_another_price_grid_is_another_set_of_features(self, small_run):
        revision = small_run.stored.revision
        check_features(revision, small_run.case.round_step)
        with pytest.raises(RevisionError, match="use the trademl and the settings that trained it"):
            check_features(revision, small_run.case.round_step * 2)

    def test_a_published_head_answers_as_its_native_model(self, small_run):
        revision, heads = small_run.stored.revision, small_run.heads.model
        assert heads.boosters, "the small run trains heads, published or not"
        for number, booster in heads.boosters.items():
            head = risk_head_of(published(revision), number)
            for losses in range(3):
                state = equity_state([-1.0] * losses, equity=1.0, start=1.0, peak=1.1, atr_norm=0.004)
                native = clamp_multiplier(booster.predict(head_input(state), num_threads=1))[0]
                assert abs(head(state) - native) < 1e-5
            assert risk_head_of(published(revision), number, is_enabled=False) is None

    def test_an_unpublished_head_is_not_asked(self, small_run):
        revision = small_run.stored.revision
        for number in range(1, 6):
            assert risk_head_of(published(revision, False), number) is None

    def test_a_published_head_that_is_not_there_is_refused(self, small_run):
        revision = published(small_run.stored.revision)
        models = [model for model in revision.manifest["models"] if model["role"] != "risk"]
        bare = replace(revision, manifest=revision.manifest | {"models": models})
        with pytest.raises(RevisionError, match="publishes a risk head for profile 3, but holds no risk_p3"):
            risk_head_of(bare, 3)


def published(revision, verdict=True):
    """The revision, its manifest's word on every head changed."""
    section = revision.manifest["market"]
    profiles = [entry | {"published": verdict} for entry in section["profiles"]]
    return replace(revision, manifest=revision.manifest | {"market": section | {"profiles": profiles}})


class TestPolicy:
    def test_probabilities_are_those_of_the_native_models(self, small_run, policy):
        x, frozen = small_run.case.rows.x, small_run.judged.frozen
        blended, members = policy.probabilities(x)
        complete = np.isfinite(x).all(axis=1)
        native = native_probabilities(small_run.shipped.signal, frozen.scaler.transform(x[complete]))
        assert np.isnan(blended[~complete]).all() and (~complete).any()
        assert np.abs(members[complete] - native).max() < 1e-5
        assert np.abs(blended[complete] - frozen.signal_blend.probabilities(native)).max() < 1e-5

    def test_sides_are_the_rule_on_these_probabilities_and_costs(self, small_run, policy):
        rows = small_run.case.rows
        blended, members = policy.probabilities(rows.x)
        cost = cost_in_r(policy.costs, policy.spec, rows.labels.atr)
        sides = policy.sides(rows.x, rows.labels.atr)
        assert np.array_equal(sides, decide(policy.rule, blended, cost, members))
        assert np.array_equal(cost, rows.cost_r)
        assert set(np.unique(sides)) <= {-1, 0, 1} and (sides != 0).any()

    def test_the_replay_leaves_where_the_policy_leaves(self, small_run, policy):
        """Trade by trade, one close after the other, as a bot would ask: the same bar as the batch."""
        rows, bars = small_run.case.rows, small_run.inputs.bars
        batch = shipped_decisions(policy, small_run.inputs, small_run.settings)
        opens, closes = bars["open"].to_numpy(), bars["close"].to_numpy()
        brackets = exits_of(prices_of(bars, policy.spec)[0], policy.spec, policy.costs.spread).bar
        entries = np.flatnonzero((batch.side != 0) & (rows.labels.label >= 0))[::40]
        assert len(entries) > 5
        for bar in entries:
            side = int(batch.side[bar])
            ends = int(brackets[0 if side > 0 else 1, bar])
            trade = OpenTrade(side, opens[bar + 1], policy.spec.sl_atr * rows.labels.atr[bar])
            left = -1
            for now in range(bar + policy.exits.min_bars_held, ends):
                state = trade.state(now - bar, closes[now], policy.spec)
                if policy.exits.leaves(policy.exit_probability(rows.x[[now]], state))[0]:
                    left = now
                    break
            assert left == batch.exit_bar[bar]

    def test_a_rule_that_waits_leaves_no_sooner(self, small_run, policy):
        waits = replace(policy, exits=ExitRule(policy.exits.probability, min_bars_held=6))
        batch = shipped_decisions(waits, small_run.inputs, small_run.settings)
        left = np.flatnonzero(batch.exit_bar >= 0)
        assert (batch.exit_bar[left] - left >= 6).all()

    def test_trades_that_have_no_label_yet_are_left_too(self, small_run, policy):
        eager = replace(policy, exits=ExitRule(0.0))
        batch, n = shipped_decisions(eager, small_run.inputs, small_run.settings), len(small_run.inputs.bars)
        newest = np.flatnonzero(batch.side != 0)
        newest = newest[(newest >= n - policy.spec.horizon_bars) & (newest < n - 2)]
        assert (small_run.case.rows.labels.label[newest] == -1).all()
        left = batch.exit_bar[newest]
        assert ((left == newest + 1) | (left == -1)).all()  # at the first close, or its bracket was sooner
        assert np.count_nonzero(left > 0) > len(newest) / 2 > 3

    def test_other_costs_and_another_rule_replace_the_stored_ones(self, small_run):
        policy = Policy.of(small_run.stored.revision, 1, costs=CostSpec(spread=1e9), rule="votes")
        assert policy.rule.rule == "votes"
        assert not policy.sides(small_run.case.rows.x, np.zeros(len(small_run.case.rows.x))).any()  # no ATR, no stop, no trade
        with pytest.raises(UsageError, match="expected_r, votes"):
            Policy.of(small_run.stored.revision, 1, rule="magic")


class TestUnpublishedHeads:
    """`risk_model.use_unpublished`, by profile: the account is sized, and its sentence says by what."""

    SAID = "Sized by a risk head that did not pass its test, as the operator asked."

    @pytest.fixture
    def insisting(self, small_run):
        """The run's settings, for profile 3 alone."""
        return replace(small_run.settings, risk_model=replace(small_run.settings.risk_model, use_unpublished="3"))

    def test_the_page_of_a_stored_revision_says_so(self, small_run, insisting):
        stored = small_run.stored
        assert not any(entry["published"] for entry in stored.revision.manifest["market"]["profiles"])
        plain, sized = (reread_evidence(stored, settings) for settings in (small_run.settings, insisting))
        assert self.SAID not in plain.profile_account.sentence
        assert sized.profile_account.sentence.endswith(self.SAID)
        assert sized.verdict == plain.verdict  # a size changes the account and never the claim
        assert with_head_of(stored, insisting, 3) is not None
        assert with_head_of(stored, insisting, 4) is None

    def test_the_page_of_a_retrain_says_so(self, small_run, insisting, monkeypatch):
        monkeypatch.setattr(evidence, "under_look", lambda settings, look, found: found)  # the look has its verdict already
        case = replace(small_run.case, settings=insisting)
        found = evidence.judge_final(case, small_run.judged, small_run.look, small_run.alarms, small_run.heads)
        assert found.evidence.profile_account.sentence.endswith(self.SAID)
        assert head_of(small_run.heads, 4, insisting) is None


def with_head_of(stored, settings, profile):
    """The multipliers of a profile's account; None where no head sizes it."""
    conditions = replace(Conditions.of(stored, settings), profile=profile)
    oos = out_of_sample(stored)
    return with_head(stored, oos.bars, oos.entries, conditions, settings).multiplier


class TestOpenTrade:
    def test_one_state_is_one_row_of_the_batch(self, small_run):
        rows, bars = small_run.case.rows, small_run.inputs.bars
        opens, closes = bars["open"].to_numpy(), bars["close"].to_numpy()
        entry = np.flatnonzero(rows.labels.label >= 0)[[100, 2_000]]
        held = held_rows(opens, closes, rows.labels, entry, np.array([1, -1], np.int8))
        for k in range(len(held.bar)):
            which = held.entry[k]
            trade = OpenTrade([1, -1][which], opens[entry[which] + 1], rows.spec.sl_atr * rows.labels.atr[entry[which]])
            state = trade.state(held.bar[k] - entry[which], closes[held.bar[k]], rows.spec)
            assert np.array_equal(state[0], held.state[k])

    def test_the_first_answer_that_reaches_the_threshold_counts(self):
        rows = type("Rows", (), {"entry": np.array([0, 0, 0, 1]), "bar": np.array([5, 6, 7, 9])})
        assert first_exit(rows, np.array([0.1, 0.9, 0.95, 0.2]), 2, ExitRule(0.9)).tolist() == [6, -1]

    @pytest.mark.parametrize("bad", [{"probability": 1.2}, {"probability": -0.1}, {"probability": float("nan")}, {"min_bars_held": 0}])
    def test_a_rule_that_cannot_be_is_refused(self, bad):
        with pytest.raises(UsageError, match=r"position\.(exit_probability|min_bars_held)"):
            ExitRule(**({"probability": 0.5} | bad))

    def test_the_graph_is_fed_the_bar_and_the_trade(self):
        state = OpenTrade(1, 100.0, 2.0).state(np.array([1, 2]), np.array([101.0, 99.0]), LabelSpec())
        assert position_input(np.ones((2, 3)), state).shape == (2, 7)
        assert EXIT == 1
