"""NumericSequence: numbers beside the ids of a history, such as the ages of its events."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl._keras import tf
from tfmtl.data.features.feature import Feature
from tfmtl.data.features.id_sequence import IdSequence
from tfmtl.data.features.tokens import fit_width
from tfmtl.data.values import longest, number_lists

if TYPE_CHECKING:
    from tfmtl.data.preprocessor import Preprocessor
    from tfmtl.data.statistics import Statistics


@dataclasses.dataclass(frozen=True)
class NumericSequence(Feature):
    """A list of numbers, one for each id of the `IdSequence` `of`, such as the age in days of each event of a history.

    Use it with `HistoryMatch(history, ages=...)`; `with_histories(..., ages=[...])` makes the column.

    The statistics of the training split do not read the column, so that it may be absent there. The encoding holds the
    pair (value, missing flag) of each position, then the flag of a list without numbers; a value is 0 where its flag is
    set. A number is missing if it is None, NaN or, at serving, infinite, or if the list is shorter.

    Attributes:
        of: name of the `IdSequence` that the numbers belong to, position by position.
        max_length: numbers kept per row, the first ones; that of the other feature.
        transform: `"log1p"` gives sign(x) log(1 + |x|), `"none"` passes x on.
    """

    of: str = ""
    max_length: int = 20
    transform: Literal["log1p", "none"] = "log1p"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.of), f"`of` of feature {self.name!r} must name the `IdSequence` it belongs to.", of=self.of)
        require_positive_int(max_length=self.max_length)
        require(self.transform in ("log1p", "none"), "`transform` must be 'log1p' or 'none'.", transform=self.transform)

    @property
    def borrows(self) -> bool:
        """True: nothing is learned from the column."""
        return True

    def check(self, features: Mapping[str, Feature]) -> None:
        """Raise `ValueError` unless the schema has the `IdSequence` and both have one length."""
        require_known([self.of], features, "feature", f"`of` of {self.name!r}")
        other = features[self.of]
        require(
            isinstance(other, IdSequence) and other.max_length == self.max_length,
            f"`of` of {self.name!r} must be an `IdSequence` with `max_length={self.max_length}`.",
            of=other,
        )

    @property
    def arrow_type(self) -> pa.DataType:
        """Lists of numbers."""
        return pa.list_(pa.float32())

    @property
    def raw_spec(self) -> tf.TensorSpec:
        """Lists of any length, [B, any]."""
        return tf.TensorSpec([None, None], tf.float32, name=self.name)

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """A pair per position and the flag of an empty list, [2 max_length + 1]."""
        return (2 * self.max_length + 1,)

    def read(self, column: pd.Series) -> np.ndarray:
        """Return the numbers [N, max_length], NaN where missing."""
        return number_lists(column, self.max_length)

    def whole(self, column: pd.Series) -> NumericSequence:
        """Return the feature with lists of any length."""
        return dataclasses.replace(self, max_length=longest(column))

    def encode(self, raw: tf.Tensor, preprocessor: Preprocessor) -> tf.Tensor:
        """Return the pairs and the flag of an empty list [B, 2 max_length + 1]."""
        values = fit_width(raw, self.max_length)
        known = tf.math.is_finite(values)
        values = tf.where(known, values, 0.0)
        if self.transform == "log1p":
            values = tf.sign(values) * tf.math.log1p(tf.abs(values))
        pairs = tf.stack([values, tf.cast(~known, tf.float32)], axis=2)
        empty = tf.cast(~tf.reduce_any(known, axis=1, keepdims=True), tf.float32)
        return tf.concat([tf.reshape(pairs, [-1, 2 * self.max_length]), empty], axis=1)

    def probe(self, statistics: Statistics, rows: int) -> Any:
        """Return lists of two numbers; those of the last two rows are infinite and missing."""
        first = np.arange(rows - 2, dtype=np.float32)
        return np.concatenate([np.stack([first, 10 * first], axis=1), [[np.inf] * 2, [np.nan] * 2]]).astype(np.float32)
