"""Streaming counts of candidates: how often each has been a positive so far."""

from __future__ import annotations

from typing import Any

from tfmtl._identity import UNKNOWN
from tfmtl._keras import keras, tf
from tfmtl.tasks.loss_inputs import CandidateIds

_BUCKETS = 65_521  # a prime, so that multiples of one number spread over all buckets
_FACTORS = (0x9E3779B97F4A7C1, 0xC2B2AE3D27D4EB5)  # odd numbers without a common pattern


class CandidateCounts:
    """Counts by candidate, exact for ids of the vocabulary and estimated for all others.

    Ids outside the vocabulary are counted by their key in a count-min sketch of two rows: an id has one bucket per row,
    and its count is the smaller one. It is exact until both buckets are shared.

    Args:
        owner: the layer that holds the counts as weights.
        num_indices: number of encoded ids.

    Attributes:
        known: the counts by encoded id [num_indices].
        rare: the two rows of the sketch, one after the other.

    Reference: Cormode and Muthukrishnan, "An Improved Data Stream Summary: The Count-Min Sketch and its Applications",
    Journal of Algorithms 2005, https://doi.org/10.1016/j.jalgor.2003.12.001, section 3.

    Cost: 0.5 MB, and one scatter per step and table. With more than about 50,000 ids outside the vocabulary, the counts
    of these ids are too high; a larger `max_size` of the vocabulary avoids that.
    """

    def __init__(self, owner: keras.layers.Layer, num_indices: int) -> None:
        options: dict[str, Any] = {"dtype": tf.float32, "initializer": "zeros", "trainable": False}
        self.known = owner.add_weight("counts", [num_indices], **options)
        self.rare = owner.add_weight("rare_counts", [len(_FACTORS) * _BUCKETS], **options)

    @property
    def weights(self) -> list[tf.Variable]:
        """The variables of the counts."""
        return [self.known, self.rare]

    @property
    def total(self) -> tf.Tensor:
        """Sum of all counts."""
        return tf.reduce_sum(self.known) + tf.reduce_sum(self.rare[:_BUCKETS])

    def add(self, ids: CandidateIds, amounts: tf.Tensor) -> None:
        """Add amounts [n] to the counts of candidates [n]."""
        rare = amounts * tf.cast(tf.equal(ids.indices, UNKNOWN), amounts.dtype)
        self.known.scatter_add(tf.IndexedSlices(amounts - rare, ids.indices))
        self.rare.scatter_add(tf.IndexedSlices(tf.tile(rare, [len(_FACTORS)]), tf.reshape(_buckets(ids.keys), [-1])))

    def of(self, ids: CandidateIds) -> tf.Tensor:
        """Return the counts [n] of candidates [n]."""
        estimates = tf.reduce_min(tf.nn.embedding_lookup(self.rare, _buckets(ids.keys)), axis=0)
        exact = tf.nn.embedding_lookup(self.known, ids.indices)
        return tf.where(tf.equal(ids.indices, UNKNOWN), estimates, exact)

    def cap(self, total: float) -> None:
        """Scale all counts down to a sum of at most `total`."""
        factor = tf.minimum(1.0, tf.math.divide_no_nan(total, self.total))
        for counts in (self.known, self.rare):
            counts.assign(counts * factor)


def _buckets(keys: tf.Tensor) -> tf.Tensor:
    """Return the positions [rows, n] of keys [n] in the rows of the sketch."""
    hashed = tf.math.floormod(keys * tf.constant(_FACTORS, tf.int64)[:, tf.newaxis], _BUCKETS)
    return tf.cast(hashed, tf.int32) + _BUCKETS * tf.range(len(_FACTORS))[:, tf.newaxis]
