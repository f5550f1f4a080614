"""The rows of a batch that enter the loss of retrieval."""

from __future__ import annotations

from typing import Any, NamedTuple

from tfmtl._identity import NO_KEY
from tfmtl._keras import tf
from tfmtl.tasks.loss_inputs import CandidateIds


class LossRows(NamedTuple):
    """The rows of a batch with labels of one kind, positives or explicit negatives.

    Attributes:
        query: u [B, d], float32.
        candidate: v [B, d], float32.
        ids: the candidates [B], or None without ids.
        weight: weights [B]; 0 in a row that only fills an empty batch.
        queries: int64 keys [B] of the queries that have several rows, -1 for a row alone; None without keys.
    """

    query: tf.Tensor
    candidate: tf.Tensor
    ids: CandidateIds | None
    weight: tf.Tensor
    queries: tf.Tensor | None = None

    @classmethod
    def of(
        cls,
        chosen: tf.Tensor,
        outputs: Any,
        weight: tf.Tensor,
        ids: CandidateIds | None,
        queries: tf.Tensor | None = None,
    ) -> LossRows:
        """Return the rows that are chosen and have a weight above 0 and a candidate.

        Args:
            chosen: bool [n].
            outputs: {"query": [n, d], "candidate": [n, d]}.
            weight: [n].
            ids: the candidates [n], or None.
            queries: int64 keys [n], or None.
        """
        if ids is not None:
            chosen &= tf.not_equal(ids.keys, NO_KEY)
        weight = tf.where(chosen, weight, 0.0)
        kept = weight > 0
        query, candidate = (
            tf.boolean_mask(tf.cast(outputs[side], tf.float32), kept) for side in ("query", "candidate")
        )
        own = None if ids is None else CandidateIds(*(tf.boolean_mask(part, kept) for part in ids))
        keys = None if queries is None else tf.boolean_mask(queries, kept)
        return cls(query, candidate, own, tf.boolean_mask(weight, kept), keys)

    def not_empty(self) -> LossRows:
        """Return the rows, or one row of zeros without ids if there is none."""
        ids = None if self.ids is None else CandidateIds(not_empty(self.ids.keys, NO_KEY), not_empty(self.ids.indices))
        queries = None if self.queries is None else not_empty(self.queries, NO_KEY)
        return LossRows(not_empty(self.query), not_empty(self.candidate), ids, not_empty(self.weight), queries)

    def followed_by(self, other: LossRows) -> LossRows:
        """Return the rows, then those of `other`, without the queries of the latter."""
        alone = tf.fill([tf.size(other.weight)], tf.constant(NO_KEY, tf.int64))
        return LossRows(
            tf.concat([self.query, other.query], axis=0),
            tf.concat([self.candidate, other.candidate], axis=0),
            joined_ids(self.ids, other.ids),
            tf.concat([self.weight, other.weight], axis=0),
            None if self.queries is None else tf.concat([self.queries, alone], axis=0),
        )


def joined_ids(own: CandidateIds | None, more: CandidateIds | None) -> CandidateIds | None:
    """Return the ids of both; None if `own` is None."""
    if own is None or more is None:
        return None
    return CandidateIds(
        *(tf.concat([left, tf.cast(right, left.dtype)], axis=0) for left, right in zip(own, more, strict=True))
    )


def not_empty(rows: tf.Tensor, value: int = 0) -> tf.Tensor:
    """Return the rows [n, ...], or one row of `value` if n is 0, because TFRS does not accept an empty batch."""
    missing = tf.cast(tf.equal(tf.shape(rows)[0], 0), tf.int32)
    return tf.pad(rows, [[0, missing]] + [[0, 0]] * (rows.shape.rank - 1), constant_values=value)
