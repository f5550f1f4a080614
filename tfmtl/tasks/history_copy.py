"""HistoryCopy: the part of a retrieval score that candidates of the query's own history have."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tfmtl._checks import require
from tfmtl._identity import FIRST
from tfmtl._keras import tf


@dataclasses.dataclass(frozen=True)
class HistoryCopy:
    """Copy mechanism ("buy again", RepeatNet): adds to the score of a candidate that is in the query's history.

    Use it as `Retrieval(copy=...)` where users choose the same candidates again: a dot product of embeddings cannot
    tell an item of the history from a similar one. `recipes.join_copy` chooses its numbers by ranks on validation rows.

    With the real entries j = 0, 1, ... of the history, the most recent first, query q and candidate i:

        score(q, i) = <u_q, v_i> + weight * sum_{j: history_j = i} 1 / (1 + j / half_life)

    The sum is the number of times that the history holds i if `half_life` is None. The decay has a long tail, so that
    old favourites keep a part. A candidate outside of the history
    has the dot product alone. The part has no gradient: losses are those of the dot products.

    Ids match by their index in the vocabulary, so that ids outside of it never match. Only the `max_length` ids that
    the history keeps count. It must be free of the row's own event, as `with_histories` makes it.

    Attributes:
        history: name of a query feature, an `IdSequence` of the candidate's ids, most recent first.
        weight: factor of the sum, above 0, in units of the dot product.
        half_life: number of entries after which an entry counts half, or None if all count alike.

    Raises:
        ValueError: if a number is not finite or not above 0; by `MultiTaskModel`, if `history` is another feature.

    Example:
        >>> copy = HistoryCopy("recent", weight=2.0, half_life=1.0)
        >>> parts = copy.of_pairs(tf.constant([[7, 5, 7, 0], [7, 5, 7, 0]]), tf.constant([7, 4]))
        >>> [round(part, 2) for part in parts.numpy().tolist()]
        [2.67, 0.0]

    Reference: Ren et al., "RepeatNet: A Repeat Aware Neural Recommendation Machine for Session-based Recommendation",
    AAAI 2019, https://arxiv.org/abs/1812.02646. The modes "repeat" and "explore" are added here, instead of mixed by a
    learned probability, and the weights of the entries follow from their positions.

    Cost: length comparisons for a pair; a sort of the history for all candidates of a query.
    """

    history: str
    weight: float = 1.0
    half_life: float | None = None

    def __post_init__(self) -> None:
        require(isinstance(self.history, str) and bool(self.history), "`history` must be the name of a feature.")
        for name in ("weight", "half_life"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            valid = (value is None and name == "half_life") or (number and math.isfinite(value) and value > 0)
            require(valid, f"`{name}` of a `HistoryCopy` must be a finite number above 0.", **{name: value})

    def config(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return dataclasses.asdict(self)

    def of_pairs(self, history: tf.Tensor, candidate: tf.Tensor) -> tf.Tensor:
        """Return the part [B] of the scores of pairs.

        Args:
            history: int32 [B, length], encoded ids.
            candidate: int32 [B], encoded ids.
        """
        equal = (history == candidate[:, tf.newaxis]) & (candidate >= FIRST)[:, tf.newaxis]
        return tf.reduce_sum(tf.where(equal, self._weights(history), 0.0), axis=1)

    def of_history(self, history: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the distinct ids of histories and their part of the scores.

        Args:
            history: int32 [B, length], encoded ids.

        Returns:
            int32 [B, length], distinct encoded ids, of which those below 2 are no known ids; and float32 [B, length],
            0 where there is none.

        Example:
            >>> ids, parts = HistoryCopy("recent").of_history(tf.constant([[7, 5, 7, 1, 0]]))
            >>> ids.numpy().tolist(), parts.numpy().tolist()
            ([[5, 7, 0, 0, 0]], [[1.0, 2.0, 0.0, 0.0, 0.0]])
        """
        rows, length = tf.shape(history)[0], tf.shape(history)[1]
        real = history >= FIRST
        keys = tf.where(real, history, tf.int32.max)  # sorted behind all ids
        order = tf.argsort(keys, axis=1, stable=True)
        keys = tf.gather(keys, order, batch_dims=1)
        new = tf.cast(keys[:, 1:] != keys[:, :-1], tf.int32)
        run = tf.cumsum(tf.pad(new, [[0, 0], [1, 0]])[:, :length], axis=1)
        run = tf.reshape(run + length * tf.range(rows)[:, tf.newaxis], [-1])
        weights = tf.gather(tf.where(real, self._weights(history), 0.0), order, batch_dims=1)
        parts = tf.math.unsorted_segment_sum(tf.reshape(weights, [-1]), run, rows * length)
        ids = tf.math.unsorted_segment_max(tf.reshape(keys, [-1]), run, rows * length)
        ids = tf.where((ids < FIRST) | tf.equal(ids, tf.int32.max), 0, ids)
        return tf.reshape(ids, [rows, length]), tf.reshape(parts, [rows, length])

    def _weights(self, history: tf.Tensor) -> tf.Tensor:
        """Return the weight of each entry [1 or B, length]."""
        places = tf.cast(tf.range(tf.shape(history)[1]), tf.float32)[tf.newaxis]
        halves = tf.zeros_like(places) if self.half_life is None else places / self.half_life
        return tf.broadcast_to(self.weight / (1 + halves), tf.shape(history))
