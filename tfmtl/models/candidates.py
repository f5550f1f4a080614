"""The corpus: the encoded features of every distinct candidate."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.data import Preprocessor, encode
from tfmtl.data.distinct_candidates import distinct_candidates


class Candidates:
    """The candidates from which retrieval chooses.

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
            seed: two integers [2].
        """
        rows = tf.random.stateless_uniform([count], seed, 0, len(self), tf.int32)
        return {name: tf.gather(column, rows) for name, column in self.features.items()}

    @classmethod
    def from_frame(cls, frame: Any, preprocessor: Preprocessor) -> Candidates:
        """Return the candidates of a table with one row per candidate, or of a table of interactions.

        Args:
            frame: pandas table with the candidate columns of the schema; all rows of a candidate must agree in them.
            preprocessor: encodes the features.

        Raises:
            ValueError: if an id occurs with different features, if an id is missing, or if a column is absent.
        """
        ids, columns = distinct_candidates(frame, preprocessor.schema)
        return cls(ids, encode(preprocessor, columns))

    @classmethod
    def fitted(cls, preprocessor: Preprocessor) -> Candidates | None:
        """Return the distinct candidates of the table that a preprocessor was fitted to; None if it holds none."""
        collected = preprocessor.fitted_candidates
        if not collected:
            return None
        columns = collected.columns()
        return cls(columns[preprocessor.schema.candidate_id], encode(preprocessor, columns))
