"""Text: words of free text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.data import text
from tfmtl.data.features.feature import pairs
from tfmtl.data.features.tokens import Tokens
from tfmtl.data.text import Unspaced
from tfmtl.data.values import ids

if TYPE_CHECKING:
    from tfmtl.data.preprocessor import Preprocessor
    from tfmtl.data.statistics import Statistics


@dataclasses.dataclass(frozen=True)
class Text(Tokens):
    """Free text, lower-cased and split into words inside the model.

    A word is a run of letters and numbers with their marks. Texts are first brought to Unicode's normalization form C
    (NFC), so that a letter and an accent that follows it are the same as the accented letter. Joiners, soft hyphens and
    variation selectors are removed; the dotted and the dotless capital I both become "i". Emoji and other symbols are
    no words. Compatible forms, such as full-width letters, stay apart, and so do Arabic words with and without vowel
    signs.

    Chinese, Japanese, Thai, Lao, Khmer and Burmese have no spaces between words: `unspaced` chooses the tokens of
    these scripts. The other words of the text stay whole.

    Attributes:
        max_length: words kept per row, the first ones.
        min_count: least number of training rows with a word for it to enter the vocabulary.
        max_size: most frequent words kept.
        unspaced: tokens of scripts without spaces: `"bigrams"`, overlapping pairs of characters, which tell most words
            apart; `"characters"`, fewer and more frequent tokens, for small tables; `"words"` for texts that a
            segmenter has split at spaces before.

    Example:
        >>> Text("title", max_length=32, unspaced="characters").encoded_shape
        (32,)
    """

    max_length: int = 16
    min_count: int = 2
    max_size: int | None = 20_000
    unspaced: Unspaced = "bigrams"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.unspaced in ("words", "characters", "bigrams"),
            f"`unspaced` of feature {self.name!r} must be 'words', 'characters' or 'bigrams'.",
            unspaced=self.unspaced,
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Text:
        """Rebuild the feature; one that was saved without `unspaced` keeps its vocabulary of words."""
        return cls(**{"unspaced": "words", **config})

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
        words: np.ndarray = text.words(tf.constant(raw), self.unspaced).flat_values.numpy()
        return words

    def encode(self, raw: tf.Tensor, preprocessor: Preprocessor) -> tf.Tensor:
        """Return the indices of the words [B, max_length]."""
        words = text.words(raw, self.unspaced).to_tensor("", shape=[None, self.max_length])
        return preprocessor.look_up(self.name, words)

    def probe(self, statistics: Statistics, rows: int) -> Any:
        """Return two words per row."""
        return [" ".join(pair) for pair in pairs(self._probe_tokens(statistics, rows, tf.string))]
