"""The bin of a number in each row."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf


@register
class NumberBins(keras.layers.Layer):
    """The bin of a number in each row: how many of E ascending edges it reaches, and E + 1 where it is missing.

    Heads use it for tables by bins, such as those of `tasks.DurationQuantiles`.

    Args:
        edges: ascending numbers [E] in the unit of the input; without any, every number is in bin 0.

    Call arguments:
        inputs: an encoded number, the pair of value and missing flag [B, 2].

    Returns:
        [B, 1] float32.

    Example:
        >>> rows = tf.constant([[0.5, 0.0], [2.0, 0.0], [9.0, 0.0], [0.0, 1.0]])
        >>> NumberBins([2.0, 4.0])(rows)[:, 0].numpy().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """

    def __init__(self, edges: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        ascending = all(low <= high for low, high in itertools.pairwise(edges))
        require(ascending, f"`edges` of {self.name!r} must be ascending.", edges=edges)
        self.edges = tuple(float(edge) for edge in edges)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        reached = tf.cast(inputs[:, :1] >= tf.constant([self.edges], tf.float32), tf.float32)
        number = tf.reduce_sum(reached, axis=1, keepdims=True)
        return tf.where(inputs[:, 1:2] > 0, float(len(self.edges) + 1), number)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "edges": list(self.edges)}
