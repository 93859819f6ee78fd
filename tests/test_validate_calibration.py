"""Calibration: the exact formula, optimality, fall-backs, and weights against a grid."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.errors import BadDataError, RevisionError, UsageError
from trademl.validate.calibration import Calibration, choose_weights, fit_temperature, identity, reliability
from trademl.validate.metrics import log_loss
from trademl.validate.platt import Platt, fit_platt


def drawn(seed, n=3000, alpha=(4, 4, 3)):
    """Honest probabilities and classes drawn from them."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(alpha, n)
    return p, (rng.random((n, 1)) > p.cumsum(axis=1)[:, :2]).sum(axis=1), rng


@given(st.lists(st.floats(0.05, 5), min_size=3, max_size=3), st.lists(st.floats(-2, 2), min_size=3, max_size=3), st.integers(0, 99))
def test_the_formula_exactly(scale, shift, seed):
    p = np.random.default_rng(seed).dirichlet([0.3, 0.3, 0.3], 5)
    p[0] = [1.0, 0.0, 0.0]  # floored
    raw = np.exp(np.array(scale) * np.log(np.maximum(p, 1e-7)) + np.array(shift))
    assert Calibration(scale, shift).apply(p) == pytest.approx(raw / raw.sum(axis=1, keepdims=True), rel=1e-12)


def test_identity_json_and_refusals():
    p, _, _ = drawn(0, 20)
    assert identity().apply(p) == pytest.approx(p)
    fitted = Calibration((1.5, 1.0, 0.5), (0.1, 0.0, -0.1), "temperature")
    assert Calibration.from_json(fitted.to_json()) == fitted
    assert json.loads(fitted.to_json())["scale"] == [1.5, 1.0, 0.5]
    assert Calibration(np.array([1.0, 2.0]), np.zeros(2)).scale == (1.0, 2.0)
    for scale, shift in (((0.0, 1.0), (0, 0)), ((-1.0, 1.0), (0, 0)), ((1.0,), (0, 0)), ((np.nan,), (0,)), ((), ())):
        with pytest.raises(UsageError, match="calibration scale"):
            Calibration(scale, shift)
    with pytest.raises(RevisionError):
        Calibration.from_json('{"scale":[1],"shift":[0],"knob":1}')


@settings(max_examples=8)
@given(st.integers(0, 20), st.sampled_from([0.4, 1.0, 2.5]))
def test_temperature_is_the_best_single_scale(seed, distortion):
    p, y, rng = drawn(seed, 600)
    w = rng.random(600)
    p = Calibration((distortion,) * 3, (0,) * 3).apply(p)
    fitted = fit_temperature(p, y, w)
    best = log_loss(fitted.apply(p), y, w)
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert best <= log_loss(Calibration(np.array(fitted.scale) * factor, (0,) * 3).apply(p), y, w) + 1e-12


def test_the_fit_finds_what_was_distorted_and_ignores_the_scale_of_weights():
    p, y, _ = drawn(1, 20_000)
    wrong = Calibration((2.0,) * 3, (0.0,) * 3).apply(p)
    fitted = fit_temperature(wrong, y)
    assert fitted.apply(wrong) == pytest.approx(p, abs=0.03)
    assert fit_temperature(wrong, y, np.full(y.size, 0.17)) == fitted


def test_noise_hits_the_edge_and_says_so():
    p, y, rng = drawn(3, 4000)
    fitted = fit_temperature(p[rng.permutation(4000)], np.array([1, 2, 0])[y])
    assert fitted.scale[0] < 0.2
    flat = fit_temperature(np.roll(0.9 * np.eye(3)[y] + 0.1 / 3, 1, axis=1), y)  # always wrong
    assert flat.scale[0] == pytest.approx(0.02, rel=0.01)
    assert "edge" in flat.reason


def test_reliability_bins_hold_everything_and_separate_good_from_bad():
    p, y, rng = drawn(4, 6000)
    good = reliability(p, y)
    bad = reliability(Calibration((2.5,) * 3, (0,) * 3).apply(p), y)
    assert good.error < 2 * good.error_if_perfect
    assert bad.error > 4 * bad.error_if_perfect
    for k in range(3):
        rows = [b for b in good.bins if b.class_index == k]
        assert sum(b.n for b in rows) == good.n == 6000
        assert len(rows) == 10
        assert sum(b.n * b.observed for b in rows) == pytest.approx((y == k).sum())
        assert all(a.high <= b.low for a, b in pairwise(rows))
    w = rng.random(6000)
    slow = sum(w[y == k].sum() for k in range(3)) / w.sum()
    assert slow == pytest.approx(1)
    weighted = reliability(p, y, 1, w)  # one bin: the class shares
    assert weighted.error == pytest.approx(np.mean([abs((w * (y == k)).sum() - (w * p[:, k]).sum()) / w.sum() for k in range(3)]))
    constant = reliability(np.full((30, 3), 1 / 3), np.arange(30) % 3)
    assert len(constant.bins) == 3
    assert constant.error == pytest.approx(0, abs=1e-12)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.sampled_from([(1.0, 1.0, 1.0), (3.0, 0.2, 1.0), (0.1, 0.1, 0.1)]))
def test_weights_beat_every_point_of_a_grid(seed, sharpness):
    p, y, rng = drawn(seed, 400)
    w = rng.random(400)
    noisy = [rng.dirichlet([4, 4, 3], 400) * (1 - a) + p * a for a in rng.random(3)]
    models = np.stack([Calibration((s,) * 3, (0,) * 3).apply(m) for s, m in zip(sharpness, noisy, strict=True)], axis=1)
    chosen = choose_weights(models, y, w)
    assert chosen.min() >= 0
    assert chosen.sum() == pytest.approx(1, abs=1e-12)
    loss = log_loss((models * chosen[:, None]).sum(axis=1), y, w)
    for a in np.linspace(0, 1, 11):
        for b in np.linspace(0, 1 - a, 6):
            mix = np.array([a, b, max(1 - a - b, 0)])
            assert loss <= log_loss((models * mix[:, None]).sum(axis=1), y, w) + 1e-6


def test_weights_edge_cases():
    p, y, _ = drawn(5, 500)
    assert choose_weights(p[:, None], y).tolist() == [1.0]
    assert choose_weights(np.stack([p, p], axis=1), y).tolist() == [0.5, 0.5]
    with pytest.raises(BadDataError, match="models, classes"):
        choose_weights(p, y)
    with pytest.raises(BadDataError, match="row 0"):
        choose_weights(np.stack([p, p * 2], axis=1), y)


@pytest.mark.parametrize("spread", [0.004, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("centre", [0.1, 0.5, 0.9])
def test_platt_finds_the_largest_likelihood_of_narrow_scores_too(spread, centre):
    """A step that was cut part by part turned away: scores of 0.45 to 0.55 got a slope of 20 and a chance of 0."""
    rng = np.random.default_rng(1)
    score, time_s = centre + spread * rng.uniform(-1, 1, 400), 3_600 * np.arange(400)
    y = rng.random(400) < Platt(2 / spread, -2 * centre / spread).apply(score)
    found = fit_platt(score, y, time_s)
    p = found.apply(score)
    assert abs((p - y).sum()) < 1e-6  # both derivatives of the likelihood are zero there
    assert abs(((p - y) * (score - centre) / spread).sum()) < 1e-6
    assert abs(found.scale * spread - 2) < 0.8
