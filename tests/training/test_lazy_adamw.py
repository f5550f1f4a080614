from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.training.sparse import ROWS, START, draw, random_steps, run, run_dense, table
from tfmtl._keras import keras
from tfmtl.training import LazyAdam, LazyAdamW

row_by_row = functools.partial(LazyAdamW, dense_rows=0)
EVERYTHING = list(range(ROWS))
ZERO = np.zeros([1, 3])


@pytest.mark.parametrize("catch_up", [False, True])
def test_it_is_adamw_while_every_row_is_touched(catch_up: bool) -> None:
    steps = draw(EVERYTHING, EVERYTHING[::-1], EVERYTHING)
    expected = run(keras.optimizers.AdamW(0.1, 0.5, 0.8, 0.9), steps)
    made = [row_by_row(0.1, 0.5, beta_1=0.8, beta_2=0.9, catch_up=catch_up) for _ in range(2)]
    np.testing.assert_allclose(run(made[0], steps), expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(run_dense(made[1], steps), expected, rtol=2e-6, atol=2e-6)
    assert np.abs(expected - run(keras.optimizers.Adam(0.1, 0.8, 0.9), steps)).max() > 0.01


def test_a_small_table_that_catches_up_takes_the_steps_of_adamw() -> None:
    steps = random_steps(9)
    expected = run(keras.optimizers.AdamW(0.1, 0.5), steps)
    np.testing.assert_allclose(run(LazyAdamW(0.1, 0.5), steps), expected, rtol=3e-6, atol=3e-6)


def test_golden_decay_of_a_row_by_the_steps_it_missed() -> None:
    # Rate 1/2, decay 1/5: a tenth a step. Row 2 is touched in steps 1 and 4, without a gradient; row 0 in the others.
    steps = [([2], ZERO), ([0], ZERO), ([0], ZERO), ([2], ZERO)]
    late = run(row_by_row(0.5, 0.2, catch_up=True), steps)
    np.testing.assert_allclose(late[2], START[2] * 0.9**4, rtol=1e-5)
    np.testing.assert_allclose(late[0], START[0] * 0.9**3, rtol=1e-5)
    once = run(row_by_row(0.5, 0.2, catch_up=False), steps)
    np.testing.assert_allclose(once[[2, 0]], START[[2, 0]] * 0.9**2, rtol=1e-5)
    np.testing.assert_array_equal(late[[1, 3, 4, 5, 6]], START[[1, 3, 4, 5, 6]])


@pytest.mark.parametrize("catch_up", [False, True])
def test_a_small_table_decays_as_documented(catch_up: bool) -> None:
    found = run(LazyAdamW(0.5, 0.2, catch_up=catch_up), [([2, 2], np.zeros([2, 3]))])
    np.testing.assert_allclose(found[2], START[2] * 0.9, rtol=1e-5)
    np.testing.assert_allclose(found[0], START[0] * (0.9 if catch_up else 1.0), rtol=1e-6)


@pytest.mark.parametrize("catch_up", [False, True])
def test_an_excluded_table_takes_the_step_of_lazy_adam(catch_up: bool) -> None:
    optimizer, weights, steps = LazyAdamW(0.1, 0.5, catch_up=catch_up), table(), random_steps(4)
    optimizer.exclude_from_weight_decay(var_names=["embeddings"])
    expected = run(LazyAdam(0.1, catch_up=catch_up), steps)
    np.testing.assert_array_equal(run(optimizer, steps, weights), expected)


def test_a_decay_is_asked_for() -> None:
    with pytest.raises(ValueError, match="`weight_decay` must be a number"):
        LazyAdamW(0.1, None)  # type: ignore[arg-type]
