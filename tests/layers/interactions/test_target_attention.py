from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.layers.lists import EMBEDDINGS, INDICES, REAL, check_half_precision, check_padding, randomize, softmax
from tfmtl._keras import keras, tf
from tfmtl.layers import TargetAttention

TARGET = np.random.default_rng(6).normal(size=(5, 6)).astype(np.float32)
INPUTS = (TARGET, EMBEDDINGS, INDICES)


def make(**arguments: Any) -> TargetAttention:
    layer = TargetAttention("recent", units=[4, 3], activation="tanh", **arguments)
    randomize(layer, INPUTS)
    return layer


@pytest.mark.parametrize("normalize", [False, True])
def test_it_is_its_definition(normalize: bool) -> None:
    layer = make(normalize=normalize)
    first, first_bias, second, second_bias, last, last_bias = (v.numpy() for v in layer.trainable_weights)
    for row, target in enumerate(TARGET):
        weights = np.zeros(4)
        for place in np.flatnonzero(REAL[row]):
            entry = EMBEDDINGS[row, place]
            read = np.concatenate([entry, target, entry - target, entry * target])
            hidden = np.tanh(np.tanh(read @ first + first_bias) @ second + second_bias)
            weights[place] = (hidden @ last + last_bias)[0]
        if normalize and REAL[row].any():
            weights[REAL[row]] = softmax(weights[REAL[row]])
        np.testing.assert_allclose(layer.attention_weights(INPUTS)[row], weights, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer(INPUTS)[row], weights @ EMBEDDINGS[row], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normalize", [False, True])
def test_padding_neither_counts_nor_learns(normalize: bool) -> None:
    layer = make(normalize=normalize)
    check_padding(lambda embeddings: layer((TARGET, embeddings, INDICES)))
    np.testing.assert_array_equal(layer.attention_weights(INPUTS).numpy()[~REAL], 0)


def test_half_precision() -> None:
    for normalize in (False, True):
        check_half_precision(TargetAttention("recent", normalize=normalize, dtype="mixed_float16"), INPUTS)


def test_it_compiles_with_xla() -> None:
    layer = make()
    np.testing.assert_allclose(tf.function(layer, jit_compile=True)(INPUTS), layer(INPUTS), rtol=1e-4, atol=1e-5)


def test_kernels_are_penalized_pruned_and_start_apart() -> None:
    square = {"units": [24, 24], "kernel_initializer": keras.initializers.GlorotUniform(seed=2)}
    layer = TargetAttention("recent", kernel_regularizer=keras.regularizers.L2(0.5), **square)
    layer(INPUTS)
    kernels = [kernel.numpy() for kernel in layer.get_prunable_weights()]
    assert [kernel.shape for kernel in kernels] == [(24, 24), (24, 24), (24, 1)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1
    penalty = 0.5 * sum((kernel**2).sum() for kernel in kernels)
    assert float(tf.add_n(layer.losses)) == pytest.approx(penalty, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"history": ""}, "`history` must be the name of a feature. Received: history=''."),
        ({"units": [0]}, "`units` must be a positive integer. Received: units=0."),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        TargetAttention(**{"history": "recent", **arguments})
