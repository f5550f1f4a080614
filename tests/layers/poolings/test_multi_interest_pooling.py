from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.layers.lists import EMBEDDINGS, INDICES, REAL, check_half_precision, check_padding, randomize, softmax
from tfmtl._keras import keras
from tfmtl.layers import AttentionPooling, MultiInterestPooling

INPUTS = (EMBEDDINGS, INDICES)


def test_it_is_its_definition() -> None:
    layer = MultiInterestPooling(3, 5)
    randomize(layer, INPUTS)
    kernel, bias, queries, positions = (v.numpy() for v in layer.trainable_weights)
    for row, real in enumerate(REAL):
        entries, expected = EMBEDDINGS[row][real], np.zeros([3, 6])
        for k in range(3):
            if real.any():
                weights = softmax(np.tanh(entries @ kernel + bias) @ queries[:, k] + positions[k][real])
                expected[k] = weights @ entries
                np.testing.assert_allclose(layer.attention_weights(INPUTS)[row, k][real], weights, rtol=1e-4)
        np.testing.assert_allclose(layer(INPUTS)[row], expected.ravel(), rtol=1e-4, atol=1e-6)
        assert not layer.attention_weights(INPUTS).numpy()[row][:, ~real].any()


def test_one_interest_without_positions_is_attention_pooling() -> None:
    layer, other = MultiInterestPooling(1, 5), AttentionPooling(5)
    randomize(layer, INPUTS)
    randomize(other, INPUTS)
    kernel, bias, queries, positions = layer.get_weights()
    layer.set_weights([kernel, bias, queries, 0 * positions])
    other.set_weights([kernel, bias, queries])
    np.testing.assert_allclose(layer(INPUTS), other(INPUTS), rtol=1e-5, atol=1e-6)


def test_padding_neither_counts_nor_learns() -> None:
    layer = MultiInterestPooling(2, 3)
    randomize(layer, INPUTS)
    check_padding(lambda embeddings: layer((embeddings, INDICES)))


def test_half_precision() -> None:
    check_half_precision(MultiInterestPooling(2, dtype="mixed_float16"), INPUTS)


def test_interests_start_apart() -> None:
    layer = MultiInterestPooling(2, 3, kernel_initializer=keras.initializers.GlorotUniform(seed=2))
    found = layer(INPUTS).numpy().reshape(5, 2, 6)
    assert np.abs(found[0, 0] - found[0, 1]).max() > 1e-3


def test_a_shorter_list_takes_the_first_positions() -> None:
    layer = MultiInterestPooling(2, 3)
    randomize(layer, INPUTS)
    cut = INDICES * [1, 1, 0, 0]
    np.testing.assert_allclose(layer((EMBEDDINGS[:, :2], INDICES[:, :2])), layer((EMBEDDINGS, cut)), rtol=1e-5)


def test_other_lists_are_refused() -> None:
    layer = MultiInterestPooling(2, 3, name="recent_pooling")
    layer(INPUTS)
    longer = [np.concatenate([x, x], axis=1) for x in INPUTS]
    sentence = "Layer 'recent_pooling' has positions for 4 entries; cut longer lists, most recent first."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        layer(tuple(longer))
    with pytest.raises(ValueError, match="learns a number per position; give the lists a fixed length"):
        MultiInterestPooling()((keras.Input([None, 6]), keras.Input([None], dtype="int32")))


@pytest.mark.parametrize("argument", ["num_interests", "units"])
def test_numbers_are_checked(argument: str) -> None:
    arguments: dict[str, Any] = {argument: 0}
    with pytest.raises(ValueError, match=re.escape(f"`{argument}` must be a positive integer. Received: {argument}=0")):
        MultiInterestPooling(**arguments)
