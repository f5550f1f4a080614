from __future__ import annotations

import numpy as np
import pytest

from tests.training.sparse import ROWS, START, dense, draw, random_steps, run, run_dense
from tfmtl._keras import keras
from tfmtl.training import LazySGD

EVERYTHING = list(range(ROWS))


def reference(steps: list, rate: float, momentum: float, nesterov: bool) -> np.ndarray:
    """The formula of the docstring in plain numpy, row by row."""
    x, velocity = START.astype(np.float64), np.zeros(START.shape)
    for rows, values in steps:
        gradient = dense(rows, values)
        for row in set(rows):
            velocity[row] = momentum * velocity[row] - rate * gradient[row]
            x[row] += momentum * velocity[row] - rate * gradient[row] if nesterov else velocity[row]
    return x


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_it_follows_its_formula(momentum: float, nesterov: bool) -> None:
    steps = random_steps(12)
    found = run(LazySGD(0.1, momentum, nesterov), steps)
    np.testing.assert_allclose(found, reference(steps, 0.1, momentum, nesterov), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_it_is_keras_while_every_row_is_touched(momentum: float, nesterov: bool) -> None:
    steps = draw(EVERYTHING, EVERYTHING[::-1], EVERYTHING)
    expected = run(keras.optimizers.SGD(0.1, momentum, nesterov), steps)
    np.testing.assert_allclose(run(LazySGD(0.1, momentum, nesterov), steps), expected, atol=1e-6)
    np.testing.assert_allclose(run_dense(LazySGD(0.1, momentum, nesterov), steps), expected, atol=1e-6)


def test_golden_momentum_of_a_row_that_misses_a_step() -> None:
    # Gradients 1 (step 1) and 3 (step 3), rate 1, momentum 1/2: v = -1, then -1/2 - 3; the missed step leaves v alone.
    ones = np.ones([1, 3])
    found = run(LazySGD(1.0, 0.5), [([2], ones), ([0], ones), ([2], 3 * ones)])
    np.testing.assert_allclose(found[2], START[2] - 1 - 3.5, rtol=1e-6)


def test_without_momentum_there_is_no_slot() -> None:
    optimizer = LazySGD(0.1)
    run(optimizer, draw([1]))
    assert len(optimizer.variables) == 1  # the step
