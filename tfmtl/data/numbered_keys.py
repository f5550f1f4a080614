"""Hash tables from keys to their positions."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf


class NumberedKeys(tf.lookup.KeyValueTensorInitializer):
    """Initializer of a hash table from keys to first, first + 1, ...; a saved model computes the numbers again.

    Args:
        keys: distinct values [n], string or int64, or a variable that holds them when the table is filled.
        first: number of the first key.

    Example:
        >>> table = tf.lookup.StaticHashTable(NumberedKeys(tf.constant(["a", "b"]), first=2), default_value=1)
        >>> table.lookup(tf.constant(["b", "c", "a"])).numpy().tolist()
        [3, 1, 2]
    """

    def __init__(self, keys: tf.Tensor | tf.Variable, first: int) -> None:
        super().__init__(keys[:1], tf.range(1))  # the base class needs only their types
        self._every = keys
        self._first = first

    def initialize(self, table: Any) -> tf.Operation:
        """Fill the table."""
        keys = tf.convert_to_tensor(self._every)
        numbers = tf.range(self._first, self._first + tf.shape(keys)[0])
        return tf.raw_ops.LookupTableImportV2(table_handle=table.resource_handle, keys=keys, values=numbers)
