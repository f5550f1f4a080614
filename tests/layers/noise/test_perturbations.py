"""Radius, direction and ascent of perturbations against NumPy, also for gradients that vanish or overflow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers import Adversarial, VirtualAdversarial
from tfmtl.layers.noise.adversarial import TaskLosses
from tfmtl.layers.noise.perturbations import ascent, directions, projected, radii, random_directions

RNG = np.random.default_rng(5)
QUERY, CANDIDATE = (RNG.normal(size=(6, d)).astype(np.float32) for d in (3, 5))
CURVATURE = np.diag([1.0, 4.0, 2.0]).astype(np.float32)


def rows(vectors: Any) -> np.ndarray:
    return np.linalg.norm(np.asarray(vectors), axis=1)


def test_radius_is_relative_to_the_root_mean_square_of_the_row_lengths() -> None:
    """Twice as long encodings have twice the radius: they cannot grow out of it."""
    expected = [0.2 * np.sqrt(np.mean(rows(z) ** 2)) for z in (QUERY, CANDIDATE)]
    np.testing.assert_allclose(radii([tf.constant(QUERY), tf.constant(CANDIDATE)], 0.2), expected, rtol=1e-6)
    np.testing.assert_allclose(radii([tf.constant(2 * QUERY)], 0.2), 2 * expected[0], rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-25, 1e-10, 1.0, 1e7])
def test_directions_have_length_one_for_gradients_of_any_size(factor: float) -> None:
    [found] = directions([tf.constant(QUERY * factor)])
    np.testing.assert_allclose(found, QUERY / rows(QUERY)[:, np.newaxis], rtol=1e-5)


def test_rows_without_a_finite_gradient_stay() -> None:
    [found] = directions([tf.constant([[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [0.0, -2.0]], tf.float16)])
    np.testing.assert_allclose(found, [[0, 0], [0, 0], [0, 0], [0, -1]], rtol=1e-6)
    [found] = directions([tf.constant([[1e-35, 0.0], [1e30, 0.0]])])
    np.testing.assert_array_equal(found, np.zeros([2, 2]))


def test_projection_cuts_long_rows_only() -> None:
    long, short = projected([tf.constant(10 * QUERY), tf.constant(QUERY / 100)], [tf.constant(1.0)] * 2)
    np.testing.assert_allclose(rows(long), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(short, QUERY / 100)


@pytest.mark.parametrize(("steps", "size"), [(1, 1.0), (2, 0.75), (5, 0.5), (9, 3.0)])
def test_ascent_is_projected_and_ends_where_numpy_does(steps: int, size: float) -> None:
    """The gradient of x A x / 2 + b x is A x + b."""
    shifts = np.zeros_like(QUERY)
    for _ in range(steps):
        gradient = shifts @ CURVATURE + QUERY
        shifts = shifts + size * 0.3 * gradient / rows(gradient)[:, np.newaxis]
        shifts = shifts * np.minimum(1.0, 0.3 / rows(shifts))[:, np.newaxis]
    start = [tf.zeros_like(QUERY)]
    [found] = ascent(lambda x: [x[0] @ CURVATURE + QUERY], start, [tf.constant(0.3)], steps, size)
    np.testing.assert_allclose(found, shifts, rtol=1e-4, atol=1e-6)
    assert rows(found).max() <= 0.3 * (1 + 1e-6)


class Bowl:
    """Passes of a loss b x and a divergence x A x / 2 of shifts x of the encodings; records the last shifts."""

    encodings = (tf.constant(QUERY),)
    seed = tf.constant([3, 4])

    def loss_gradients(self, shifts: Any = None) -> Any:
        return [tf.constant(QUERY)]

    def divergence_gradients(self, shifts: Any) -> Any:
        return [shifts[0] @ CURVATURE]

    def losses(self, shifts: Any) -> TaskLosses:
        self.shifts = shifts[0]
        return {"a": (tf.reduce_sum(QUERY * shifts[0]), tf.constant(6.0))}

    def divergences(self, shifts: Any) -> TaskLosses:
        self.shifts = shifts[0]
        return {"a": (tf.reduce_sum(shifts[0] @ CURVATURE * shifts[0]), tf.constant(6.0))}


def test_one_step_is_the_fast_gradient_method() -> None:
    """delta = r g / |g| with g = b, so that the loss is r |b|; a step downhill would have its negative."""
    radius = 0.5 * np.sqrt(np.mean(rows(QUERY) ** 2))
    loss, weight = Adversarial(strength=0.5).adversarial_losses(Bowl())["a"]
    assert float(loss) == pytest.approx(radius * rows(QUERY).sum(), rel=1e-5)
    assert float(weight) == 6


@pytest.mark.parametrize("steps", [2, 3, 10])
def test_more_steps_of_default_size_reach_the_boundary(steps: int) -> None:
    passes = Bowl()
    Adversarial(strength=0.5, steps=steps).adversarial_losses(passes)
    np.testing.assert_allclose(rows(passes.shifts), radii(passes.encodings, 0.5)[0], rtol=1e-5)


def test_small_steps_stay_inside() -> None:
    passes = Bowl()
    Adversarial(strength=0.5, steps=3, step_size=0.1).adversarial_losses(passes)
    np.testing.assert_allclose(rows(passes.shifts), 0.3 * radii(passes.encodings, 0.5)[0], rtol=1e-5)


def test_power_iteration_finds_the_direction_of_largest_change() -> None:
    """The eigenvector of the largest eigenvalue of A, 4, is the second axis."""
    passes = Bowl()
    loss, _ = VirtualAdversarial(strength=0.5, iterations=30).adversarial_losses(passes)["a"]
    radius = float(radii(passes.encodings, 0.5)[0])
    np.testing.assert_allclose(np.abs(passes.shifts) / radius, np.tile([0, 1, 0], [6, 1]), atol=1e-4)
    assert float(loss) == pytest.approx(6 * 4 * radius**2, rel=1e-4)


def test_one_iteration_is_one_gradient_at_a_random_direction() -> None:
    passes = Bowl()
    VirtualAdversarial(strength=0.5).adversarial_losses(passes)
    [draw] = random_directions([QUERY], passes.seed)
    assert len(np.unique(np.sign(draw), axis=0)) == 2  # both signs occur
    [expected] = directions([draw @ CURVATURE])
    np.testing.assert_allclose(passes.shifts, radii(passes.encodings, 0.5)[0] * expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"strength": 0.0}, "strength"),
        ({"weight": -1.0}, "weight"),
        ({"steps": 0}, "steps"),
        ({"step_size": 0}, "step"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Adversarial(**arguments)
