"""Padded lists, and checks of layers that read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfmtl._keras import keras, tf

RNG = np.random.default_rng(5)
EMBEDDINGS = RNG.normal(size=(5, 4, 6)).astype(np.float32)
INDICES = np.array([[7, 2, 1, 3], [5, 0, 0, 0], [0, 0, 0, 0], [0, 4, 0, 2], [2, 9, 3, 0]], np.int32)
REAL = INDICES > 0

Read = Callable[[tf.Tensor], tf.Tensor]


def randomize(layer: keras.layers.Layer, inputs: Any) -> None:
    """Set every weight, also biases, to distinct values."""
    layer(inputs)
    rng = np.random.default_rng(4)
    layer.set_weights([rng.normal(size=w.shape) if w.dtype == np.float32 else w for w in layer.get_weights()])


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def check_padding(read: Read) -> None:
    """Assert that padding neither reaches the outputs of `read`, a function of the embeddings, nor gets a gradient."""
    plain = read(tf.constant(EMBEDDINGS)).numpy()
    np.testing.assert_array_equal(plain[2], 0)  # an empty list
    for poison in (1e30, np.nan, np.inf):
        poisoned = tf.constant(np.where(REAL[..., np.newaxis], EMBEDDINGS, np.float32(poison)))
        with tf.GradientTape() as tape:
            tape.watch(poisoned)
            found = read(poisoned)
            total = tf.reduce_sum(found * tf.range(1.0, 1.0 + found.shape[1]))
        np.testing.assert_array_equal(found, plain)
        gradient = tape.gradient(total, poisoned).numpy()
        np.testing.assert_array_equal(gradient[~REAL], 0)
        assert np.isfinite(gradient).all()
        assert (np.abs(gradient[REAL]).max(-1) > 0).all()


def check_half_precision(layer: keras.layers.Layer, inputs: Any) -> None:
    """Assert that a layer in mixed precision stays in float16 and finite, with large embeddings and padding."""
    half = tf.nest.map_structure(lambda x: tf.cast(20 * x, tf.float16) if x.dtype == np.float32 else x, inputs)
    found = layer(half)
    assert found.dtype == tf.float16
    assert np.isfinite(found).all()
    assert np.isfinite(layer.attention_weights(half)).all()
