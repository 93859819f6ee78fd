"""The checkers against the definition, pair by pair, and against the bugs that they exist for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.errors import LeakageError, UsageError
from trademl.validate.leakage import (
    assert_disjoint,
    assert_fitted_before,
    assert_no_leakage,
    assert_past_only,
    assert_time_ordered,
)
from trademl.validate.splits import rows_before

pytestmark = pytest.mark.leakage

BAR = 900
T0 = int(np.datetime64("2026-03-02T00:15", "s").astype(np.int64))


def leaks_by_definition(fit_rows, test_rows, time_s, end_s, embargo_s):
    """All pairs, one by one: do [time, end) of both come closer than the embargo?"""
    for i in fit_rows:
        if end_s[i] < 0:
            return True
        for j in test_rows:
            judged_end = end_s[j] if end_s[j] >= 0 else time_s[j] + 1
            if time_s[i] - embargo_s < judged_end and time_s[j] < end_s[i] + embargo_s:
                return True
    return False


@st.composite
def any_split(draw):
    """Rows in time order or not, any label lengths, any choice of fit and test rows."""
    n = draw(st.integers(2, 40))
    time_s = T0 + np.array(draw(st.lists(st.integers(0, 60), min_size=n, max_size=n))) * BAR
    held = np.array(draw(st.lists(st.sampled_from([-1, 1, 1, 2, 3, 12]), min_size=n, max_size=n)))
    role = np.array(draw(st.lists(st.sampled_from("ffft "), min_size=n, max_size=n)))
    return np.flatnonzero(role == "f"), np.flatnonzero(role == "t"), time_s, np.where(held > 0, time_s + held * BAR, -1)


@given(any_split(), st.sampled_from([0, 1, BAR, 5 * BAR]))
def test_checker_is_the_definition(split, embargo_s):
    fit, test, time_s, end_s = split
    if leaks_by_definition(fit, test, time_s, end_s, embargo_s):
        with pytest.raises(LeakageError):
            assert_no_leakage(fit, test, time_s, end_s, embargo_s=embargo_s)
    else:
        assert_no_leakage(fit, test, time_s, end_s, embargo_s=embargo_s)


@pytest.fixture
def market():
    """400 bars whose trades last 1 to 24 bars; ends are the exit bars' close times."""
    rng = np.random.default_rng(8)
    time_s = T0 + np.arange(400) * BAR
    return time_s, time_s + rng.integers(1, 25, 400) * BAR


def test_message_names_the_pair_in_iso_time():
    time_s = T0 + np.arange(10) * BAR
    end_s = time_s + 3 * BAR
    with pytest.raises(LeakageError) as refused:
        assert_no_leakage([0, 3, 4], [6, 7], time_s, end_s)
    text = str(refused.value)
    assert "fit row 4 [2026-03-02T01:15:00Z, 2026-03-02T02:00:00Z)" in text
    assert "judged row 6 [2026-03-02T01:45:00Z, 2026-03-02T02:30:00Z)" in text
    assert "1 of 3 fit rows leak" in text


def test_catches_purge_by_bar_open_time(market):
    """The off-by-one that left 7 overlapping labels in a well-known splitter: the exit bar's open instead of its close."""
    time_s, end_s = market
    cutoff = int(time_s[300])
    judged = np.arange(300, 400)
    assert_no_leakage(rows_before(time_s, end_s, cutoff), judged, time_s, end_s)
    exit_open_s = end_s - BAR
    wrong = np.flatnonzero(exit_open_s <= cutoff)
    wrong = wrong[wrong < 300]
    assert wrong.size > rows_before(time_s, end_s, cutoff).size
    with pytest.raises(LeakageError, match=r"purge by the exit bar's close time"):
        assert_no_leakage(wrong, judged, time_s, end_s)


def test_catches_purge_by_one_bar_too_short_a_horizon(market):
    time_s, _ = market
    end_s = time_s + 24 * BAR
    assert_no_leakage(np.arange(0, 277), np.arange(300, 400), time_s, end_s)  # row 276 ends exactly when row 300 is decided
    with pytest.raises(LeakageError, match=r"fit row 277 .*judged row 300"):
        assert_no_leakage(np.arange(0, 278), np.arange(300, 400), time_s, end_s)


def kfold_without_left_edge(time_s, end_s, folds):
    """The published PurgedKFold bug: on the left it compares the *start* of the label with the test block."""
    for block in np.array_split(np.arange(len(time_s)), folds):
        left = np.flatnonzero(time_s < time_s[block[0]])
        right = np.flatnonzero(time_s >= end_s[block].max())
        yield np.concatenate([left, right]), block


def kfold_without_right_edge(time_s, end_s, folds):
    """The other half: the judged labels reach into the training rows that follow."""
    for block in np.array_split(np.arange(len(time_s)), folds):
        yield np.setdiff1d(np.flatnonzero((end_s <= time_s[block[0]]) | (time_s > time_s[block[-1]])), block), block


@pytest.mark.parametrize("splitter", [kfold_without_left_edge, kfold_without_right_edge])
def test_catches_a_kfold_that_forgets_an_edge(market, splitter):
    caught = 0
    for fit, test in splitter(*market, 5):
        assert_disjoint(fit, test)  # nothing to see by row number
        try:
            assert_no_leakage(fit, test, *market)
        except LeakageError:
            caught += 1
    assert caught == 4  # the fold at the end of history has no such edge


def test_catches_shuffled_folds(market):
    from sklearn.model_selection import KFold

    for fit, test in KFold(5, shuffle=True, random_state=0).split(np.zeros(400)):
        assert_disjoint(fit, test)
        with pytest.raises(LeakageError):
            assert_no_leakage(fit, test, *market)


def test_fit_rows_without_a_label_and_unlabelled_judged_rows(market):
    time_s, end_s = market
    end_s = end_s.copy()
    end_s[50] = -1
    with pytest.raises(LeakageError, match=r"fit row 50 .* has no known label end"):
        assert_no_leakage([10, 50], [300], time_s, end_s)
    end_s[300] = -1
    last = int(np.flatnonzero(end_s == time_s[300])[0]) if (end_s == time_s[300]).any() else 10
    assert_no_leakage([last], [300], time_s, end_s)
    with pytest.raises(LeakageError):
        assert_no_leakage([299], [300], time_s, np.where(np.arange(400) == 299, time_s + 2 * BAR, end_s))


def test_empty_sides_are_clean_and_bad_rows_are_usage_errors(market):
    assert_no_leakage([], [1, 2], *market)
    assert_no_leakage([1, 2], [], *market)
    with pytest.raises(UsageError, match=r"rows 0\.\.399"):
        assert_no_leakage([400], [1], *market)
    with pytest.raises(UsageError, match="row indices"):
        assert_no_leakage(np.ones(400, dtype=bool), [1], *market)


def test_past_only_order_disjoint_and_fitted_before():
    time_s = T0 + np.arange(10) * BAR
    end_s = time_s + 2 * BAR
    assert_past_only([0, 1, 2], [4, 5], time_s, end_s)
    with pytest.raises(LeakageError, match="fit row 3"):
        assert_past_only([0, 3], [4], time_s, end_s)
    with pytest.raises(LeakageError, match="fit row 9"):
        assert_past_only([9], [4], time_s, end_s)  # clean as an interval, but from the future
    assert_time_ordered(time_s)
    assert_time_ordered(np.array([5, 5, 6]))  # two records may share a moment
    with pytest.raises(LeakageError, match=r"row 1 .* stands after row 2"):
        assert_time_ordered(time_s, [0, 2, 1])
    with pytest.raises(LeakageError, match="row 3 is both"):
        assert_disjoint([1, 3], [3])
    with pytest.raises(LeakageError, match="more than once"):
        assert_disjoint([1, 1], [3])
    assert_fitted_before(100, 200, 100)
    with pytest.raises(LeakageError, match="scaler has seen labels up to 1970-01-01T00:01:41Z"):
        assert_fitted_before(101, 200, 100, what="scaler")
