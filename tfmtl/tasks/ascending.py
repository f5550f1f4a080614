"""A layer with ascending outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmtl._keras import keras, register, tf


@register
class Ascending(keras.layers.Layer):
    """The sums x_1, x_1 + softplus(x_2), x_1 + softplus(x_2) + softplus(x_3), ... [B, n], ascending for any x [B, n].

    Example:
        >>> Ascending()(tf.constant([[2.0, -100.0, 100.0]])).numpy().tolist()
        [[2.0, 2.0, 102.0]]
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.cumsum(tf.concat([inputs[:, :1], tf.nn.softplus(inputs[:, 1:])], axis=1), axis=1)


def before_ascending(values: Sequence[float], least: float = 1e-3) -> list[float]:
    """Return the inputs of `Ascending` for given outputs, of which neighbours closer than `least` are moved apart.

    Example:
        >>> round(before_ascending([2.0, 2.0 + float(np.log(2.0))])[1], 4)  # softplus(0) = log 2
        0.0
    """
    steps = np.maximum(np.diff(values), least)
    return [float(values[0]), *(steps + np.log(-np.expm1(-steps))).tolist()]
