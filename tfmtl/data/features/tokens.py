"""Tokens: the base of the features with a vocabulary."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import pyarrow as pa

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import tf
from tfmtl.data.features.feature import Feature
from tfmtl.data.values import MISSING_INTEGER

IdType = Literal["string", "int64"]
ARROW_TYPES = {"string": pa.string(), "int64": pa.int64()}


@dataclasses.dataclass(frozen=True)
class Tokens(Feature):
    """A feature with a vocabulary that is learned from the training split."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument in ("max_length", "min_count", "max_size"):
            value = getattr(self, argument, None)
            if value is not None:
                require_positive_int(**{argument: value})
        dtype = getattr(self, "dtype", "string")
        require(
            dtype in ("string", "int64"), f"`dtype` of feature {self.name!r} must be 'string' or 'int64'.", dtype=dtype
        )

    @property
    def vocabulary(self) -> str | None:
        """The feature's own name: it has a vocabulary of its own."""
        return self.name


def fit_width(raw: tf.Tensor, length: int) -> tf.Tensor:
    """Cut or pad lists [B, any] to [B, length]."""
    absent: Any = "" if raw.dtype == tf.string else float("nan") if raw.dtype.is_floating else MISSING_INTEGER
    padding = tf.constant(absent, raw.dtype)
    short = tf.maximum(length - tf.shape(raw)[1], 0)
    wide = tf.pad(raw[:, :length], [[0, 0], [0, short]], constant_values=padding)
    return tf.ensure_shape(wide, [None, length])
