"""Two feature kinds, written outside of the package against its public names."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf

from tfmtl import keras
from tfmtl.data import Feature

register = keras.saving.register_keras_serializable("extending")


@register
@dataclasses.dataclass(frozen=True)
class Cyclic(Feature):
    """A number that repeats, such as an hour: (sine, cosine, missing flag); nothing is learned from the table."""

    period: float = 24.0

    arrow_type = pa.float64()
    encoded_shape = (3,)

    @property
    def raw_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([None], tf.float32, name=self.name)

    def read(self, column: pd.Series) -> np.ndarray:
        return column.to_numpy(np.float32, na_value=np.nan)

    def encode(self, raw: tf.Tensor, preprocessor: Any) -> tf.Tensor:
        angle = raw * (2 * math.pi / self.period)
        known = tf.math.is_finite(angle)
        waves = tf.where(known, [tf.sin(angle), tf.cos(angle)], 0.0)
        return tf.stack([waves[0], waves[1], tf.cast(~known, tf.float32)], axis=1)


@register
@dataclasses.dataclass(frozen=True)
class HashedCategorical(Feature):
    """A category without a vocabulary: its hash is the index; 0 is missing. It brings its own embedding."""

    buckets: int = 8
    width: int = 3

    arrow_type = pa.string()
    encoded_shape = ()
    repeats = True

    @property
    def raw_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([None], tf.string, name=self.name)

    @property
    def encoded_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([None], tf.int32, name=self.name)

    def read(self, column: pd.Series) -> np.ndarray:
        return column.fillna("").to_numpy(object)

    def encode(self, raw: tf.Tensor, preprocessor: Any) -> tf.Tensor:
        bucket = 1 + tf.strings.to_hash_bucket_fast(raw, self.buckets)
        return tf.cast(tf.where(tf.equal(raw, ""), tf.constant(0, tf.int64), bucket), tf.int32)

    def connect(self, encodings: Any, tables: str = "") -> Any:
        name = "_".join(part for part in (tables, self.name, "hashed") if part)
        return keras.layers.Embedding(self.buckets + 1, self.width, name=name)(encodings.inputs[self.name])
