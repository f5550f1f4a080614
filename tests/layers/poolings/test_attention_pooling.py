from __future__ import annotations

import re

import numpy as np
import pytest

from tests.layers.lists import EMBEDDINGS, INDICES, REAL, check_half_precision, check_padding, randomize, softmax
from tfmtl._keras import keras, tf
from tfmtl.layers import AttentionPooling
from tfmtl.layers.masked_softmax import masked_softmax

INPUTS = (EMBEDDINGS, INDICES)


def test_it_is_its_definition() -> None:
    layer = AttentionPooling(3)
    randomize(layer, INPUTS)
    kernel, bias, query = (v.numpy() for v in layer.trainable_weights)
    for row, real in enumerate(REAL):
        entries = EMBEDDINGS[row][real]
        weights = softmax((np.tanh(entries @ kernel + bias) @ query)[:, 0]) if real.any() else np.zeros(0)
        np.testing.assert_allclose(layer(INPUTS)[row], weights @ entries, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(layer.attention_weights(INPUTS)[row][real], weights, rtol=1e-5)
        assert not layer.attention_weights(INPUTS).numpy()[row][~real].any()


def test_the_order_of_a_list_does_not_matter() -> None:
    layer = AttentionPooling(3)
    randomize(layer, INPUTS)
    np.testing.assert_allclose(layer((EMBEDDINGS[:, ::-1], INDICES[:, ::-1])), layer(INPUTS), rtol=1e-5, atol=1e-6)


def test_padding_neither_counts_nor_learns() -> None:
    layer = AttentionPooling(3)
    randomize(layer, INPUTS)
    check_padding(lambda embeddings: layer((embeddings, INDICES)))


def test_half_precision() -> None:
    check_half_precision(AttentionPooling(dtype="mixed_float16"), INPUTS)


def test_kernel_and_query_start_apart() -> None:
    layer = AttentionPooling(6, kernel_initializer=keras.initializers.GlorotUniform(seed=2))
    layer((EMBEDDINGS[..., :1], INDICES))
    kernel, _, query = (v.numpy() for v in layer.trainable_weights)
    assert np.abs(kernel.ravel() - query.ravel()).max() > 0.1


def test_a_width_is_checked() -> None:
    with pytest.raises(ValueError, match=re.escape("`units` must be a positive integer. Received: units=0.")):
        AttentionPooling(0)


def test_a_masked_softmax_counts_a_large_negative_logit_as_an_entry() -> None:
    logits = tf.constant([[-6e4, -6e4, 3.0]], tf.float16)  # close to the smallest number of half precision
    np.testing.assert_array_equal(masked_softmax(logits, tf.constant([[True, True, False]])), [[0.5, 0.5, 0]])
