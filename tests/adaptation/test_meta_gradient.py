"""The gradient through steps of gradient descent, in closed form, by finite differences and in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tfmtl._keras import keras, tf
from tfmtl.adaptation.meta_gradient import descend, meta_gradient, sum_of

RATE = 0.1


def query_of(loss: Callable[[], tf.Tensor], variables: list[tf.Variable]) -> Callable[[], list]:
    def gradients() -> list:
        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, variables)

    return gradients


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("second_order", [True, False])
def test_two_parabolas(steps: int, second_order: bool) -> None:
    """L_s = a/2 (w - b)^2, L_q = c/2 (w - d)^2: w_K = b + r^K (w - b), r = 1 - rate a; dL_q/dw = c (w_K - d) r^K.

    Of first order it is that without r^K.
    """
    a, b, c, d, start = 2.0, 1.0, 3.0, -1.0, 4.0
    w = tf.Variable(start)
    found = meta_gradient(
        lambda: a / 2 * (w - b) ** 2, query_of(lambda: c / 2 * (w - d) ** 2, [w]), [w], [w],
        rate=RATE, steps=steps, second_order=second_order,
    )  # fmt: skip
    ratio = (1 - RATE * a) ** steps
    expected = c * (b + ratio * (start - b) - d) * (ratio if second_order else 1.0)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    assert float(w) == start


def test_what_is_not_adapted_is_reached_through_the_steps() -> None:
    """L_s = (w - u)^2 / 2, L_q = w^2 / 2, one step: w_1 = w - rate (w - u), dL_q/du = rate w_1."""
    w, u = tf.Variable(2.0), tf.Variable(5.0)
    variables = [w, u]
    support = lambda: (w - u) ** 2 / 2  # noqa: E731
    found = meta_gradient(support, query_of(lambda: w**2 / 2, variables), [w], variables, rate=RATE, steps=1)
    after = 2.0 - RATE * (2.0 - 5.0)
    np.testing.assert_allclose([float(g) for g in found], [(1 - RATE) * after, RATE * after], rtol=1e-6)
    first = meta_gradient(
        support, query_of(lambda: w**2 / 2, variables), [w], variables, rate=RATE, steps=1, second_order=False
    )
    assert first[1] is None


def _tiny() -> tuple[keras.Model, list[tf.Variable], list[tf.Variable]]:
    """An embedding, a hidden layer and a head in float64, of which the last two are adapted."""
    inputs = keras.Input([2], dtype="int32")
    hidden = keras.layers.Embedding(4, 2, dtype="float64", name="e")(inputs)
    hidden = keras.layers.Flatten(dtype="float64")(hidden)
    hidden = keras.layers.Dense(3, "tanh", dtype="float64")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1, dtype="float64")(hidden))
    return model, model.trainable_variables[1:], model.trainable_variables


def test_a_tiny_network_by_finite_differences() -> None:
    model, adapted, variables = _tiny()
    rng = np.random.default_rng(1)
    rows = {part: (rng.integers(0, 4, [6, 2]), rng.normal(size=[6, 1])) for part in ("support", "query")}

    def loss(part: str) -> tf.Tensor:
        x, y = rows[part]
        return tf.reduce_mean((model(tf.constant(x)) - y) ** 2)

    def after() -> float:
        before = [v.numpy() for v in adapted]
        descend(lambda: loss("support"), adapted, RATE, 2)
        value = float(loss("query"))
        for v, b in zip(adapted, before, strict=True):
            v.assign(b)
        return value

    traced = tf.function(
        lambda: meta_gradient(
            lambda: loss("support"), query_of(lambda: loss("query"), variables), adapted, variables, rate=RATE, steps=2
        )
    )
    for variable, gradient in zip(variables, traced(), strict=True):
        values, numeric = variable.numpy(), np.zeros(variable.shape)
        for place in np.ndindex(*values.shape):
            for sign in (1, -1):
                moved = values.copy()
                moved[place] += sign * 1e-5
                variable.assign(moved)
                numeric[place] += sign * after() / 2e-5
        variable.assign(values)
        np.testing.assert_allclose(tf.convert_to_tensor(gradient), numeric, rtol=1e-5, atol=1e-8)


def test_slices_of_tables_add_up_as_slices() -> None:
    part = tf.IndexedSlices(tf.constant([[1.0], [2.0]]), tf.constant([2, 0]), tf.constant([3, 1]))
    (total, none) = sum_of([[part, None], [part, None]])
    assert isinstance(total, tf.IndexedSlices)
    assert none is None
    np.testing.assert_array_equal(tf.convert_to_tensor(total), [[4.0], [0.0], [2.0]])
