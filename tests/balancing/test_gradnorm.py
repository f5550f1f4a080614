from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tfmtl._keras import keras, tf
from tfmtl.balancing.gradnorm import GradNorm, next_weights


def bound(tasks: int = 3, **arguments: Any) -> GradNorm:
    balancer = GradNorm(**arguments)
    balancer.bind(tasks_named([f"t{i}" for i in range(tasks)]))
    return balancer


def step(balancer: GradNorm, lengths: Any, losses: Any = None, observed: Any = None) -> np.ndarray:
    gramian = tf.constant(np.diag(np.square(np.asarray(lengths, np.float64))), tf.float32)
    tasks = gramian.shape[0]
    losses = tf.ones([tasks]) if losses is None else tf.constant(losses, tf.float32)
    seen = tf.constant([True] * tasks if observed is None else observed)
    return balancer.task_weights(gramian, losses, seen).numpy()


def test_golden_step() -> None:
    # First losses (2, 8), then (1, 8): progress (1/2, 1) of mean 3/4, r = (2/3, 4/3); alpha is 2, r^2 = (4/9, 16/9).
    # The first batch: r = 1, G = (6, 2) over their mean 4 is (3/2, 1/2): steps +0.1 3/2 and -0.1 1/2, normalised to 2.
    # The second: G / mean = 6 w_1 and 2 w_2 over their mean; the first is above 4/9, the second below 16/9.
    balancer = bound(2, alpha=2.0, learning_rate=0.1)
    np.testing.assert_array_equal(step(balancer, [6, 2], [2, 8]), [1, 1])  # a step takes the weights from before
    moved = np.exp([-0.15, 0.05])
    second = 2 * moved / moved.sum()
    np.testing.assert_allclose(step(balancer, [6, 2], [1, 8]), second, rtol=1e-5)
    sizes = second * [6, 2] / np.mean(second * [6, 2])
    assert sizes[0] > 4 / 9
    assert sizes[1] < 16 / 9
    moved = second * np.exp(-0.1 * sizes * [1, -1])
    np.testing.assert_allclose(step(balancer, [6, 2], [1, 8]), 2 * moved / moved.sum(), rtol=1e-5)


def test_a_weight_falls_to_a_millionth_at_most() -> None:
    # Sizes (3/2, 1/2) over equal progress: steps 60 and -20; exp(-80) is below 1e-6, and the sum stays 2.
    ones, seen = tf.ones([2]), tf.constant([True, True])
    found = next_weights(ones, tf.constant([3.0, 1.0]), ones, seen, 0.0, 40.0).numpy()
    np.testing.assert_allclose(found, [2e-6, 2], rtol=1e-4)


def test_the_step_is_the_gradient_of_the_stated_loss() -> None:
    """With respect to log w, with the targets constant and lengths in units of their mean."""
    rng = np.random.default_rng(0)
    weights, lengths, progress = (tf.constant(rng.uniform(0.5, 2, 4), tf.float32) for _ in range(3))
    logarithms = tf.math.log(weights)
    with tf.GradientTape() as tape:
        tape.watch(logarithms)
        sizes = tf.exp(logarithms) * lengths
        mean = tf.stop_gradient(tf.reduce_mean(sizes))
        loss = tf.reduce_sum(tf.abs(sizes - mean * (progress / tf.reduce_mean(progress)) ** 1.5)) / mean
    moved = tf.exp(logarithms - 0.1 * tape.gradient(loss, logarithms))
    expected = moved * tf.reduce_sum(weights) / tf.reduce_sum(moved)
    found = next_weights(weights, lengths, progress, tf.constant([True] * 4), 1.5, 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_lengths_become_equal_when_tasks_learn_alike() -> None:
    balancer = bound(3, alpha=1.5, learning_rate=0.02)
    lengths = np.array([100.0, 1.0, 3.0])
    train = tf.function(balancer.task_weights)
    gramian = tf.constant(np.diag(lengths**2), tf.float32)
    for _ in range(400):
        weights = train(gramian, tf.ones([3]), tf.constant([True] * 3)).numpy()
    assert train.experimental_get_tracing_count() == 1
    assert weights.sum() == pytest.approx(3, rel=1e-5)
    np.testing.assert_allclose(weights * lengths / np.mean(weights * lengths), 1, atol=0.06)


def test_a_task_that_learns_slowly_gets_a_longer_gradient() -> None:
    balancer = bound(2, alpha=1.0, learning_rate=0.02)
    step(balancer, [1, 1], [1, 1])
    for _ in range(200):
        weights = step(balancer, [1, 1], [0.5, 1.5])  # r = (1/2, 3/2): targets of mean 1 that the weights can meet
    np.testing.assert_allclose(weights, [0.5, 1.5], atol=0.06)


def test_unobserved_tasks_keep_their_state_and_do_not_count() -> None:
    seen = [True, False, True]
    wide, narrow = bound(3, learning_rate=0.1), bound(2, learning_rate=0.1)
    for losses in ([2.0, 3.0], [1.0, 2.9], [0.5, 2.8]):
        weights = step(wide, [5, 0, 1], [losses[0], 0, losses[1]], seen)
        np.testing.assert_allclose(weights[[0, 2]], step(narrow, [5, 1], losses), rtol=1e-5)
    first_losses, learned = wide._first_losses.numpy(), wide._learned.numpy()
    assert (first_losses[1], learned[1]) == (0, 1)
    np.testing.assert_array_equal(first_losses[[0, 2]], [2, 3])
    assert learned.sum() == pytest.approx(3)
    step(wide, [5, 2, 1], [0.5, 7, 2.8])  # its first loss is that of the first batch that has it
    np.testing.assert_array_equal(wide._first_losses, [2, 7, 3])
    alone = step(wide, [0, 2, 0], [0, 6, 0], [False, True, False])
    assert alone[1] == 1


def test_what_is_known_of_unobserved_tasks_does_not_matter() -> None:
    seen, every = tf.constant([True, False, True]), tf.constant([True, True])
    weights, lengths, progress = tf.constant([[0.5, 5.0, 2.0], [4.0, 9.0, 1.0], [1.2, 90.0, 0.9]])
    found = next_weights(weights, lengths, progress, seen, 2.0, 0.1).numpy()
    narrow = next_weights(*(tf.gather(part, [0, 2]) for part in (weights, lengths, progress)), every, 2.0, 0.1)
    np.testing.assert_allclose(found[[0, 2]], narrow, rtol=1e-6)
    assert found[1] == 5
    # Lengths (2, 2) of mean 2, so that only r = (8/7, 6/7) decides: the first is too short by it, the second too long.
    np.testing.assert_allclose(found[0] / found[2], np.exp(0.2) / 4, rtol=1e-5)


def test_order_and_units_do_not_matter() -> None:
    order = [2, 0, 1]
    balancers = [bound(3), bound(3), bound(3)]
    lengths, losses = np.array([3.0, 1.0, 0.2]), np.array([1.0, 2.0, 0.7])
    for decay in (1, 0.9, [0.5, 0.9, 0.7]):
        now = losses * decay
        expected = step(balancers[0], lengths, now)
        np.testing.assert_allclose(step(balancers[1], lengths[order], now[order]), expected[order], rtol=1e-5)
        np.testing.assert_allclose(step(balancers[2], lengths * 1e12, now * 1e3), expected, rtol=1e-4)
    assert expected.std() > 0.01


@pytest.mark.parametrize(
    ("lengths", "losses"),
    [
        ([0, 0, 0], [1, 1, 1]),
        ([0, 1, 1], [0, 0, 0]),
        ([1e15, 1e-10, 1], [1e15, 1e-10, 1]),
        ([1e15, 1e15, 1e15], [0, 1e-30, 1e30]),
        ([1e-10, 1e-10, 1e-10], [1, 0, 1]),
    ],
)
def test_hostile_steps_leave_positive_weights(lengths: list[float], losses: list[float]) -> None:
    balancer = bound(3, learning_rate=100)
    for factor in (1.0, 0.1, 10.0, 0.0):
        weights = step(balancer, lengths, np.multiply(losses, factor))
        assert np.isfinite(weights).all()
        assert (weights > 0).all()
        assert weights.sum() == pytest.approx(3, rel=1e-5)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_step_that_is_not_finite_leaves_the_state(bad: float) -> None:
    balancer = bound(2)
    step(balancer, [3, 1], [1, 2])
    before = [variable.numpy().tolist() for variable in balancer.weights]
    assert np.isfinite(step(balancer, [bad, 1], [1, 1])).all()
    assert np.isfinite(step(balancer, [1, 1], [bad, 1])).all()
    assert [variable.numpy().tolist() for variable in balancer.weights] == before


def test_one_task_has_weight_one_and_no_task_none() -> None:
    assert step(bound(1), [0.0]).tolist() == [1]
    assert step(bound(2), [0, 0], [0, 0], [False, False]).tolist() == [0, 0]


def test_it_compiles_with_xla() -> None:
    plain, compiled = bound(3), bound(3)
    train = tf.function(compiled.task_weights, jit_compile=True)
    for lengths in ([3.0, 1.0, 2.0], [1.0, 1.0, 5.0], [1.0, 2.0, 3.0]):
        expected = step(plain, lengths)
        found = train(tf.constant(np.diag(np.square(lengths)), tf.float32), tf.ones([3]), tf.constant([True] * 3))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_arguments_are_checked_and_kept() -> None:
    with pytest.raises(ValueError, match="`alpha` must be a number of at least 0"):
        GradNorm(alpha=-1)
    with pytest.raises(ValueError, match="`learning_rate` must be a number above 0"):
        GradNorm(learning_rate=0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(GradNorm(0.5, 0.1, "shared")))
    assert (again.alpha, again.learning_rate, again.at) == (0.5, 0.1, "shared")
