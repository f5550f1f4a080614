from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.layers.lists import EMBEDDINGS, INDICES, REAL, check_half_precision, check_padding, randomize, softmax
from tfmtl._keras import tf
from tfmtl.layers import AttentionPooling, MaskedMean, MultiInterestPooling, SelfAttention, SelfAttentionHistory
from tfmtl.layers.poolings.prefixes import AtPositions

POOLINGS = {
    "MaskedMean": MaskedMean,
    "AttentionPooling": AttentionPooling,
    "MultiInterestPooling": lambda: MultiInterestPooling(num_interests=2, units=5),
    "SelfAttentionHistory": lambda: SelfAttentionHistory(num_blocks=2, num_heads=3, relative=True),
    "gated": lambda: SelfAttentionHistory(num_blocks=2, num_heads=3, relative=True, gated=True),
}


@pytest.fixture(scope="module", params=sorted(POOLINGS))
def layer(request: pytest.FixtureRequest) -> Any:
    made = POOLINGS[request.param]()
    randomize(made, (EMBEDDINGS, INDICES))
    return made


def test_a_position_has_the_output_of_a_call_on_its_prefix(layer: Any) -> None:
    found = layer.prefixes((EMBEDDINGS, INDICES)).numpy()
    for t in range(INDICES.shape[1]):
        newest_first = EMBEDDINGS[:, t::-1], INDICES[:, t::-1]
        padded = [np.pad(x, [(0, 0), (0, 3 - t), *[(0, 0)] * (x.ndim - 2)]) for x in newest_first]
        np.testing.assert_allclose(found[:, t], layer(tuple(padded)), rtol=1e-4, atol=1e-5)


def test_no_position_reads_a_later_one(layer: Any) -> None:
    full = np.ones_like(INDICES)
    plain = layer.prefixes((EMBEDDINGS, full)).numpy()
    for changed in range(4):
        other = np.where(np.arange(4)[:, np.newaxis] == changed, np.float32(1.5), EMBEDDINGS)
        difference = np.abs(layer.prefixes((other, full)).numpy() - plain).max((0, 2))
        assert (difference > 1e-4).tolist() == [t >= changed for t in range(4)]


def test_padding_neither_counts_nor_learns(layer: Any) -> None:
    if not isinstance(layer, MaskedMean):  # a padded entry has a finite embedding, the table's first row
        check_padding(lambda embeddings: layer.prefixes((embeddings, INDICES))[:, -1])
    np.testing.assert_array_equal(layer.prefixes((EMBEDDINGS, INDICES))[2], 0)


def test_positions_are_gathered(layer: Any) -> None:
    places = [0, 3, 7, 16]
    found = AtPositions(layer)((tf.constant(EMBEDDINGS), tf.constant(INDICES), tf.constant(places)))
    states = layer.prefixes((EMBEDDINGS, INDICES)).numpy()
    np.testing.assert_allclose(found, states.reshape(20, -1)[places], rtol=1e-6)


def test_distances_are_a_bias_of_the_attention() -> None:
    block = SelfAttention(2, num_distances=5)
    readable = np.broadcast_to(np.tri(4, dtype=bool), [5, 4, 4])
    randomize(block, (EMBEDDINGS, readable))
    centred = EMBEDDINGS - EMBEDDINGS.mean(-1, keepdims=True)
    norm = block._norms[0]
    normed = norm.gamma * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) + norm.beta
    query, key, _ = (np.asarray(normed) @ p.kernel.numpy() for p in block._projections)
    apart = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    expected = 0.0
    for bias, head in zip(block._distances.numpy(), np.split(np.arange(6), 2), strict=True):
        logits = query[..., head] @ key[..., head].swapaxes(1, 2) / np.sqrt(3) + bias[apart]
        expected = expected + softmax(np.where(readable, logits, -np.inf)) / 2
    np.testing.assert_allclose(block.attention_weights((EMBEDDINGS, readable)), expected, rtol=1e-4, atol=1e-5)


def test_a_relative_history_is_independent_of_the_length_of_its_list() -> None:
    history = SelfAttentionHistory(relative=True)
    randomize(history, (EMBEDDINGS, INDICES))
    later = np.pad(EMBEDDINGS, [(0, 0), (1, 0), (0, 0)])[:, :4], np.pad(INDICES, [(0, 0), (1, 0)])[:, :4]
    earlier = EMBEDDINGS, INDICES * [1, 1, 1, 0]
    np.testing.assert_allclose(history(later), history(earlier), rtol=1e-4, atol=1e-5)


def test_half_precision() -> None:
    check_half_precision(SelfAttentionHistory(num_heads=2, relative=True, dtype="mixed_float16"), (EMBEDDINGS, INDICES))


def test_positions_that_count_from_now_have_no_prefixes() -> None:
    history = SelfAttentionHistory(name="recent_pooling")
    history((EMBEDDINGS, INDICES))
    sentence = "Layer 'recent_pooling' gives the state after each item only with relative=True"
    with pytest.raises(ValueError, match=sentence):
        history.prefixes((EMBEDDINGS, INDICES))


def test_dropout_acts_in_training_only() -> None:
    history = SelfAttentionHistory(dropout=0.5, relative=True)
    history((EMBEDDINGS, INDICES))
    noisy = history.prefixes((EMBEDDINGS, INDICES), training=True).numpy()
    assert np.abs(noisy - history.prefixes((EMBEDDINGS, INDICES)))[REAL].max() > 0.1


def test_prefixes_compile_with_xla() -> None:
    history = SelfAttentionHistory(relative=True)
    history((EMBEDDINGS, INDICES))
    compiled = tf.function(history.prefixes, jit_compile=True)((tf.constant(EMBEDDINGS), tf.constant(INDICES)))
    np.testing.assert_allclose(compiled, history.prefixes((EMBEDDINGS, INDICES)), rtol=1e-4, atol=1e-5)


def test_a_negative_number_of_distances_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`num_distances` must be 0 or more. Received: num_distances=-1\."):
        SelfAttention(num_distances=-1)
