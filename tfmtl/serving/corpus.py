"""The candidates as they are stored with a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfmtl._keras import tf
from tfmtl.data import Feature, Statistics


def compact(
    columns: Mapping[str, tf.Tensor], statistics: Statistics, features: Sequence[Feature]
) -> dict[str, tf.Variable]:
    """Store encoded candidates [C, ...], indices in the smallest integers that hold their vocabularies.

    A version may be given other candidates, and other numbers of them; see `replace_candidates`.
    """
    found = {}
    for feature in features:
        column = columns[feature.name]
        if feature.vocabulary is not None:
            largest = statistics.size(feature.vocabulary) - 1
            column = tf.cast(column, next(t for t in (tf.uint8, tf.uint16, tf.int32) if largest <= t.max))
        shape = [None, *column.shape[1:]]
        found[feature.name] = tf.Variable(column, trainable=False, name=f"candidate_{feature.name}", shape=shape)
    return found
