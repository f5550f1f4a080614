"""Text: words of free text."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tfmtl._keras import tf
from tfmtl.data import text
from tfmtl.data.features.feature import pairs
from tfmtl.data.features.tokens import Tokens
from tfmtl.data.values import ids

if TYPE_CHECKING:
    from tfmtl.data.preprocessor import Preprocessor
    from tfmtl.data.statistics import Statistics


@dataclasses.dataclass(frozen=True)
class Text(Tokens):
    """Free text, lower-cased and split into words inside the model.

    Attributes:
        max_length: words kept per row, the first ones.
        min_count: least number of training rows with a word for it to enter the vocabulary.
        max_size: most frequent words kept.
    """

    max_length: int = 16
    min_count: int = 2
    max_size: int | None = 20_000

    @property
    def repeats(self) -> bool:
        """True."""
        return True

    @property
    def arrow_type(self) -> pa.DataType:
        """A string."""
        return pa.string()

    @property
    def raw_spec(self) -> tf.TensorSpec:
        """One text per row, [B]."""
        return tf.TensorSpec([None], tf.string, name=self.name)

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """One index per position, [max_length]."""
        return (self.max_length,)

    def read(self, column: pd.Series) -> np.ndarray:
        """Return the texts [N]."""
        return ids(column, "string", str(column.name))

    def tokens(self, raw: np.ndarray) -> np.ndarray:
        """Return the words of all texts."""
        words: np.ndarray = text.words(tf.constant(raw)).flat_values.numpy()
        return words

    def encode(self, raw: tf.Tensor, preprocessor: Preprocessor) -> tf.Tensor:
        """Return the indices of the words [B, max_length]."""
        return preprocessor.look_up(self.name, text.words(raw).to_tensor("", shape=[None, self.max_length]))

    def probe(self, statistics: Statistics, rows: int) -> Any:
        """Return two words per row."""
        return [" ".join(pair) for pair in pairs(self._probe_tokens(statistics, rows, tf.string))]
