"""Exact search of the whole corpus: one matrix product and a top-k, in stock operations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import tf
from tfmtl.serving.on_load import ComputedOnLoad


class Hits(NamedTuple):
    """The best candidates of each query, best first.

    Attributes:
        rows: int32 [B, max_k], positions in the corpus; 0 where `valid` is false.
        scores: float32 [B, max_k], dot products; 0 where `valid` is false.
        valid: bool [B, max_k], false where too few candidates are left.
        mean, deviation: float32 [B, 1], of the query's scores over the whole corpus, excluded candidates too.
    """

    rows: tf.Tensor
    scores: tf.Tensor
    valid: tf.Tensor
    mean: tf.Tensor
    deviation: tf.Tensor


class CorpusIndex(tf.Module):
    """Finds the candidates with the largest dot products.

    Args:
        ids: distinct raw ids [C], strings or int64.
        embeddings: float32 [C, d]; stored with the index, or computed when it is loaded.
        max_k: candidates a query gets, at most C.

    Raises:
        ValueError: if ids repeat, lengths differ, or `max_k` exceeds the number of candidates.

    Example:
        >>> index = CorpusIndex(np.array([7, 8, 9]), tf.constant([[1.0], [3.0], [2.0]]), max_k=2)
        >>> hits = index.search(tf.constant([[1.0]]), exclude_ids=tf.constant([[8, -1]], tf.int64))
        >>> index.ids(hits.rows, hits.valid).numpy().tolist(), hits.scores.numpy().tolist()
        ([[9, 7]], [[2.0, 1.0]])

    Cost: B C d multiplications and B C floats of memory a call.
    """

    def __init__(self, ids: np.ndarray, embeddings: tf.Tensor | ComputedOnLoad, max_k: int) -> None:
        super().__init__()
        require_positive_int(max_k=max_k)
        count = len(ids)
        require(len(set(ids.tolist())) == count, "Candidate ids must be distinct.", candidates=count)
        require(embeddings.shape[0] == count, "Every candidate needs one embedding.", shape=embeddings.shape, ids=count)
        require(
            max_k <= count,
            f"`max_k` must be at most the number of candidates, {count}; give a smaller one.",
            max_k=max_k,
        )
        self.max_k = max_k
        self.size = count
        dtype = tf.int64 if ids.dtype.kind in "iu" else tf.string
        self.missing = tf.constant(-1, tf.int64) if dtype == tf.int64 else tf.constant("")
        self._ids = tf.Variable(tf.constant(ids.tolist(), dtype), trainable=False, name="candidate_ids")
        if not isinstance(embeddings, ComputedOnLoad):
            embeddings = tf.Variable(tf.cast(embeddings, tf.float32), trainable=False, name="candidate_embeddings")
        self._embeddings = embeddings
        pairs = tf.lookup.KeyValueTensorInitializer(self._ids.value(), tf.range(count))
        self._rows = tf.lookup.StaticHashTable(pairs, count)

    @property
    def id_dtype(self) -> tf.DType:
        """`tf.string` or `tf.int64`."""
        return self._ids.dtype

    def search(self, query: tf.Tensor, exclude_ids: tf.Tensor | None = None) -> Hits:
        """Return the `max_k` best candidates of each query.

        Args:
            query: float [B, d].
            exclude_ids: raw ids [B, n] that must not be among them; ids outside the corpus, `""` and -1 exclude
                nothing.
        """
        scores = tf.matmul(tf.cast(query, tf.float32), self._embeddings.value(), transpose_b=True)
        mean, variance = tf.nn.moments(scores, axes=[1], keepdims=True)
        if exclude_ids is not None:
            scores = self._mask(scores, exclude_ids)
        best, rows = tf.math.top_k(scores, self.max_k)
        valid = best > -np.inf
        rows, best = tf.where(valid, rows, 0), tf.where(valid, best, 0.0)
        return Hits(rows, best, valid, mean, tf.sqrt(variance))

    def ids(self, rows: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        """Return the raw ids at `rows`, `""` or -1 where `valid` is false."""
        return tf.where(valid, tf.gather(self._ids, rows), self.missing)

    def rows_of(self, ids: tf.Tensor) -> tf.Tensor:
        """Return the positions of raw ids in the corpus, `size` for those outside of it."""
        rows: tf.Tensor = self._rows.lookup(ids)
        return rows

    def embeddings_at(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the embeddings [..., d] of the candidates at `rows`."""
        return tf.gather(self._embeddings.value(), rows)

    def _mask(self, scores: tf.Tensor, exclude_ids: tf.Tensor) -> tf.Tensor:
        """Set excluded scores to minus infinity; ids outside the corpus land in an extra last column."""
        columns = self.rows_of(exclude_ids)
        queries = tf.broadcast_to(tf.range(tf.shape(scores)[0])[:, tf.newaxis], tf.shape(columns))
        places = tf.reshape(tf.stack([queries, columns], axis=-1), [-1, 2])
        padded = tf.pad(scores, [[0, 0], [0, 1]])
        excluded = tf.fill([tf.shape(places)[0]], -np.inf)
        return tf.tensor_scatter_nd_update(padded, places, tf.cast(excluded, tf.float32))[:, : self.size]
