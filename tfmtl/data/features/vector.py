"""Vector: a dense vector per row, such as an embedding of an image."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from tfmtl._checks import require_positive_int
from tfmtl._keras import tf
from tfmtl.data.features.feature import Feature
from tfmtl.data.features.numeric import FAR, FloatType, check_float_type
from tfmtl.data.values import vectors

if TYPE_CHECKING:
    from tfmtl.data.preprocessor import Preprocessor
    from tfmtl.data.statistics import Statistics


@dataclasses.dataclass(frozen=True)
class Vector(Feature):
    """A dense vector of `size` numbers per row, such as a precomputed image or text embedding.

    A row that is None or holds a NaN is missing: encoded as zeros with the flag set in the last position.

    Attributes:
        size: length of every row's vector.
        dtype: least precise type that clients send, `"float32"` or `"float64"`; see `Numeric`.
    """

    size: int = 0
    dtype: FloatType = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive_int(size=self.size)
        check_float_type(self.name, self.dtype)

    @property
    def arrow_type(self) -> pa.DataType:
        """Lists of numbers."""
        return pa.list_(pa.float64() if self.dtype == "float64" else pa.float32())

    @property
    def raw_spec(self) -> tf.TensorSpec:
        """Vectors [B, size]."""
        return tf.TensorSpec([None, self.size], tf.as_dtype(self.dtype), name=self.name)

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """The vector and its missing flag, [size + 1]."""
        return (self.size + 1,)

    def read(self, column: pd.Series) -> np.ndarray:
        """Return the vectors [N, size]; a missing one is NaN."""
        return vectors(column, self.size, self.dtype)

    @property
    def unrounded(self) -> Vector:
        """The feature in float64."""
        return dataclasses.replace(self, dtype="float64")

    def fitted(self, statistics: Statistics) -> Vector:
        """Return the feature in float64 if float32 is too coarse for one of its positions."""
        moments = statistics.moments.get(self.name)
        return self.unrounded if moments is not None and moments.need_float64 else self

    def whole(self, column: pd.Series) -> Vector:
        """Return the feature in float64."""
        return self.unrounded

    def measure(self, raw: np.ndarray) -> np.ndarray:
        """Return the vectors."""
        return raw

    def encode(self, raw: tf.Tensor, preprocessor: Preprocessor) -> tf.Tensor:
        """Return the values and the missing flag [B, size + 1]."""
        moments = preprocessor.statistics.moments[self.name]
        values = (raw - tf.constant(moments.mean, raw.dtype)) / tf.constant(moments.deviation, raw.dtype)
        finite = tf.math.is_finite(values)
        values = tf.cast(tf.clip_by_value(values, -FAR, FAR), tf.float32)
        known = tf.reduce_all(finite, axis=1, keepdims=True)
        return tf.concat([tf.where(known, values, 0.0), tf.cast(tf.logical_not(known), tf.float32)], axis=1)
