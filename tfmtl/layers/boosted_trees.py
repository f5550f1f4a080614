"""BoostedTrees: the sum of fixed decision trees, in stock operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require_positive_int
from tfmtl._keras import keras, register, tf

LARGEST = 2.0**126
"""Inputs are cut to this size, so that infinity is free for missing ones; near the largest float32."""
WORD_BITS = 32


@register
class BoostedTrees(keras.layers.Layer):
    """Gradient boosted decision trees (GBDT) with fixed nodes, computed inside a network.

    Use it to serve fitted trees in the same SavedModel as a network; `recipes.join_boosting` does so for ranking tasks.

    y = b + sum_t O_t v_t(x), with the value v_t of the leaf of tree t that x reaches, and the outputs O_t that it
    counts for. A node with feature f and threshold c leads to its first child if x_f <= c, and to the second child, the
    node after the first, otherwise. A missing x_f (NaN) takes the direction of the node, and so does a code that a
    categorical split has never seen. A leaf is its own first child, with the feature 0 and the threshold `LARGEST`, so
    that `depth` steps reach the leaves of all trees.

    Features that nodes read have three parts: x with missing values below all numbers (indices 0 to d - 1), x with
    missing values above all numbers (d to 2 d - 1), and for each categorical split 0 or 1, its direction (from 2 d on).

    Nothing is trained. All weights are zeros until `set_weights`, or the argument `weights`, gives them in the order
    `feature`, `threshold`, `child`, `value` (each [nodes]), `root` [trees], `outputs` [trees, units], `bias` [units],
    `split_feature` [splits], and the directions of the codes as bits `split_right` [splits, words], of which bit 0
    belongs to a missing value and bit 1 + k to the code k.

    Args:
        units: number of outputs.
        trees, nodes: their numbers; nodes are those of all trees.
        depth: largest number of steps from a root to a leaf.
        splits: number of categorical splits; 0 for none.
        words: numbers of 32 bits for each categorical split.

    Call arguments:
        inputs: [B, d], NaN where missing; codes of categories are integers from 0.

    Returns:
        [B, units], float32.

    Example:
        >>> trees = BoostedTrees(1, trees=1, nodes=3, depth=1)
        >>> x = tf.constant([[0.5], [2.0], [float("nan")]])
        >>> _ = trees(x)
        >>> nodes = [0, 0, 0], [1.0, LARGEST, LARGEST], [1, 1, 2], [0.0, -1.0, 3.0]
        >>> trees.set_weights([np.array(part) for part in (*nodes, [0], [[1.0]], [10.0])])
        >>> trees(x).numpy().ravel().tolist()
        [9.0, 13.0, 9.0]

    Reference: Friedman, "Greedy Function Approximation: A Gradient Boosting Machine", Annals of Statistics 2001,
    https://doi.org/10.1214/aos/1013203451, equation 2.

    Cost: `depth` steps of a few look-ups for each tree and row.
    """

    def __init__(
        self, units: int, trees: int, nodes: int, depth: int, splits: int = 0, words: int = 1, **kwargs: Any
    ) -> None:
        # float32 under every policy: half precision would move numbers to the other side of a threshold.
        super().__init__(**{"trainable": False, "dtype": "float32", "autocast": False, **kwargs})
        require_positive_int(units=units, trees=trees, nodes=nodes, depth=depth, words=words)
        self.units = units
        self.trees = trees
        self.nodes = nodes
        self.depth = depth
        self.splits = splits
        self.words = words

    def build(self, input_shape: Any) -> None:
        """Create the arrays."""

        def fixed(name: str, shape: Sequence[int], dtype: tf.DType) -> tf.Variable:
            return self.add_weight(name, shape, dtype=dtype, initializer="zeros", trainable=False)

        self._feature = fixed("feature", [self.nodes], tf.int32)
        self._threshold = fixed("threshold", [self.nodes], tf.float32)
        self._child = fixed("child", [self.nodes], tf.int32)
        self._value = fixed("value", [self.nodes], tf.float32)
        self._root = fixed("root", [self.trees], tf.int32)
        self._outputs = fixed("outputs", [self.trees, self.units], tf.float32)
        self._bias = fixed("bias", [self.units], tf.float32)
        if self.splits:
            self._split_feature = fixed("split_feature", [self.splits], tf.int32)
            self._split_right = fixed("split_right", [self.splits, self.words], tf.int32)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        inputs = tf.cast(inputs, tf.float32)
        read = self._parts(inputs)  # [B, 2 d]
        node = tf.tile(self._root[tf.newaxis], [tf.shape(inputs)[0], 1])  # [B, trees]
        for _ in range(self.depth):
            feature = tf.gather(self._feature, node)
            number = tf.gather(read, tf.minimum(feature, read.shape[1] - 1), batch_dims=1)
            right = number > tf.gather(self._threshold, node)
            if self.splits:
                split = feature - read.shape[1]
                right = tf.where(split >= 0, self._directions(inputs, tf.maximum(split, 0)), right)
            node = tf.gather(self._child, node) + tf.cast(right, tf.int32)
        return tf.matmul(tf.gather(self._value, node), self._outputs) + self._bias

    def _parts(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the numbers [B, 2 d] that the nodes compare."""
        missing = tf.math.is_nan(inputs)
        numbers = tf.clip_by_value(inputs, -LARGEST, LARGEST)
        infinity = tf.fill(tf.shape(inputs), tf.constant(np.inf, tf.float32))
        return tf.concat([tf.where(missing, -infinity, numbers), tf.where(missing, infinity, numbers)], axis=1)

    def _directions(self, inputs: tf.Tensor, split: tf.Tensor) -> tf.Tensor:
        """Return whether categorical splits [B, trees] lead to the second child."""
        code = tf.gather(inputs, tf.gather(self._split_feature, split), batch_dims=1)
        known = (code >= 0) & (code < WORD_BITS * self.words - 1)  # NaN is not
        bit = tf.cast(tf.where(known, code + 1, 0), tf.int32)
        word = tf.gather(tf.reshape(self._split_right, [-1]), split * self.words + bit // WORD_BITS)
        return tf.bitwise.bitwise_and(tf.bitwise.right_shift(word, bit % WORD_BITS), 1) > 0

    def get_config(self) -> dict[str, Any]:
        sizes = {"units": self.units, "trees": self.trees, "nodes": self.nodes, "depth": self.depth}
        return {**super().get_config(), **sizes, "splits": self.splits, "words": self.words}
