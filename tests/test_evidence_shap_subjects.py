"""Summaries of contributions: constant columns, missing values, one row, no row, and parts that do not fit together."""

import json
from dataclasses import replace

import numpy as np
import pytest

from trademl.errors import UsageError
from trademl.evidence.figures import evenly
from trademl.evidence.shap_subjects import Contributions, View, floors, joined, subject_of
from trademl.evidence.shap_summary import SHAP_KIND, SHAP_SCHEMA, ShapSummary, Whose, subject_words

pytestmark = pytest.mark.shap
NOON_S = 1_767_268_800
N = 400
X = np.random.default_rng(2).normal(size=(N, 4))
X[:, 2] = 5.0  # constant
X[::7, 1] = np.nan


def made(n=N, folds=None):
    """Three classes that hang on the first column, a little on the second, and not on the constant one."""
    parts = np.nan_to_num(X[:n, None, :]) * np.array([0.03, 0.01, 0.0, 0.002]) * np.array([-1.0, 1.0, 0.5])[:, None]
    time_s = NOON_S + 3_600 * np.arange(n)
    views = tuple(View(unit, parts * size, np.full(3, 1 / 3)) for unit, size in (("probability", 1.0), ("margin", 4.0)))
    return Contributions("signal", ("SELL", "BUY", "HOLD"), ("a", "b", "flat", "d"), X[:n], time_s, views, folds or (n,), n)


def summary_of(subject):
    return ShapSummary(SHAP_SCHEMA, SHAP_KIND, Whose.RECIPE, "test", 1, (subject,))


def test_all_classes_and_each_in_both_units_with_direction_and_interval():
    subject = subject_of(made(folds=(150, 250)), floor={("all", "probability"): 0.002}, seed=1)
    assert [(r.output, r.unit) for r in subject.rankings[:4]] == [(o, "probability") for o in ("all", "SELL", "BUY", "HOLD")]
    assert len(subject.rankings) == 8 and subject.days == 18
    strongest = subject.ranking("SELL").features[0]
    assert (strongest.name, strongest.direction) == ("a", -1.0) and strongest.low < strongest.mean < strongest.high
    assert subject.ranking("SELL").features[0].is_above_noise is None  # no floor was measured for a class alone
    assert [f.name for f in subject.ranking().above_noise] == ["a", "b"]
    assert [fold.rows for fold in subject.drift.folds] == [150, 250]
    assert ShapSummary.from_json(json.loads(json.dumps(summary_of(subject).to_json(), allow_nan=False))).subjects == (subject,)


def test_a_constant_column_has_no_direction_and_missing_values_stand_apart():
    subject = subject_of(made(), seed=1)
    flat = next(f for f in subject.ranking("BUY").features if f.name == "flat")
    assert (flat.mean, flat.share, flat.direction) == (0.0, 0.0, None)
    assert "flat" not in {curve.feature for curve in subject.dependence}
    curve = next(curve for curve in subject.dependence if (curve.feature, curve.output) == ("b", "BUY"))
    assert curve.missing_rows == len(range(0, N, 7)) and sum(curve.rows) + curve.missing_rows == N
    assert next(f for f in subject.ranking("BUY").features if f.name == "b").direction == 1.0  # of the rows that have a value


@pytest.mark.parametrize("n", [0, 1])
def test_one_row_and_none_are_no_error(n):
    subject = subject_of(made(n), seed=1)
    assert (subject.rows, subject.days, len(subject.rankings)) == (n, n, 8 * n)
    assert subject.drift is None and all(f.low is None and f.is_above_noise is None for r in subject.rankings for f in r.features)
    assert ("no row was explained" in subject_words(subject)) == (n == 0)
    assert ShapSummary.from_json(summary_of(subject).to_json()).subjects == (subject,)


def test_a_head_that_always_answers_the_same_says_so():
    head = Contributions(
        "risk_p1", ("multiplier",), ("x",), X[:, :1], made().time_s, (View("multiplier", np.zeros((N, 1, 1)), np.array([1.2])),), (N,), N
    )
    assert "it answers 1.2 whatever it is asked" in subject_words(subject_of(head, seed=1))


def test_the_floor_is_the_highest_that_a_copy_reaches():
    found = floors(made(), 1, seed=1)
    own = subject_of(made(), seed=1).ranking("BUY", "margin")
    assert found["BUY", "margin"] == pytest.approx(next(f.high for f in own.features if f.name == "d"), rel=1e-5)
    assert set(found) == {(o, u) for o in ("all", "SELL", "BUY", "HOLD") for u in ("probability", "margin")}


def test_parts_are_joined_by_their_rows_and_refused_where_they_do_not_fit():
    one, two = made(100), replace(made(100), views=tuple(replace(v, base=v.base + 0.3) for v in made(100).views), rows_asked=500)
    both = joined([one, two, two])
    assert (both.folds, both.rows_asked) == ((100, 100, 100), 1_100)
    np.testing.assert_allclose(both.views[0].base, 1 / 3 + 0.2)
    with pytest.raises(UsageError, match="no part"):
        joined([])
    with pytest.raises(UsageError, match="signal: 400 times"):
        replace(made(), x=X[:, :3])
    assert evenly(10, 4).tolist() == [0, 3, 6, 9] and evenly(3, 10).tolist() == [0, 1, 2]
    assert evenly(10, 0).tolist() == evenly(0, 4).tolist() == []
