"""Splits: literal dates for the boundaries, and every maker paired with the independent checker."""

import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.errors import BadDataError, LeakageError, UsageError
from trademl.validate.leakage import assert_disjoint, assert_no_leakage, assert_past_only, assert_time_ordered
from trademl.validate.splits import Span, Window, Windows, four_windows, out_of_fold, refit_times, rows_before, walk_forward
from trademl.validate.splitters import CombinatorialPurgedCV, PurgedWalkForward

BAR = 900
HOUR = 3600
DAY = 86_400


def at(text):
    """Epoch seconds of a UTC time."""
    return int(np.datetime64(text, "s").astype(np.int64))


@st.composite
def timed_rows(draw, low=12, high=90):
    """Decision times with gaps and ties, label ends of any length, some rows without a label."""
    n = draw(st.integers(low, high))
    gaps = draw(st.lists(st.sampled_from([0, 1, 1, 1, 1, 2, 7]), min_size=n, max_size=n))
    held = draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))
    known = draw(st.lists(st.sampled_from([True, True, True, True, False]), min_size=n, max_size=n))
    time_s = at("2026-01-05T00:15") + np.cumsum(gaps) * BAR
    return time_s, np.where(known, time_s + np.array(held) * BAR, -1)


embargoes = st.sampled_from([0, 1, BAR, 3 * BAR])

# ---------------------------------------------------------------- rows_before

FOUR_TRADES = pd.DataFrame(
    [
        ("2026-03-02T00:15", "2026-03-02T01:00"),
        ("2026-03-02T00:30", "2026-03-02T12:30"),
        ("2026-03-02T00:45", "2026-03-02T06:00"),
        ("2026-03-02T01:00", None),
        ("2026-03-02T06:00", "2026-03-02T06:15"),
    ],
    columns=["decided", "exit_close"],
)
TIMES = np.array([at(t) for t in FOUR_TRADES.decided])
ENDS = np.array([at(t) if isinstance(t, str) else -1 for t in FOUR_TRADES.exit_close])


@pytest.mark.parametrize(
    ("cutoff", "embargo_s", "start", "rows"),
    [
        ("2026-03-02T00:59:59", 0, None, []),
        ("2026-03-02T01:00", 0, None, [0]),
        ("2026-03-02T06:00", 0, None, [0, 2]),
        ("2026-03-02T05:59:59", 0, None, [0]),
        ("2026-03-02T06:15", 0, None, [0, 2, 4]),
        ("2026-03-02T06:15", BAR, None, [0, 2]),
        ("2026-03-02T12:30", 0, None, [0, 1, 2, 4]),
        ("2026-03-02T12:30", 0, "2026-03-02T00:30", [1, 2, 4]),
        ("2026-03-02T12:30", 0, "2026-03-02T00:30:01", [2, 4]),
        ("2027-01-01T00:00", 0, None, [0, 1, 2, 4]),  # a row without a label never trains
    ],
)
def test_rows_before_literal_dates(cutoff, embargo_s, start, rows):
    found = rows_before(TIMES, ENDS, at(cutoff), embargo_s=embargo_s, start_s=None if start is None else at(start))
    assert found.tolist() == rows
    assert found.dtype == np.int64


@pytest.mark.leakage
@given(timed_rows(), st.integers(0, 89), embargoes)
def test_rows_before_is_past_only_and_complete(rows, cut, embargo_s):
    time_s, end_s = rows
    cut = min(cut, len(time_s) - 1)
    cutoff = int(time_s[cut])
    found = rows_before(time_s, end_s, cutoff, embargo_s=embargo_s)
    judged = np.flatnonzero(time_s >= cutoff)
    assert_past_only(found, judged, time_s, end_s, embargo_s=embargo_s)
    assert_no_leakage(found, judged, time_s, end_s, embargo_s=embargo_s)
    for row in set(range(len(time_s))) - set(found.tolist()) - set(judged.tolist()):  # nothing admissible was dropped
        with pytest.raises(LeakageError):
            assert_past_only([row], judged, time_s, end_s, embargo_s=embargo_s)


def test_times_are_checked():
    with pytest.raises(BadDataError, match="row 2: decision time"):
        rows_before([10, 20, 15], [-1, -1, -1], 30)
    with pytest.raises(BadDataError, match="row 1: label end 20 is not after"):
        rows_before([10, 20], [15, 20], 30)
    with pytest.raises(BadDataError, match="shape"):
        rows_before([10, 20], [15], 30)
    with pytest.raises(UsageError, match="embargo_s"):
        rows_before([10], [15], 30, embargo_s=-1)
    index = pd.DatetimeIndex(["2026-01-01T00:15", "2026-01-01T00:30"], tz="UTC")
    assert rows_before(index, index + pd.Timedelta("15min"), at("2026-01-01T00:30")).tolist() == [0]


# ---------------------------------------------------------------- four windows


def hundred_days():
    """Ten decisions a day for 100 days; each label lasts twelve hours, the last five are unknown."""
    time_s = at("2026-01-01") + np.repeat(np.arange(100) * DAY, 10) + np.tile(np.arange(10) * HOUR, 100)
    end_s = time_s + 12 * HOUR
    end_s[-5:] = -1
    return time_s, end_s


@pytest.mark.parametrize(
    ("name", "start", "end", "bars", "rows"),
    [  # labels end 12 h after the decision, embargo 12 h: of the last day before a boundary (decided 00:00 to 09:00) only 00:00 is over
        ("train", "2026-01-01", "2026-03-02", 600, 591),
        ("tune", "2026-03-02", "2026-03-12", 100, 91),
        ("select", "2026-03-12", "2026-03-22", 100, 91),
        ("final", "2026-03-22", "2026-04-10T10:00", 200, 195),
    ],
)
def test_four_windows_literal_dates(name, start, end, bars, rows):
    time_s, end_s = hundred_days()
    windows = four_windows(time_s, end_s, embargo_s=12 * HOUR, min_rows=50)
    assert windows.span(name) == Span(at(start), at(end))
    assert windows.bars(name).size == bars
    assert windows.rows(name).size == rows


@pytest.mark.leakage
@settings(max_examples=60)
@given(timed_rows(low=40, high=120), embargoes)
def test_four_windows_never_leak(rows, embargo_s):
    time_s, end_s = rows
    try:
        windows = four_windows(time_s, end_s, embargo_s=embargo_s, min_rows=1)
    except BadDataError:
        return
    assert np.concatenate([windows.bars(name) for name in Window]).tolist() == list(range(len(time_s)))
    for earlier, later in combinations(Window, 2):
        assert_past_only(windows.rows(earlier), windows.bars(later), time_s, end_s, embargo_s=embargo_s)
        assert_disjoint(windows.rows(earlier), windows.rows(later))
    assert (end_s[windows.rows("final")] >= 0).all()


def test_windows_json_binding_and_refusals():
    time_s, end_s = hundred_days()
    windows = four_windows(time_s, end_s, embargo_s=12 * HOUR, min_rows=50)
    text = windows.to_json()
    assert json.loads(text) == {
        "train": [at("2026-01-01"), at("2026-03-02")],
        "tune": [at("2026-03-02"), at("2026-03-12")],
        "select": [at("2026-03-12"), at("2026-03-22")],
        "final": [at("2026-03-22"), at("2026-04-10T10:00")],
        "embargo_s": 43_200,
    }
    again = Windows.from_json(text)
    assert again == windows
    assert again.to_json() == text
    assert again.bind(time_s, end_s).rows("tune").tolist() == windows.rows("tune").tolist()
    with pytest.raises(UsageError, match="bind"):
        again.rows("tune")
    with pytest.raises(UsageError, match="train, tune, select, final"):
        windows.rows("test")
    with pytest.raises(UsageError, match="shares"):
        four_windows(time_s, end_s, final_share=0.9, embargo_s=0)


def test_too_few_rows_names_a_number_that_suffices():
    n, embargo_s = 700, 48 * BAR
    time_s = at("2026-01-05") + np.arange(n) * BAR
    with pytest.raises(BadDataError, match="are needed: give about") as refused:
        four_windows(time_s, time_s + 48 * BAR, embargo_s=embargo_s)
    needed = int(str(refused.value).split("give about ")[1].split(" rows")[0].replace(",", ""))
    assert n < needed < 5 * n
    more = at("2026-01-05") + np.arange(needed + 10) * BAR
    assert min(four_windows(more, more + 48 * BAR, embargo_s=embargo_s).rows(name).size for name in Window) >= 100


# ---------------------------------------------------------------- walk-forward


def test_walk_forward_literal_dates():
    time_s, end_s = hundred_days()
    folds = list(walk_forward(time_s, end_s, at("2026-03-12"), at("2026-04-10T10:00"), 10 * DAY, embargo_s=12 * HOUR))
    assert [(f.start_s, f.stop_s) for f in folds] == [
        (at("2026-03-12"), at("2026-03-22")),
        (at("2026-03-22"), at("2026-04-01")),
        (at("2026-04-01"), at("2026-04-10T10:00")),
    ]
    assert [(f.fit_rows.size, f.test_rows.size) for f in folds] == [(691, 100), (791, 100), (891, 100)]
    rolling = list(walk_forward(time_s, end_s, at("2026-03-12"), at("2026-04-10T10:00"), 10 * DAY, embargo_s=12 * HOUR, window_s=20 * DAY))
    assert [f.fit_rows.size for f in rolling] == [191, 191, 191]
    assert time_s[rolling[0].fit_rows[0]] == at("2026-02-20")


@pytest.mark.leakage
@settings(max_examples=60)
@given(timed_rows(), embargoes, st.integers(1, 30), st.one_of(st.none(), st.integers(5, 40)))
def test_walk_forward_judges_every_bar_once_on_its_past(rows, embargo_s, every, window):
    time_s, end_s = rows
    start_s, stop_s = int(time_s[len(time_s) // 2]), int(time_s[-1]) + 1
    if start_s >= stop_s:
        return
    window_s = None if window is None else window * BAR
    try:
        folds = list(walk_forward(time_s, end_s, start_s, stop_s, every * BAR, embargo_s=embargo_s, window_s=window_s))
    except BadDataError:
        return
    judged = np.concatenate([fold.test_rows for fold in folds])
    assert judged.tolist() == np.flatnonzero(time_s >= start_s).tolist()
    for fold in folds:
        assert_past_only(fold.fit_rows, fold.test_rows, time_s, end_s, embargo_s=embargo_s)
        assert_disjoint(fold.fit_rows, fold.test_rows)
        assert window_s is None or (time_s[fold.fit_rows] >= fold.start_s - window_s).all()


def test_walk_forward_skips_silent_blocks_and_refuses_an_empty_past():
    time_s = np.concatenate([at("2026-01-01") + np.arange(100) * HOUR, at("2026-02-01") + np.arange(50) * HOUR])
    folds = list(walk_forward(time_s, time_s + HOUR, at("2026-01-03"), at("2026-02-03"), DAY, embargo_s=0))
    assert all(fold.test_rows.size for fold in folds)
    assert [f.start_s for f in folds] == [at(f"2026-01-0{d}") for d in (3, 4, 5)] + [at("2026-02-01"), at("2026-02-02")]
    with pytest.raises(BadDataError, match="refit at 2026-01-01T00:00:00Z"):
        list(walk_forward(time_s, time_s + HOUR, at("2026-01-01"), at("2026-01-03"), DAY, embargo_s=0))
    assert refit_times(0, 10, 4).tolist() == [0, 4, 8]
    with pytest.raises(UsageError, match="every_s"):
        walk_forward(time_s, time_s + HOUR, 0, 10, 0, embargo_s=0)  # at the call, not at the first fold
    with pytest.raises(UsageError, match="empty"):
        refit_times(10, 10, 4)


@pytest.mark.leakage
@settings(max_examples=60)
@given(timed_rows(), embargoes, st.integers(1, 4))
def test_out_of_fold_decides_all_but_the_first_block_on_its_past(rows, embargo_s, parts):
    time_s, end_s = rows
    usable = np.flatnonzero(end_s >= 0)
    try:
        folds = out_of_fold(time_s, end_s, usable, parts, embargo_s=embargo_s)
    except BadDataError:
        return
    assert len(folds) == parts
    first = np.array_split(usable, parts + 1)[0]
    assert np.concatenate([first, *(fold.test_rows for fold in folds)]).tolist() == usable.tolist()
    for fold in folds:
        assert_past_only(fold.fit_rows, fold.test_rows, time_s, end_s, embargo_s=embargo_s)
        assert np.isin(fold.fit_rows, usable).all()
        assert fold.start_s <= time_s[fold.test_rows].min()
        assert time_s[fold.test_rows].max() <= fold.stop_s


# ---------------------------------------------------------------- splitters


@pytest.mark.leakage
@settings(max_examples=60)
@given(timed_rows(low=30), embargoes, st.integers(3, 6), st.integers(1, 3))
def test_combinatorial_folds_never_leak_and_purge_no_more_than_needed(rows, embargo_s, blocks, held_out):
    time_s, end_s = rows
    cv = CombinatorialPurgedCV(time_s, end_s, blocks, min(held_out, blocks - 1), embargo_s=embargo_s)
    labelled = np.flatnonzero(end_s >= 0)
    count = 0
    for fit, test in cv.split(np.zeros((len(time_s), 1))):
        count += 1
        assert_no_leakage(fit, test, time_s, end_s, embargo_s=embargo_s)
        assert_disjoint(fit, test)
        for row in np.setdiff1d(labelled, np.concatenate([fit, test]))[:3]:  # what was purged had to be
            near_run = (end_s[row] + embargo_s > time_s[test]) & (time_s[row] - embargo_s < end_s[test])
            inside = (time_s[test].min() <= end_s[row] + embargo_s) & (time_s[row] - embargo_s <= end_s[test].max())
            assert near_run.any() or inside
    assert count == cv.get_n_splits()


@given(st.integers(3, 8), st.integers(1, 7))
def test_paths_cover_every_block_and_use_every_split_equally(blocks, held_out):
    if held_out >= blocks:
        return
    time_s = np.arange(40) * BAR
    cv = CombinatorialPurgedCV(time_s, time_s + BAR, blocks, held_out)
    paths, held = cv.paths(), cv.test_blocks()
    assert paths.shape[1] == blocks
    for path in paths:
        assert all(block in held[split] for block, split in enumerate(path))
    assert (np.bincount(paths.ravel(), minlength=cv.get_n_splits()) == held_out).all()


@pytest.mark.oracle
@pytest.mark.parametrize("embargo_bars", [0, 3])
def test_combinatorial_folds_agree_with_purgedcv(embargo_bars):
    import purgedcv

    rng = np.random.default_rng(4)
    n = 300
    time_s = at("2026-01-05T00:15") + np.arange(n) * BAR
    end_s = time_s + rng.integers(1, 13, n) * BAR  # exit bars' CLOSE: with open times the oracle leaks
    decided, over = (pd.Series(pd.to_datetime(t, unit="s", utc=True)) for t in (time_s, end_s))
    padding = pd.Timedelta(seconds=embargo_bars * BAR)
    theirs = purgedcv.CombinatorialPurgedCV(6, 2, prediction_times=decided, evaluation_times=over, purge_horizon=padding)
    ours = CombinatorialPurgedCV(time_s, end_s, 6, 2, embargo_s=embargo_bars * BAR)
    X = np.zeros((n, 1))
    pairs = list(zip(ours.split(X), theirs.split(X), strict=True))
    assert len(pairs) == 15
    for (fit, test), (their_fit, their_test) in pairs:
        assert fit.tolist() == sorted(their_fit.tolist())
        assert test.tolist() == sorted(their_test.tolist())


@pytest.mark.oracle
def test_walk_forward_agrees_with_purgedcv():
    import purgedcv

    rng = np.random.default_rng(5)
    n, blocks = 240, 5
    time_s = at("2026-01-05T00:15") + np.arange(n) * BAR
    end_s = time_s + rng.integers(1, 13, n) * BAR
    decided, over = (pd.Series(pd.to_datetime(t, unit="s", utc=True)) for t in (time_s, end_s))
    theirs = purgedcv.WalkForwardSplit(blocks, n // (blocks + 1), prediction_times=decided, evaluation_times=over)
    ours = PurgedWalkForward(time_s, end_s, blocks)
    for (fit, test), (their_fit, their_test) in zip(ours.split(np.zeros(n)), theirs.split(np.zeros((n, 1))), strict=True):
        assert fit.tolist() == their_fit.tolist()
        assert test.tolist() == their_test.tolist()


def test_scikit_learn_takes_them():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, check_cv, cross_val_score

    rng = np.random.default_rng(6)
    n = 240
    time_s = at("2026-01-05T00:15") + np.arange(n) * BAR
    end_s = np.where(np.arange(n) < n - 8, time_s + 8 * BAR, -1)
    X, y = rng.normal(size=(n, 2)), rng.integers(0, 2, n)
    for cv in (PurgedWalkForward(time_s, end_s, 3, embargo_s=BAR), CombinatorialPurgedCV(time_s, end_s, 5, 2, embargo_s=BAR)):
        assert check_cv(cv) is cv
        assert cross_val_score(LogisticRegression(), X, y, cv=cv).shape == (cv.get_n_splits(X, y),)
        assert GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=cv).fit(X, y).best_params_["C"] in (0.1, 1.0)
        with pytest.raises(UsageError, match="X has 239 rows"):
            next(iter(cv.split(X[:-1])))
        assert all((end_s[test] >= 0).all() for _, test in cv.split(X))


def test_rolling_splitter_forgets_the_far_past():
    time_s = at("2026-01-05T00:15") + np.arange(240) * BAR
    cv = PurgedWalkForward(time_s, time_s + BAR, 3, window_s=30 * BAR)
    assert [fit.size for fit, _ in cv.split(np.zeros(240))] == [30, 30, 30]


@pytest.mark.parametrize(
    ("blocks", "held_out", "message"), [(6, 6, "not all"), (2, 1, "at least 3"), (6, 0, "1 or more"), (30, 15, "splits")]
)
def test_combinatorial_refusals(blocks, held_out, message):
    time_s = np.arange(40) * BAR
    with pytest.raises(UsageError, match=message):
        CombinatorialPurgedCV(time_s, time_s + BAR, blocks, held_out)


def test_time_order_of_what_windows_give():
    time_s, end_s = hundred_days()
    windows = four_windows(time_s, end_s, embargo_s=12 * HOUR, min_rows=50)
    for name in Window:
        assert_time_ordered(time_s, windows.rows(name))
