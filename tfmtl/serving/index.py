"""Exact search of the whole corpus: one matrix product and a top-k, in stock operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import tf
from tfmtl.data.numbered_keys import NumberedKeys
from tfmtl.serving.on_load import ComputedOnLoad

Embed = Callable[[], tf.Tensor]


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
        embeddings: float32 [C, d], or a function that returns them from variables, which is called again whenever the
            index is loaded; then they are not stored.
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

    namespaces: tuple[str, ...] = ()
    """Of the operations that the search needs besides TensorFlow's own."""

    def __init__(self, ids: np.ndarray, embeddings: tf.Tensor | Embed, max_k: int) -> None:
        super().__init__()
        require_positive_int(max_k=max_k)
        self.max_k = max_k
        dtype = tf.int64 if ids.dtype.kind in "iu" else tf.string
        self.missing = tf.constant(-1, tf.int64) if dtype == tf.int64 else tf.constant("")
        check_corpus(ids, max_k)
        self._ids = tf.Variable(tf.constant(ids.tolist(), dtype), trainable=False, name="corpus_ids", shape=[None])
        if not callable(embeddings):
            self._stored = tf.Variable(tf.cast(embeddings, tf.float32), trainable=False, name="candidate_embeddings")
            embeddings = self._stored.value
        self._embed = embeddings
        self._loaded = ComputedOnLoad(self._on_load)
        rows = self._loaded.value("embeddings").shape[0]
        require(rows == len(ids), "Every candidate needs one embedding.", embeddings=rows, ids=len(ids))
        self._rows = tf.lookup.StaticHashTable(NumberedKeys(self._ids, first=0), -1)

    @property
    def id_dtype(self) -> tf.DType:
        """`tf.string` or `tf.int64`."""
        return self._ids.dtype

    @property
    def size(self) -> tf.Tensor:
        """The number of candidates, int32 []."""
        return tf.shape(self._ids)[0]

    def search(self, query: tf.Tensor, exclude_ids: tf.Tensor | None = None) -> Hits:
        """Return the `max_k` best candidates of each query.

        Args:
            query: float [B, d].
            exclude_ids: raw ids [B, n] that must not be among them; ids outside the corpus, `""` and -1 exclude
                nothing.
        """
        query = tf.cast(query, tf.float32)
        scores = tf.matmul(query, self._loaded.value("embeddings"), transpose_b=True)
        if exclude_ids is not None:
            scores = self._mask(scores, exclude_ids)
        best, rows = tf.math.top_k(scores, self.max_k)
        return self._hits(query, best, rows)

    def ids(self, rows: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        """Return the raw ids at `rows`, `""` or -1 where `valid` is false."""
        return tf.where(valid, tf.gather(self._ids, rows), self.missing)

    def rows_of(self, ids: tf.Tensor) -> tf.Tensor:
        """Return the positions of raw ids in the corpus, `size` for those outside of it."""
        rows = self._rows.lookup(ids)
        return tf.where(rows < 0, self.size, rows)

    def embeddings_at(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the embeddings [..., d] of the candidates at `rows`."""
        return tf.gather(self._loaded.value("embeddings"), rows)

    def describe(self) -> dict[str, Any]:
        """Return what a client should know of the search, as plain values."""
        return {"kind": "exact"}

    def _on_load(self) -> dict[str, tf.Tensor]:
        """Return what is computed from the variables."""
        embeddings = self._embed()
        mean = tf.reduce_mean(embeddings, axis=0, keepdims=True)
        centred = embeddings - mean
        count = tf.cast(tf.shape(embeddings)[0], tf.float32)
        return {
            "embeddings": embeddings,
            "mean": mean,
            "covariance": tf.matmul(centred, centred, transpose_a=True) / count,
        }

    def _hits(self, query: tf.Tensor, best: tf.Tensor, rows: tf.Tensor) -> Hits:
        """Return hits, those with a score of minus infinity as invalid.

        The scores' mean is q . m and their variance q' S q with mean m [d] and covariance S [d, d] of the embeddings.
        """
        valid = best > -np.inf
        mean = tf.matmul(query, self._loaded.value("mean"), transpose_b=True)
        variance = tf.reduce_sum(tf.matmul(query, self._loaded.value("covariance")) * query, axis=1, keepdims=True)
        deviation = tf.sqrt(tf.maximum(variance, 0.0))
        return Hits(tf.where(valid, rows, 0), tf.where(valid, best, 0.0), valid, mean, deviation)

    def _without(self, scores: tf.Tensor, rows: tf.Tensor, exclude_ids: tf.Tensor) -> tf.Tensor:
        """Set the scores of excluded rows [B, n] to minus infinity."""
        excluded = tf.reduce_any(tf.equal(rows[:, :, None], self.rows_of(exclude_ids)[:, None, :]), axis=2)
        return tf.where(excluded, -np.inf, scores)

    def _mask(self, scores: tf.Tensor, exclude_ids: tf.Tensor) -> tf.Tensor:
        """Set excluded scores to minus infinity; ids outside the corpus land in an extra last column."""
        columns = self.rows_of(exclude_ids)
        queries = tf.broadcast_to(tf.range(tf.shape(scores)[0])[:, tf.newaxis], tf.shape(columns))
        places = tf.reshape(tf.stack([queries, columns], axis=-1), [-1, 2])
        padded = tf.pad(scores, [[0, 0], [0, 1]])
        excluded = tf.fill([tf.shape(places)[0]], -np.inf)
        return tf.tensor_scatter_nd_update(padded, places, tf.cast(excluded, tf.float32))[:, :-1]


def check_corpus(ids: np.ndarray, max_k: int) -> None:
    """Raise unless ids are distinct and enough."""
    count = len(ids)
    require(len(set(ids.tolist())) == count, "Candidate ids must be distinct.", candidates=count)
    require(
        max_k <= count,
        f"`max_k` must be at most the number of candidates, {count}; give a smaller one.",
        max_k=max_k,
    )
