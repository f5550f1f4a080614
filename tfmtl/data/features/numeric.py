"""Numeric: one number per row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.data.features.feature import Feature
from tfmtl.data.moments import Moments
from tfmtl.data.values import to_numbers

if TYPE_CHECKING:
    from tfmtl.data.preprocessor import Preprocessor
    from tfmtl.data.statistics import Statistics

Missing = Literal["learned", "mean", "error"]
FloatType = Literal["float32", "float64"]
Transform = Literal["standardize", "log1p", "none"]

FAR = 1000.0
"""Largest distance from the mean in deviations; larger values would overflow in the network."""


@dataclasses.dataclass(frozen=True)
class Numeric(Feature):
    """A number, standardised inside the model with the moments of the training split.

    Encoded as the pair (value, missing flag): with `missing="learned"` a missing value is 0 with flag 1, so that the
    first layer learns its own weight for missing values; with `"mean"` it is the mean (0 after standardisation) and the
    flag stays 0. Infinity counts as missing at serving and is refused in a training table.

    Clients send float32, unless float32 is too coarse for the training split: unix seconds within an hour are numbers
    near 1.7e9, which float32 rounds to multiples of 128. If float32 numbers near the mean differ by more than a
    thousandth of the deviation, the preprocessor therefore reads float64, subtracts the mean in float64, and its
    `schema` has this feature with `dtype="float64"`. Declare the dtype to keep it over later training splits.

    Attributes:
        missing: `"learned"`, `"mean"`, or `"error"` to refuse tables with missing values.
        transform: `"standardize"` gives (x - mean) / deviation; `"log1p"` standardises sign(x) log(1 + |x|);
            `"none"` passes x on.
        dtype: least precise type that clients send, `"float32"` or `"float64"`.
    """

    missing: Missing = "learned"
    transform: Transform = "standardize"
    dtype: FloatType = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.missing in ("learned", "mean", "error"),
            "`missing` must be 'learned', 'mean' or 'error'.",
            missing=self.missing,
        )
        require(
            self.transform in ("standardize", "log1p", "none"),
            "`transform` must be 'standardize', 'log1p' or 'none'.",
            transform=self.transform,
        )
        check_float_type(self.name, self.dtype)

    @property
    def arrow_type(self) -> pa.DataType:
        """A number of 64 bits."""
        return pa.float64()

    @property
    def raw_spec(self) -> tf.TensorSpec:
        """One number per row, [B]."""
        return tf.TensorSpec([None], tf.as_dtype(self.dtype), name=self.name)

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """The value and its missing flag, [2]."""
        return (2,)

    def read(self, column: pd.Series) -> np.ndarray:
        """Return the numbers [N], NaN where missing."""
        values = to_numbers(column, self.dtype)
        if self.missing == "error":
            absent = np.isnan(values)
            require(
                not absent.any(),
                f"Column {column.name!r} has {int(absent.sum())} missing values, the first at position "
                f"{int(absent.argmax())}; fill them or declare the feature with missing='learned'.",
            )
        return values

    @property
    def unrounded(self) -> Numeric:
        """The feature in float64."""
        return dataclasses.replace(self, dtype="float64")

    def fitted(self, statistics: Statistics) -> Numeric:
        """Return the feature in float64 if float32 is too coarse; with `transform="none"` it is encoded as float32."""
        moments = statistics.moments.get(self.name)
        coarse = moments is not None and moments.need_float64 and self.transform != "none"
        return self.unrounded if coarse else self

    def whole(self, column: pd.Series) -> Numeric:
        """Return the feature in float64."""
        return self.unrounded

    def measure(self, raw: np.ndarray) -> np.ndarray:
        """Return the numbers after the transform."""
        return np.sign(raw) * np.log1p(np.abs(raw)) if self.transform == "log1p" else raw

    def encode(self, raw: tf.Tensor, preprocessor: Preprocessor) -> tf.Tensor:
        """Return (value, missing flag) [B, 2]."""
        return self.encode_together([self], {self.name: raw}, preprocessor)[self.name]

    @classmethod
    def encode_together(
        cls, features: Sequence[Numeric], raw: Mapping[str, tf.Tensor], preprocessor: Preprocessor
    ) -> dict[str, tf.Tensor]:
        """Return (value, missing flag) [B, 2] of each feature by its `transform` and `missing`."""
        encoded: dict[str, tf.Tensor] = {}
        for dtype in ("float32", "float64"):
            alike = [feature for feature in features if feature.dtype == dtype]
            if alike:
                encoded |= _standardized(alike, raw, preprocessor.statistics.moments, np.dtype(dtype))
        return encoded


def check_float_type(name: str, dtype: str) -> None:
    """Raise unless a feature's dtype is one of floats."""
    rule = f"`dtype` of feature {name!r} must be 'float32' or 'float64'."
    require(dtype in ("float32", "float64"), rule, dtype=dtype)


def _standardized(
    features: Sequence[Numeric], raw: Mapping[str, tf.Tensor], moments: Mapping[str, Moments], dtype: np.dtype
) -> dict[str, tf.Tensor]:
    """Return (value, missing flag) [B, 2] of features of one dtype, in which the mean is subtracted."""
    logarithmic, plain = ([f.transform == kind for f in features] for kind in ("log1p", "none"))
    pairs = [(moments[f.name].mean[0], moments[f.name].deviation[0]) for f in features]
    learned = [f.missing != "mean" for f in features]
    means, deviations = np.where(np.transpose([plain]), (0.0, 1.0), pairs).T.astype(dtype)
    fills = np.where(np.logical_or(learned, np.logical_not(plain)), 0.0, [mean for mean, _ in pairs])
    values = tf.stack([raw[f.name] for f in features], axis=1)
    if any(logarithmic):
        logs = tf.sign(values) * tf.math.log1p(tf.abs(values))
        values = logs if all(logarithmic) else tf.where(logarithmic, logs, values)
    values = (values - means) / deviations
    finite = tf.math.is_finite(values)
    far = np.where(plain, np.inf, FAR).astype(dtype)
    values = tf.cast(tf.clip_by_value(values, -far, far), tf.float32)
    known = tf.logical_and(finite, tf.math.is_finite(values))  # a value that overflows counts as missing
    values = tf.where(known, values, fills.astype(np.float32))
    missing = tf.cast(tf.logical_not(known), tf.float32) * np.asarray(learned, np.float32)
    columns = tf.unstack(tf.stack([values, missing], axis=2), num=len(features), axis=1)
    return {feature.name: column for feature, column in zip(features, columns, strict=True)}
