from __future__ import annotations

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tests.balancing.mixing import Mixer, check, generate
from tfmtl._keras import tf
from tfmtl.balancing.graddrop import GradDrop, one_signed
from tfmtl.balancing.gramian import TaskGradients

MATRIX = [[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("uniform", "leaks", "expected"),
    [
        # Sums [2, 2, 2], sums of sizes [10, 2, 2]: P = [0.6, 1, 1].
        (0.59, [0.0, 0.0], [6, 2, 2]),
        (0.61, [0.0, 0.0], [-4, 2, 2]),
        # The first task always passes a quarter of -4; the second passes the part kept by the draw.
        (0.59, [0.25, 0.0], [-1 + 6, 2, 2]),
        (0.61, [0.25, 0.0], [-4, 2, 2]),
        # A task that leaks wholly never loses anything.
        (0.59, [1.0, 0.0], [2, 2, 2]),
        (0.61, [0.0, 1.0], [2, 2, 2]),
    ],
)
def test_golden(uniform: float, leaks: list[float], expected: list[float]) -> None:
    mixed = one_signed(tf.constant(MATRIX), tf.fill([3], uniform), leaks)
    np.testing.assert_allclose(mixed, expected, rtol=1e-6)


def test_signs_that_agree_are_never_dropped() -> None:
    values = tf.constant([[1.0, -2.0, 0.0], [3.0, -1.0, 0.0]])
    for uniform in (0.0, 0.5, 1 - 1e-7):
        assert one_signed(values, tf.fill([3], uniform), [0.0, 0.0]).numpy().tolist() == [4, -3, 0]


def test_the_expectation_is_the_plain_sum() -> None:
    """P a - (1 - P) b = a - b for positive parts a, negative parts -b and P = a / (a + b)."""
    values = tf.constant(np.random.default_rng(1).normal(size=[4, 20]), tf.float32)
    grid = (np.arange(1000) + 0.5) / 1000  # every U once: an integral over [0, 1]
    many = tf.repeat(values[:, tf.newaxis], len(grid), axis=1)
    uniform = tf.constant(np.repeat(grid[:, np.newaxis], 20, axis=1), tf.float32)
    for leaks in ([0.0] * 4, [0.25] * 4):
        mean = tf.reduce_mean(one_signed(many, uniform, leaks), axis=0)
        np.testing.assert_allclose(mean, tf.reduce_sum(values, axis=0), atol=5e-3)


def test_every_element_of_every_variable_is_of_one_sign_and_drawn_anew() -> None:
    mixer, given = Mixer(GradDrop(seed=3)), generate(1)[0]
    signs = []
    for _ in range(12):
        mixed = mixer(given)
        for found, values in zip(mixed, given.gradients, strict=True):
            positive, negative = np.maximum(values, 0).sum(0), np.minimum(values, 0).sum(0)
            distance = np.minimum(np.abs(found - positive), np.abs(found - negative))
            assert distance.max() < 1e-5
        signs.append(np.concatenate([gradient.ravel() for gradient in mixed]) > 0)
    contested = [(values.max(0) > 0) & (values.min(0) < 0) for values in given.gradients]
    varied = np.std(signs, axis=0)[np.concatenate([place.ravel() for place in contested])] > 0
    assert varied.mean() > 0.8  # with one U for all elements or steps, most would be the same


def test_draws_depend_on_seed_step_and_variable_alone() -> None:
    steps = generate(3)
    one, same, other = Mixer(GradDrop(seed=1)), Mixer(GradDrop(seed=1)), Mixer(GradDrop(seed=2))
    results = [[mixer(given) for given in steps] for mixer in (one, same, other)]
    for first, second in zip(results[0], results[1], strict=True):
        check(first, second, rtol=0)
    assert any((a != b).any() for a, b in zip(results[0][0], results[2][0], strict=True))
    resumed = Mixer(GradDrop(seed=1))
    resumed(steps[2])
    resumed(steps[2])
    check(resumed(steps[2]), results[0][2], rtol=0)


def test_two_variables_of_one_shape_get_different_draws() -> None:
    balancer = GradDrop()
    balancer.bind(tasks_named(["a", "b"]))
    gradients = TaskGradients(tf.constant(np.random.default_rng(0).normal(size=(2, 50)), tf.float32), None, None)
    first, second = balancer.mix([gradients, gradients], tf.ones([2]), tf.constant([True, True]))
    assert (first.numpy() != second.numpy()).any()


@pytest.mark.parametrize("leak", [-0.1, 1.5, "all", float("nan")])
def test_a_leak_that_is_no_share_is_refused(leak: object) -> None:
    with pytest.raises(ValueError, match="The leak of task 'a' must be a number in"):
        GradDrop({"a": leak})


def test_a_leak_of_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Unknown task \['clik'\] in `leak` of GradDrop.*Did you mean 'click'"):
        GradDrop({"clik": 0.5}).bind(tasks_named(["click"]))
