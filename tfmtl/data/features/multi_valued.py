"""MultiValued: several categories per row."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.data import text
from tfmtl.data.features.feature import pairs
from tfmtl.data.features.tokens import ARROW_TYPES, IdType, Tokens, fit_width
from tfmtl.data.values import ids, lists, longest

if TYPE_CHECKING:
    from tfmtl.data.preprocessor import Preprocessor
    from tfmtl.data.statistics import Statistics


@dataclasses.dataclass(frozen=True)
class MultiValued(Tokens):
    """Several categories per row, such as genres: a list column, or one string with a `separator`.

    Attributes:
        max_length: values kept per row, the first ones.
        dtype: `"string"` or `"int64"`.
        separator: splits a string column ("Action|Comedy") into strings; None means that the column holds lists.
        min_count: least number of rows with a value for it to enter the vocabulary.
        max_size: most frequent values kept, or None for all.
    """

    max_length: int = 8
    dtype: IdType = "string"
    separator: str | None = None
    min_count: int = 1
    max_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.separator is None or (self.separator != "" and self.dtype == "string"),
            f"`separator` of feature {self.name!r} must not be empty and gives strings; leave `dtype` at 'string'.",
            separator=self.separator,
            dtype=self.dtype,
        )

    @property
    def repeats(self) -> bool:
        """True with a separator."""
        return self.separator is not None

    @property
    def arrow_type(self) -> pa.DataType:
        """Lists of the values, or the unsplit strings."""
        return pa.list_(ARROW_TYPES[self.dtype]) if self.separator is None else pa.string()

    @property
    def raw_spec(self) -> tf.TensorSpec:
        """Lists [B, any], or unsplit strings [B]."""
        shape = [None, None] if self.separator is None else [None]
        return tf.TensorSpec(shape, tf.as_dtype(self.dtype), name=self.name)

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """One index per position, [max_length]."""
        return (self.max_length,)

    def read(self, column: pd.Series) -> np.ndarray:
        """Return lists [N, max_length], or unsplit strings [N]."""
        if self.separator is not None:
            return ids(column, "string", str(column.name))
        return lists(column, self.dtype, self.max_length, str(column.name))

    def whole(self, column: pd.Series) -> MultiValued:
        """Return the feature with lists of any length."""
        return self if self.separator is not None else dataclasses.replace(self, max_length=longest(column))

    def tokens(self, raw: np.ndarray) -> np.ndarray:
        """Return the values; strings are split, and all their pieces count."""
        if self.separator is None:
            return raw
        pieces: np.ndarray = text.pieces(tf.constant(raw), self.separator).flat_values.numpy()
        return pieces

    def encode(self, raw: tf.Tensor, preprocessor: Preprocessor) -> tf.Tensor:
        """Return the indices [B, max_length]."""
        if self.separator is None:
            raw = fit_width(raw, self.max_length)
        else:
            raw = text.pieces(raw, self.separator).to_tensor("", shape=[None, self.max_length])
        return preprocessor.look_up(self.name, raw)

    def probe(self, statistics: Statistics, rows: int) -> Any:
        """Return two values per row."""
        if self.separator is None:
            return super().probe(statistics, rows)
        return [self.separator.join(pair) for pair in pairs(self._probe_tokens(statistics, rows, tf.string))]
