"""Search among the candidates that a request names."""

from __future__ import annotations

import numpy as np

from tfmtl._keras import tf
from tfmtl.serving.index import CorpusIndex, Hits


def restricted(index: CorpusIndex, query: tf.Tensor, found: Hits, exclude_ids: tf.Tensor, only: tf.Tensor) -> Hits:
    """Replace what was found for the queries that name candidates by the best of those.

    Args:
        index: the corpus.
        query: float [B, d].
        found: what an unrestricted search found.
        exclude_ids: raw ids [B, m] that must not be among them.
        only: raw ids [B, n]; `""` and -1 are ignored, a row of nothing else keeps what was found. Of ids outside the
            corpus nothing is found.

    Cost: B (m + n) d multiplications and floats of memory, whatever the size of the corpus.
    """
    # Sorted by row, what is excluded first: of each row only the first key may be found, and only if it is odd.
    keys = tf.sort(tf.concat([2 * index.rows_of(exclude_ids), 2 * index.rows_of(only) + 1], axis=1), axis=1)
    rows = keys // 2
    first = tf.pad(tf.not_equal(rows[:, 1:], rows[:, :-1]), [[0, 0], [1, 0]], constant_values=True)
    allowed = first[:, : tf.shape(rows)[1]] & tf.equal(keys % 2, 1) & (rows < index.size)
    vectors = index.embeddings_at(tf.minimum(rows, index.size - 1))
    scores = tf.einsum("bd,bnd->bn", tf.cast(query, tf.float32), vectors)
    room = [[0, 0], [0, index.max_k]]  # top-k needs as many columns
    best, places = tf.math.top_k(tf.pad(tf.where(allowed, scores, -np.inf), room, constant_values=-np.inf), index.max_k)
    valid = best > -np.inf
    chosen = tf.gather(tf.pad(rows, room), places, batch_dims=1)
    named = tf.reduce_any(tf.not_equal(only, index.missing), axis=1, keepdims=True)
    return found._replace(
        rows=tf.where(named, tf.where(valid, chosen, 0), found.rows),
        scores=tf.where(named, tf.where(valid, best, 0.0), found.scores),
        valid=tf.where(named, valid, found.valid),
    )
