from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.training.sparse import ROWS, START, WIDTH, dense, draw, random_steps, run, slices, table
from tfmtl._keras import keras, tf
from tfmtl.training import LazyAdam

row_by_row = functools.partial(LazyAdam, dense_rows=0)
EVERYTHING = list(range(ROWS))


def without_catching_up(steps: list, rate: float, beta_1: float, beta_2: float, epsilon: float) -> np.ndarray:
    """The formula of the docstring in plain numpy, row by row."""
    x, m, v = START.astype(np.float64), np.zeros(START.shape), np.zeros(START.shape)
    for t, (rows, values) in enumerate(steps, 1):
        gradient, corrected = dense(rows, values), rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        for row in set(rows):
            m[row] = beta_1 * m[row] + (1 - beta_1) * gradient[row]
            v[row] = beta_2 * v[row] + (1 - beta_2) * gradient[row] ** 2
            x[row] -= corrected * m[row] / (np.sqrt(v[row]) + epsilon)
    return x


def catching_up(steps: list, rate: float, beta_1: float, beta_2: float) -> np.ndarray:
    """Adam's missed steps one by one: those of the gap before a row, less the steps paid ahead, and as many ahead."""

    def missed(last: int, count: int, m: np.ndarray, v: np.ndarray) -> np.ndarray:
        moves = np.zeros(WIDTH)
        for j in range(1, count + 1):
            corrected = rate * np.sqrt(1 - beta_2 ** (last + j)) / (1 - beta_1 ** (last + j))
            moves += corrected * beta_1**j * m / np.sqrt(np.maximum(beta_2**j * v, 1e-30))
        return moves

    x, m, v = START.astype(np.float64), np.zeros(START.shape), np.zeros(START.shape)
    last, ahead = np.zeros(ROWS, int), np.zeros(ROWS, int)
    for t, (rows, values) in enumerate(steps, 1):
        gradient, corrected = dense(rows, values), rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        for row in set(rows):
            gap = t - last[row]
            x[row] -= missed(last[row], gap - 1, m[row], v[row]) - missed(last[row], ahead[row], m[row], v[row])
            m[row] = beta_1**gap * m[row] + (1 - beta_1) * gradient[row]
            v[row] = beta_2**gap * v[row] + (1 - beta_2) * gradient[row] ** 2
            x[row] -= corrected * m[row] / np.sqrt(v[row]) + missed(t, gap - 1, m[row], v[row])
            last[row], ahead[row] = t, gap - 1
    return x


@pytest.mark.parametrize("catch_up", [False, True])
def test_it_is_adam_while_every_row_is_touched(catch_up: bool) -> None:
    steps = draw(EVERYTHING, EVERYTHING[::-1], EVERYTHING, EVERYTHING)
    expected = run(keras.optimizers.Adam(0.1, 0.8, 0.9), steps)
    found = run(row_by_row(0.1, 0.8, 0.9, catch_up=catch_up), steps)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
    assert np.abs(expected - START).min() > 0.001


@pytest.mark.parametrize("small", [0, 100])
def test_without_catching_up_it_follows_its_formula(small: int) -> None:
    steps = random_steps(12)
    found = run(LazyAdam(0.1, 0.8, 0.9, 0.01, catch_up=False, dense_rows=small), steps)
    np.testing.assert_allclose(found, without_catching_up(steps, 0.1, 0.8, 0.9, 0.01), rtol=1e-5, atol=1e-5)


def test_a_small_table_that_catches_up_takes_the_steps_of_adam() -> None:
    steps = random_steps(12)
    expected = run(keras.optimizers.Adam(0.1, 0.8, 0.9), steps)
    np.testing.assert_allclose(run(LazyAdam(0.1, 0.8, 0.9, catch_up=True), steps), expected, rtol=3e-6, atol=3e-6)


def test_missed_steps_are_those_of_adam() -> None:
    steps = random_steps(40)
    found = run(row_by_row(0.1, 0.7, 0.99, 0.0, catch_up=True), steps)
    expected = catching_up(steps, 0.1, 0.7, 0.99)
    # Where two touches of a row had gradients of one sign each other error is one of the rate's single representative.
    np.testing.assert_allclose(found - START, expected - START, atol=0.02 * np.abs(expected - START).max())


def test_a_row_touched_at_even_intervals_is_found_where_adam_has_it() -> None:
    rng, steps = np.random.default_rng(1), []
    for step in range(1, 101):
        rows = [0, 2] if step % 5 == 0 else [0]
        steps.append((rows, rng.normal(size=(len(rows), WIDTH)) + 0.5))
    lazy, adam = row_by_row(0.01, catch_up=True), keras.optimizers.Adam(0.01)
    tables = [table(), table()]
    for step, (rows, values) in enumerate(steps, 1):
        for optimizer, weights in zip((lazy, adam), tables, strict=True):
            if step == 100:
                break  # the rows as the last step reads them
            optimizer.apply_gradients([(slices(rows, values), weights)])
    moved = tables[1].numpy()[2] - START[2]
    np.testing.assert_allclose(tables[0].numpy()[2] - START[2], moved, rtol=0.02)
    plain = run(row_by_row(0.01, catch_up=False), steps[:-1])[2] - START[2]
    assert (np.abs(plain / moved) < 0.7).all()  # the difference that catching up makes


def test_golden_row_that_misses_one_step() -> None:
    # Gradients 1 (step 1) and 3 (step 3), b1 = b2 = 1/2. Step 1: m = v = 1/2, rate sqrt(1/2) / (1/2), so that x falls
    # by 1. Step 2, missed: m = v = 1/4. Step 3: m = 1/8 + 3/2, v = 1/8 + 9/2. Ahead, as if step 4 were missed: m / 2,
    # v / 2. One missed step has one representative, so that nothing is rounded but by float32.
    ones = np.ones([1, 3])
    steps = [([2], ones), ([0], ones), ([2], 3 * ones)]
    found = run(row_by_row(1.0, 0.5, 0.5, 0.0, catch_up=True), steps)

    def rate(t: int) -> float:
        return float(np.sqrt(1 - 0.5**t) / (1 - 0.5**t))

    moves = 1 + rate(2) * 0.25 / 0.5 + rate(3) * 1.625 / np.sqrt(4.625) + rate(4) * 0.8125 / np.sqrt(2.3125)
    np.testing.assert_allclose(found[2], START[2] - moves, rtol=1e-5)
    plain = run(row_by_row(1.0, 0.5, 0.5, 0.0, catch_up=False), steps)
    np.testing.assert_allclose(plain[2], START[2] - 1 - rate(3) * 1.75 / np.sqrt(4.75), rtol=1e-5)


def test_what_was_paid_ahead_is_taken_back_from_a_row_that_returns_early() -> None:
    # Touched in steps 4 and 5: the three steps paid ahead in step 4 were none, so that step 5 starts where Adam starts.
    ones = np.ones([1, 3])
    steps = [([0], ones)] * 3 + [([2], ones), ([2], 3 * ones)]
    found = run(row_by_row(0.1, 0.5, 0.75, 0.0, catch_up=True), steps)
    expected = run(keras.optimizers.Adam(0.1, 0.5, 0.75, 0.0), steps[3:])  # the moments of row 2 are zero until step 4
    assert np.abs(found[2] - expected[2]).max() > 0.001  # the rates differ: steps 4 and 5 against 1 and 2
    np.testing.assert_allclose(found[2], catching_up(steps, 0.1, 0.5, 0.75)[2], rtol=1e-4)


def test_untouched_rows_remember() -> None:
    optimizer = LazyAdam(0.1, catch_up=False)
    first, second = draw([0, 4], [1])
    found = run(optimizer, [first, second])
    np.testing.assert_array_equal(found[[0, 4]], run(LazyAdam(0.1, catch_up=False), [first])[[0, 4]])
    momentums, velocities = (slot.numpy() for slot in optimizer.variables[-2:])
    np.testing.assert_allclose(momentums[[0, 4]], 0.1 * first[1], rtol=1e-5)  # (1 - b1) g, not decayed since
    np.testing.assert_allclose(velocities[[0, 4]], 0.001 * first[1] ** 2, rtol=1e-4)
    np.testing.assert_array_equal(momentums[[2, 3, 5]], 0)


def test_a_small_table_whose_touched_rows_have_no_gradient_keeps_moving_them() -> None:
    # Row 2 is looked up in both steps, in the second without effect: its momentum goes on, that of row 0 does not.
    ones, zeros = np.ones([2, 3]), np.zeros([1, 3])
    found = run(LazyAdam(1.0, 0.5, 0.5, 0.0, catch_up=False), [([2, 0], ones), ([2], zeros)])
    np.testing.assert_allclose(found[0], START[0] - 1, rtol=1e-5)
    # m = 1/4, v = 1/4, rate sqrt(1 - 1/4) / (1 - 1/4)
    np.testing.assert_allclose(found[2], START[2] - 1 - np.sqrt(4 / 3) * 0.5, rtol=1e-5)


def test_dense_gradients_take_the_step_of_adam() -> None:
    weights = []
    for kind in (keras.optimizers.Adam, LazyAdam):
        kernel, optimizer = tf.Variable(START), kind(0.1)
        for scale in (1.0, -2.0):
            optimizer.apply_gradients([(tf.constant(scale * START), kernel)])
        weights.append(kernel.numpy())
    np.testing.assert_allclose(*weights, atol=1e-6)  # the fused operation takes 1 - beta_2 in float32


def test_a_dense_gradient_counts_as_a_touch_of_every_row() -> None:
    whole, sparse = table(), table()
    gradients = draw(EVERYTHING, EVERYTHING)
    for weights in (whole, sparse):
        optimizer = row_by_row(0.1, catch_up=True)
        for step, (rows, values) in enumerate(gradients):
            gradient = slices(rows, values)
            if weights is whole and step == 0:
                gradient = tf.convert_to_tensor(gradient)
            optimizer.apply_gradients([(gradient, weights)])
    np.testing.assert_allclose(whole.numpy(), sparse.numpy(), atol=3e-6)


@pytest.mark.parametrize("value", [1e-20, 1e15])
@pytest.mark.parametrize("catch_up", [False, True])
def test_hostile_gradients_stay_finite(value: float, catch_up: bool) -> None:
    steps = [([1], np.full([1, 3], value)), ([0], np.zeros([1, 3])), ([1], np.zeros([1, 3]))]
    assert np.isfinite(run(row_by_row(0.1, catch_up=catch_up), steps)).all()


def test_amsgrad_is_that_of_keras() -> None:
    steps = random_steps(6)
    made = [keras.optimizers.Adam(0.1, amsgrad=True), LazyAdam(0.1, amsgrad=True)]
    np.testing.assert_array_equal(*(run(optimizer, steps) for optimizer in made))


def test_it_refuses_what_it_does_not_do() -> None:
    with pytest.raises(ValueError, match="adaptive_epsilon"):
        LazyAdam(adaptive_epsilon=True)
    with pytest.raises(ValueError, match=r"beta_1\^2 < beta_2.*beta_1=0.9, beta_2=0.5"):
        LazyAdam(beta_2=0.5, catch_up=True)
    assert not LazyAdam(beta_2=0.5, catch_up=False).catch_up
    with pytest.raises(ValueError, match=r"`dense_rows` must be 0 or more\. Received: dense_rows=-1"):
        LazyAdam(dense_rows=-1)


def test_a_configuration_without_dense_rows_takes_the_default() -> None:
    config = LazyAdam(dense_rows=3).get_config()
    assert config.pop("dense_rows") == 3
    assert LazyAdam.from_config(config).dense_rows == 16_384


def test_only_tables_above_dense_rows_count_steps() -> None:
    tables = [tf.Variable(tf.ones([rows, 1]), name=f"{rows}/embeddings") for rows in (3, 4)]
    optimizer = LazyAdam(dense_rows=3)
    optimizer.build(tables)
    assert list(optimizer.row_steps) == [1]


@pytest.mark.parametrize("catch_up", [False, True])
def test_a_compiled_step_of_a_small_table_is_the_same(catch_up: bool) -> None:
    def stepped(jit: bool) -> np.ndarray:
        weights, optimizer = table(), LazyAdam(0.1, catch_up=catch_up)
        optimizer.build([weights])

        @tf.function(jit_compile=jit)
        def step(values: tf.Tensor) -> None:
            gradient = tf.IndexedSlices(values, tf.constant([3, 1, 3]), tf.constant(START.shape))
            optimizer.apply_gradients([(gradient, weights)], skip_gradients_aggregation=True)

        step(tf.constant(draw([3, 1, 3])[0][1], tf.float32))
        return weights.numpy()

    np.testing.assert_allclose(stepped(jit=True), stepped(jit=False), rtol=1e-6, atol=1e-7)
