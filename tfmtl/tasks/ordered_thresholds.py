"""A layer of ordered thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.tasks.ascending import before_ascending


@register
class OrderedThresholds(keras.layers.Layer):
    """The logits z_k = g + b_k [B, n] of a score g [B, 1], with trained thresholds b_1 >= b_2 >= ... >= b_n.

    b_1 is free, and b_k = b_(k-1) - softplus(d_k).

    Args:
        number: n.
        start: the initial thresholds b, not ascending; by default those of n + 1 equally likely levels. Neighbours that
            are closer than 0.001 are moved apart.

    Example:
        >>> OrderedThresholds(2, start=[1.0, -1.0])(tf.constant([[0.5]])).numpy().round(4).tolist()
        [[1.5, -0.5]]
    """

    def __init__(self, number: int, start: Sequence[float] | None = None, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        require_positive_int(number=number)
        require(
            start is None or (len(start) == number and bool((np.diff(start) <= 0).all())),
            f"`start` must hold {number} descending numbers.",
            start=start,
        )
        self.number = number
        self.start = None if start is None else [float(value) for value in start]

    def build(self, input_shape: Any) -> None:
        above = np.arange(self.number, 0, -1) / (self.number + 1)
        start = np.log(above / (1 - above)) if self.start is None else np.array(self.start)
        initial = before_ascending((-start).tolist())
        self.free = self.add_weight(
            name="free", shape=[self.number], initializer=keras.initializers.Constant(np.array(initial, np.float32))
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs - tf.cumsum(tf.concat([self.free[:1], tf.nn.softplus(self.free[1:])], axis=0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "number": self.number, "start": self.start}
