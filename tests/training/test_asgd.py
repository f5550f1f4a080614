from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.training.sparse import START, random_steps, run, slices, table
from tfmtl._keras import keras, tf
from tfmtl.training import ASGD, IterateAverages, LazyAdam, LazySGD


def iterates(optimizer: keras.optimizers.Optimizer, steps: list) -> list[np.ndarray]:
    """Return the table after each step."""
    weights = table()
    return [run(optimizer, [step], weights) for step in steps]


@pytest.mark.parametrize("start_step", [0, 1, 7, 12])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_average_of_a_table_is_that_of_its_iterates(start_step: int, momentum: float) -> None:
    steps = random_steps(12)
    found = iterates(LazySGD(0.1, momentum), steps)
    optimizer, weights = ASGD(0.1, start_step, momentum=momentum), table()
    for count, step in enumerate(steps, 1):
        np.testing.assert_allclose(run(optimizer, [step], weights), found[count - 1], atol=1e-6)
        expected = np.mean(found[start_step:count], axis=0) if count > start_step else weights.numpy()
        np.testing.assert_allclose(optimizer.average_of(weights), expected, atol=2e-6)


def test_dense_weights_and_scalars_are_averaged() -> None:
    optimizer, kernel, scale = ASGD(1.0, 1), tf.Variable(START), tf.Variable(4.0)
    for _ in range(3):
        optimizer.apply_gradients([(tf.ones_like(kernel), kernel), (tf.constant(1.0), scale)])
    assert float(optimizer.average_of(scale)) == 1.5  # of 2 and 1; the first iterate, 3, does not count
    np.testing.assert_allclose(optimizer.average_of(kernel), START - 2.5, atol=1e-6)


def test_golden_average_of_a_row_that_two_steps_leave_alone() -> None:
    # From 8 down by 4 in step 1 and by 2 in step 4: 4, 4, 4, 2, with a mean of 3.5; unread row 1 keeps 8.
    weights = tf.Variable([[8.0], [8.0], [8.0]], name="x/embeddings")
    optimizer = ASGD(1.0)
    for row, value in ((0, 4.0), (2, 1.0), (2, 1.0), (0, 2.0)):
        optimizer.apply_gradients([(slices([row], [[value]], [3, 1]), weights)])
    np.testing.assert_allclose(optimizer.average_of(weights)[:, 0], [3.5, 8.0, (8 + 7 + 6 + 6) / 4], rtol=1e-6)


def test_a_variable_without_a_gradient_in_a_step_keeps_its_value_in_the_average() -> None:
    optimizer, first, second = ASGD(1.0), tf.Variable(0.0), tf.Variable(0.0)
    optimizer.build([first, second])
    optimizer.apply_gradients([(tf.constant(-6.0), first), (tf.constant(1.0), second)])
    optimizer.apply_gradients([(tf.constant(1.0), second)])
    optimizer.apply_gradients([(tf.constant(-3.0), first)])
    assert float(optimizer.average_of(first)) == pytest.approx((6 + 6 + 9) / 3)


def test_a_swap_puts_the_averages_in_and_a_second_one_takes_them_out() -> None:
    steps = random_steps(9)
    optimizer, weights = ASGD(0.1, 2, momentum=0.5), table()
    run(optimizer, steps[:6], weights)
    raw, average = weights.numpy(), optimizer.average_of(weights).numpy()
    assert np.abs(raw - average).max() > 0.01
    optimizer.swap_averages([weights])
    np.testing.assert_array_equal(weights.numpy(), average)
    np.testing.assert_array_equal(optimizer.average_of(weights), average)
    assert optimizer.holds_averages
    optimizer.swap_averages([weights])
    np.testing.assert_array_equal(weights.numpy(), raw)
    assert not optimizer.holds_averages
    found = run(optimizer, steps[6:], weights)
    undisturbed, again = ASGD(0.1, 2, momentum=0.5), table()
    np.testing.assert_allclose(found, run(undisturbed, steps, again), atol=1e-6)
    np.testing.assert_allclose(optimizer.average_of(weights), undisturbed.average_of(again), atol=1e-6)


def test_nothing_is_averaged_before_the_optimizer_is_built() -> None:
    with pytest.raises(ValueError, match="no averages before"):
        ASGD().swap_averages([table()])
    with pytest.raises(ValueError, match=r"`start_step` must be 0 or more\. Received: start_step=-1"):
        ASGD(0.1, -1)


class AveragedAdam(IterateAverages, LazyAdam):
    """An optimiser of a user."""

    start_step = 2


@pytest.mark.parametrize("catch_up", [False, True])
def test_averages_go_before_another_optimizer(catch_up: bool) -> None:
    steps: Any = random_steps(6)
    found = iterates(LazyAdam(0.1, catch_up=catch_up), steps)
    optimizer, weights = AveragedAdam(0.1, catch_up=catch_up), table()
    np.testing.assert_allclose(run(optimizer, steps, weights), found[-1], atol=1e-6)
    np.testing.assert_allclose(optimizer.average_of(weights), np.mean(found[2:], axis=0), atol=1e-6)


def test_averages_of_ten_thousand_steps_keep_their_precision() -> None:
    optimizer, scale = ASGD(1.0), tf.Variable(0.0)
    optimizer.build([scale])

    @tf.function
    def steps() -> None:
        for i in tf.range(10_000):
            optimizer.apply_gradients([(1 - 2 * tf.cast(i % 2, tf.float32), scale)])  # -1, 0, -1, 0, ...

    steps()
    assert float(optimizer.average_of(scale)) == pytest.approx(-0.5, abs=1e-4)
