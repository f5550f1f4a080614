"""ScaNN: approximate search of the corpus, for servers that have the operations of the package scann."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_recommenders as tfrs

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import tf
from tfmtl.serving.blocks import halves
from tfmtl.serving.index import CorpusIndex, Embed, Hits, Search
from tfmtl.serving.interest_hits import search_each

_CODES = 16  # codes that ScaNN learns per block of dimensions, and so the smallest number of candidates
_FIRST = 16  # the first trial searches one leaf in so many
_CURE = 'pip install "tensorflow~=2.20.0" scann'

Near = Callable[[tf.Tensor, Any], tuple[tf.Tensor, tf.Tensor]]
"""Takes queries [B, d] and a number of candidates n; returns scores [B, n], NaN after the last hit, and rows [B, n]."""


@dataclasses.dataclass(frozen=True, eq=False)
class ScaNN(Search):
    """ScaNN (scalable nearest neighbors): searches by `tfrs.layers.factorized_top_k.ScaNN`.

    Use it for a corpus that is too large to be compared with every query, if the server has the operations of scann.

    ScaNN compares a query with the centres of `num_leaves` leaves and with the codes of all candidates in the
    `num_leaves_to_search` best leaves. The `num_reordering_candidates` best of these are compared by their embeddings,
    so that scores are exact; candidates of other leaves or with inaccurate codes may be missed.

    A stock TensorFlow Serving cannot load such a version: it needs the operations `Scann>...` of the package scann, as
    in the image `google/tf-serving-scann`. `InvertedFile` needs none. `replace_candidates` and `add_candidates` refuse
    such a version, since leaves and codes are learned from the candidates.

    Args:
        min_recall: share of the true first `rerank_depth` candidates to be found, on average over sample queries.
        num_leaves: number of leaves; by default about the square root of the number of candidates.
        num_leaves_to_search: number of leaves per query; by default a sixteenth of them, doubled until `min_recall` is
            reached.
        num_reordering_candidates: number of candidates to compare by their embeddings, at least `max_k`; by default ten
            times `max_k`.
        dimensions_per_block: number of dimensions that share a code of 4 bits.
        training_iterations: iterations of the k-means that finds the leaves.
        queries: pandas table of query features on which the recall is measured at export, some hundred rows as they are
            expected in service; by default 256 rows made of the vocabularies.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> ScaNN(min_recall=0.9, num_leaves=1000).num_leaves
        1000

    Reference:
        Guo, Sun, Lindgren, Geng, Simcha, Chern, Kumar, "Accelerating Large-Scale Inference with Anisotropic Vector
        Quantization", ICML 2020, https://arxiv.org/abs/1908.10396. Unlike the paper, the codes minimise the isotropic
        error, since TFRS passes ScaNN no threshold for the anisotropic one; in a comparison with
        the same reordering, both found equally many candidates.

    Cost: one training of leaves and codes per number of leaves that is tried, some seconds for 100,000 candidates. A
    version stores, per candidate, one byte per block of dimensions and four bytes for the leaf; the first requests
    build the searched structure from them. The embeddings are in memory, too, but not stored.
    """

    min_recall: float = 0.95
    num_leaves: int | None = None
    num_leaves_to_search: int | None = None
    num_reordering_candidates: int | None = None
    dimensions_per_block: int = 2
    training_iterations: int = 12
    queries: Any = None

    def __post_init__(self) -> None:
        require_fraction(min_recall=self.min_recall)
        own = ("min_recall", "queries")
        counts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in own}
        require_positive_int(**{name: count for name, count in counts.items() if count is not None})

    def build_index(self, ids: np.ndarray, embeddings: tf.Tensor | Embed, max_k: int, queries: tf.Tensor) -> ScaNNIndex:
        """Return the index, see `Search.build_index`.

        Raises:
            ImportError: if scann is not installed, or belongs to another TensorFlow.
            ValueError: as in `ScaNNIndex`.
        """
        return ScaNNIndex(ids, embeddings, max_k, queries, self)

    def train(self, embeddings: np.ndarray, queries: np.ndarray, k: int) -> tuple[Near, dict[str, Any]]:
        """Return a trained search for the first k candidates, and its settings and recall for the manifest.

        Args:
            embeddings: float32 [C, d].
            queries: float32 [n, d], embeddings of sample queries.
            k: number of candidates wanted.

        Raises:
            ImportError: if scann is not installed, or belongs to another TensorFlow.
            ValueError: if there are fewer than 16 candidates, or `min_recall` is not reached.
        """
        count = len(embeddings)
        require(
            count >= _CODES,
            f"ScaNN needs {_CODES} candidates to learn its codes from; leave `search` out for so few.",
            candidates=count,
        )
        reordered = min(count, max(k, self.num_reordering_candidates or 10 * k))
        leaves = min(count, self.num_leaves or round(count**0.5))
        searched = min(leaves, self.num_leaves_to_search or max(1, leaves // _FIRST))
        tuning, held_out = halves(queries)
        while True:
            near = self._train(embeddings, leaves, searched)
            recall = recall_of(near, embeddings, tuning, k, reordered)
            if recall >= self.min_recall or self.num_leaves_to_search is not None or searched == leaves:
                break
            searched = min(leaves, 2 * searched)
        require(
            recall >= self.min_recall,
            f"ScaNN finds {recall:.3f} of the first {k} candidates with {searched} of {leaves} leaves and {reordered} "
            f"reordered candidates, less than `min_recall` {self.min_recall}; give more `num_leaves_to_search` (or "
            "None to choose it), more `num_reordering_candidates` or fewer `dimensions_per_block`.",
        )
        recall = recall_of(near, embeddings, held_out, k, reordered)
        measured = {"leaves": leaves, "leaves_searched": searched, "reordered": reordered, "recall": recall}
        return near, {**measured, "sample_queries": len(queries)}

    def _train(self, embeddings: np.ndarray, leaves: int, searched: int) -> Near:
        try:
            layer = tfrs.layers.factorized_top_k.ScaNN(
                num_leaves=leaves,
                num_leaves_to_search=searched,
                training_iterations=self.training_iterations,
                dimensions_per_block=self.dimensions_per_block,
            )
        except ImportError as error:
            raise ImportError(
                "`ScaNN` needs the package scann and the TensorFlow that it was built for (scann 1.4.2: 2.20, this is "
                f"{tf.__version__}): {_CURE}; or search by `InvertedFile`, which needs neither."
            ) from error
        layer.index(tf.constant(embeddings))
        # A function, since a layer would be saved as a Keras model; the exporter finds the variables that it reads.
        return lambda query, k: layer(query, k=k)


def recall_of(near: Near, embeddings: np.ndarray, queries: np.ndarray, k: int, reordered: int) -> float:
    """Return the share of the true first k candidates, averaged over queries, among the `reordered` found ones."""
    scores, found = (tensor.numpy() for tensor in near(tf.constant(queries), reordered))
    shares = []
    for query, rows, valid in zip(queries, found, ~np.isnan(scores), strict=True):
        best = np.argpartition(-(embeddings @ query), k - 1)[:k]
        shares.append(len(np.intersect1d(best, rows[valid])) / k)
    return float(np.mean(shares))


class ScaNNIndex(CorpusIndex):
    """The index that `ScaNN` builds: finds nearly all candidates with the largest dot products.

    Args:
        ids, embeddings, max_k: as in `CorpusIndex`.
        queries: float32 [n, d], embeddings of queries as they are expected, on which the recall is measured.
        settings: settings of the training and of the search.

    Raises:
        ImportError: if scann is not installed, or belongs to another TensorFlow.
        ValueError: as in `CorpusIndex`, if there are fewer than 16 candidates, or `settings.min_recall` is not reached.

    Cost: see `ScaNN`; n exclusions per query cost B (reordered + n) log n comparisons. A query that excludes nearly all
    found candidates costs an exact search.
    """

    namespaces = ("Scann",)

    def __init__(
        self, ids: np.ndarray, embeddings: tf.Tensor | Embed, max_k: int, queries: tf.Tensor, settings: ScaNN
    ) -> None:
        super().__init__(ids, embeddings, max_k)
        values = np.asarray(self._loaded.value("embeddings"))
        self._near, self._measured = settings.train(values, np.asarray(queries, np.float32), max_k)
        self._settings = settings

    def search(self, query: tf.Tensor, exclude_ids: tf.Tensor | None = None) -> Hits:
        """Return the `max_k` best candidates of each query among those that ScaNN finds.

        Args:
            query: float [B, d] or [B, K, d], as in `CorpusIndex.search`; each of the K vectors is searched.
            exclude_ids: raw ids [B, n] that must not be among the hits, as in `CorpusIndex.search`. A query for which
                fewer than `max_k` other candidates are found is compared with the whole corpus.
        """
        query = tf.cast(query, tf.float32)
        if query.shape.rank == 3:
            return search_each(self, query, exclude_ids)
        excluded = 0 if exclude_ids is None else tf.shape(exclude_ids)[1]
        near, rows = self._near(query, tf.minimum(self._measured["reordered"] + excluded, self.size))
        rows = tf.ensure_shape(rows, [None, None])
        scores = tf.reduce_sum(self.embeddings_at(rows) * query[:, None, :], axis=2)
        scores = tf.where(tf.math.is_nan(near), -np.inf, scores)
        columns = [[0, 0], [0, self.max_k]]  # top-k needs as many columns, and ScaNN may find fewer
        scores, rows = tf.pad(scores, columns, constant_values=-np.inf), tf.pad(rows, columns)
        if exclude_ids is not None:
            scores = self._without(scores, rows, exclude_ids)
        best, positions = tf.math.top_k(scores, self.max_k)
        best, rows = self._completed(query, best, tf.gather(rows, positions, batch_dims=1), exclude_ids)
        return self.hits_of(query, best, rows)

    def describe(self) -> dict[str, Any]:
        """Return the settings of ScaNN and its measured recall, as plain values."""
        settings = {name: getattr(self._settings, name) for name in ("min_recall", "dimensions_per_block")}
        library = f"scann {importlib.metadata.version('scann')}"
        return {"kind": "ScaNN", "library": library, **settings, **self._measured}
