"""Empirical distributions by group, as quantiles in equal steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf


class QuantileTables:
    """The distributions of G groups of numbers, each given by K ascending quantiles in equal steps from 0 to 1.

    Both maps are linear between the knots. `values` inverts `quantiles` for numbers between the first and last knot.

    Args:
        knots: [G][K], K of at least 2, ascending in each row, finite and 0 or more.
        name: name of the knots in errors.

    Example:
        >>> tables = QuantileTables([[0.0, 0.0, 0.0, 8.0, 10.0]], "`knots`")
        >>> group = tf.zeros([4])
        >>> tables.quantiles(tf.constant([0.0, 4.0, 9.0, 99.0]), group).numpy().tolist()  # 0 is the middle of 0 to 1/2
        [0.25, 0.625, 0.875, 1.0]
        >>> tables.values(tf.constant([0.25, 0.625, 0.875, 1.5]), group).numpy().tolist()
        [0.0, 4.0, 9.0, 10.0]
    """

    def __init__(self, knots: Sequence[Sequence[float]], name: str) -> None:
        widths = {len(row) for row in knots}
        require(
            len(widths) == 1 and min(widths) >= 2, f"{name} must have two or more knots, as many in each row.", n=widths
        )
        table = np.array(knots, np.float32)
        fine = np.isfinite(table).all() and (table >= 0).all() and (np.diff(table, axis=1) >= 0).all()
        require(bool(fine), f"{name} must be ascending in each row, finite and 0 or more.", knots=knots)
        self._table = table

    @property
    def _steps(self) -> int:
        return self._table.shape[1] - 1

    def quantiles(self, numbers: tf.Tensor, group: tf.Tensor) -> tf.Tensor:
        """Return the quantile [B] of each number in its group; the middle one if several knots equal the number.

        Args:
            numbers: [B], without NaN.
            group: [B], the position of the row's knots; rounded.
        """
        knots = tf.gather(tf.constant(self._table), _index(group))
        column = tf.cast(numbers, tf.float32)[:, tf.newaxis]
        below, reached = (tf.reduce_sum(tf.cast(part, tf.int32), axis=1) for part in (knots < column, knots <= column))
        left = tf.clip_by_value(below - 1, 0, self._steps - 1)
        low, high = (tf.gather(knots, index, axis=1, batch_dims=1) for index in (left, left + 1))
        share = tf.clip_by_value(tf.math.divide_no_nan(column[:, 0] - low, high - low), 0.0, 1.0)
        between = tf.cast(left, tf.float32) + share
        between = tf.where(below > self._steps, float(self._steps), between)
        equal = tf.cast(below + reached - 1, tf.float32) / 2
        return tf.where(reached > below, equal, between) / self._steps

    def values(self, quantiles: tf.Tensor, group: tf.Tensor) -> tf.Tensor:
        """Return the number [B] at a quantile of each group; quantiles outside 0 to 1 count as these.

        Args:
            quantiles: [B].
            group: [B], the position of the row's knots; rounded.
        """
        place = self._steps * tf.clip_by_value(tf.cast(quantiles, tf.float32), 0.0, 1.0)
        left = tf.minimum(tf.cast(tf.floor(place), tf.int32), self._steps - 1)
        flat, start = tf.constant(self._table.reshape(-1)), _index(group) * (self._steps + 1) + left
        low, high = tf.gather(flat, start), tf.gather(flat, start + 1)
        return low + (place - tf.cast(left, tf.float32)) * (high - low)


def _index(group: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(group), tf.int32)
