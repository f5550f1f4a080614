from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.training.sparse import OPTIMIZERS, START, dense, draw, random_steps, run, slices, table
from tfmtl._keras import keras, tf
from tfmtl.training import LazySGD
from tfmtl.training.touched_rows import by_row, summed

KERNEL = np.float32([[3.0, -4.0]])


def clipped(rows: list[int], values: np.ndarray, **clipping: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the changes of a table and a kernel in one step of gradient descent with rate 1."""
    weights, kernel = table(), tf.Variable(tf.zeros([1, 2]))
    gradients = [(slices(rows, values), weights), (tf.constant(KERNEL), kernel)]
    LazySGD(1.0, **clipping).apply_gradients(gradients)
    return START - weights.numpy(), -kernel.numpy()


REPEATED = [3, 1, 3, 0, 3]
VALUES = draw(REPEATED)[0][1]
WHOLE = dense(REPEATED, VALUES)


def test_the_global_norm_is_that_of_the_dense_gradients() -> None:
    norm = np.sqrt((WHOLE**2).sum() + 25)
    assert not np.isclose(norm, np.sqrt((VALUES**2).sum() + 25), rtol=0.02)  # as Keras classifies it
    of_table, of_kernel = clipped(REPEATED, VALUES, global_clipnorm=0.5)
    np.testing.assert_allclose(of_table, WHOLE * 0.5 / norm, atol=1e-6)
    np.testing.assert_allclose(of_kernel, KERNEL * 0.5 / norm, atol=1e-6)


def test_a_norm_below_the_limit_changes_nothing() -> None:
    np.testing.assert_allclose(clipped(REPEATED, VALUES, global_clipnorm=100.0)[0], WHOLE, atol=1e-6)


def test_each_norm_is_that_of_the_dense_gradient() -> None:
    of_table, of_kernel = clipped(REPEATED, VALUES, clipnorm=0.5)
    np.testing.assert_allclose(of_table, WHOLE * 0.5 / np.sqrt((WHOLE**2).sum()), atol=1e-6)
    np.testing.assert_allclose(of_kernel, KERNEL / 10, atol=1e-6)


def test_values_are_clipped_after_repeated_rows_are_summed() -> None:
    of_table, of_kernel = clipped([2, 2, 2], np.full([3, 3], 0.5), clipvalue=1.0)
    np.testing.assert_allclose(of_table[2], 1.0, atol=1e-6)  # not 3 times 0.5
    np.testing.assert_array_equal(of_kernel, [[1.0, -1.0]])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clipping", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_every_optimizer_clips_the_sum_of_repeated_rows(name: str, clipping: str) -> None:
    made = [OPTIMIZERS[name](**{clipping: 0.25}) for _ in range(2)]
    summed_values = np.stack([dense(REPEATED, VALUES)[row] for row in (3, 1, 0)])
    once = run(made[0], [([3, 1, 0], summed_values)] * 2)
    np.testing.assert_allclose(run(made[1], [(REPEATED, VALUES)] * 2), once, rtol=1e-5, atol=1e-6)


def test_a_row_decays_once_in_a_step_that_touches_it() -> None:
    found = run(LazySGD(0.5, weight_decay=0.2), [([3, 1, 3], np.zeros([3, 3])), ([3], np.zeros([1, 3]))])
    np.testing.assert_allclose(found[3], START[3] * 0.9**2, rtol=1e-6)
    np.testing.assert_allclose(found[1], START[1] * 0.9, rtol=1e-6)
    np.testing.assert_array_equal(found[[0, 2, 4, 5, 6]], START[[0, 2, 4, 5, 6]])


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n != "GroupedOptimizer"])
def test_dense_weights_decay_as_in_keras(name: str) -> None:
    optimizer, kernel, bias = OPTIMIZERS[name](), tf.Variable(START), tf.Variable(START[0], name="bias")
    optimizer.weight_decay = 0.5
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    zero = tf.zeros_like(kernel)
    optimizer.apply_gradients([(zero, kernel), (zero[0], bias)])
    np.testing.assert_allclose(kernel.numpy(), START * (1 - 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_array_equal(bias.numpy(), START[0])


def test_an_excluded_table_does_not_decay() -> None:
    optimizer, weights = LazySGD(0.5, weight_decay=0.2), table()
    optimizer.exclude_from_weight_decay(var_names=["embeddings"])
    np.testing.assert_array_equal(run(optimizer, [([3], np.zeros([1, 3]))], weights), START)


def test_summed_leaves_dense_gradients_alone() -> None:
    kernel = tf.constant(KERNEL)
    first, second = summed([kernel, slices(REPEATED, VALUES)])
    assert first is kernel
    assert second.indices.numpy().tolist() == [3, 1, 0]
    np.testing.assert_allclose(second.values, WHOLE[[3, 1, 0]], rtol=1e-6)


@pytest.mark.parametrize(("shape", "expected"), [([2], [2]), ([2, 3], [2, 1]), ([2, 3, 4], [2, 1, 1])])
def test_by_row_fits_values_of_any_rank(shape: Any, expected: Any) -> None:
    assert by_row(tf.ones([2]), tf.ones(shape)).shape.as_list() == expected


def test_steps_without_repeated_rows_are_those_of_keras_clipped() -> None:
    steps = [step for step in random_steps(9) if len(set(step[0])) == len(step[0])]
    made = [kind(0.5, global_clipnorm=0.7) for kind in (keras.optimizers.SGD, LazySGD)]
    np.testing.assert_allclose(*(run(optimizer, steps) for optimizer in made), atol=1e-6)
