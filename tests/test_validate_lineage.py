"""Lineage: canonical notes, no ancestor forgotten, the offender named."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.errors import LeakageError, RevisionError, UsageError
from trademl.validate.leakage import assert_fitted_before
from trademl.validate.lineage import Fit, FitKind, Lineage

fits = st.builds(
    Fit,
    st.sampled_from(list(FitKind)),
    st.sampled_from(["signal", "position", "shared"]),
    st.sampled_from([None, "r1", "r2"]),
    st.integers(0, 2_000_000_000),
    st.integers(1, 100_000),
)
lineages = st.lists(fits, max_size=8).map(lambda notes: Lineage(tuple(notes)))


@given(lineages, lineages)
def test_json_is_canonical_and_merge_is_a_union(a, b):
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).to_json() == b.merge(a).to_json()
    assert a.merge(a) == a
    assert set(a.merge(b).fits) == set(a.fits) | set(b.fits)
    assert Lineage.from_json(a.to_json()) == a
    assert Lineage(tuple(reversed(a.fits))).to_json() == a.to_json()


@given(lineages, st.integers(0, 2_000_000_000), st.integers(0, 100_000))
def test_check_agrees_with_the_independent_checker_on_every_fit(lineage, start_s, purge_s):
    def is_clean(fit):
        try:
            assert_fitted_before(fit.label_end_s, start_s, purge_s)
        except LeakageError:
            return False
        return True

    if lineage.fits and all(map(is_clean, lineage.fits)):
        lineage.check(start_s, purge_s)
    else:
        with pytest.raises(LeakageError):
            lineage.check(start_s, purge_s)


@pytest.mark.leakage
@pytest.mark.parametrize("kind", list(FitKind))
def test_every_kind_of_ancestor_is_named(kind):
    clean = Fit(FitKind.TREES, "signal", "r2", 1_000, 50)
    late = Fit(kind, "grandparent", "r0", 5_000, 70)
    child = Lineage((clean,)).merge(Lineage().merge(Lineage((late,))))
    child.check(5_100, 100)
    with pytest.raises(LeakageError) as refused:
        child.check(5_099, 100)
    text = str(refused.value)
    assert f"{kind.value} 'grandparent' of revision r0 (70 labels, the latest ending 1970-01-01T01:23:20Z)" in text
    assert "may start at 1970-01-01T01:25:00Z" in text
    assert "signal" not in text
    assert child.latest() == late


def test_an_empty_lineage_is_refused():
    with pytest.raises(LeakageError, match="lineage is empty"):
        Lineage().check(10**10, 0)
    assert Lineage().latest() is None


def test_notes_from_rows_names_and_refusals():
    end_s = np.array([100, 300, 200, -1])
    note = Fit.of_rows("scaler", "shared", [0, 1, 2], end_s)
    assert note == Fit(FitKind.SCALER, "shared", None, 300, 3)
    assert [f.revision for f in Lineage((note, Fit("trees", "x", "r1", 5, 5))).named("r2").fits] == ["r2", "r1"]
    with pytest.raises(UsageError, match="known label end"):
        Fit.of_rows("scaler", "shared", [0, 3], end_s)
    with pytest.raises(UsageError, match="scaler, trees, study, selection, calibration, risk_labels"):
        Fit("guess", "x", None, 1, 1)
    with pytest.raises(UsageError, match="rows = 0"):
        Fit("trees", "x", None, 1, 0)
    assert json.loads(Lineage((note,)).to_json())[0]["label_end_s"] == 300


@pytest.mark.parametrize("text", ["", "[{}]", '[{"kind":"guess","name":"x","revision":null,"label_end_s":1,"rows":1}]', "7"])
def test_an_unreadable_lineage_is_a_revision_error(text):
    with pytest.raises(RevisionError, match="lineage cannot be read"):
        Lineage.from_json(text)
