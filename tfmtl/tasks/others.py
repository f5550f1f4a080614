"""Rows of a batch that are held by other replicas of a distribution strategy."""

from __future__ import annotations

import dataclasses

from tfmtl._keras import tf
from tfmtl._replicas import gather_rows, replica, replicas


@dataclasses.dataclass(frozen=True)
class Others:
    """A selection of the rows that other replicas hold of the same batch.

    Attributes:
        chosen: bool [rows of all replicas], or None if one replica computes the whole batch.
    """

    chosen: tf.Tensor | None

    @property
    def count(self) -> tf.Tensor:
        """Number of selected rows."""
        return tf.constant(0) if self.chosen is None else tf.math.count_nonzero(self.chosen, dtype=tf.int32)

    @classmethod
    def of(cls, offered: tf.Tensor) -> Others:
        """Select the rows that the other replicas offer; every replica must call this method.

        Args:
            offered: bool [n], the rows of this replica that it offers to the others; n may differ between replicas.
        """
        if replicas() == 1:
            return cls(None)
        owner = gather_rows(tf.where(offered, replica(), -1))
        return cls((owner >= 0) & tf.not_equal(owner, replica()))

    def behind(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the rows of this replica [n, ...], then the selected rows of the others in the order of the replicas.

        Example:
            >>> Others.of(tf.constant([True, False])).behind(tf.constant([3, 4])).numpy().tolist()  # one replica
            [3, 4]
        """
        if self.chosen is None:
            return rows
        return tf.concat([rows, tf.boolean_mask(gather_rows(rows), self.chosen)], axis=0)
