"""The judged rows that a revision keeps: what they hold, how one is found, what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from trademl.errors import RevisionError, UsageError
from trademl.pipeline.judged_rows import BLENDS, JudgedRows

pytestmark = pytest.mark.shap
NOON_S = 1_767_268_800  # 2026-01-01T12:00Z
ROWS = JudgedRows(
    x=np.arange(12, dtype=np.float32).reshape(4, 3),
    time_s=NOON_S + 900 * np.array([0, 1, 2, 4]),
    window=np.array([1, 1, 2, 2], np.int8),
    position_row=np.array([1, 3, 3], np.int32),
    position_state=np.ones((3, 4), np.float32),
    blends={name: np.ones(3) for name in BLENDS},
)


def test_what_is_written_is_read():
    again = JudgedRows.from_bytes(ROWS.to_bytes(), 3)
    for name in ("x", "time_s", "window", "position_row", "position_state", "position_x"):
        np.testing.assert_array_equal(getattr(again, name), getattr(ROWS, name))
    assert again.position_x.shape == (3, 7)
    assert again.to_bytes() == ROWS.to_bytes()


@pytest.mark.parametrize(
    ("asked", "row"),
    [("0", 0), ("-1", 3), ("3", 3), ("2026-01-01T12:15Z", 1), ("2026-01-01 13:00", 3), ("2026-01-01T14:30:00+02:00", 2)],
)
def test_a_decision_is_found_by_number_or_time(asked, row):
    assert ROWS.at(asked) == row


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("4", "no decision 4: there are 4 rows, from 2026-01-01T12:00:00Z"),
        ("-5", "no decision -5"),
        ("2026-01-01T12:45Z", "nearest are at 2026-01-01T12:30:00Z and 2026-01-01T13:00:00Z"),
        ("2027-01-01", "nearest are at 2026-01-01T13:00:00Z"),
        ("yesterday", "neither a row's number nor a time"),
    ],
)
def test_a_decision_that_is_not_there_is_refused(asked, said):
    with pytest.raises(UsageError, match=said):
        ROWS.at(asked)


def test_without_a_row_every_decision_is_refused():
    nothing = replace(ROWS, **{name: getattr(ROWS, name)[:0] for name in ("x", "time_s", "window", "position_row", "position_state")})
    with pytest.raises(UsageError, match="there is no row"):
        JudgedRows.from_bytes(nothing.to_bytes(), 3).at("0")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": ROWS.x[:, :2]}, r"x has shape \(4, 2\), the revision has 3 features"),
        ({"time_s": ROWS.time_s[::-1]}, "each later than the one before"),
        ({"window": ROWS.window[:2]}, "as many windows"),
        ({"position_row": np.array([0, 1, 4])}, "must name one of 4 rows"),
        ({"blends": {}}, "signal_weights"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change, said):
    with pytest.raises(RevisionError, match=said):
        JudgedRows.from_bytes(replace(ROWS, **change).to_bytes(), 3)
    with pytest.raises(RevisionError, match=r"judged_rows\.npz cannot be read"):
        JudgedRows.from_bytes(b"PK no archive", 3)
