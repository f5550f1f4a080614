"""Feature: the base of the feature kinds, frozen dataclasses that describe a column."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tfmtl._checks import require, require_known
from tfmtl._keras import tf
from tfmtl.data.moments import Moments
from tfmtl.data.values import MISSING_INTEGER

if TYPE_CHECKING:
    from tfmtl.data.preprocessor import Preprocessor
    from tfmtl.data.statistics import Statistics

_UNKNOWN: dict[tf.DType, Any] = {tf.string: "no such value", tf.int64: np.iinfo(np.int64).max}
_MISSING: dict[tf.DType, Any] = {tf.string: "", tf.int64: MISSING_INTEGER}


@dataclasses.dataclass(frozen=True)
class Feature(abc.ABC):
    """A column of the table; use one of the concrete kinds, or derive from it to add a kind.

    A new kind implements `read`, `arrow_type`, `raw_spec`, `encoded_shape` and `encode`. It overrides `measure` if its
    encoding needs the mean and the deviation of the training split; `vocabulary` and `tokens` if it has a vocabulary;
    `encoded_spec` and `connect` if the network embeds its encoding in another way. A kind outside of the package is a
    frozen dataclass with a registered name, so that a saved schema finds it again. `tests/extending/kinds.py` has two.

    Attributes:
        name: name of the feature and of its serving input: an identifier, in any alphabet. A serving input has another
            name where TensorFlow refuses it, such as `class_2` for `class`; the model card lists it.
        column: name of the column in tables and files, any string; the feature's name by default. Two features may read
            one column.
    """

    name: str
    column: str = dataclasses.field(default="", kw_only=True)

    def __post_init__(self) -> None:
        require(
            isinstance(self.name, str) and self.name.isidentifier(),
            "A feature's `name` must be letters, digits and underscores after a letter or underscore, since it names a "
            "serving input; choose such a name, and give the table's column as `column`.",
            name=self.name,
        )
        require(
            isinstance(self.column, str), f"`column` of feature {self.name!r} must be a string.", column=self.column
        )
        if not self.column:
            object.__setattr__(self, "column", self.name)

    @property
    def vocabulary(self) -> str | None:
        """Name of the vocabulary that turns values into indices, or None if the kind has none."""
        return None

    @property
    def borrows(self) -> bool:
        """Whether the vocabulary is that of another feature; the training split's column is then not read."""
        return self.vocabulary not in (None, self.name)

    def check(self, features: Mapping[str, Feature]) -> None:
        """Raise `ValueError` if the feature contradicts the other features of its schema."""
        if self.borrows:
            of = str(self.vocabulary)
            require_known([of], features, "feature", f"`of` of {self.name!r}")
            other = features[of]
            require(
                other.is_id and other.raw_spec.dtype == self.raw_spec.dtype,
                f"`of` of {self.name!r} must be a Categorical feature with the same dtype.",
                of=other,
            )

    @property
    def is_id(self) -> bool:
        """Whether the feature may identify users or items: each row holds exactly one value of its vocabulary."""
        return False

    @property
    def repeats(self) -> bool:
        """Whether equal values are encoded once, because encoding one takes longer than finding equal ones."""
        return False

    @property
    @abc.abstractmethod
    def arrow_type(self) -> pa.DataType:
        """Type of the column in files without types (CSV, TFRecord)."""

    @property
    @abc.abstractmethod
    def raw_spec(self) -> tf.TensorSpec:
        """Specification of the raw tensor [B] or [B, length], which serving clients send.

        The dtype is string, int64, float32 or float64. Missing values are `""`, -1 and NaN.
        """

    @property
    @abc.abstractmethod
    def encoded_shape(self) -> tuple[int, ...]:
        """Shape of one encoded example, without the batch dimension."""

    @property
    def encoded_spec(self) -> tf.TensorSpec:
        """Specification of the encoded tensor: int32 indices if the kind has a vocabulary, otherwise float32."""
        dtype = tf.float32 if self.vocabulary is None else tf.int32
        return tf.TensorSpec([None, *self.encoded_shape], dtype, name=self.name)

    @abc.abstractmethod
    def read(self, column: pd.Series) -> np.ndarray:
        """Convert a column of a table to the raw array [N] or [N, length] that a serving client would send.

        Raises:
            ValueError: naming the column, if it holds other values than the kind allows.
        """

    @property
    def unrounded(self) -> Feature:
        """The feature that reads every digit of a column, for the statistics."""
        return self

    def fitted(self, statistics: Statistics) -> Feature:
        """Return the feature with the type of raw tensor that the training split needs."""
        return self

    def whole(self, column: pd.Series) -> Feature:
        """Return the feature without a limit that `read` applies to this column, to write all its values to a file."""
        return self

    def tokens(self, raw: np.ndarray) -> np.ndarray:
        """Return the values of raw rows that are counted for the vocabulary; missing ones are ignored."""
        return raw

    def measure(self, raw: np.ndarray) -> np.ndarray | None:
        """Return the numbers [N] or [N, size] of raw rows that the statistics keep the moments of, or None."""
        return None

    @abc.abstractmethod
    def encode(self, raw: tf.Tensor, preprocessor: Preprocessor) -> tf.Tensor:
        """Encode raw values in the graph, with operations of TensorFlow alone; a server has no others.

        Args:
            raw: tensor of `raw_spec`.
            preprocessor: holds the `statistics`; its `look_up` turns values into indices of a vocabulary.

        Returns:
            Tensor of `encoded_spec`. Missing values are index 0; the last number of a float encoding is the flag of a
            missing value.
        """

    @classmethod
    def encode_together(
        cls, features: Sequence[Any], raw: Mapping[str, tf.Tensor], preprocessor: Preprocessor
    ) -> dict[str, tf.Tensor]:
        """Encode all features of this kind; a kind overrides it to use one operation for all of them."""
        return {feature.name: feature.encode(raw[feature.name], preprocessor) for feature in features}

    def connect(self, encodings: Any, tables: str = "") -> Any:
        """Return the vector [B, d] that the network reads, a symbolic tensor.

        By default indices are embedded, lists of them pooled, and numbers used as they are.

        Args:
            encodings: the network under construction; `encodings.inputs[name]` is the encoded feature.
            tables: name of a separate set of embedding tables; "" for the shared tables.
        """
        if self.vocabulary is None:
            return encodings.numbers(self.name)
        return encodings.pooled(self.name, tables) if self.encoded_shape else encodings.embedded(self.name, tables)

    def probe(self, statistics: Statistics, rows: int) -> Any:
        """Return raw values [rows, ...] that verify an export; the last two rows are unknown and missing."""
        spec = self.raw_spec
        if spec.dtype.is_floating:
            moments = statistics.moments.get(self.name, Moments((0.0,), (1.0,)))
            steps = np.linspace(-1, 1, rows - 2)[:, np.newaxis] * moments.deviation + np.asarray(moments.mean)
            values = np.concatenate([steps, np.full([2, steps.shape[1]], [[np.inf], [np.nan]])])
            return np.broadcast_to(values, [rows, spec.shape[1]]) if spec.shape.rank == 2 else values[:, 0]
        column = self._probe_tokens(statistics, rows, spec.dtype)
        return pairs(column) if spec.shape.rank == 2 else column

    def _probe_tokens(self, statistics: Statistics, rows: int, dtype: tf.DType) -> list[Any]:
        """Return the most frequent values, an unknown value and a missing one."""
        known = [] if self.vocabulary is None else statistics.vocabularies[self.vocabulary][: rows - 2].tolist()
        known = known or [_MISSING[dtype]]
        return [*(known[i % len(known)] for i in range(rows - 2)), _UNKNOWN[dtype], _MISSING[dtype]]

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Feature:
        return cls(**config)


def pairs(column: Sequence[Any]) -> list[list[Any]]:
    """Return lists of a value and its predecessor; the last two rows repeat their value."""
    return [[value, column[i - 1] if i < len(column) - 2 else value] for i, value in enumerate(column)]
