"""Cross-batch negatives: the candidates of the last batches."""

from __future__ import annotations

from typing import Any

from tfmtl._identity import NO_KEY
from tfmtl._keras import keras, tf
from tfmtl._passes import once
from tfmtl.tasks.loss_inputs import CandidateIds


class NegativeQueue:
    """The last candidates of earlier batches as constants, from the newest to the oldest.

    Args:
        owner: the layer that holds the queue as weights.
        size: Q, largest number of entries.
        width: d, width of the embeddings.

    Attributes:
        embeddings: v of the entries and a 1, rows of zeros where no entry is yet [Q, d + 1].
        keys, indices, queries: the ids of the entries and the keys of their queries [Q].

    Reference:
        Wang et al., "Cross-Batch Negative Sampling for Training Two-Tower Recommenders", SIGIR 2021,
        https://arxiv.org/abs/2110.15154, algorithm 1.

    Cost: Q d numbers in memory, which every step writes once.
    """

    def __init__(self, owner: keras.layers.Layer, size: int, width: int) -> None:
        empty = keras.initializers.Constant(NO_KEY)
        options: dict[str, Any] = {"trainable": False}
        self.embeddings = owner.add_weight(
            "queue_embeddings", [size, width + 1], dtype=tf.float32, initializer="zeros", **options
        )
        self.keys = owner.add_weight("queue_keys", [size], dtype=tf.int64, initializer=empty, **options)
        self.indices = owner.add_weight("queue_indices", [size], dtype=tf.int32, initializer="zeros", **options)
        self.queries = owner.add_weight("queue_queries", [size], dtype=tf.int64, initializer=empty, **options)

    @property
    def weights(self) -> list[tf.Variable]:
        """The variables of the queue."""
        return [self.embeddings, self.keys, self.indices, self.queries]

    def entries(self, rows: tf.Tensor, ids: CandidateIds) -> tuple[tf.Tensor, CandidateIds, tf.Tensor]:
        """Return embeddings, ids and queries of the entries; a candidate of the batch has its embedding there.

        A stale embedding of a candidate in the batch would share the gradient of the fresh one. As negatives the
        entries have no gradient; see `RetrievalLoss._negative_factors`.

        Args:
            rows: v [n, d] of the batch.
            ids: the candidates [n] of these rows.
        """
        embeddings, *ids_before = once(self.keys.name, lambda: [tf.convert_to_tensor(part) for part in self.weights])
        count = tf.math.count_nonzero(embeddings[:, -1], dtype=tf.int32)
        kept = embeddings[:count, :-1]
        keys, indices, queries = (part[:count] for part in ids_before)
        unique, column = tf.unique(tf.concat([ids.keys, keys], axis=0))
        number = tf.shape(rows)[0]
        first = tf.gather(tf.math.unsorted_segment_min(tf.range(tf.size(column)), column, tf.size(unique)), column)
        first = first[number:]
        fresh = tf.gather(rows, tf.minimum(first, number - 1))
        candidate = tf.where(first[:, tf.newaxis] < number, fresh, kept)
        return candidate, CandidateIds(keys, indices), queries

    def add(self, candidate: tf.Tensor, ids: CandidateIds, queries: tf.Tensor | None) -> None:
        """Add rows with candidates v [n, d], which replace the oldest entries.

        Args:
            candidate: v [n, d].
            ids: the candidates [n].
            queries: the keys [n] of their queries, or None.
        """
        alone = tf.fill([tf.shape(candidate)[0]], tf.constant(NO_KEY, tf.int64))
        marked = tf.pad(tf.stop_gradient(candidate), [[0, 0], [0, 1]], constant_values=1.0)
        for variable, new in zip(self.weights, (marked, *ids, alone if queries is None else queries), strict=True):
            joined = tf.concat([tf.cast(new, variable.dtype), tf.convert_to_tensor(variable)], axis=0)
            variable.assign(joined[: variable.shape[0]])
