"""Maps that calibrate probabilities: golden values, properties, and the same numbers in the layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special

from tfmtl._keras import tf
from tfmtl.layers import Calibration
from tfmtl.recipes.calibration_maps import (
    FITS,
    MOST_KNOTS,
    SMALLEST_SLOPE,
    Floats,
    LogitMap,
    isotonic,
    platt,
    temperature,
)


def rows(*groups: tuple[float, int, int]) -> tuple[Floats, Floats, Floats]:
    """Return logits, labels and weights of groups (logit, positives, negatives)."""
    logits = np.concatenate([np.full(p + n, z) for z, p, n in groups])
    labels = np.concatenate([np.repeat([1.0, 0.0], [p, n]) for _, p, n in groups])
    return logits[:, np.newaxis], labels, np.ones(len(labels))


def drawn(slope: float, shift: float, count: int = 20_000) -> tuple[Floats, Floats, Floats]:
    """Return logits, labels with the log-odds slope z + shift, and random weights."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=count) * 2
    labels = (rng.random(count) < scipy.special.expit(slope * logits + shift)).astype(np.float64)
    return logits[:, np.newaxis], labels, rng.uniform(0.5, 2.0, count)


def test_temperature_of_two_logits() -> None:
    """sigma(2 a) = 3/4 and sigma(-2 a) = 1/4, so that a = log(3) / 2."""
    assert temperature(*rows((2.0, 3, 1), (-2.0, 1, 3))).slopes == pytest.approx([math.log(3) / 2] * 2)


def test_temperature_counts_weights() -> None:
    logits, labels, _ = rows((2.0, 1, 1), (-2.0, 1, 1))
    weights = np.array([3.0, 1.0, 1.0, 3.0])
    assert temperature(logits, labels, weights).slopes[0] == pytest.approx(math.log(3) / 2)


def test_temperature_of_three_classes() -> None:
    """With logits (3, 0, 0), e^3a / (e^3a + 2) = 2/3 holds at e^3a = 4."""
    logits = np.tile([3.0, 0.0, 0.0], (3, 1))
    found = temperature(logits, np.array([0.0, 0.0, 2.0]), np.ones(3))
    assert found.slopes[0] == pytest.approx(math.log(4) / 3)
    assert found.values[0] == 0


def test_temperature_has_bounds() -> None:
    assert temperature(*rows((1.0, 5, 0), (-1.0, 0, 5))).slopes[0] == 100
    assert temperature(*rows((1.0, 501, 500), (-1.0, 500, 501))).slopes[0] == 0.01


def test_platt_of_two_logits() -> None:
    """Of four labels each, 1 becomes 5/6 and 0 becomes 1/6: means (3 5/6 + 1/6) / 4 = 2/3 at 1, and 1/3 at -1.

    a + b = log 2 and -a + b = -log 2, so that a = log 2 and b = 0.
    """
    found = platt(*rows((1.0, 3, 1), (-1.0, 1, 3)))
    assert found is not None
    assert found.slopes == pytest.approx([math.log(2)] * 2)
    assert found.values == pytest.approx([0.0], abs=1e-9)


def test_platt_solves_its_equations_with_weights() -> None:
    logits, labels, weights = drawn(0.5, 1.0)
    found = platt(logits, labels, weights)
    assert found is not None
    positives, negatives = labels.sum(), (1 - labels).sum()
    target = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    gaps = weights * (scipy.special.expit(found(logits[:, 0])) - target)
    assert [gaps.sum(), gaps @ logits[:, 0]] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert [found.slopes[0], found.values[0]] == pytest.approx([0.5, 1.0], abs=0.05)
    unweighted = platt(logits, labels, np.ones_like(weights))
    assert unweighted is not None
    assert abs(unweighted.values[0] - found.values[0]) > 1e-4


def test_platt_is_finite_where_a_threshold_separates_and_refuses_a_falling_map() -> None:
    found = platt(*rows((1.0, 50, 0), (-1.0, 0, 50)))
    assert found is not None
    assert found.slopes[0] == pytest.approx(math.log(51))  # sigma(a) = 51/52, with b = 0
    assert platt(*rows((1.0, 1, 30), (-1.0, 30, 1))) is None


@pytest.mark.parametrize("shift", [-60.0, 60.0])
def test_platt_converges_far_from_its_start(shift: float) -> None:
    logits, labels, weights = drawn(0.5, 0.0)
    found = platt(10 * logits + shift, labels, weights)
    assert found is not None
    assert found.slopes[0] == pytest.approx(0.05, abs=0.005)
    assert found(np.array([shift])) == pytest.approx([0.0], abs=0.05)


def test_isotonic_joins_violators() -> None:
    """Rates 2/3 at 0 and 1/3 at 1 are pooled to 1/2 at their centre 1/2; the rate at 3 is 3/4."""
    found = isotonic(*rows((0.0, 20, 10), (1.0, 10, 20), (3.0, 30, 10)))
    assert found.knots == pytest.approx([0.5, 3.0])
    assert found.values == pytest.approx([0.0, math.log(3)])
    assert found.slopes == pytest.approx([1.0, math.log(3) / 2.5, 1.0])


def test_isotonic_counts_weights() -> None:
    """Weight 3 for the 20 positives at 1 makes the rate 60 / (60 + 20)."""
    logits, labels, weights = rows((-1.0, 20, 20), (1.0, 20, 20))
    weights[(logits[:, 0] > 0) & (labels > 0)] = 3.0
    assert isotonic(logits, labels, weights).values == pytest.approx([0.0, math.log(3)])


def test_isotonic_needs_ten_rows_of_each_class_for_a_knot() -> None:
    found = isotonic(*rows((-2.0, 9, 20), (-1.0, 10, 20), (1.0, 30, 15), (2.0, 30, 9)))
    assert len(found.knots) == 2  # 19 of 59 from two blocks, and 60 of 84, the last of which lacks negatives
    assert scipy.special.expit(found.values) == pytest.approx([19 / 59, 60 / 84])
    alone = isotonic(*rows((1.0, 3, 1), (0.0, 1, 3)))
    assert [alone.knots[0], alone.values[0]] == pytest.approx([0.5, 0.0])


def test_isotonic_has_at_most_64_knots_and_the_observed_rate() -> None:
    logits, labels, weights = drawn(1.0, -1.0, 60_000)
    found = isotonic(logits, labels, weights)
    assert 20 < len(found.knots) <= MOST_KNOTS
    assert (found.slopes >= 0.999 * SMALLEST_SLOPE).all()
    served = scipy.special.expit(found(logits[:, 0]))
    assert np.average(served, weights=weights) == pytest.approx(np.average(labels, weights=weights), abs=2e-3)
    assert (np.diff(found(np.linspace(-9, 9, 5000))) > 0).all()


def test_the_layer_computes_the_same_numbers() -> None:
    fitted = [isotonic(*drawn(0.5, 1.0, 3000)), LogitMap.affine(0.5, -2.0)]
    knots = max(len(one.knots) for one in fitted)
    layer = Calibration(knots, 2, num_indices=2)
    logits, indices = np.linspace(-8, 8, 999), np.arange(999, dtype=np.int32) % 2
    inputs = [tf.constant(logits[:, np.newaxis], tf.float32), tf.constant(indices)]
    layer(inputs)
    layer.set_maps(*map(np.stack, zip(*(one.padded(knots) for one in fitted), strict=True)), [0, 1])
    expected = np.where(indices == 0, fitted[0](logits), fitted[1](logits))
    np.testing.assert_allclose(layer(inputs).numpy()[:, 0], expected, rtol=1e-5, atol=1e-5)
    assert fitted[0].shifted(3.0)(logits) == pytest.approx(fitted[0](logits) + 3)


@pytest.mark.parametrize("name", sorted(FITS))
def test_labels_that_fall_with_the_logits_have_no_map(name: str) -> None:
    z = np.linspace(-2.0, 2.0, 60)[:, None]
    labels, weights = (z[:, 0] < 0).astype(float), np.ones(60)
    assert FITS[name](z, labels, weights) is None
    assert FITS[name](z, 1 - labels, weights) is not None
