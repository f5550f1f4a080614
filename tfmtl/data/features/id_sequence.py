"""IdSequence: a list of ids of another feature, such as a history."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.data.features.tokens import ARROW_TYPES, IdType, Tokens, fit_width
from tfmtl.data.values import lists, longest

if TYPE_CHECKING:
    from tfmtl.data.preprocessor import Preprocessor


@dataclasses.dataclass(frozen=True)
class IdSequence(Tokens):
    """A list of ids, most recent first, that shares vocabulary and embedding with the categorical feature `of`.

    Attributes:
        of: name of the `Categorical` feature that the ids belong to.
        max_length: ids kept per row, the first ones.
        dtype: `"string"` or `"int64"`, as that of the other feature.
    """

    of: str = ""
    max_length: int = 20
    dtype: IdType = "string"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.of), f"`of` of feature {self.name!r} must name the categorical feature it holds.", of=self.of)

    @property
    def vocabulary(self) -> str | None:
        """The name of the feature that the ids belong to."""
        return self.of

    @property
    def arrow_type(self) -> pa.DataType:
        """Lists of ids."""
        return pa.list_(ARROW_TYPES[self.dtype])

    @property
    def raw_spec(self) -> tf.TensorSpec:
        """Lists of any length, [B, any]."""
        return tf.TensorSpec([None, None], tf.as_dtype(self.dtype), name=self.name)

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """One index per position, [max_length]."""
        return (self.max_length,)

    def read(self, column: pd.Series) -> np.ndarray:
        """Return the ids [N, max_length]."""
        return lists(column, self.dtype, self.max_length, str(column.name))

    def whole(self, column: pd.Series) -> IdSequence:
        """Return the feature with lists of any length."""
        return dataclasses.replace(self, max_length=longest(column))

    def encode(self, raw: tf.Tensor, preprocessor: Preprocessor) -> tf.Tensor:
        """Return the indices [B, max_length]."""
        return preprocessor.look_up(self.of, fit_width(raw, self.max_length))
