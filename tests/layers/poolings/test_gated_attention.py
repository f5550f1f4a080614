from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.layers.lists import EMBEDDINGS, INDICES, check_half_precision, check_padding, randomize
from tfmtl._keras import tf
from tfmtl.layers import GatedAttention, SelfAttention, SelfAttentionHistory

OLDER = np.broadcast_to(np.triu(np.ones([4, 4], bool)), [5, 4, 4])
INPUTS = (EMBEDDINGS, OLDER)


@pytest.fixture(scope="module")
def layer() -> GatedAttention:
    made = GatedAttention(5, num_heads=3)
    randomize(made, INPUTS)
    return made


def silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


def normed(x: np.ndarray, norm: Any) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return norm.gamma.numpy() * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) + norm.beta.numpy()


def definition(layer: GatedAttention, states: np.ndarray, readable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the block's output and mean weights for one list, entry by entry and head by head."""
    start = normed(states, layer._norms[0])
    query, key, value, gate = (silu(start @ p.kernel.numpy() + p.bias.numpy()) for p in layer._projections)
    size = states.shape[1] // layer.num_heads
    attended, weights = np.zeros_like(states), np.zeros(readable.shape)
    for head in range(layer.num_heads):
        part = slice(head * size, (head + 1) * size)
        for i, j in zip(*np.nonzero(readable), strict=True):
            logit = query[i, part] @ key[j, part] + layer._distances.numpy()[head, abs(i - j)]
            attended[i, part] += silu(logit) / layer.num_distances * value[j, part]
            weights[i, j] += silu(logit) / layer.num_distances / layer.num_heads
    gated = normed(attended, layer._norms[1]) * gate
    return states + gated @ layer._output.kernel.numpy() + layer._output.bias.numpy(), weights


@pytest.mark.parametrize("row", [0, 1, 4])
def test_it_is_its_definition(layer: GatedAttention, row: int) -> None:
    expected, weights = definition(layer, EMBEDDINGS[row], OLDER[row])
    np.testing.assert_allclose(layer(INPUTS)[row], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.attention_weights(INPUTS)[row], weights, rtol=1e-4, atol=1e-6)


def test_one_position_is_that_of_the_whole_list(layer: GatedAttention) -> None:
    places = np.arange(5) % 4
    whole = layer(INPUTS).numpy()[np.arange(5), places]
    np.testing.assert_allclose(layer((*INPUTS, tf.constant(places))), whole, rtol=1e-4, atol=1e-5)


def test_an_entry_counts_each_entry_that_it_reads() -> None:
    """Two equal entries have twice the weight of one, so that the weights show how many fit."""
    block = GatedAttention(5)
    same = tf.ones([1, 4, 6]) * tf.range(6.0)
    randomize(block, (same, OLDER[:1]))
    block._distances.assign(tf.zeros_like(block._distances))
    sums = tf.reduce_sum(block.attention_weights((same, OLDER[:1])), axis=2)[0].numpy()
    np.testing.assert_allclose(sums / sums[-1], [4, 3, 2, 1], rtol=1e-5)


@pytest.mark.parametrize("block", [GatedAttention(3, name="block"), SelfAttention(num_distances=3, name="block")])
def test_a_list_with_more_distances_than_biases_is_refused(block: Any) -> None:
    block((EMBEDDINGS[:, :3], OLDER[:, :3, :3]))
    with pytest.raises(ValueError, match=r"Layer 'block' has biases for 3 distances; cut longer lists. .*length=4"):
        block(INPUTS)


def test_dropout_acts_in_training_only() -> None:
    block = GatedAttention(4, dropout=0.5)
    plain = block(INPUTS).numpy()
    np.testing.assert_array_equal(block(INPUTS, training=False), plain)
    assert np.abs(block(INPUTS, training=True).numpy() - plain).max() > 0.01


def test_padding_neither_counts_nor_learns() -> None:
    history = SelfAttentionHistory(num_heads=2, relative=True, gated=True)
    randomize(history, (EMBEDDINGS, INDICES))
    check_padding(lambda embeddings: history((embeddings, INDICES)))
    np.testing.assert_array_equal(history.attention_weights((EMBEDDINGS, INDICES)).numpy()[INDICES == 0], 0)


def test_half_precision() -> None:
    gated = SelfAttentionHistory(num_heads=2, relative=True, gated=True, dtype="mixed_float16")
    check_half_precision(gated, (EMBEDDINGS, INDICES))


def test_all_kernels_start_apart() -> None:
    history = SelfAttentionHistory(2, relative=True, gated=True)
    history((EMBEDDINGS, INDICES))
    kernels = [kernel.numpy() for kernel in history.get_prunable_weights()]
    assert len(kernels) == 2 * GatedAttention.num_kernels
    assert all(np.abs(a - b).max() > 0.1 for i, a in enumerate(kernels) for b in kernels[:i])


def test_gated_blocks_need_distances() -> None:
    sentence = "`gated` blocks have a bias per distance; set `relative=True`. Received: relative=False."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        SelfAttentionHistory(gated=True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_distances": 0}, "`num_distances` must be a positive integer. Received: num_distances=0."),
        ({"num_distances": 4, "dropout": 1.0}, "`dropout` must be a number in [0, 1). Received: dropout=1.0."),
        ({"num_distances": 4, "num_heads": 4}, "`num_heads` must divide the embeddings' width 6. Received: "),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        GatedAttention(**arguments)(INPUTS)
