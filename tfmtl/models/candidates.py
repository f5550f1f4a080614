"""The corpus: every candidate once, encoded."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.data import Preprocessor, Schema, encode
from tfmtl.data.columns import to_columns


class Candidates:
    """All candidates that retrieval chooses from.

    Args:
        ids: raw ids [C], strings or int64.
        features: encoded candidate features [C, ...] by name.

    Attributes:
        ids, features: the arguments.
    """

    def __init__(self, ids: np.ndarray, features: dict[str, tf.Tensor]) -> None:
        self.ids = ids
        self.features = features

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.ids)

    def sample(self, count: int, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the encoded features [count, ...] of candidates drawn uniformly, with replacement.

        Args:
            count: number of draws.
            seed: two integers [2], which decide the draw.
        """
        rows = tf.random.stateless_uniform([count], seed, 0, len(self), tf.int32)
        return {name: tf.gather(column, rows) for name, column in self.features.items()}

    @classmethod
    def from_frame(cls, frame: Any, preprocessor: Preprocessor) -> Candidates:
        """Take the candidates from a table of one row a candidate, or of interactions whose candidate columns agree.

        Args:
            frame: pandas table with the schema's candidate columns; repeated identical rows count once.
            preprocessor: encodes the features.

        Raises:
            ValueError: if an id occurs with different features, an id is missing, or a column is absent.
        """
        ids, columns = distinct_candidates(frame, preprocessor.schema)
        return cls(ids, encode(preprocessor, columns))


def distinct_candidates(frame: Any, schema: Schema) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return ids [C] and raw candidate columns [C, ...] of a table; see `Candidates.from_frame`."""
    require(bool(schema.candidate), "The schema has no candidate features, so there is no corpus.")
    columns = to_columns(frame, schema.candidate)
    ids = columns[schema.candidate_id]
    absent = ids == ("" if ids.dtype == object else -1)
    require(not absent.any(), f"Candidate id column {schema.candidate_id!r} has {int(absent.sum())} missing values.")
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    for name, column in columns.items():
        same = column == column[first][inverse]
        if column.dtype.kind == "f":
            same |= np.isnan(column) & np.isnan(column[first][inverse])
        bad = ~same.reshape(len(ids), -1).all(axis=1)
        require(
            not bad.any(),
            f"Candidate {ids[bad.argmax()]!r} occurs with different values of column {name!r}; "
            "give each candidate id one row, or make the column a context feature.",
        )
    first = np.sort(first)
    kept = {name: column[first] for name, column in columns.items()}
    return ids[first], kept
