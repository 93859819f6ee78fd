"""The champion: the same recipe is held back when it is worse, another one unless it is better; by chance, rarely either."""

import numpy as np
import pytest

from trademl.clock import DAY_S
from trademl.evidence.champion import FEWEST_DAYS, compare, r_by_day

NAME = {"name": "revision 1a2b"}


def days_of(rng, gain=0.0, n=146):
    """R by the day of a champion and of a challenger that shares its market."""
    market = rng.normal(0, 2, n)
    return market + rng.normal(gain, 1.5, n), market + rng.normal(0, 1.5, n)


@pytest.mark.parametrize(("is_same_recipe", "most"), [(False, 0.03), (True, 0.03)])
def test_equal_ones_are_seldom_told_apart(is_same_recipe, most):
    rng = np.random.default_rng(7)
    held = np.array([compare(*days_of(rng), is_same_recipe=is_same_recipe, level=0.01, **NAME).is_held for _ in range(400)])
    decided = held if is_same_recipe else ~held
    assert decided.mean() < most


def test_a_clear_difference_decides():
    rng = np.random.default_rng(8)
    better, worse = (days_of(rng, gain) for gain in (1.5, -1.5))
    assert not compare(*better, is_same_recipe=False, level=0.01 / 7, **NAME).is_held
    assert "held back by revision 1a2b: worse than it, -" in compare(*worse, is_same_recipe=True, level=0.5, **NAME).sentence
    assert compare(*worse, is_same_recipe=False, level=0.01, **NAME).is_held


def test_the_level_of_the_look_is_the_level_of_the_comparison():
    found = compare(*days_of(np.random.default_rng(9), 0.55), is_same_recipe=False, level=0.05, **NAME)
    assert not found.is_held
    assert compare(*days_of(np.random.default_rng(9), 0.55), is_same_recipe=False, level=0.05 / 200, **NAME).is_held


@pytest.mark.parametrize("n", [0, 1, FEWEST_DAYS - 1])
def test_few_common_days_hold_back_another_recipe_only(n):
    ours, theirs = days_of(np.random.default_rng(1), 5.0, n)
    other = compare(ours, theirs, is_same_recipe=False, level=0.01, **NAME)
    assert other.is_held
    assert f"{n} common days show nothing, {FEWEST_DAYS} are needed" in other.sentence
    assert not compare(ours, theirs, is_same_recipe=True, level=0.01, **NAME).is_held


def test_days_are_utc_days_of_the_entry_and_empty_days_earn_nothing():
    entry = np.array([10 * DAY_S - 1, 10 * DAY_S, 12 * DAY_S + 5, 13 * DAY_S])
    assert r_by_day(np.array([9.0, 1.0, -2.0, 9.0]), entry, first_day=10, days=3).tolist() == [1.0, 0.0, -2.0]
