"""The search of several vectors per query in an index that finds the neighbors of one vector."""

from __future__ import annotations

import numpy as np

from tfmtl._keras import tf
from tfmtl.serving.index import CorpusIndex, Hits


def search_each(index: CorpusIndex, query: tf.Tensor, exclude_ids: tf.Tensor | None = None) -> Hits:
    """Return the `max_k` candidates of each query with the largest scores max_k <u_k, v>, each once.

    All vectors of all queries are one search. It is exact if the index is: a candidate among the best n by the largest
    product is among the best n of the vector that has this product.

    Args:
        index: the index.
        query: float32 [B, K, d].
        exclude_ids: raw ids [B, m] that must not be among the hits, or None.

    Cost: a search of K B vectors, and a sort of K `max_k` hits per query.
    """
    interests, width = query.shape[1:]
    vectors = tf.reshape(query, [-1, width])
    found = index.search(vectors, None if exclude_ids is None else tf.repeat(exclude_ids, interests, axis=0))
    rows, scores, valid = (
        tf.reshape(part, [-1, interests * index.max_k]) for part in (found.rows, found.scores, found.valid)
    )
    best, rows = _once(tf.where(valid, scores, -np.inf), rows, index.max_k)
    return index.hits_of(query, best, rows)


def _once(scores: tf.Tensor, rows: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the k largest scores [B, n] with distinct rows [B, n], then minus infinity; both [B, k], best first."""
    order = tf.argsort(scores, axis=1, direction="DESCENDING", stable=True)
    order = tf.gather(order, tf.argsort(tf.gather(rows, order, batch_dims=1), axis=1, stable=True), batch_dims=1)
    rows, scores = (tf.gather(part, order, batch_dims=1) for part in (rows, scores))  # by row, the best score first
    again = tf.pad(tf.equal(rows[:, 1:], rows[:, :-1]), [[0, 0], [1, 0]])
    best, places = tf.math.top_k(tf.where(again, -np.inf, scores), k)
    return best, tf.gather(rows, places, batch_dims=1)
