"""Experts against plain numpy."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from tests.layers.expert_trunks import INPUTS, matrix, randomize
from tfmtl._keras import keras, tf
from tfmtl.layers import Experts

OWN_INPUTS = np.stack([INPUTS, -INPUTS, INPUTS**2], axis=1)


def norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3)


@pytest.mark.parametrize("inputs", [INPUTS, OWN_INPUTS], ids=["one", "one-in-two"])
@pytest.mark.parametrize("normalize", [False, True])
def test_experts_are_dense_networks_side_by_side(inputs: np.ndarray, normalize: bool) -> None:
    layer = Experts(6, units=[4, 3], activation="tanh", normalize=normalize)
    values = randomize(layer, inputs)
    found = layer(inputs)
    assert found.shape == [6, 6, 3]
    for e in range(6):
        x = inputs if inputs.ndim == 2 else inputs[:, e // 2]
        for level in (0, 1):
            bias = values[f"expert_bias_{level}"]
            x = x @ matrix(values[f"expert_kernel_{level}"], bias, e) + bias[e]
            x = np.tanh(norm(x) if normalize else x)
        np.testing.assert_allclose(found[:, e], x, rtol=1e-3, atol=1e-5)


def test_normalized_experts_do_not_see_the_scale_and_survive_half_precision() -> None:
    """The square of 1000 is too large for half precision."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        layer = Experts(2, units=[8], activation="linear", normalize=True)
        little, much = layer(INPUTS), layer(1000 * INPUTS)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert little.dtype == tf.float16
    np.testing.assert_allclose(much, little, atol=0.05)
    np.testing.assert_allclose(tf.reduce_mean(tf.cast(much, tf.float32), axis=2), 0.0, atol=1e-2)


def test_a_constant_row_has_finite_values_and_gradients() -> None:
    layer = Experts(2, units=[3], activation="swish", normalize=True)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(tf.zeros([4, 5])))
    assert float(total) == 0.0
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(total, layer.trainable_weights))


@pytest.mark.parametrize("initializer", ["he_normal", keras.initializers.HeNormal(seed=7)])
def test_every_expert_and_layer_starts_at_values_of_its_own(initializer: Any) -> None:
    layer = Experts(3, units=[5, 5], kernel_initializer=initializer)
    layer(INPUTS)
    bias = np.zeros([3, 5])
    matrices = [matrix(kernel.numpy(), bias, e) for kernel in layer.get_prunable_weights() for e in range(3)]
    for left, right in itertools.combinations(matrices, 2):
        assert np.abs(left - right).max() > 0.1


def test_a_permutation_of_the_experts_permutes_the_outputs() -> None:
    layer = Experts(3, units=[4, 3])
    randomize(layer, OWN_INPUTS)
    before = layer(OWN_INPUTS).numpy()
    for variable in layer.trainable_weights:
        variable.assign(variable.numpy()[[2, 0, 1]])
    np.testing.assert_allclose(layer(OWN_INPUTS[:, [2, 0, 1]]), before[:, [2, 0, 1]], rtol=1e-5)


def test_inputs_must_divide_the_experts() -> None:
    with pytest.raises(ValueError, match="The number of inputs of layer 'experts' must divide its 4 experts"):
        Experts(4, name="experts")(OWN_INPUTS)


def test_dropout_is_of_the_outputs_in_training() -> None:
    layer = Experts(2, units=[400], activation="linear", dropout=0.25)
    randomize(layer)
    plain, noisy = layer(INPUTS).numpy(), layer(INPUTS, training=True).numpy()
    kept = noisy != 0
    assert abs(kept.mean() - 0.75) < 0.03
    np.testing.assert_allclose(noisy[kept], plain[kept] / 0.75, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_experts": 0}, "`num_experts` must be a positive integer. Received: num_experts=0."),
        ({"num_experts": True}, "`num_experts` must be a positive integer. Received: num_experts=True."),
        ({"units": []}, "`units` must name at least one width. Received: units=[]."),
        ({"units": [4, 0]}, "`units` must be a positive integer. Received: units=0."),
        ({"dropout": 1.0}, "`dropout` must be a number in [0, 1). Received: dropout=1.0."),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Experts(**{"num_experts": 2, **arguments})
