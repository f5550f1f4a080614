"""TreeColumns: encoded features as the columns that decision trees read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, register, tf


@register
class TreeColumns(keras.layers.Layer):
    """Columns of decision trees: numbers of categories, numbers with NaN where missing, and lengths of lists.

    Use it before `BoostedTrees`; `recipes.join_boosting` does so. It has no weights.

    - a category has `units` numbers that were looked up: 1 + its code, or 0 for none, and others, such as its count
    - a number is itself, and its fill where the flag of a missing value is set
    - of a list of indices the number of entries is used

    Args:
        categories: number of categories.
        units: numbers of each category.
        fills: for each further feature the values [d] of its missing numbers, None for NaN; () for lists of indices.

    Call arguments:
        inputs: the numbers [B, categories units], if there are categories; then for each further feature its numbers
            and missing flag [B, d + 1], or its indices [B, length], 0 in padding.

    Returns:
        [B, d'], float32: `units` columns of each category, then those of the further features.

    Example:
        >>> columns = TreeColumns(1, 2, [[None]])
        >>> columns([tf.constant([[3.0, 7.0], [0.0, 1.0]]), tf.constant([[0.5, 0.0], [0.0, 1.0]])]).numpy().tolist()
        [[2.0, 7.0, 0.5], [nan, 1.0, nan]]

    Cost: a few operations for each feature.
    """

    def __init__(
        self, categories: int, units: int, fills: Sequence[Sequence[float | None]] = (), **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        require_positive_int(units=units)
        require(categories + len(fills) > 0, "`categories` or `fills` must hold at least one feature.", fills=fills)
        self.categories = categories
        self.units = units
        self.fills = [list(fill) for fill in fills]

    def call(self, inputs: Any) -> tf.Tensor:
        given = tf.nest.flatten(inputs)
        parts = [self._of_categories(given.pop(0))] if self.categories else []
        parts += [_of_feature(value, fill) for value, fill in zip(given, self.fills, strict=True)]
        return tf.concat(parts, axis=1)

    def _of_categories(self, inputs: tf.Tensor) -> tf.Tensor:
        looked_up = tf.reshape(tf.cast(inputs, tf.float32), [-1, self.categories, self.units])
        code = looked_up[..., :1]
        code = tf.where(code > 0, code - 1, np.nan)
        return tf.reshape(tf.concat([code, looked_up[..., 1:]], axis=2), [-1, self.categories * self.units])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "categories": self.categories, "units": self.units, "fills": self.fills}


def _of_feature(value: tf.Tensor, fill: Sequence[float | None]) -> tf.Tensor:
    if value.dtype.is_integer:
        return tf.reduce_sum(tf.cast(value > 0, tf.float32), axis=1, keepdims=True)
    value = tf.cast(value, tf.float32)
    missing = tf.constant([np.nan if number is None else number for number in fill], tf.float32)
    return tf.where(value[:, -1:] > 0, missing, value[:, :-1])
