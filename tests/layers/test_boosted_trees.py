"""Fixed trees beside a plain walk over their nodes, and the columns that they read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import keras
from tfmtl.layers import BoostedTrees, TreeColumns
from tfmtl.layers.boosted_trees import LARGEST

LEAF = LARGEST
NAN = np.nan


def trees_of(weights: list[Any], **sizes: int) -> BoostedTrees:
    return BoostedTrees(**sizes, weights=[np.array(part) for part in weights])


def stump(threshold: float, missing_right: bool = False) -> BoostedTrees:
    """Return -1 up to a threshold of one column, and +1 above."""
    nodes = [[int(missing_right), 0, 0], [threshold, LEAF, LEAF], [1, 1, 2], [0.0, -1.0, 1.0]]
    return trees_of([*nodes, [0], [[1.0]], [0.0]], units=1, trees=1, nodes=3, depth=1)


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, np.newaxis]


def test_a_number_at_the_threshold_leads_to_the_first_child() -> None:
    above = float(np.nextafter(np.float32(0.5), np.float32(1)))
    assert stump(0.5)(column(0.25, 0.5, above, 7.0)).numpy().ravel().tolist() == [-1, -1, 1, 1]


def test_a_missing_number_takes_the_direction_of_the_node() -> None:
    values = column(NAN, -np.inf, np.inf)
    assert stump(0.5)(values).numpy().ravel().tolist() == [-1, -1, 1]
    assert stump(0.5, missing_right=True)(values).numpy().ravel().tolist() == [1, -1, 1]
    # The largest threshold separates missing numbers from all others.
    assert stump(LARGEST, missing_right=True)(values).numpy().ravel().tolist() == [1, -1, -1]


def test_a_categorical_split_reads_bits() -> None:
    """Codes 1, 30, 31 and 62 lead to the second child; missing, unseen and negative ones to the first."""
    right = np.zeros(64, np.bool_)
    right[[2, 31, 32, 63]] = True
    words = np.packbits(right, bitorder="little").view("<i4")[np.newaxis]
    nodes = [[2, 0, 0], [0.5, LEAF, LEAF], [1, 1, 2], [0.0, 0.0, 1.0]]
    weights = [*nodes, [0], [[1.0]], [0.0], [0], words]
    layer = trees_of(weights, units=1, trees=1, nodes=3, depth=1, splits=1, words=2)
    codes = [0, 1, 2, 29, 30, 31, 32, 61, 62, 63, 1000, -1, NAN]
    assert layer(column(*codes)).numpy().ravel().tolist() == [0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0]


def walked(weights: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Return the outputs by a walk from each root, one row at a time."""
    feature, threshold, child, value, root, outputs, bias, split_feature, split_right = weights
    found = np.tile(bias.astype(np.float64), (len(rows), 1))
    width = rows.shape[1]
    for i, row in enumerate(rows):
        for tree, start in enumerate(root):
            node = start
            while child[node] != node:
                read = feature[node]
                if read >= 2 * width:
                    code = row[split_feature[read - 2 * width]]
                    bit = int(code) + 1 if 0 <= code < split_right.shape[1] * 32 - 1 else 0
                    right = (int(split_right[read - 2 * width, bit // 32]) >> (bit % 32)) & 1
                elif np.isnan(row[read % width]):
                    right = read >= width
                else:
                    right = row[read % width] > threshold[node]
                node = child[node] + int(right)
            found[i] += value[node] * outputs[tree]
    return found


def random_weights(rng: np.random.Generator, width: int, trees: int, splits: int) -> list[np.ndarray]:
    """Return trees of two complete levels with random nodes."""
    inner, size = 3, 7
    child = np.concatenate([np.array([1, 3, 5, 3, 4, 5, 6]) + size * tree for tree in range(trees)])
    leaf = np.tile(np.arange(size) >= inner, trees)
    feature = np.where(leaf, 0, rng.integers(0, 2 * width + splits, size * trees))
    compared = np.where(feature >= 2 * width, 0.5, rng.normal(size=size * trees))
    threshold = np.where(leaf, LEAF, compared)
    outputs = rng.normal(size=[trees, 2])
    bits = rng.integers(-(2**31), 2**31, [splits, 2])
    return [
        feature.astype(np.int32), threshold.astype(np.float32), child.astype(np.int32),
        rng.normal(size=size * trees).astype(np.float32), np.arange(0, size * trees, size, dtype=np.int32),
        outputs.astype(np.float32), np.array([0.5, -1.0], np.float32),
        rng.integers(0, width, splits).astype(np.int32), bits.astype(np.int32),
    ]  # fmt: skip


def test_trees_are_equal_to_a_walk_over_their_nodes() -> None:
    rng = np.random.default_rng(3)
    weights = random_weights(rng, width=4, trees=9, splits=5)
    rows = np.where(rng.random([200, 4]) < 0.2, NAN, rng.normal(size=[200, 4]) * 20).astype(np.float32)
    layer = trees_of(list(weights), units=2, trees=9, nodes=63, depth=2, splits=5, words=2)
    np.testing.assert_allclose(layer(rows).numpy(), walked(weights, rows), rtol=1e-5, atol=1e-5)
    deeper = trees_of(list(weights), units=2, trees=9, nodes=63, depth=6, splits=5, words=2)
    np.testing.assert_array_equal(deeper(rows).numpy(), layer(rows).numpy())  # a leaf is its own child


def test_nothing_is_trained() -> None:
    layer = stump(0.5)
    layer(column(1.0))
    assert layer.trainable_weights == []
    layer.trainable = True
    assert layer.trainable_weights == []
    again = BoostedTrees.from_config(layer.get_config())
    again(column(1.0))
    np.testing.assert_array_equal(again(column(1.0)).numpy(), 0)  # zeros until the weights are set
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(column(1.0)).numpy(), layer(column(1.0)).numpy())


def test_half_precision_does_not_move_numbers() -> None:
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        found = stump(1.0)(column(1.0001, 1.0))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert found.dtype == "float32"
    assert found.numpy().ravel().tolist() == [1, -1]


def test_columns_have_codes_from_zero_fills_and_lengths() -> None:
    layer = TreeColumns(2, 2, [[None, -5.0], []])
    looked_up = column(3, 0.5, 0, 0.25).T
    numbers = np.array([[1.0, 2.0, 0.0]], np.float32), np.array([[0.0, 0.0, 1.0]], np.float32)
    lists = np.array([[4, 1, 0]], np.int32)
    np.testing.assert_array_equal(layer([looked_up, numbers[0], lists]).numpy(), [[2, 0.5, NAN, 0.25, 1, 2, 2]])
    np.testing.assert_array_equal(layer([looked_up, numbers[1], 0 * lists]).numpy(), [[2, 0.5, NAN, 0.25, NAN, -5, 0]])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="`depth`"):
        BoostedTrees(1, trees=1, nodes=3, depth=0)
    with pytest.raises(ValueError, match="at least one feature"):
        TreeColumns(0, 2)
