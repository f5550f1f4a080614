"""Approximate search of the corpus: an inverted file over clusters of embeddings, in stock operations."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import tf
from tfmtl.serving.blocks import MARGIN, block_keys, cluster, ranks_of_best, resemblance, rounded, to_codes
from tfmtl.serving.index import CorpusIndex, Embed, Hits
from tfmtl.serving.search import Search

RESTORED = ("min_recall", "clusters", "block", "seed", "int8")
"""What a version tells of its settings, from which `replace_candidates` makes them again."""


@dataclasses.dataclass(frozen=True, eq=False)
class InvertedFile(Search):
    """Search of the blocks of similar candidates that a query resembles most, instead of the whole corpus.

    The embeddings are clustered by k-means and every cluster is cut into blocks of at most `block` candidates. A query
    q is compared with every block, by q . mean + 0.35 |q| radius, and with the candidates of the `probes` best blocks.
    Scores are exact; what may be missed are candidates of other blocks.

    With `int8` the candidates of the blocks are held as e ~ s c with codes c = round(e / s) in [-127, 127] and a step
    s = max |e| / 127 a candidate, and the best by these, a quarter more than wanted, are scored again by their
    embeddings.

    Args:
        min_recall: share of the true first `max_k` candidates that must be found, on average over sample queries.
        probes: blocks searched; by default as few as reach `min_recall`.
        clusters: number of clusters; by default one for two blocks.
        block: candidates a block.
        seed: decides the clusters.
        int8: whether blocks hold codes of a byte a number, which is a quarter of the memory to hold and to read.
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
    multiplications a block and for every candidate in `probes` blocks. The embeddings are held twice, the second time
    in a quarter of the memory with `int8`, which is the faster of the two once hundreds of blocks are searched for one
    query.
    """

    min_recall: float = 0.95
    probes: int | None = None
    clusters: int | None = None
    block: int = 64
    seed: int = 0
    int8: bool = False
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
        coarse = rounded(embeddings) if self.int8 else None
        wanted = ranks_of_best(blocks, embeddings, queries, k, coarse)
        by_probes = np.cumsum(np.bincount(wanted.ravel(), minlength=len(blocks))[: len(blocks)]) / max(1, wanted.size)
        if self.probes is None:
            full = np.cumsum(np.sort(np.count_nonzero(blocks >= 0, axis=1)))
            enough = int(np.searchsorted(full, k)) + 1  # blocks that hold k candidates, whichever they are
            probes = min(len(blocks), max(enough, int(np.searchsorted(by_probes, self.min_recall)) + 1))
        else:
            probes = min(self.probes, len(blocks))
        recall = float(by_probes[probes - 1])
        require(
            recall >= self.min_recall,
            f"The inverted file finds {recall:.3f} of the first {k} candidates with {probes} of {len(blocks)} blocks, "
            f"less than `min_recall` {self.min_recall}; give more `probes`, or None to choose them.",
        )
        return probes, recall


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
        settings = {name: getattr(self._settings, name) for name in RESTORED}
        blocks, queries = (int(tf.shape(variable)[0]) for variable in (self._blocks, self._queries))
        measured = {"probes": int(self._probes), "blocks": blocks, "recall": self._recall, "sample_queries": queries}
        return {"kind": "inverted file", **settings, "given_probes": self._settings.probes, **measured}

    def _search_blocks(self, query: tf.Tensor, k: tf.Tensor | int, exclude: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return scores, minus infinity where there is no candidate, and rows [B, k]."""
        keys, shape = self._loaded.value("block_keys"), self._loaded.value("searched")
        chosen = tf.math.top_k(resemblance(query, keys), self._probes, sorted=False).indices
        found = self._scores(query, chosen), tf.gather(self._loaded.value("block_rows"), chosen)
        scores, rows = (tf.ensure_shape(tf.reshape(value, shape), [None, None]) for value in found)
        if exclude:  # top-k needs as many columns; without exclusions there are enough
            scores = tf.pad(scores, [[0, 0], [0, k]], constant_values=-np.inf)
            rows = tf.pad(rows, [[0, 0], [0, k]])
        best, places = tf.math.top_k(scores, _more(k, tf.shape(scores)[1]) if self._settings.int8 else k)
        rows = tf.gather(rows, places, batch_dims=1)
        return self._scored_again(query, best, rows, k) if self._settings.int8 else (best, rows)

    def _scores(self, query: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        """Return the scores [B, probes, 1, block] of the candidates in the chosen blocks [B, probes]."""
        near = tf.gather(self._loaded.value("block_vectors"), chosen)
        if not self._settings.int8:  # the last coordinate is minus infinity where there is no candidate
            return tf.matmul(tf.pad(query, [[0, 0], [0, 1]], constant_values=1.0)[:, None, None, :], near)
        steps = tf.gather(self._loaded.value("block_steps"), chosen)[:, :, None, :]
        scores = tf.matmul(query[:, None, None, :], tf.cast(near, tf.float32)) * steps
        return tf.where(steps > 0, scores, -np.inf)

    def _scored_again(
        self, query: tf.Tensor, best: tf.Tensor, rows: tf.Tensor, k: tf.Tensor | int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        exact = tf.reduce_sum(self.embeddings_at(tf.maximum(rows, 0)) * query[:, None, :], axis=2)
        best, places = tf.math.top_k(tf.where(best > -np.inf, exact, -np.inf), k)
        return best, tf.gather(rows, places, batch_dims=1)

    def _on_load(self) -> dict[str, tf.Tensor]:
        values = super()._on_load()
        rows = self._blocks.value()
        inside = tf.cast(rows >= 0, tf.float32)
        vectors = tf.gather(values["embeddings"], tf.maximum(rows, 0)) * inside[:, :, None]
        searched = tf.stack([-1, self._probes * self._settings.block])
        values |= {"block_keys": block_keys(vectors, inside), "block_rows": rows, "searched": searched}
        if self._settings.int8:
            codes, steps = to_codes(vectors)
            return {**values, "block_vectors": _columns(codes), "block_steps": steps[:, :, 0] * inside}
        absent = tf.where(inside > 0, 0.0, -np.inf)[:, :, None]
        return {**values, "block_vectors": _columns(tf.concat([vectors, absent], axis=2))}


def _columns(vectors: tf.Tensor) -> tf.Tensor:
    """Return blocks [blocks, block, d] as [blocks, d, block]: a product with one query then runs along memory."""
    return tf.transpose(vectors, [0, 2, 1])


def _more(k: tf.Tensor | int, available: tf.Tensor) -> tf.Tensor:
    """Return how many candidates to score again for the best k."""
    return tf.minimum(k + k // MARGIN, available)
