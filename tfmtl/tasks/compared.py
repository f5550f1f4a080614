"""The candidates that the queries of a batch are compared with."""

from __future__ import annotations

from typing import Any, NamedTuple

from tfmtl._identity import NO_KEY
from tfmtl._keras import tf
from tfmtl.tasks.loss_inputs import CandidateIds
from tfmtl.tasks.loss_rows import joined_ids


class Compared(NamedTuple):
    """The candidates that the queries of a batch are compared with.

    Attributes:
        candidate: v [C, d]; those of the batch's own rows come first.
        ids: the candidates [C], or None without ids.
        present: bool [C], false for a row that only fills an empty batch.
        number: number of candidates that come from rows of this batch or of earlier ones.
        queries: keys [C] of the queries of which they are positives, -1 without one; None if no keys are compared.
        factors: factor [C] of the gradient of each candidate as a negative; None for 1.
    """

    candidate: tf.Tensor
    ids: CandidateIds | None
    present: tf.Tensor
    number: tf.Tensor
    queries: tf.Tensor | None = None
    factors: tf.Tensor | None = None

    @property
    def negative(self) -> tf.Tensor | None:
        """The values of `candidate` with the gradients that they have as negatives, or None for those of `candidate`.

        Example:
            >>> v = tf.constant([[2.0], [3.0]])
            >>> with tf.GradientTape() as tape:
            ...     tape.watch(v)
            ...     negative = Compared(v, None, v > 0, 2, factors=tf.constant([5.0, 0.0])).negative
            >>> negative[:, 0].numpy().tolist(), tape.gradient(negative, v)[:, 0].numpy().tolist()
            ([2.0, 3.0], [5.0, 0.0])
        """
        if self.factors is None:
            return None
        constant = tf.stop_gradient(self.candidate)
        return constant + self.factors[:, tf.newaxis] * (self.candidate - constant)

    def hidden_from(self, ids: CandidateIds | None) -> tf.Tensor:
        """Return bool [E, C]: the rows that are absent or have the candidate of row i of `ids` [E]."""
        absent = ~self.present[tf.newaxis]
        if ids is None or self.ids is None:
            return absent
        return absent | tf.equal(ids.keys[:, tf.newaxis], self.ids.keys)

    def followed_by(self, candidate: tf.Tensor, ids: CandidateIds, queries: tf.Tensor | None = None) -> Compared:
        """Return these candidates, then further ones [n, d]; `number` stays that of these.

        Args:
            candidate: v [n, d].
            ids: the candidates [n].
            queries: keys [n] of the queries of which they are positives, or None without one.
        """
        longer = tf.concat([self.candidate, tf.cast(candidate, tf.float32)], axis=0)
        keys = self.queries
        if keys is not None:
            keys = padded(keys, longer, NO_KEY) if queries is None else tf.concat([keys, queries], axis=0)
        factors = None if self.factors is None else padded(self.factors, longer, 1.0)
        present = padded(self.present, longer, True)
        return Compared(longer, joined_ids(self.ids, ids), present, self.number, keys, factors)


def padded(rows: tf.Tensor, longer: tf.Tensor, value: Any) -> tf.Tensor:
    """Return the values [n] and `value` for each further row of `longer` [C, ...].

    Example:
        >>> padded(tf.constant([3, 4]), tf.zeros([3, 1]), -1).numpy().tolist()
        [3, 4, -1]
    """
    return tf.concat([rows, tf.fill([tf.shape(longer)[0] - tf.size(rows)], tf.cast(value, rows.dtype))], axis=0)
