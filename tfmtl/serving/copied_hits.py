"""CopiedHits: the exact merge of an index's hits with candidates that have a further part of the score."""

from __future__ import annotations

import numpy as np

from tfmtl._identity import FIRST
from tfmtl._keras import tf
from tfmtl.serving.index import CorpusIndex, Hits, among
from tfmtl.serving.on_load import ComputedOnLoad
from tfmtl.tasks.copies import Copy


class CopiedHits(tf.Module):
    """Adds the candidates of a history or a user's list, with their part of the score, to the hits of an index.

    The merged list is the exact top k by score(q, i) = <u_q, v_i> + copy(q, i) if the index returns the exact top k by
    dot products. Proof: a candidate x outside of the history has copy 0, and if it is not among the k hits, then k
    allowed candidates have dot products at least as large; copy is never negative, so that all of these have scores at
    least as large as x, and x is not needed. Each allowed candidate of the history is scored here. So the best k of
    both, each once, are the best of the corpus. With an approximate index, the candidates of the history are exact, and
    the others are those that the index finds.

    Args:
        copy: the part of the score.
        index: the index; its corpus may be replaced in an exported version.
        ids: encoded ids [C] of the candidates, a variable.
        size: number of encoded ids.

    Cost: a lookup, d multiplications and a few comparisons per entry of the history, and a top-k of the length of the
    history and k.
    """

    def __init__(self, copy: Copy, index: CorpusIndex, ids: tf.Variable, size: int) -> None:
        super().__init__()
        self.copy = copy
        self._index = index
        self._ids = ids
        self._size = size
        self._loaded = ComputedOnLoad(self._on_load)

    def merge(
        self,
        query: tf.Tensor,
        history: tf.Tensor,
        hits: Hits,
        exclude_ids: tf.Tensor | None = None,
        restrict_ids: tf.Tensor | None = None,
    ) -> Hits:
        """Return the best hits of the index and of the history.

        Args:
            query: float [B, d] or [B, K, d], as in `CorpusIndex.search`.
            history: int32 [B, length] or [B], the encoded feature that the copy reads.
            hits: those of the index for the same queries and limits.
            exclude_ids, restrict_ids: as in `CorpusIndex.restrict`.
        """
        index, (ids, parts) = self._index, self.copy.of_history(history)
        rows = tf.gather(self._loaded.value("rows"), ids)
        allowed = rows < index.size
        if exclude_ids is not None:
            allowed &= tf.logical_not(among(rows, index.rows_of(exclude_ids)))
        if restrict_ids is not None:
            named = tf.reduce_any(tf.not_equal(restrict_ids, index.missing), axis=1, keepdims=True)
            allowed &= tf.logical_not(named) | among(rows, index.rows_of(restrict_ids))
        own = index.scores_at(query, tf.minimum(rows, index.size - 1)) + parts
        again = among(hits.rows, tf.where(allowed, rows, index.size))
        scores = tf.concat(
            [tf.where(allowed, own, -np.inf), tf.where(hits.valid & ~again, hits.scores, -np.inf)], axis=1
        )
        best, places = tf.math.top_k(scores, index.max_k)
        valid = best > -np.inf
        found = tf.gather(tf.concat([rows, hits.rows], axis=1), places, batch_dims=1)
        return hits._replace(rows=tf.where(valid, found, 0), scores=tf.where(valid, best, 0.0), valid=valid)

    def _on_load(self) -> dict[str, tf.Tensor]:
        """Return the row in the corpus of each encoded id [size]; the number of candidates for ids outside it."""
        ids = tf.cast(self._ids, tf.int32)
        count = tf.shape(ids)[0]
        known = tf.where(ids >= FIRST)
        nowhere = tf.fill([self._size], count)
        rows = tf.tensor_scatter_nd_update(
            nowhere, tf.gather_nd(ids, known)[:, tf.newaxis], tf.cast(known[:, 0], tf.int32)
        )
        return {"rows": rows}
