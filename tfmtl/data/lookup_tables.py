"""Hash tables from values to their indices: of one vocabulary, and of many small ones together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._keras import tf

_LARGEST = 2**17  # entries of the matrix; beyond it, one table per vocabulary takes less memory and hardly more time


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


class JointLookup(tf.Module):
    """Looks up the values of several features at once, each in the vocabulary of its feature.

    i_f = M[f, h(v_f)]: h numbers the distinct values of all vocabularies, M [features, values] holds the index of each
    in the vocabulary of each feature. The overhead of an operation arises once instead of once per feature.

    Args:
        vocabularies: distinct values by feature, one type; value i has index `first` + i.
        absent: the value that means "missing".
        missing, unknown, first: the indices of a missing value, of one outside the vocabulary, of its first value.

    Example:
        >>> vocabularies = {"colour": np.array(["red", "blue"]), "mood": np.array(["blue"])}
        >>> lookup = JointLookup(vocabularies, "", missing=0, unknown=1, first=2)
        >>> found = lookup({"mood": tf.constant(["blue", "red"]), "colour": tf.constant(["blue", ""])})
        >>> {name: indices.numpy().tolist() for name, indices in found.items()}
        {'mood': [2, 1], 'colour': [3, 0]}

    Cost: one look-up and one gather per value; 4 bytes per entry of M.
    """

    def __init__(
        self, vocabularies: Mapping[str, np.ndarray], absent: str | int, missing: int, unknown: int, first: int
    ) -> None:
        super().__init__()
        every = [value for values in vocabularies.values() for value in values.tolist()]
        place = {value: i + 1 for i, value in enumerate(dict.fromkeys([absent, *every]))}  # 0: in no vocabulary
        matrix = np.full([len(vocabularies), len(place) + 1], unknown, np.int32)
        for row, values in zip(matrix, vocabularies.values(), strict=True):
            row[[place[value] for value in values.tolist()]] = np.arange(first, first + len(values))
            row[place[absent]] = missing
        self._row = {name: i for i, name in enumerate(vocabularies)}
        self._width = matrix.shape[1]
        with tf.init_scope():  # functions share this one tensor, also when they are saved
            self._matrix = tf.constant(matrix.reshape(-1))
        dtype = tf.string if isinstance(absent, str) else tf.int64
        self.table = tf.lookup.StaticHashTable(NumberedKeys(tf.constant(list(place), dtype), first=1), 0)

    def __contains__(self, name: str) -> bool:
        """Return whether the feature has a vocabulary here."""
        return name in self._row

    def __call__(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the int32 indices [B] of some of the features' values [B]."""
        rows = tf.constant([self._width * self._row[name] for name in features], tf.int32)
        places = self.table.lookup(tf.stack(list(features.values())))
        found = tf.gather(self._matrix, places + rows[:, tf.newaxis])
        return dict(zip(features, tf.unstack(found, num=len(features)), strict=True))


def small_together(sizes: Mapping[str, int]) -> Sequence[str]:
    """Return the features with vocabularies small enough to join, the smallest first; empty if there is only one.

    Args:
        sizes: number of values by feature.
    """
    chosen = list(_within(sizes))
    return chosen if len(chosen) > 1 else []


def _within(sizes: Mapping[str, int]) -> Iterator[str]:
    total = 0
    for count, name in enumerate(sorted(sizes, key=sizes.__getitem__), start=1):
        total += sizes[name]
        if count * (total + 2) > _LARGEST:
            return
        yield name
