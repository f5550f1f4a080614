from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import keras, tf
from tfmtl.training import LazyAdam, optimisers

RNG = np.random.default_rng(2)
START = RNG.normal(size=(6, 3)).astype(np.float32)


def run(optimizer: keras.optimizers.Optimizer, steps: list[tuple[list[int], np.ndarray]]) -> np.ndarray:
    """Apply sparse gradients (rows, values) and return the table."""
    table = tf.Variable(START)
    for rows, values in steps:
        slices = tf.IndexedSlices(tf.constant(values, tf.float32), tf.constant(rows), tf.constant(START.shape))
        optimizer.apply_gradients([(slices, table)])
    return table.numpy()


def gradients(*rows: list[int]) -> list[tuple[list[int], np.ndarray]]:
    rng = np.random.default_rng(8)
    return [(chosen, rng.normal(size=(len(chosen), 3))) for chosen in rows]


def test_it_is_adam_while_every_row_is_touched() -> None:
    everything = list(range(6))
    steps = gradients(everything, everything[::-1], everything, everything)
    expected = run(keras.optimizers.Adam(0.1, beta_1=0.8, beta_2=0.9), steps)
    np.testing.assert_allclose(run(LazyAdam(0.1, beta_1=0.8, beta_2=0.9), steps), expected, rtol=3e-6, atol=3e-6)
    assert np.abs(expected - START).min() > 0.001


def test_untouched_rows_stay_and_remember() -> None:
    optimizer = LazyAdam(0.1)
    first, second = gradients([0, 4], [1])
    after_one = run(LazyAdam(0.1), [first])
    found = run(optimizer, [first, second])
    np.testing.assert_array_equal(found[[2, 3, 5]], START[[2, 3, 5]])
    np.testing.assert_array_equal(found[[0, 4]], after_one[[0, 4]])  # no step from old momentum
    momentums, velocities = (slot.numpy() for slot in optimizer.variables[-2:])
    np.testing.assert_allclose(momentums[[0, 4]], 0.1 * first[1], rtol=1e-5)  # (1 - b1) g, not decayed since
    np.testing.assert_allclose(velocities[[0, 4]], 0.001 * first[1] ** 2, rtol=1e-4)
    np.testing.assert_array_equal(momentums[[2, 3, 5]], 0)


def test_golden_second_step_of_a_row() -> None:
    # Gradients 1 (step 1) and 3 (step 3) with b1 = b2 = 1/2: m = 1/2, then 1/4 + 3/2; v = 1/2, then 1/4 + 9/2;
    # rate of step 3: sqrt(1 - 1/8) / (1 - 1/8).
    optimizer = LazyAdam(1.0, beta_1=0.5, beta_2=0.5, epsilon=0.0)
    ones, threes = np.ones([1, 3]), np.full([1, 3], 3.0)
    found = run(optimizer, [([2], ones), ([0], ones), ([2], threes)])
    rate = np.sqrt(7 / 8) / (7 / 8)
    np.testing.assert_allclose(found[2], START[2] - 1 - rate * 1.75 / np.sqrt(4.75), rtol=1e-5)


def test_repeated_rows_are_summed() -> None:
    rows, values = gradients([3, 1, 3])[0]
    summed = np.stack([values[0] + values[2], values[1]])
    np.testing.assert_allclose(run(LazyAdam(0.1), [(rows, values)]), run(LazyAdam(0.1), [([3, 1], summed)]), rtol=1e-6)


def test_dense_gradients_take_the_step_of_adam() -> None:
    tables = []
    for kind in (keras.optimizers.Adam, LazyAdam):
        table, optimizer = tf.Variable(START), kind(0.1)
        for scale in (1.0, -2.0):
            optimizer.apply_gradients([(tf.constant(scale * START), table)])
        tables.append(table.numpy())
    np.testing.assert_allclose(*tables, atol=1e-6)  # the fused operation takes 1 - beta_2 in float32


@pytest.mark.parametrize("value", [1e-20, 1e15])
def test_hostile_gradients_stay_finite(value: float) -> None:
    assert np.isfinite(run(LazyAdam(0.1), [([1], np.full([1, 3], value)), ([1], np.zeros([1, 3]))])).all()


def test_a_schedule_is_followed() -> None:
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.0])
    steps = gradients([1], [1])
    np.testing.assert_array_equal(run(LazyAdam(schedule), steps), run(LazyAdam(1.0), steps[:1]))


@pytest.mark.parametrize("rows", [[3, 1, 3, 3], [0], [5, 5]])
def test_small_and_large_tables_take_the_same_step(rows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    steps = gradients(rows, [1, 3], rows[::-1])
    small = run(LazyAdam(0.1), steps)
    monkeypatch.setattr(optimisers, "_SMALL", 1)
    np.testing.assert_allclose(small, run(LazyAdam(0.1), steps), rtol=1e-6, atol=1e-7)
    untouched = sorted(set(range(6)) - {1, 3, *rows})
    np.testing.assert_array_equal(small[untouched], START[untouched])


def test_a_small_table_whose_touched_rows_have_no_gradient_keeps_moving_them() -> None:
    # Row 2 is looked up in both steps, in the second without effect: its momentum goes on, that of row 0 does not.
    ones, zeros = np.ones([2, 3]), np.zeros([1, 3])
    found = run(LazyAdam(1.0, beta_1=0.5, beta_2=0.5, epsilon=0.0), [([2, 0], ones), ([2], zeros)])
    np.testing.assert_allclose(found[0], START[0] - 1, rtol=1e-5)
    # m = 1/4, v = 1/4, rate sqrt(1 - 1/4) / (1 - 1/4)
    np.testing.assert_allclose(found[2], START[2] - 1 - np.sqrt(4 / 3) * 0.5, rtol=1e-5)


def test_a_compiled_step_is_the_same() -> None:
    def stepped(jit: bool) -> np.ndarray:
        table, optimizer = tf.Variable(START), LazyAdam(0.1)
        optimizer.build([table])

        @tf.function(jit_compile=jit)
        def step(values: tf.Tensor) -> None:
            slices = tf.IndexedSlices(values, tf.constant([3, 1, 3]), tf.constant(START.shape))
            optimizer.apply_gradients([(slices, table)], skip_gradients_aggregation=True)

        step(tf.constant(gradients([3, 1, 3])[0][1], tf.float32))
        return table.numpy()

    np.testing.assert_allclose(stepped(jit=True), stepped(jit=False), rtol=1e-6, atol=1e-7)
