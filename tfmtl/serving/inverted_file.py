"""Approximate search of the corpus: an inverted file over clusters of embeddings, in stock operations."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import tf
from tfmtl.serving.index import CorpusIndex, Embed, Hits
from tfmtl.serving.search import Search

_MANY = 1024  # clusters; more are found in two steps, since k-means costs rows times clusters
_SAMPLE = 100_000  # rows from which the first step's centres are learned
_SPREAD = 0.35  # of a block's radius that its best candidate is taken to be nearer to the query than its mean


@dataclasses.dataclass(frozen=True, eq=False)
class InvertedFile(Search):
    """Search of the blocks of similar candidates that a query resembles most, instead of the whole corpus.

    The embeddings are clustered by k-means and every cluster is cut into blocks of at most `block` candidates. A query
    q is compared with every block, by q . mean + 0.35 |q| radius, and with the candidates of the `probes` best blocks.
    Scores are exact; what may be missed are candidates of other blocks.

    Args:
        min_recall: share of the true first `max_k` candidates that must be found, on average over sample queries.
        probes: blocks searched; by default as few as reach `min_recall`.
        clusters: number of clusters; by default one for two blocks.
        block: candidates a block.
        seed: decides the clusters.
        queries: pandas table of query features, some hundred rows as they are expected, for which the recall is
            measured when a model is exported; by default 256 rows made of the vocabularies.

    Raises:
        ValueError: if an argument is out of range.

    Reference:
        Jegou, Douze, Schmid, "Product Quantization for Nearest Neighbor Search", PAMI 2011,
        https://doi.org/10.1109/TPAMI.2010.57, section IV, with dot products instead of distances and exact vectors
        instead of codes. The radius, the root mean square distance from a block's mean, is ours: with it
        a fifth fewer blocks hold the same share of the best candidates of a grocery store.

    Cost: k-means when the index is built, seconds for 100,000 candidates and 20 s for a million; in a search, d
    multiplications a block and for every candidate in `probes` blocks. The embeddings are held twice.
    """

    min_recall: float = 0.95
    probes: int | None = None
    clusters: int | None = None
    block: int = 64
    seed: int = 0
    queries: Any = None

    def __post_init__(self) -> None:
        require_fraction(min_recall=self.min_recall)
        counts = {"probes": self.probes, "clusters": self.clusters, "block": self.block}
        require_positive_int(**{name: count for name, count in counts.items() if count is not None})

    def build_index(
        self, ids: np.ndarray, embeddings: tf.Tensor | Embed, max_k: int, queries: tf.Tensor
    ) -> InvertedFileIndex:
        """Return the index, see `Search.build_index`."""
        return InvertedFileIndex(ids, embeddings, max_k, queries, self)

    def blocks(self, embeddings: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Return the rows [blocks, block] of similar candidates, -1 where a block has no more.

        Args:
            embeddings: float32 [C, d].
            queries: float32 [n, d], sample queries; candidates that they score alike come into one block of a cluster.
        """
        clusters = min(len(embeddings), self.clusters or max(1, len(embeddings) // (2 * self.block)))
        nearest = cluster(embeddings, clusters, self.seed)
        order = np.lexsort((-(embeddings @ queries.mean(axis=0)), nearest))
        found = []
        for rows in np.split(order, np.flatnonzero(np.diff(nearest[order])) + 1):
            for part in np.array_split(rows, -(-len(rows) // self.block)):
                found.append(np.pad(part, (0, self.block - len(part)), constant_values=-1))
        return np.stack(found).astype(np.int32)

    def choose_probes(
        self, blocks: np.ndarray, embeddings: np.ndarray, queries: np.ndarray, k: int
    ) -> tuple[int, float]:
        """Return how many blocks to search, and the share of the first k candidates that is found.

        Args:
            blocks: what `blocks` returned.
            embeddings: float32 [C, d].
            queries: float32 [n, d], embeddings of sample queries.
            k: candidates wanted.

        Raises:
            ValueError: if `probes` are given and too few.
        """
        wanted = ranks_of_best(blocks, embeddings, queries, k)
        by_probes = np.cumsum(np.bincount(wanted.ravel(), minlength=len(blocks))) / max(1, wanted.size)
        if self.probes is None:
            full = np.cumsum(np.sort(np.count_nonzero(blocks >= 0, axis=1)))
            enough = int(np.searchsorted(full, k)) + 1  # blocks that hold k candidates, whichever they are
            probes = max(enough, int(np.searchsorted(by_probes, self.min_recall)) + 1)
        else:
            probes = min(self.probes, len(blocks))
        recall = float(by_probes[probes - 1])
        require(
            recall >= self.min_recall,
            f"The inverted file finds {recall:.3f} of the first {k} candidates with {probes} of {len(blocks)} blocks, "
            f"less than `min_recall` {self.min_recall}; give more `probes`, or None to choose them.",
        )
        return probes, recall


def cluster(embeddings: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Return the number of the cluster of each row [C], by k-means, in two steps if there are many."""
    first = clusters if clusters <= _MANY else round(clusters**0.5)
    kept = np.sort(np.random.default_rng(seed).permutation(len(embeddings))[: max(_SAMPLE, 2 * first)])
    fit = KMeans(first, n_init=1, max_iter=20, random_state=seed).fit(embeddings[kept])
    nearest: np.ndarray = fit.predict(embeddings).astype(np.int64)
    if first == clusters:
        return nearest
    found = np.empty_like(nearest)
    for number in range(first):
        rows = np.flatnonzero(nearest == number)
        inner = min(_MANY, max(1, len(rows) * clusters // len(embeddings)))
        found[rows] = number * _MANY + (cluster(embeddings[rows], inner, seed) if len(rows) else 0)
    return found


def block_keys(vectors: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
    """Return what queries are compared with: every block's mean and a share of its radius [blocks, d + 1].

    Args:
        vectors: float32 [blocks, block, d], 0 where there is no candidate.
        inside: float32 [blocks, block], 1 or 0.
    """
    counts = tf.reduce_sum(inside, axis=1, keepdims=True)
    means = tf.reduce_sum(vectors, axis=1) / counts
    squares = tf.reduce_sum(vectors**2, axis=[1, 2])[:, None] / counts - tf.reduce_sum(means**2, axis=1, keepdims=True)
    return tf.concat([means, _SPREAD * tf.sqrt(tf.maximum(squares, 0.0))], axis=1)


def resemblance(query: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Return q . mean + share * |q| * radius [B, blocks]: about the best score to be found in a block."""
    return tf.matmul(tf.concat([query, tf.norm(query, axis=1, keepdims=True)], axis=1), keys, transpose_b=True)


def ranks_of_best(blocks: np.ndarray, embeddings: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return for the best k candidates of each query the rank [n, k] of their block among all blocks, from 0."""
    inside = blocks >= 0
    block_of = np.empty(len(embeddings), np.int64)
    block_of[blocks[inside]] = np.nonzero(inside)[0]
    vectors = embeddings[np.maximum(blocks, 0)] * inside[:, :, None]
    keys = block_keys(vectors, inside.astype(np.float32))
    ranks = []
    for query in queries:
        best = np.argpartition(-(embeddings @ query), k - 1)[:k]
        rank = np.empty(len(blocks), np.int64)
        rank[np.argsort(-resemblance(query[None], keys).numpy()[0])] = np.arange(len(blocks))
        ranks.append(rank[block_of[best]])
    return np.stack(ranks)


class InvertedFileIndex(CorpusIndex):
    """Finds nearly all candidates with the largest dot products.

    Args:
        ids, embeddings, max_k: as in `CorpusIndex`.
        queries: float32 [n, d], embeddings of queries as they are expected, on which the recall is measured.
        settings: how to cluster and how much to search.

    Raises:
        ValueError: as `CorpusIndex`, or if `settings.min_recall` is not reached.

    Example:
        >>> vectors = tf.random.stateless_normal([1000, 4], seed=(1, 2))
        >>> index = InvertedFileIndex(np.arange(1000), vectors, 10, vectors[:50], InvertedFile(block=16))
        >>> index.describe()["recall"] >= 0.95
        True

    Cost: see `InvertedFile`; exclusions cost B (max_k + n) n comparisons.
    """

    def __init__(
        self, ids: np.ndarray, embeddings: tf.Tensor | Embed, max_k: int, queries: tf.Tensor, settings: InvertedFile
    ) -> None:
        values = np.asarray(embeddings() if callable(embeddings) else embeddings, np.float32)
        sample = np.asarray(queries, np.float32)
        blocks = settings.blocks(values, sample)
        probes, self._recall = settings.choose_probes(blocks, values, sample, min(max_k, len(values)))
        self._settings = settings
        self._blocks = tf.Variable(blocks, trainable=False, name="corpus_blocks", shape=[None, settings.block])
        self._probes = tf.Variable(probes, trainable=False, name="corpus_probes")
        self._queries = tf.Variable(sample, trainable=False, name="corpus_queries")
        super().__init__(ids, embeddings, max_k)

    def search(self, query: tf.Tensor, exclude_ids: tf.Tensor | None = None) -> Hits:
        """Return the `max_k` best candidates of each query among those of the blocks it resembles.

        Args:
            query: float [B, d].
            exclude_ids: raw ids [B, n] that must not be among them, as in `CorpusIndex.search`. If fewer than `max_k`
                others are in the blocks that are searched, fewer are found.
        """
        query = tf.cast(query, tf.float32)
        excluded = 0 if exclude_ids is None else tf.shape(exclude_ids)[1]
        best, rows = self._search_blocks(query, self.max_k + excluded, exclude_ids is not None)
        if exclude_ids is not None:
            best, places = tf.math.top_k(self._without(best, rows, exclude_ids), self.max_k)
            rows = tf.gather(rows, places, batch_dims=1)
        return self._hits(query, best, rows)

    def describe(self) -> dict[str, Any]:
        """Return what a client should know of the search, as plain values."""
        settings = {name: getattr(self._settings, name) for name in ("min_recall", "clusters", "block", "seed")}
        blocks, queries = (int(tf.shape(variable)[0]) for variable in (self._blocks, self._queries))
        measured = {"probes": int(self._probes), "blocks": blocks, "recall": self._recall, "sample_queries": queries}
        return {"kind": "inverted file", **settings, "given_probes": self._settings.probes, **measured}

    def _search_blocks(self, query: tf.Tensor, k: tf.Tensor | int, exclude: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return scores, minus infinity where there is no candidate, and rows [B, k]."""
        keys, vectors, rows = (self._loaded.value(name) for name in ("block_keys", "block_vectors", "block_rows"))
        probes = tf.minimum(self._probes, tf.shape(keys)[0])
        chosen = tf.math.top_k(resemblance(query, keys), probes, sorted=False).indices
        found = tf.reshape(tf.gather(rows, chosen), [tf.shape(query)[0], -1])
        near = tf.reshape(tf.gather(vectors, chosen), [tf.shape(query)[0], -1, query.shape[1]])
        scores = tf.reduce_sum(near * query[:, None, :], axis=2)  # faster than a product with one column
        scores = tf.where(found < 0, -np.inf, scores)
        if exclude:  # top-k needs as many columns; without exclusions there are enough
            room = [[0, 0], [0, k]]
            scores, found = tf.pad(scores, room, constant_values=-np.inf), tf.pad(found, room)
        best, places = tf.math.top_k(scores, k)
        return best, tf.gather(found, places, batch_dims=1)

    def _on_load(self) -> dict[str, tf.Tensor]:
        values = super()._on_load()
        rows, width = self._blocks.value(), values["embeddings"].shape[1]
        inside = tf.cast(rows >= 0, tf.float32)
        vectors = tf.gather(values["embeddings"], tf.maximum(rows, 0)) * inside[:, :, None]
        return {
            **values,
            "block_keys": block_keys(vectors, inside),
            "block_vectors": tf.reshape(vectors, [-1, self._settings.block * width]),
            "block_rows": rows,
        }
