"""InvertedFile (IVF): approximate search of the corpus by clusters of embeddings, in stock operations."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import tf
from tfmtl.serving.blocks import MARGIN, block_keys, cluster, halves, ranks_of_best, resemblance, rounded, to_codes
from tfmtl.serving.index import CorpusIndex, Embed, Hits, Search
from tfmtl.serving.interest_hits import search_each

RESTORED = ("min_recall", "clusters", "block", "seed", "int8")
"""The settings that a version stores, from which `replace_candidates` builds the index of other candidates."""


@dataclasses.dataclass(frozen=True, eq=False)
class InvertedFile(Search):
    """IVF: searches the blocks of similar candidates that a query resembles most, instead of the whole corpus.

    Use it for a corpus that is too large to be compared with every query, on a stock TensorFlow Serving.

    The embeddings are clustered by k-means and every cluster is cut into blocks of at most `block` candidates. A query
    q is compared with every block, by q . mean + 0.35 |q| radius, and with the candidates of the `probes` best blocks.
    Scores are exact; candidates of other blocks may be missed.

    With `int8` the embedding e of a candidate in a block is stored as codes c = round(e / s) in [-127, 127] with the
    step s = max |e| / 127, so that e ~ s c. The search takes a quarter more candidates than wanted by these codes and
    scores them again by their embeddings.

    Args:
        min_recall: share of the true first `rerank_depth` candidates to be found, on average over sample queries.
        probes: number of blocks to search; by default the smallest that reaches `min_recall` on every second sample
            query. The recall of the manifest is that of the other queries, and may be a little lower.
        clusters: number of clusters; by default half the number of blocks.
        block: largest number of candidates per block.
        seed: seed of the k-means.
        int8: whether blocks hold codes of one byte per coordinate, a quarter of the memory to hold and to read.
        queries: pandas table of query features on which the recall is measured at export, some hundred rows as they are
            expected in service; by default 256 rows made of the vocabularies.

    Raises:
        ValueError: if an argument is out of range.

    Reference:
        Jegou, Douze, Schmid, "Product Quantization for Nearest Neighbor Search", PAMI 2011,
        https://doi.org/10.1109/TPAMI.2010.57, section IV. Here the vectors are compared by dot products instead of
        distances, and exact vectors replace the product codes. The radius, the root mean square distance from the mean
        of a block, is an addition: with it a fifth fewer blocks hold the same share of the best candidates of a grocery
        store.

    Cost: k-means when the index is built, seconds for 100,000 candidates and 20 s for a million; in a search, d
    multiplications per block and per candidate of `probes` blocks. The embeddings are held twice. With `int8` the
    second copy takes a quarter of the memory, and the search is faster if it reads hundreds of blocks per query.
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
        """Return the rows [blocks, block] of the similar candidates in each block, then -1.

        Args:
            embeddings: float32 [C, d].
            queries: float32 [n, d], sample queries; the mean score with them orders the candidates of a cluster before
                it is cut into blocks.
        """
        clusters = min(len(embeddings), self.clusters or max(1, len(embeddings) // (2 * self.block)))
        nearest = cluster(embeddings, clusters, self.seed)
        tuning, _ = halves(queries)
        order = np.lexsort((-(embeddings @ tuning.mean(axis=0)), nearest))
        found = []
        for rows in np.split(order, np.flatnonzero(np.diff(nearest[order])) + 1):
            for part in np.array_split(rows, -(-len(rows) // self.block)):
                found.append(np.pad(part, (0, self.block - len(part)), constant_values=-1))
        return np.stack(found).astype(np.int32)

    def choose_probes(
        self, blocks: np.ndarray, embeddings: np.ndarray, queries: np.ndarray, k: int
    ) -> tuple[int, float]:
        """Return the number of blocks to search, and the share of the first k candidates that they hold.

        The number is chosen by every second query, and the share is that of the other queries.

        Args:
            blocks: int32 [blocks, block], rows as `blocks` returns them.
            embeddings: float32 [C, d].
            queries: float32 [n, d], embeddings of sample queries.
            k: candidates wanted, at most C.

        Raises:
            ValueError: if the given `probes`, or all blocks with `int8`, do not reach `min_recall`.
        """
        coarse = rounded(embeddings) if self.int8 else None
        tuning, held_out = (_by_probes(blocks, embeddings, part, k, coarse) for part in halves(queries))
        if self.probes is None:
            full = np.cumsum(np.sort(np.count_nonzero(blocks >= 0, axis=1)))
            enough = int(np.searchsorted(full, k)) + 1  # so many blocks hold k candidates, even the smallest ones
            probes = min(len(blocks), max(enough, int(np.searchsorted(tuning, self.min_recall)) + 1))
        else:
            probes = min(self.probes, len(blocks))
        reached = float((tuning if self.probes is None else held_out)[probes - 1])
        require(
            reached >= self.min_recall,
            f"The inverted file finds {reached:.3f} of the first {k} candidates with {probes} of {len(blocks)} blocks, "
            f"less than `min_recall` {self.min_recall}; give more `probes`, or None to choose them.",
        )
        return probes, float(held_out[probes - 1])


def _by_probes(
    blocks: np.ndarray, embeddings: np.ndarray, queries: np.ndarray, k: int, coarse: np.ndarray | None
) -> np.ndarray:
    """Return the share of the first k candidates of the queries that the best 1, 2, ... blocks hold [blocks]."""
    wanted = ranks_of_best(blocks, embeddings, queries, k, coarse)
    return np.cumsum(np.bincount(wanted.ravel(), minlength=len(blocks))[: len(blocks)]) / max(1, wanted.size)


class InvertedFileIndex(CorpusIndex):
    """The index that `InvertedFile` builds: finds nearly all candidates with the largest dot products.

    Args:
        ids, embeddings, max_k: as in `CorpusIndex`.
        queries: float32 [n, d], embeddings of queries as they are expected, on which the recall is measured.
        settings: settings of the clustering and of the search.

    Raises:
        ValueError: as in `CorpusIndex`, or if `settings.min_recall` is not reached.

    Example:
        >>> vectors = tf.random.stateless_normal([1000, 4], seed=(1, 2))
        >>> index = InvertedFileIndex(np.arange(1000), vectors, 10, vectors[:50], InvertedFile(block=16))
        >>> index.describe()["recall"] > 0.9
        True

    Cost: see `InvertedFile`; n exclusions per query cost B (c + n) log n comparisons and B (c + n) integers of memory,
    with c candidates in the searched blocks. A query that excludes nearly all of them costs an exact search.
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
        """Return the `max_k` best candidates of each query in the blocks that it resembles most.

        Args:
            query: float [B, d] or [B, K, d], as in `CorpusIndex.search`; each of the K vectors is searched.
            exclude_ids: raw ids [B, n] that must not be among the hits, as in `CorpusIndex.search`. If the
                blocks of a query hold fewer than `max_k` other candidates, it is compared with the whole corpus.
        """
        query = tf.cast(query, tf.float32)
        if query.shape.rank == 3:
            return search_each(self, query, exclude_ids)
        best, rows = self._completed(query, *self._search_blocks(query, exclude_ids), exclude_ids)
        return self.hits_of(query, best, rows)

    def describe(self) -> dict[str, Any]:
        """Return the settings of the inverted file and its measured recall, as plain values."""
        settings = {name: getattr(self._settings, name) for name in RESTORED}
        blocks, queries = (int(tf.shape(variable)[0]) for variable in (self._blocks, self._queries))
        measured = {"probes": int(self._probes), "blocks": blocks, "recall": self._recall, "sample_queries": queries}
        return {"kind": "inverted file", **settings, "given_probes": self._settings.probes, **measured}

    def _search_blocks(self, query: tf.Tensor, exclude_ids: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Return scores [B, max_k], minus infinity where there is no candidate, and rows [B, max_k]."""
        keys, shape = self._loaded.value("block_keys"), self._loaded.value("searched")
        chosen = tf.math.top_k(resemblance(query, keys), self._probes, sorted=False).indices
        found = self._scores(query, chosen), tf.gather(self._loaded.value("block_rows"), chosen)
        scores, rows = (tf.ensure_shape(tf.reshape(value, shape), [None, None]) for value in found)
        if exclude_ids is not None:
            scores = self._without(scores, rows, exclude_ids)
        k = tf.minimum(self.max_k, tf.shape(scores)[1])
        best, positions = tf.math.top_k(scores, _more(k, tf.shape(scores)[1]) if self._settings.int8 else k)
        rows = tf.gather(rows, positions, batch_dims=1)
        if self._settings.int8:
            best, rows = self._scored_again(query, best, rows, k)
        return self._filled(best, -np.inf), self._filled(rows, 0)

    def _scores(self, query: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        """Return the scores [B, probes, 1, block] of the candidates in the chosen blocks [B, probes]."""
        near = tf.gather(self._loaded.value("block_vectors"), chosen)
        if not self._settings.int8:  # the last coordinate is minus infinity where there is no candidate
            return tf.matmul(tf.pad(query, [[0, 0], [0, 1]], constant_values=1.0)[:, None, None, :], near)
        steps = tf.gather(self._loaded.value("block_steps"), chosen)[:, :, None, :]
        scores = tf.matmul(query[:, None, None, :], tf.cast(near, tf.float32)) * steps
        return tf.where(steps > 0, scores, -np.inf)

    def _scored_again(
        self, query: tf.Tensor, best: tf.Tensor, rows: tf.Tensor, k: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        exact = tf.reduce_sum(self.embeddings_at(tf.maximum(rows, 0)) * query[:, None, :], axis=2)
        best, positions = tf.math.top_k(tf.where(best > -np.inf, exact, -np.inf), k)
        return best, tf.gather(rows, positions, batch_dims=1)

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
    """Return blocks [blocks, block, d] as [blocks, d, block]; a product with one query then reads memory in order."""
    return tf.transpose(vectors, [0, 2, 1])


def _more(k: tf.Tensor, available: tf.Tensor) -> tf.Tensor:
    """Return the number of candidates to score again for the best k."""
    return tf.minimum(k + k // MARGIN, available)
