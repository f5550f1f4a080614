from __future__ import annotations

import numpy as np
import pytest

from tests.training.sparse import START, WIDTH, dense, draw, random_steps, run, run_dense, table
from tfmtl._keras import keras, tf
from tfmtl.training import RowWiseAdagrad


def reference(steps: list, rate: float, initial: float, epsilon: float) -> np.ndarray:
    """The formula of the docstring in plain numpy, row by row."""
    x, accumulated = START.astype(np.float64), np.full(len(START), initial)
    for rows, values in steps:
        gradient = dense(rows, values)
        for row in set(rows):
            accumulated[row] += (gradient[row] ** 2).mean()
            x[row] -= rate * gradient[row] / np.sqrt(accumulated[row] + epsilon)
    return x


def test_it_follows_its_formula() -> None:
    steps = random_steps(12)
    found = run(RowWiseAdagrad(0.3, 0.2, 0.05), steps)
    np.testing.assert_allclose(found, reference(steps, 0.3, 0.2, 0.05), rtol=1e-5, atol=1e-6)


def test_golden_second_step_of_a_row() -> None:
    # Gradients (1, 2, 2), mean square 3, and (0, 0, 3), mean square 3, from 1/4: divisors sqrt(13/4) and sqrt(25/4).
    gradients = [([4], np.array([[1.0, 2.0, 2.0]])), ([4], np.array([[0.0, 0.0, 3.0]]))]
    found = run(RowWiseAdagrad(1.0, 0.25, 0.0), gradients)
    expected = START[4] - np.array([1.0, 2.0, 2.0]) / np.sqrt(3.25) - np.array([0.0, 0.0, 3.0]) / 2.5
    np.testing.assert_allclose(found[4], expected, rtol=1e-5, atol=1e-6)


def test_it_is_adagrad_where_a_row_has_equal_gradients() -> None:
    steps = [(rows, np.repeat(values[:, :1], WIDTH, axis=1)) for rows, values in random_steps(8)]
    expected = run(keras.optimizers.Adagrad(0.3, 0.2, 0.05), steps)
    np.testing.assert_allclose(run(RowWiseAdagrad(0.3, 0.2, 0.05), steps), expected, atol=1e-6)


@pytest.mark.parametrize("sparse", [True, False])
def test_what_is_no_table_takes_the_step_of_adagrad(sparse: bool) -> None:
    steps = draw([3, 1, 3], [2])
    made = RowWiseAdagrad(0.3), keras.optimizers.Adagrad(0.3)
    if sparse:
        found, expected = (run(optimizer, steps, table("mixture/weights")) for optimizer in made)
    else:
        found, expected = (run_dense(optimizer, steps) for optimizer in made)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_table_with_a_dense_gradient_has_one_accumulator_a_row() -> None:
    steps = draw(range(7), [3, 1, 3])
    weights, optimizer = table(), RowWiseAdagrad(0.3)
    for rows, values in steps:
        optimizer.apply_gradients([(tf.constant(dense(rows, values), tf.float32), weights)])
    np.testing.assert_allclose(weights.numpy(), run(RowWiseAdagrad(0.3), steps), atol=1e-6)


def test_the_state_of_a_table_is_one_number_a_row() -> None:
    optimizer = RowWiseAdagrad(0.3)
    optimizer.build([table(), tf.Variable(START, name="kernel")])
    assert [v.shape.as_list() for v in optimizer.variables[1:]] == [[len(START)], list(START.shape)]
