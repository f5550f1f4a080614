"""The corpus: the encoded features of every distinct candidate."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.data import Batch, Preprocessor, encode, keys_of
from tfmtl.data.distinct_candidates import distinct_candidates
from tfmtl.data.schema import Schema
from tfmtl.tasks import CandidateIds


class Candidates:
    """The candidates from which retrieval chooses.

    Args:
        ids: raw ids [C], strings or int64.
        features: encoded candidate features [C, ...] by name.

    Attributes:
        ids, features: the arguments.
        keys: int64 keys [C] of the ids; see `tfmtl.data.keys_of`.

    Raises:
        ValueError: if two ids have the same key, as equal ids have.
    """

    def __init__(self, ids: np.ndarray, features: dict[str, tf.Tensor]) -> None:
        self.ids = ids
        self.features = features
        self.keys = keys_of(tf.constant(ids, tf.string if ids.dtype.kind in "OUS" else tf.int64))
        self._order = np.argsort(self.keys.numpy(), kind="stable")
        self._sorted = tf.gather(self.keys, self._order)
        self._check_keys()

    def _check_keys(self) -> None:
        ordered = self._sorted.numpy()
        same = np.flatnonzero(ordered[1:] == ordered[:-1])
        pairs = [self.ids[self._order[place : place + 2]].tolist() for place in same[:1]]
        require(not pairs, "Two candidates must not have one key; rename one of the ids.", ids=pairs)

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.ids)

    def positions(self, keys: tf.Tensor) -> tf.Tensor:
        """Return the int32 positions [n] of keys [n] in the corpus; -1 for a key outside it.

        Cost: a binary search per key.
        """
        if not len(self):
            return tf.fill(tf.shape(keys), -1)
        found = tf.minimum(tf.searchsorted(self._sorted, keys), len(self) - 1)
        inside = tf.equal(tf.gather(self._sorted, found), keys)
        return tf.where(inside, tf.gather(tf.constant(self._order, tf.int32), found), -1)

    def values_of(self, values: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """Return those of the values [C] of the candidates that belong to keys [n]; 0 for a key outside the corpus."""
        positions = self.positions(keys)
        found = tf.gather(values, tf.maximum(positions, 0))
        return tf.where(positions >= 0, found, tf.zeros_like(found))

    def sample(
        self, count: int, seed: tf.Tensor, shares: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return the keys [count] and encoded features [count, ...] of candidates drawn with replacement.

        Args:
            count: number of draws.
            seed: two integers [2].
            shares: numbers [C] in proportion to the probabilities of the candidates; None for uniform draws.

        Cost: a sum over the candidates and a binary search for each draw, if there are shares.
        """
        if shares is None:
            rows = tf.random.stateless_uniform([count], seed, 0, len(self), tf.int32)
        else:
            bounds = tf.cumsum(tf.cast(shares, tf.float64))
            points = tf.random.stateless_uniform([count], seed, dtype=tf.float64) * bounds[-1]
            rows = tf.minimum(tf.searchsorted(bounds, points, side="right"), len(self) - 1)
        return tf.gather(self.keys, rows), {name: tf.gather(column, rows) for name, column in self.features.items()}

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


def candidate_ids(batch: Batch, schema: Schema, *, needed: bool) -> CandidateIds | None:
    """Return the candidates of encoded rows, or None if the schema or the batch has none and they are not needed.

    Raises:
        ValueError: if they are needed and the batch has no keys.
    """
    if not schema.candidate or not (needed or "candidate" in batch.ids):
        return None
    cure = "make it by `to_batch` or `from_frame`, or give a data set of raw columns"
    require("candidate" in batch.ids, f"The batch has no `ids` of its candidates; {cure}.")
    return CandidateIds(batch.ids["candidate"], batch.features[schema.candidate_id])
