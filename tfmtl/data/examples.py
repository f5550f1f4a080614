"""Rows as `tf.Example` protos: one string per row, without the missing values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf


def to_examples(columns: Mapping[str, Any]) -> tf.Tensor:
    """Return rows as serialized `tf.Example` protos.

    Use it for requests to the signatures that end in `_examples`; `write_tfrecords` writes files.

    Args:
        columns: strings, integers or floats [B] or [B, n] by name; missing values (`""`, -1, NaN) at a row's end are
            left out.

    Returns:
        Strings [B].

    Raises:
        ValueError: if the columns differ in their number of rows.

    Example:
        >>> row = tf.train.Example.FromString(to_examples({"k": [3], "ids": [["a", ""]]}).numpy()[0])
        >>> row.features.feature["k"].int64_list.value[0], row.features.feature["ids"].bytes_list.value[0]
        (3, b'a')
    """
    return serialized(columns)


def serialized(columns: Mapping[str, Any], whole: Collection[str] = ()) -> tf.Tensor:
    """Return the protos of `to_examples`; columns of floats that are named in `whole` are written as integers."""
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    rows = {name: len(array) for name, array in arrays.items()}
    require(len(set(rows.values())) <= 1, "All columns must have the same number of rows.", rows=rows)
    return tf.constant(
        [_row({name: array[i] for name, array in arrays.items()}, whole) for i in range(next(iter(rows.values()), 0))],
        tf.string,
    )


def _row(values: Mapping[str, np.ndarray], whole: Collection[str]) -> bytes:
    written = {name: _written(np.atleast_1d(value), name in whole) for name, value in values.items()}
    features = {name: feature for name, feature in written.items() if feature is not None}
    proto: bytes = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    return proto


def _written(values: np.ndarray, whole: bool) -> tf.train.Feature | None:
    """Return the values as a feature, or None if all are missing."""
    if whole:
        numbers = values[~np.isnan(values)].astype(np.int64).tolist()
        return tf.train.Feature(int64_list=tf.train.Int64List(value=numbers)) if numbers else None
    if values.dtype.kind == "f":  # a vector is missing as a whole
        floats = tf.train.FloatList(value=values.tolist())
        return None if np.isnan(values).all() else tf.train.Feature(float_list=floats)
    if values.dtype.kind in "iu":
        kept = _without_padding(values.tolist(), -1)
        return tf.train.Feature(int64_list=tf.train.Int64List(value=kept)) if kept else None
    kept = _without_padding([v if isinstance(v, bytes) else str(v).encode() for v in values.tolist()], b"")
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=kept)) if kept else None


def _without_padding(values: list[Any], missing: Any) -> list[Any]:
    """Return the values without the missing ones at the end; missing values within a list keep their positions."""
    while values and values[-1] == missing:
        values.pop()
    return values
