"""Categorical: one category per row."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from tfmtl._keras import tf
from tfmtl.data.features.tokens import ARROW_TYPES, IdType, Tokens
from tfmtl.data.values import ids

if TYPE_CHECKING:
    from tfmtl.data.preprocessor import Preprocessor


@dataclasses.dataclass(frozen=True)
class Categorical(Tokens):
    """One category per row, such as an id, a brand or a device.

    Values seen fewer than `min_count` times in the training split, or beyond the `max_size` most frequent, share the
    "unknown" index with values never seen; a missing value (None, NaN, `""`, or -1 in an integer column) has an index
    of its own.

    Attributes:
        dtype: `"string"` or `"int64"`, the type clients send.
        min_count: rows of the training split a value needs to enter the vocabulary.
        max_size: most frequent values kept, or None for all.

    Example:
        >>> Categorical("user_id", min_count=2).encoded_shape
        ()
    """

    dtype: IdType = "string"
    min_count: int = 1
    max_size: int | None = None

    @property
    def is_id(self) -> bool:
        """True."""
        return True

    @property
    def arrow_type(self) -> pa.DataType:
        """The type of one id."""
        return ARROW_TYPES[self.dtype]

    @property
    def raw_spec(self) -> tf.TensorSpec:
        """One id per row, [B]."""
        return tf.TensorSpec([None], tf.as_dtype(self.dtype), name=self.name)

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """No dimension: one index."""
        return ()

    def read(self, column: pd.Series) -> np.ndarray:
        """Return the ids [N]."""
        return ids(column, self.dtype, str(column.name))

    def encode(self, raw: tf.Tensor, preprocessor: Preprocessor) -> tf.Tensor:
        """Return the indices [B]."""
        return preprocessor.look_up(self.name, raw)
