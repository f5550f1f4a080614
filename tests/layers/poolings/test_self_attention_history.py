from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from tests.layers.lists import EMBEDDINGS, INDICES, REAL, check_half_precision, check_padding, randomize, softmax
from tfmtl._keras import keras, tf
from tfmtl.layers import SelfAttention, SelfAttentionHistory

INPUTS = (EMBEDDINGS, INDICES)


@pytest.fixture(scope="module")
def layer() -> SelfAttentionHistory:
    history = SelfAttentionHistory(num_blocks=2, num_heads=3)
    randomize(history, INPUTS)
    return history


def normed(states: np.ndarray, norm: keras.layers.LayerNormalization) -> np.ndarray:
    centred = states - states.mean(-1, keepdims=True)
    return norm.gamma.numpy() * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) + norm.beta.numpy()


def in_time_order(layer: SelfAttentionHistory, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Return state and weights of the last item as in the paper: oldest first, each reads itself and those before."""
    places = np.flatnonzero(REAL[row])[::-1]
    states = EMBEDDINGS[row][places] + layer._positions.numpy()[places]
    for block in layer._blocks:
        query, key, value = (normed(states, block._norms[0]) @ p.kernel.numpy() for p in block._projections)
        attended, weights = [], 0.0
        for head in np.split(np.arange(6), 3):
            logits = query[:, head] @ key[:, head].T / np.sqrt(2)
            each = softmax(np.where(np.tri(len(places), dtype=bool), logits, -np.inf))
            attended.append(each @ value[:, head])
            weights = weights + each[-1] / 3
        states = states + np.concatenate(attended, 1)
        first, second = block._feed_forward
        hidden = np.maximum(normed(states, block._norms[1]) @ first.kernel.numpy() + first.bias.numpy(), 0)
        states = states + hidden @ second.kernel.numpy() + second.bias.numpy()
    of_place = np.zeros(4)
    of_place[places] = weights
    return normed(states, layer._norm)[-1], of_place


@pytest.mark.parametrize("row", [0, 1, 3, 4])
def test_it_is_its_definition(layer: SelfAttentionHistory, row: int) -> None:
    state, weights = in_time_order(layer, row)
    np.testing.assert_allclose(layer(INPUTS)[row], state, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.attention_weights(INPUTS)[row], weights, rtol=1e-4, atol=1e-6)


def test_an_item_reads_older_items_only() -> None:
    block = SelfAttention(2)
    states, older = tf.constant(EMBEDDINGS), tf.constant(np.triu(np.ones([1, 4, 4], bool)))  # position 3 is the oldest
    randomize(block, (states, older))
    changed = tf.constant(np.where(np.arange(4)[:, np.newaxis] == 1, 1.5, EMBEDDINGS), tf.float32)
    difference = np.abs(block((changed, older)) - block((states, older))).max((0, 2))
    assert (difference > 1e-3).tolist() == [True, True, False, False]


def test_one_position_is_that_of_the_whole_list() -> None:
    block = SelfAttention(2, num_distances=5)
    states, older = tf.constant(EMBEDDINGS), tf.constant(np.triu(np.ones([len(EMBEDDINGS), 4, 4], bool)))
    randomize(block, (states, older))
    places = np.arange(len(EMBEDDINGS)) % 4
    whole = block((states, older)).numpy()[np.arange(len(EMBEDDINGS)), places]
    np.testing.assert_allclose(block((states, older, tf.constant(places))), whole, rtol=1e-4, atol=1e-5)
    own = tf.gather(older, places[:, np.newaxis], batch_dims=1)  # [B, 1, length], of these entries alone
    np.testing.assert_allclose(block((states, own, tf.constant(places))), whole, rtol=1e-4, atol=1e-5)


def test_a_list_is_not_its_reverse(layer: SelfAttentionHistory) -> None:
    full = (EMBEDDINGS, np.ones_like(INDICES))
    backwards = layer((EMBEDDINGS[:, ::-1], np.ones_like(INDICES)))
    assert np.abs(backwards - layer(full)).max() > 0.1


def test_padding_neither_counts_nor_learns(layer: SelfAttentionHistory) -> None:
    check_padding(lambda embeddings: layer((embeddings, INDICES)))
    np.testing.assert_array_equal(layer.attention_weights(INPUTS).numpy()[~REAL], 0)


def test_half_precision() -> None:
    check_half_precision(SelfAttentionHistory(num_heads=2, dtype="mixed_float16"), INPUTS)


def test_all_kernels_start_apart() -> None:
    history = SelfAttentionHistory(3, kernel_initializer=keras.initializers.GlorotUniform(seed=2))
    history(INPUTS)
    kernels = history.get_prunable_weights()
    assert len(kernels) == 3 * SelfAttention.num_kernels
    for left, right in itertools.combinations(kernels, 2):
        assert np.abs(left - right).max() > 0.1


def test_dropout_acts_in_training_only() -> None:
    history = SelfAttentionHistory(dropout=0.5)
    plain = history(INPUTS).numpy()
    np.testing.assert_array_equal(history(INPUTS, training=False), plain)
    noisy = history(INPUTS, training=True).numpy()
    assert np.abs(noisy - plain).max() > 0.1
    np.testing.assert_array_equal(noisy[2], 0)


def test_it_compiles_with_xla(layer: SelfAttentionHistory) -> None:
    compiled = tf.function(layer, jit_compile=True)
    np.testing.assert_allclose(compiled(INPUTS), layer(INPUTS), rtol=1e-4, atol=1e-5)


def test_a_shorter_list_takes_the_first_positions(layer: SelfAttentionHistory) -> None:
    short = layer((EMBEDDINGS[:, :2], INDICES[:, :2]))
    np.testing.assert_allclose(short, layer((EMBEDDINGS, INDICES * [1, 1, 0, 0])), rtol=1e-4, atol=1e-5)


def test_a_longer_list_is_refused(layer: SelfAttentionHistory) -> None:
    longer = (np.repeat(EMBEDDINGS, 2, 1), np.repeat(INDICES, 2, 1))
    sentence = (
        f"Layer {layer.name!r} has positions for 4 entries; cut longer lists, most recent first. Received: length=8."
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        layer(longer)


def test_a_list_of_no_fixed_length_is_refused() -> None:
    inputs = keras.Input([None, 4]), keras.Input([None], dtype=tf.int32)
    with pytest.raises(ValueError, match="learns a vector per position; give the lists a fixed length"):
        SelfAttentionHistory()(inputs)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_blocks": 0}, "`num_blocks` must be a positive integer. Received: num_blocks=0."),
        ({"num_heads": 0}, "`num_heads` must be a positive integer. Received: num_heads=0."),
        ({"dropout": 1.0}, "`dropout` must be a number in [0, 1). Received: dropout=1.0."),
        ({"num_heads": 4}, "`num_heads` must divide the embeddings' width 6. Received: num_heads=4."),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        SelfAttentionHistory(**arguments)(INPUTS)
