"""Exact numbers in `tf.Example` protos, which hold no float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._keras import tf

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?"
"""The decimal texts that are numbers; any other text is a missing value."""

_TEXT, _FLOAT, _INTEGER = "bytes_list", "float_list", "int64_list"


def read_exact(examples: tf.Tensor, name: str) -> tf.Tensor:
    """Return the values of one input in serialized protos [B] as float64 [B, any], padded with NaN.

    A client writes them as integers, as decimal text ("1700000000.25") or, if float32 is exact enough, as floats. Other
    text counts as missing.
    `tf.io.parse_example` allows one of the three in a batch; the fields of the protos are read one by one instead.

    Example:
        >>> feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[1_700_000_001]))
        >>> row = tf.train.Example(features=tf.train.Features(feature={"seen": feature}))
        >>> read_exact(tf.constant([row.SerializeToString()]), "seen").numpy().tolist()
        [[1700000001.0]]
    """
    features = _field(examples, "tensorflow.Example", "features", tf.string)[:, :1].to_tensor("", shape=[None, 1])[:, 0]
    entries = _field(features, "tensorflow.Features", "feature", tf.string)
    keys, values = (_first(entries.flat_values, "tensorflow.Features.FeatureEntry", part) for part in ("key", "value"))
    named = tf.equal(keys, name)
    rows = tf.boolean_mask(entries.value_rowids(), named)
    given = tf.scatter_nd(rows[:, tf.newaxis], tf.boolean_mask(values, named), [entries.nrows()])
    written = _list(given, _TEXT, "tensorflow.BytesList", tf.string)
    texts = tf.strings.to_number(tf.where(tf.strings.regex_full_match(written, _NUMBER), written, "nan"), tf.float64)
    floats = tf.cast(_list(given, _FLOAT, "tensorflow.FloatList", tf.float32), tf.float64)
    integers = tf.cast(_list(given, _INTEGER, "tensorflow.Int64List", tf.int64), tf.float64)
    every = tf.concat([texts, floats, integers], axis=1)
    return every.to_tensor(np.nan)


def write_exact(values: tf.Tensor) -> tf.Tensor:
    """Return float64 numbers [B, ...] as decimal text that `read_exact` reads; `""` for NaN.

    Example:
        >>> write_exact(tf.constant([1700000000.25, float("nan")], tf.float64)).numpy().tolist()
        [b'1700000000.25', b'']
    """
    numbers = np.asarray(values, np.float64)
    texts = ["" if np.isnan(number) else repr(float(number)) for number in numbers.reshape(-1)]
    return tf.reshape(tf.constant(texts, tf.string), numbers.shape)


def _list(features: tf.Tensor, field: str, message: str, dtype: tf.DType) -> tf.RaggedTensor:
    return _field(_first(features, "tensorflow.Feature", field), message, "value", dtype)


def _first(messages: tf.Tensor, message: str, field: str) -> tf.Tensor:
    """Return one field of each message [n], `""` where it is absent."""
    return _field(messages, message, field, tf.string)[:, :1].to_tensor("", shape=[None, 1])[:, 0]


def _field(messages: tf.Tensor, message: str, field: str, dtype: tf.DType) -> Any:
    """Return a field of each message [n], ragged [n, (values)]."""
    some = tf.concat([messages, [""]], axis=0)  # the operation refuses to read no message
    sizes, [values] = tf.io.decode_proto(some, message, [field], [dtype])
    return tf.RaggedTensor.from_tensor(values[:-1], lengths=sizes[:-1, 0])
