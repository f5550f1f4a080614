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
from tfmtl.data.values import to_numbers

if TYPE_CHECKING:
    from tfmtl.data.preprocessor import Preprocessor

Missing = Literal["learned", "mean", "error"]
Transform = Literal["standardize", "log1p", "none"]

FAR = 1000.0
"""Largest distance from the mean in deviations; larger values would overflow in the network."""


@dataclasses.dataclass(frozen=True)
class Numeric(Feature):
    """A number, standardised inside the model with the moments of the training split.

    Encoded as the pair (value, missing flag): with `missing="learned"` a missing value is 0 with flag 1, so that the
    first layer learns its own weight for missing values; with `"mean"` it is the mean (0 after standardisation) and the
    flag stays 0. Infinity counts as missing at serving and is refused in a training table.

    Attributes:
        missing: `"learned"`, `"mean"`, or `"error"` to refuse tables with missing values.
        transform: `"standardize"` gives (x - mean) / deviation; `"log1p"` standardises sign(x) log(1 + |x|);
            `"none"` passes x on.
    """

    missing: Missing = "learned"
    transform: Transform = "standardize"

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

    @property
    def arrow_type(self) -> pa.DataType:
        """A number of 64 bits."""
        return pa.float64()

    @property
    def raw_spec(self) -> tf.TensorSpec:
        """One number per row, [B]."""
        return tf.TensorSpec([None], tf.float32, name=self.name)

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """The value and its missing flag, [2]."""
        return (2,)

    def read(self, column: pd.Series) -> np.ndarray:
        """Return the numbers [N], NaN where missing."""
        values = to_numbers(column)
        if self.missing == "error":
            absent = np.isnan(values)
            require(
                not absent.any(),
                f"Column {column.name!r} has {int(absent.sum())} missing values, the first at position "
                f"{int(absent.argmax())}; fill them or declare the feature with missing='learned'.",
            )
        return values

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
        logarithmic, plain = ([f.transform == kind for f in features] for kind in ("log1p", "none"))
        known_moments = [preprocessor.statistics.moments[f.name] for f in features]
        moments = [(m.mean[0], m.deviation[0]) for m in known_moments]
        learned = [f.missing != "mean" for f in features]
        means, deviations = np.where(np.transpose([plain]), (0.0, 1.0), moments).T.astype(np.float32)
        fills = np.where(np.logical_or(learned, np.logical_not(plain)), 0.0, [mean for mean, _ in moments])
        values = tf.stack([raw[f.name] for f in features], axis=1)
        if any(logarithmic):
            logs = tf.sign(values) * tf.math.log1p(tf.abs(values))
            values = logs if all(logarithmic) else tf.where(logarithmic, logs, values)
        values = (values - means) / deviations
        known = tf.math.is_finite(values)  # a value that overflows counts as missing
        far = np.where(plain, np.inf, FAR).astype(np.float32)
        values = tf.where(known, tf.clip_by_value(values, -far, far), fills.astype(np.float32))
        missing = tf.cast(tf.logical_not(known), tf.float32) * np.asarray(learned, np.float32)
        columns = tf.unstack(tf.stack([values, missing], axis=2), num=len(features), axis=1)
        return {feature.name: column for feature, column in zip(features, columns, strict=True)}
