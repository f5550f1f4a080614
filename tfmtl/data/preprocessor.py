"""Raw features to indices and standardised numbers, in the graph: one layer for training and serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.data import text
from tfmtl.data.features import MISSING_INTEGER, Categorical, Feature, IdSequence, MultiValued, Numeric, Text, Vector
from tfmtl.data.schema import Schema
from tfmtl.data.statistics import Statistics
from tfmtl.types import Features

MISSING, UNKNOWN, FIRST = 0, 1, 2
"""Index of a missing value, of a value outside the vocabulary, and of the vocabulary's first value."""

_FAR = 1000.0  # deviations; what is farther from the mean would only overflow in the network


@register
class Preprocessor(keras.layers.Layer):
    """Encodes raw features with what was learned from the training split.

    A category becomes an index: 0 missing, 1 unknown, 2 + its rank in the vocabulary. A number x becomes
    ((x - mean) / deviation, missing flag), cut to 1000 deviations from the mean. It holds no trainable weight and is
    exported with the model, so that training and serving cannot differ.

    Args:
        schema: roles and kinds of the columns.
        statistics: from `fit_statistics` on the training split.

    Call arguments:
        features: raw tensors by feature name, any subset of the schema: strings or int64 [B] or [B, length],
            float32 [B] or [B, size].

    Returns:
        Encoded tensors by feature name: int32 [B] or [B, max_length], float32 [B, 2] or [B, size + 1].

    Example:
        >>> import pandas as pd
        >>> from tfmtl.data.statistics import fit_statistics
        >>> schema = Schema(query=[Categorical("user_id")])
        >>> statistics = fit_statistics(schema, pd.DataFrame({"user_id": ["b", "a", "b"]}))
        >>> encoded = Preprocessor(schema, statistics)({"user_id": tf.constant(["a", "b", "new", ""])})
        >>> encoded["user_id"].numpy().tolist()
        [3, 2, 1, 0]

    Cost: one hash look-up a category.
    """

    def __init__(self, schema: Schema, statistics: Statistics, **kwargs: Any) -> None:
        # float32 whatever the policy: half precision has too few digits for raw numbers
        super().__init__(**{"trainable": False, "dtype": "float32", **kwargs})
        self.schema = schema
        self.statistics = statistics
        self._tables = {
            name: _table(feature, statistics.vocabularies[name]) for name, feature in schema.vocabularies.items()
        }
        self.compiled = tf.function(self.call, reduce_retracing=True)

    def call(self, features: Features) -> dict[str, tf.Tensor]:
        """Encode the features that are given."""
        known = self.schema.features
        unknown = [name for name in features if name not in known]
        require(not unknown, f"Unknown features {unknown}; the schema has {list(known)}.")
        return {name: self._encode(feature, features[name]) for name, feature in known.items() if name in features}

    def raw_signature(self, names: tuple[str, ...]) -> dict[str, tf.TensorSpec]:
        """Return the tensor specification that serving clients fill, by feature name."""
        return {name: raw_spec(self.schema.features[name]) for name in names}

    def vocabulary(self, name: str) -> np.ndarray:
        """Return the values of a vocabulary; value i has index i + 2."""
        return self.statistics.vocabularies[name]

    @property
    def tables(self) -> dict[str, tf.lookup.StaticHashTable]:
        """The look-up tables by owner feature; an exported model must hold them."""
        return dict(self._tables)

    def look_up(self, name: str, values: tf.Tensor) -> tf.Tensor:
        """Return the int32 indices of raw values in the vocabulary of feature `name`."""
        absent = tf.equal(values, "" if values.dtype == tf.string else tf.constant(MISSING_INTEGER, tf.int64))
        return tf.where(absent, MISSING, self._tables[name].lookup(values))

    def _encode(self, feature: Feature, raw: tf.Tensor) -> tf.Tensor:
        raw = tf.convert_to_tensor(raw)
        spec = raw_spec(feature)
        wanted = spec.dtype
        alike = (raw.dtype == tf.string) == (wanted == tf.string) and not (wanted.is_integer and raw.dtype.is_floating)
        require(
            alike and raw.shape.is_compatible_with(spec.shape),
            f"Feature {feature.name!r} must be a {wanted.name} tensor of shape {spec.shape}.",
            dtype=raw.dtype.name,
            shape=raw.shape,
        )
        raw = tf.cast(raw, wanted)
        if feature.vocabulary is None:
            return self._numbers(feature, raw)
        if isinstance(feature, Text):
            raw = text.words(raw).to_tensor("", shape=[None, feature.max_length])
        elif isinstance(feature, MultiValued) and feature.separator is not None:
            raw = text.pieces(raw, feature.separator).to_tensor("", shape=[None, feature.max_length])
        elif not isinstance(feature, Categorical):
            raw = _fit_width(raw, feature.encoded_shape[0])
        return self.look_up(str(feature.vocabulary), raw)

    def _numbers(self, feature: Feature, raw: tf.Tensor) -> tf.Tensor:
        vector = isinstance(feature, Vector)
        values = raw if vector else raw[:, tf.newaxis]
        if isinstance(feature, Numeric) and feature.transform == "log1p":
            values = tf.sign(values) * tf.math.log1p(tf.abs(values))
        if getattr(feature, "transform", "standardise") != "none":
            moments = self.statistics.moments[feature.name]
            values = (values - tf.constant(moments.mean, tf.float32)) / tf.constant(moments.deviation, tf.float32)
        known = tf.math.is_finite(values)  # what overflows counts as infinite, too
        if getattr(feature, "transform", "standardise") != "none":
            values = tf.clip_by_value(values, -_FAR, _FAR)
        if vector:
            known = tf.reduce_all(known, axis=1, keepdims=True)
        fill = 0.0
        if isinstance(feature, Numeric) and feature.missing == "mean" and feature.transform == "none":
            fill = self.statistics.moments[feature.name].mean[0]
        flag = tf.logical_not(known)
        if isinstance(feature, Numeric) and feature.missing == "mean":
            flag = tf.zeros_like(flag)
        return tf.concat([tf.where(known, values, fill), tf.cast(flag, tf.float32)], axis=1)

    def get_config(self) -> dict[str, Any]:
        """Return the schema and the statistics as plain values."""
        return {
            **super().get_config(),
            "schema": self.schema.get_config(),
            "statistics": self.statistics.get_config(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessor:
        """Rebuild the layer from `get_config`."""
        rest = {k: v for k, v in config.items() if k not in ("schema", "statistics", "trainable")}
        return cls(Schema.from_config(config["schema"]), Statistics.from_config(config["statistics"]), **rest)


def raw_spec(feature: Feature) -> tf.TensorSpec:
    """Return the tensor specification of a raw feature, batch first.

    Example:
        >>> raw_spec(Numeric("age"))
        TensorSpec(shape=(None,), dtype=tf.float32, name='age')
    """
    if isinstance(feature, Vector):
        return tf.TensorSpec([None, feature.size], tf.float32, name=feature.name)
    if isinstance(feature, Numeric):
        return tf.TensorSpec([None], tf.float32, name=feature.name)
    listed = isinstance(feature, IdSequence) or (isinstance(feature, MultiValued) and feature.separator is None)
    split = isinstance(feature, MultiValued) and feature.separator is not None
    dtype = tf.string if split else tf.as_dtype(getattr(feature, "dtype", "string"))
    return tf.TensorSpec([None, None] if listed else [None], dtype, name=feature.name)


def encoded_spec(feature: Feature) -> tf.TensorSpec:
    """Return the tensor specification of an encoded feature, batch first."""
    dtype = tf.float32 if feature.vocabulary is None else tf.int32
    return tf.TensorSpec([None, *feature.encoded_shape], dtype, name=feature.name)


def _table(feature: Feature, values: np.ndarray) -> tf.lookup.StaticHashTable:
    """Build the hash table directly: Keras' `StringLookup` takes 50 times as long to save 1,000,000 values."""
    dtype = tf.as_dtype(getattr(feature, "dtype", "string"))
    keys: list[Any] = values.tolist()
    indices = list(range(FIRST, FIRST + len(keys)))
    if not keys:  # TensorFlow refuses an empty table; what is missing is never looked up
        keys, indices = ["" if dtype == tf.string else MISSING_INTEGER], [MISSING]
    entries = tf.lookup.KeyValueTensorInitializer(tf.constant(keys, dtype), tf.constant(indices, tf.int32))
    return tf.lookup.StaticHashTable(entries, UNKNOWN)


def _fit_width(raw: tf.Tensor, length: int) -> tf.Tensor:
    padding = tf.constant("") if raw.dtype == tf.string else tf.constant(MISSING_INTEGER, raw.dtype)
    short = tf.maximum(length - tf.shape(raw)[1], 0)
    wide = tf.pad(raw[:, :length], [[0, 0], [0, short]], constant_values=padding)
    return tf.ensure_shape(wide, [None, length])
