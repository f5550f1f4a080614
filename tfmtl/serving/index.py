"""CorpusIndex: exact search of the whole corpus, and the base of the settings of approximate searches."""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import tf
from tfmtl.data import Schema, Statistics
from tfmtl.data.columns import to_columns
from tfmtl.data.lookup_tables import NumberedKeys
from tfmtl.serving.on_load import ComputedOnLoad
from tfmtl.serving.verification import probe_features

FEW_QUERIES = 100
"""Number of sample queries below which an export warns that the measured recall is uncertain."""

Embed = Callable[[], tf.Tensor]
"""Returns the embeddings [C, d] of the corpus."""


class Hits(NamedTuple):
    """The best candidates of each query, best first.

    Attributes:
        rows: int32 [B, max_k], positions in the corpus; 0 where `valid` is false.
        scores: float32 [B, max_k], dot products; 0 where `valid` is false.
        valid: bool [B, max_k], false where fewer than `max_k` candidates are allowed.
        mean, deviation: float32 [B, 1], mean and standard deviation of the dot products of the query, or of all of its
            vectors, over the whole corpus, including excluded candidates.
    """

    rows: tf.Tensor
    scores: tf.Tensor
    valid: tf.Tensor
    mean: tf.Tensor
    deviation: tf.Tensor


class CorpusIndex(tf.Module):
    """Exact search: finds the candidates with the largest dot products in the whole corpus.

    One matrix product and a top-k, in stock operations of TensorFlow. Use it unless the corpus is too large to be
    compared with every query; `InvertedFile` and `ScaNN` are the approximate searches.

    Args:
        ids: distinct raw ids [C], strings or int64.
        embeddings: float32 [C, d], or a function that computes them from variables. The function is called whenever the
            index is loaded, and its embeddings are not stored.
        max_k: candidates per query, at most C. In a version to which `replace_candidates` gave fewer, all of them.

    Raises:
        ValueError: if ids repeat, lengths differ, or `max_k` exceeds the number of candidates.

    Example:
        >>> index = CorpusIndex(np.array([7, 8, 9]), tf.constant([[1.0], [3.0], [2.0]]), max_k=2)
        >>> hits = index.search(tf.constant([[1.0]]), exclude_ids=tf.constant([[8, -1]], tf.int64))
        >>> index.ids(hits.rows, hits.valid).numpy().tolist(), hits.scores.numpy().tolist()
        ([[9, 7]], [[2.0, 1.0]])

    Cost: B C d multiplications and B C floats of memory per call.
    """

    namespaces: tuple[str, ...] = ()
    """The namespaces of the operations that the search needs beyond TensorFlow's own."""

    def __init__(self, ids: np.ndarray, embeddings: tf.Tensor | Embed, max_k: int) -> None:
        super().__init__()
        require_positive_int(max_k=max_k)
        self.max_k = max_k
        dtype = tf.int64 if ids.dtype.kind in "iu" else tf.string
        self.missing = tf.constant(-1, tf.int64) if dtype == tf.int64 else tf.constant("")
        check_corpus(ids)
        check_depth(len(ids), max_k=max_k)
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
            query: float [B, d], or [B, K, d] for K vectors, of which the largest dot product is the score.
            exclude_ids: raw ids [B, n] that must not be among them; ids outside the corpus, `""` and -1 exclude
                nothing.
        """
        query = tf.cast(query, tf.float32)
        scores = _best_products(query, self._loaded.value("embeddings"))
        if exclude_ids is not None:
            scores = self._mask(scores, exclude_ids)
        return self.hits_of(query, *self._best(scores))

    def restrict(self, query: tf.Tensor, found: Hits, exclude_ids: tf.Tensor, restrict_ids: tf.Tensor) -> Hits:
        """Return the hits of a search, except for queries that name candidates: those get the best of the named ones.

        Args:
            query: float [B, d] or [B, K, d], as in `search`.
            found: the hits of an unrestricted search.
            exclude_ids: raw ids [B, m] that must not be among the hits.
            restrict_ids: raw ids [B, n]; `""` and -1 are ignored, and a row with no other ids keeps its hits. Ids
                outside the corpus give no hit.

        Cost: B n K d multiplications, B n (d + K) floats of memory and B (m + n) log m comparisons; independent of the
        corpus.
        """
        rows = tf.sort(self.rows_of(restrict_ids), axis=1)
        first = tf.pad(tf.not_equal(rows[:, 1:], rows[:, :-1]), [[0, 0], [1, 0]], constant_values=True)
        first = first[:, : tf.shape(rows)[1]]
        allowed = first & (rows < self.size) & tf.logical_not(among(rows, self.rows_of(exclude_ids)))
        scores = tf.where(allowed, self.scores_at(query, tf.minimum(rows, self.size - 1)), -np.inf)
        columns = [[0, 0], [0, self.max_k]]  # top-k needs as many columns
        best, positions = tf.math.top_k(tf.pad(scores, columns, constant_values=-np.inf), self.max_k)
        valid = best > -np.inf
        chosen = tf.gather(tf.pad(rows, columns), positions, batch_dims=1)
        named = tf.reduce_any(tf.not_equal(restrict_ids, self.missing), axis=1, keepdims=True)
        return found._replace(
            rows=tf.where(named, tf.where(valid, chosen, 0), found.rows),
            scores=tf.where(named, tf.where(valid, best, 0.0), found.scores),
            valid=tf.where(named, valid, found.valid),
        )

    def ids(self, rows: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        """Return the raw ids at `rows`, `""` or -1 where `valid` is false."""
        return tf.where(valid, tf.gather(self._ids, rows), self.missing)

    def rows_of(self, ids: tf.Tensor) -> tf.Tensor:
        """Return the positions of raw ids in the corpus; `size` for ids outside of it."""
        rows = self._rows.lookup(ids)
        return tf.where(rows < 0, self.size, rows)

    def embeddings_at(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the embeddings [..., d] of the candidates at `rows`."""
        return tf.gather(self._loaded.value("embeddings"), rows)

    def scores_at(self, query: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Return the scores [B, n] of queries [B, d] or [B, K, d] and the candidates at `rows` [B, n]."""
        query, vectors = tf.cast(query, tf.float32), self.embeddings_at(rows)
        if query.shape.rank == 2:
            return tf.einsum("bd,bnd->bn", query, vectors)
        return tf.reduce_max(tf.einsum("bkd,bnd->bkn", query, vectors), axis=1)

    def describe(self) -> dict[str, Any]:
        """Return the settings and measurements of the search, as plain values for clients."""
        return {"kind": "exact"}

    def _on_load(self) -> dict[str, tf.Tensor]:
        """Return the tensors that are computed from the variables when the index is loaded."""
        embeddings = self._embed()
        mean = tf.reduce_mean(embeddings, axis=0, keepdims=True)
        centred = embeddings - mean
        count = tf.cast(tf.shape(embeddings)[0], tf.float32)
        return {
            "embeddings": embeddings,
            "mean": mean,
            "covariance": tf.matmul(centred, centred, transpose_a=True) / count,
        }

    def _best(self, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the largest of the scores [B, n] and their positions, both [B, max_k] and best first.

        Where n is below `max_k`, as in a corpus that became smaller, minus infinity and 0 follow.
        """
        k = tf.minimum(self.max_k, tf.shape(scores)[1])
        best, positions = tf.math.top_k(scores, k)
        return self._filled(best, -np.inf), self._filled(positions, 0)

    def _filled(self, values: tf.Tensor, value: float) -> tf.Tensor:
        """Return values [B, k] as [B, max_k], with `value` after the last."""
        lacking = self.max_k - tf.shape(values)[1]
        filled = tf.pad(values, [[0, 0], [0, lacking]], constant_values=value)
        return tf.ensure_shape(filled, [None, self.max_k])

    def hits_of(self, query: tf.Tensor, best: tf.Tensor, rows: tf.Tensor) -> Hits:
        """Return hits, in which scores of minus infinity are invalid.

        The mean of the scores is q . m and their variance q' S q, with mean m [d] and covariance S [d, d] of the
        embeddings. Of several vectors the mean of the second moments counts.
        """
        valid = best > -np.inf
        vectors = tf.reshape(query, [-1, query.shape[-1]])
        mean = tf.matmul(vectors, self._loaded.value("mean"), transpose_b=True)
        variance = tf.reduce_sum(tf.matmul(vectors, self._loaded.value("covariance")) * vectors, axis=1, keepdims=True)
        if query.shape.rank == 3:
            means, variances = (tf.reshape(part, tf.shape(query)[:2]) for part in (mean, variance))
            mean = tf.reduce_mean(means, axis=1, keepdims=True)
            variance = tf.reduce_mean(variances + tf.square(means - mean), axis=1, keepdims=True)
        deviation = tf.sqrt(tf.maximum(variance, 0.0))
        return Hits(tf.where(valid, rows, 0), tf.where(valid, best, 0.0), valid, mean, deviation)

    def _without(self, scores: tf.Tensor, rows: tf.Tensor, exclude_ids: tf.Tensor) -> tf.Tensor:
        """Set the scores [B, n] of excluded rows to minus infinity, by B (n + m) log m comparisons for m ids."""
        return tf.where(among(rows, self.rows_of(exclude_ids)), -np.inf, scores)

    def _completed(
        self, query: tf.Tensor, best: tf.Tensor, rows: tf.Tensor, exclude_ids: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the scores and rows [B, max_k] of an approximate search, complete as those of the exact search.

        Queries with a score of minus infinity, for which the searched part of the corpus holds too few allowed
        candidates, are compared with the whole corpus.
        """
        short = tf.reduce_any(tf.equal(best, -np.inf), axis=1)

        def exact() -> tuple[tf.Tensor, tf.Tensor]:
            scores = tf.matmul(tf.boolean_mask(query, short), self._loaded.value("embeddings"), transpose_b=True)
            if exclude_ids is not None:
                scores = self._mask(scores, tf.boolean_mask(exclude_ids, short))
            found, positions = self._best(scores)
            updated = tf.where(short)
            return (
                tf.tensor_scatter_nd_update(best, updated, found),
                tf.tensor_scatter_nd_update(rows, updated, positions),
            )

        completed: tuple[tf.Tensor, tf.Tensor] = tf.cond(tf.reduce_any(short), exact, lambda: (best, rows))
        return completed

    def _mask(self, scores: tf.Tensor, exclude_ids: tf.Tensor) -> tf.Tensor:
        """Set excluded scores [B, C] to minus infinity; ids outside the corpus are written to an extra last column."""
        columns = self.rows_of(exclude_ids)
        queries = tf.broadcast_to(tf.range(tf.shape(scores)[0])[:, tf.newaxis], tf.shape(columns))
        positions = tf.reshape(tf.stack([queries, columns], axis=-1), [-1, 2])
        padded = tf.pad(scores, [[0, 0], [0, 1]])
        excluded = tf.fill([tf.shape(positions)[0]], -np.inf)
        return tf.tensor_scatter_nd_update(padded, positions, tf.cast(excluded, tf.float32))[:, :-1]


def _best_products(query: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    """Return the scores [B, C] of queries [B, d] or [B, K, d]."""
    if query.shape.rank == 2:
        return tf.matmul(query, embeddings, transpose_b=True)
    interests, width = query.shape[1:]
    products = tf.matmul(tf.reshape(query, [-1, width]), embeddings, transpose_b=True)
    return tf.reduce_max(tf.reshape(products, [-1, interests, tf.shape(embeddings)[0]]), axis=1)


def among(rows: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Return whether each of `rows` int32 [B, n] is one of `others` int32 [B, m] of its query."""
    ends = tf.pad(tf.sort(others, axis=1), [[0, 0], [0, 1]], constant_values=tf.int32.max)  # m may be 0
    positions = tf.raw_ops.LowerBound(sorted_inputs=ends, values=rows)
    return tf.equal(tf.gather(ends, positions, batch_dims=1), rows)


def check_corpus(ids: np.ndarray) -> None:
    """Raise `ValueError` unless the ids are distinct and at least one."""
    count = len(ids)
    require(count > 0, "No candidate is left; keep at least one.", candidates=count)
    require(len(set(ids.tolist())) == count, "Candidate ids must be distinct.", candidates=count)


def check_depth(candidates: int, **depths: int) -> None:
    """Raise `ValueError` unless every depth of a search is at most the number of candidates."""
    for name, depth in depths.items():
        rule = f"`{name}` must be at most the number of candidates, {candidates}; give a smaller one."
        require(depth <= candidates, rule, **{name: depth})


class Search(abc.ABC):
    """Settings of an approximate search, from which an export builds its index.

    Attributes:
        queries: pandas table of query features as they are expected in service, at least a hundred rows. At export one
            half chooses the search and the other half measures its recall. None for 256 rows made of the vocabularies.
    """

    queries: Any

    @abc.abstractmethod
    def build_index(
        self, ids: np.ndarray, embeddings: tf.Tensor | Embed, max_k: int, queries: tf.Tensor
    ) -> CorpusIndex:
        """Return the index.

        Args:
            ids, embeddings, max_k: as in `CorpusIndex`.
            queries: float32 [n, d], embeddings of `sample`.
        """

    def sample(self, schema: Schema, statistics: Statistics) -> dict[str, tf.Tensor]:
        """Return the raw query features on which the recall is measured."""
        if self.queries is None:
            features = probe_features(schema, statistics, rows=256)
            return {feature.name: features[feature.name] for feature in schema.query}
        if len(self.queries) < FEW_QUERIES:
            warnings.warn(
                f"The recall of the search is measured on {len(self.queries)} `queries`, half of which choose the "
                f"search; give at least {FEW_QUERIES} for a reliable number.",
                stacklevel=2,
            )
        return {name: tf.constant(column) for name, column in to_columns(self.queries, schema.query).items()}
