"""Recommender: the served computations of a model with retrieval, from raw features to ids and task values."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl._keras import tf
from tfmtl._names import check_served, filter_inputs, layer_name, weight_input
from tfmtl.data import Feature, Statistics
from tfmtl.data.preprocessor import missing_row
from tfmtl.models import MultiTaskModel
from tfmtl.serving.contextual_weights import ContextTable, ContextualWeights
from tfmtl.serving.copied_hits import CopiedHits
from tfmtl.serving.index import CorpusIndex, Hits, Search, check_depth
from tfmtl.serving.ranker import Ranker, traced_once, unnamed
from tfmtl.serving.score_fusion import ScoreFusion
from tfmtl.serving.signature import Answer
from tfmtl.serving.slice_weights import SliceTable, SliceWeights
from tfmtl.tasks.interests import by_interest, interests_in
from tfmtl.types import Features

if TYPE_CHECKING:
    from tfmtl.serving.explainer import Explainer

Limits = tuple[tf.Tensor, tf.Tensor] | None  # ids to exclude [B, m], ids to restrict to [B, n]

ROWS = 65_536
"""Candidates that are embedded at a time."""


class Ranked(NamedTuple):
    """The candidates of each query that `recommend` orders.

    Attributes:
        encoded: encoded features of query and context by name.
        embedding: [B, d] or [B, K, d] of the queries.
        hits: the retrieved candidates.
        values: served values [B, rerank_depth] or [B, rerank_depth, classes] by task.
    """

    encoded: Features
    embedding: tf.Tensor
    hits: Hits
    values: Answer


def retrieves(model: MultiTaskModel) -> bool:
    """Return whether a model has a retrieval task and a corpus, so that a `Recommender` can serve it."""
    return model.candidates is not None and any(task.retrieves for task in model.tasks)


class Recommender(Ranker):
    """The computations that are served for a model with a retrieval task and a corpus.

    Args:
        model: the trained model.
        max_k, rerank_depth, retrieval, fusion_weights, search: as in `RecommenderExporter`.
        explainer: as in `Ranker`; also gives the reasons of recommendations.

    Attributes:
        max_k: number of candidates in an answer.
        index: the corpus; its `max_k` is the number of candidates that `recommend` ranks.
        fusion: the rule that orders the candidates of `recommend`.
        last_ids: up to four ids of the corpus, for probes.

    Raises:
        ValueError: if the model has no retrieval task or no candidates, `max_k` exceeds `rerank_depth`, either
            exceeds the number of candidates, a name is unknown, a weight is not finite, or a feature or task has the
            name of a served tensor.
    """

    default = "recommend"

    def __init__(
        self,
        model: MultiTaskModel,
        max_k: int | None = None,
        rerank_depth: int | None = None,
        retrieval: str | None = None,
        fusion_weights: Mapping[str, float] | SliceWeights | ContextualWeights | None = None,
        search: Search | None = None,
        explainer: Explainer | None = None,
    ) -> None:
        corpus = model.candidates
        if corpus is None or not retrieves(model):
            raise ValueError("A `Recommender` needs a model with a retrieval task and `candidates`; use a `Ranker`.")
        super().__init__(model, explainer)
        undesired = {label.task for label in self.schema.labels if not label.desired}
        self.retrieval = _served_retrieval(model, retrieval, undesired)
        specs = {feature.name: feature.encoded_spec for feature in self.schema.candidate}
        self._candidate_tower = traced_once(self._embed_candidates, unnamed(specs))
        self._columns = _compact(corpus.features, model.preprocessor.statistics, self.schema.candidate)
        self.last_ids = corpus.ids[-4:]
        self._tower = model.tower("query")
        self._embed = traced_once(self._embed_query, unnamed(self.specs("query")))
        self.max_k, depth = _depths(len(corpus), max_k, rerank_depth)
        self.index = self._build_index(corpus.ids, depth, search)
        self._copied = self._copied_hits()
        statistics = model.preprocessor.statistics
        complete = functools.partial(ScoreFusion.of, self._fusable(), statistics, self.retrieval, undesired=undesired)
        self._by_query: SliceTable | ContextTable | None = None
        if isinstance(fusion_weights, SliceWeights):
            self._by_query = SliceTable(fusion_weights, model.preprocessor, lambda given: complete(given).weights)
            fusion_weights = fusion_weights.weights
        elif isinstance(fusion_weights, ContextualWeights):
            self._by_query = ContextTable(fusion_weights, self._width(), lambda given: complete(given).weights)
            fusion_weights = fusion_weights.weights
        self.fusion = complete(fusion_weights)
        check_served(self.specs("query", "context"), [task.name for task in model.tasks])

    def retrieve(self, /, **query: tf.Tensor) -> Answer:
        """Return ids and scores [B, max_k] of the best candidates."""
        return self._retrieve(query)

    def retrieve_filtered(
        self, /, *, exclude_ids: tf.Tensor, restrict_ids: tf.Tensor, k: tf.Tensor, **query: tf.Tensor
    ) -> Answer:
        """Return ids and scores of the first `k` allowed candidates, then padding up to `max_k`."""
        return self._retrieve(query, (exclude_ids, restrict_ids), k)

    def recommend(self, /, **query: tf.Tensor) -> Answer:
        """Return ids, fused scores and task values [B, max_k] of the best candidates, without a context."""
        return self._recommend(self.without_context(query))

    def recommend_filtered(
        self, /, *, exclude_ids: tf.Tensor, restrict_ids: tf.Tensor, k: tf.Tensor, **inputs: tf.Tensor
    ) -> Answer:
        """Return the first `k` allowed candidates, ranked in a context and ordered by the weights of the request."""
        weights = {name: inputs.pop(weight_input(name)) for name in self.fusion.weights}
        return self._recommend(inputs, (exclude_ids, restrict_ids), k, weights)

    def recommend_within(self, query: Features, limits: Limits) -> Answer:
        """Return the answer of `recommend` within limits: ids to exclude [B, m] and to restrict to [B, n], or None."""
        return self._recommend(self.without_context(query), limits)

    def without_context(self, query: Features) -> Features:
        """Return raw query features together with missing values of the context."""
        missing = {feature.name: missing_row(feature) for feature in self.schema.context}
        rows = tf.shape(next(iter(query.values())))[0]
        return {**query, **{name: tf.repeat(row, rows, axis=0) for name, row in missing.items()}}

    def shortlist(self, features: Features, limits: Limits = None) -> Ranked:
        """Return the candidates that `recommend` orders.

        Args:
            features: raw features of query and context by name.
            limits: ids to exclude [B, m] and ids to restrict to [B, n], or None.
        """
        context = self.encode("context", features)
        query, embedding = self._embed({feature.name: features[feature.name] for feature in self.schema.query})
        hits = self._search(query, embedding, limits)
        encoded = {**query, **context}
        return Ranked(encoded, embedding, hits, self._values_of_hits(encoded, hits))

    def embed_query(self, /, **query: tf.Tensor) -> Answer:
        """Return the embeddings of queries, [B, d] or, with K vectors, [B, K, d].

        Their dot products with those of candidates are the scores, and the largest one of K vectors.
        """
        return {"embedding": tf.cast(self._embed(query)[1], tf.float32)}

    def embed_candidate(self, /, **candidate: tf.Tensor) -> Answer:
        """Return the embeddings [B, d] of candidates inside or outside the corpus."""
        return {"embedding": self._candidate_tower(self.encode("candidate", candidate))}

    @property
    def taken(self) -> Collection[str]:
        """The filters and weights."""
        return filter_inputs(self.fusion.weights)

    @property
    def namespaces(self) -> Sequence[str]:
        """The namespaces of the operations of the search."""
        return self.index.namespaces

    @property
    def resources(self) -> list[Any]:
        """The lookup tables of the features, and the index."""
        return [*super().resources, self.index, *([] if self._copied is None else [self._copied])]

    @property
    def functions(self) -> dict[str, Any]:
        """The functions with which `replace_candidates` encodes and embeds candidates."""
        return {"encode_candidates": self._encoders["candidate"], "embed_candidates": self._candidate_tower}

    def describe(self) -> dict[str, Any]:
        """Return the settings of retrieval and fusion, as plain values."""
        depths = {"max_k": self.max_k, "rerank_depth": self.index.max_k}
        counts = {"candidates": int(self.index.size), "min_candidates": 1}  # the latter is for `replace_candidates`
        index = {**depths, **counts, "search": self.index.describe()}
        copied = {} if self._copied is None else {"copy": self._copied.copy.config()}
        fusion = {"fusion": self.fusion.describe()}
        if self._by_query is not None:
            fusion |= self._by_query.describe()
        return {**super().describe(), **index, "retrieval": self.retrieval, **copied, **fusion}

    def _build_index(self, ids: np.ndarray, depth: int, search: Search | None) -> CorpusIndex:
        embed = traced_once(self._embed_corpus)
        if search is None:
            return CorpusIndex(ids, embed, depth)
        queries = search.sample(self.schema, self.model.preprocessor.statistics)
        vectors = self.embed_query(**queries)["embedding"]
        if vectors.shape.rank == 3:
            vectors = tf.transpose(vectors, [1, 0, 2])  # by interest: every second row then has vectors of each
        return search.build_index(ids, embed, depth, tf.reshape(vectors, [-1, vectors.shape[-1]]))

    def _copied_hits(self) -> CopiedHits | None:
        """Return the merge with the candidates of the history; None if the served task copies none."""
        copy = next(getattr(task, "copy", None) for task in self.model.tasks if task.name == self.retrieval)
        if copy is None:
            return None
        name = self.schema.candidate_id
        return CopiedHits(copy, self.index, self._columns[name], self.model.preprocessor.statistics.size(name))

    def _fusable(self) -> list[str]:
        """Return the tasks with one value per candidate: the served retrieval, and scalars of the pair."""
        row = {name: missing_row(feature) for name, feature in self.schema.features.items()}
        values = self.rank(**row)
        own = {t.name for t in self.model.tasks if not t.retrieves and t.name not in self._of_query}
        return [n for n, value in values.items() if n == self.retrieval or (n in own and value.shape.rank == 1)]

    @property
    def _of_query(self) -> set[str]:
        """The tasks that predict a property of the query alone, such as age."""
        return {task.name for task in self.model.tasks if task.query_only}

    def _embed_candidates(self, encoded: Features) -> tf.Tensor:
        return tf.cast(self.model.tower("candidate")(encoded, training=False)[self.retrieval], tf.float32)

    def _embed_query(self, query: Features) -> tuple[Answer, tf.Tensor]:
        encoded = self.encode("query", query)
        embedding = self._tower(encoded, training=False)[self.retrieval]
        interests = interests_in(embedding, self._candidate_tower.structured_outputs)
        return encoded, embedding if interests == 1 else by_interest(embedding, interests)

    def _candidates(self, rows: tf.Tensor) -> Features:
        """Return the encoded features of the candidates at `rows`."""
        gathered = {name: tf.gather(column, rows) for name, column in self._columns.items()}
        return {n: tf.cast(value, tf.int32) if value.dtype.is_integer else value for n, value in gathered.items()}

    def _width(self) -> int:
        """Return the number of values in the embedding of a query."""
        row = {feature.name: missing_row(feature) for feature in self.schema.query}
        return int(np.size(self.embed_query(**row)["embedding"]))

    def _embed_corpus(self) -> tf.Tensor:
        """Return the embeddings [C, d] of all candidates, computed in blocks of rows."""
        size = tf.shape(next(iter(self._columns.values())))[0]
        blocks = -(-size // ROWS)
        rows = -(-size // blocks)

        def embed(block: tf.Tensor) -> tf.Tensor:
            positions = tf.minimum(block * rows + tf.range(rows), size - 1)  # the last block may reach beyond the end
            return self._candidate_tower(self._candidates(positions))

        width = self._candidate_tower.structured_outputs.shape[-1]
        found = tf.map_fn(embed, tf.range(blocks), fn_output_signature=tf.float32, parallel_iterations=1)
        return tf.reshape(found, [blocks * rows, width])[:size]

    def _retrieve(self, query: Features, limits: Limits = None, k: tf.Tensor | None = None) -> Answer:
        encoded, embedding = self._embed(query)
        hits = self._search(encoded, embedding, limits)
        rows, scores, valid = (tensor[:, : self.max_k] for tensor in (hits.rows, hits.scores, hits.valid))
        kept = self._first(valid, k)
        return {"ids": self.index.ids(rows, kept), "scores": tf.where(kept, scores, 0.0)}

    def _search(self, encoded: Features, embedding: tf.Tensor, limits: Limits) -> Hits:
        exclude_ids, restrict_ids = (None, None) if limits is None else limits
        found = self.index.search(embedding, exclude_ids)
        if exclude_ids is not None and restrict_ids is not None:
            found = self.index.restrict(embedding, found, exclude_ids, restrict_ids)
        if self._copied is None:
            return found
        return self._copied.merge(embedding, encoded[self._copied.copy.history], found, exclude_ids, restrict_ids)

    def _recommend(
        self,
        features: Features,
        limits: Limits = None,
        k: tf.Tensor | None = None,
        weights: Mapping[str, tf.Tensor] | None = None,
    ) -> Answer:
        encoded, embedding, hits, values = self.shortlist(features, limits)
        if self._by_query is not None:
            weights = self._by_query(encoded, embedding, weights)
        fused = self.fusion(values, hits, weights)
        order = tf.math.top_k(tf.where(hits.valid, fused, -np.inf), self.max_k).indices
        kept = self._first(tf.gather(hits.valid, order, batch_dims=1), k)
        answer = {
            "ids": self.index.ids(tf.gather(hits.rows, order, batch_dims=1), kept),
            "scores": _pick(fused, order, kept),
        }
        for name, value in values.items():
            answer[name] = value[:, 0] if name in self._of_query else _pick(value, order, kept)
        if self.explainer is not None and self.explainer.settings.reasons:
            answer |= self._reasons(self.explainer, encoded, tf.gather(hits.rows, order, batch_dims=1), kept)
        return answer

    def _reasons(self, explainer: Explainer, encoded: Features, rows: tf.Tensor, kept: tf.Tensor) -> Answer:
        """Return the reasons [B, max_k, reasons] of the candidates at `rows` [B, max_k] by output."""
        pairs = {name: tf.repeat(value, self.max_k, axis=0) for name, value in encoded.items()}
        found = explainer.reasons({**pairs, **self._candidates(tf.reshape(rows, [-1]))})
        wide = {n: tf.reshape(v, [tf.shape(kept)[0], self.max_k, v.shape[1]]) for n, v in found.items()}
        return {n: tf.where(kept[..., tf.newaxis], v, tf.zeros([], v.dtype)) for n, v in wide.items()}

    def _values_of_hits(self, encoded: Features, hits: Hits) -> Answer:
        """Rank the hits of every query: [B, rerank_depth] or [B, rerank_depth, classes] by task."""
        batch, depth = tf.shape(hits.rows)[0], self.index.max_k
        rows = tf.reshape(hits.rows, [batch * depth])
        pairs = {name: tf.repeat(value, depth, axis=0) for name, value in encoded.items()}
        pairs |= self._candidates(rows)
        values = {n: tf.reshape(v, [batch, depth, *v.shape[1:]]) for n, v in self._values(pairs).items()}
        return {**values, self.retrieval: hits.scores}

    def _first(self, valid: tf.Tensor, k: tf.Tensor | None) -> tf.Tensor:
        """Keep the first `k` positions; a negative `k` is a missing one and keeps all."""
        if k is None:
            return valid
        limit = tf.where(k < 0, self.max_k, k)
        return valid & (tf.range(self.max_k) < limit[:, tf.newaxis])


def _depths(candidates: int, max_k: int | None, rerank_depth: int | None) -> tuple[int, int]:
    """Return the length of an answer and the number of candidates to rank; by default 100, or the whole corpus."""
    usual = min(100, candidates)
    length = usual if max_k is None else max_k
    require_positive_int(max_k=length)
    depth = max(usual, length) if rerank_depth is None else rerank_depth
    require_positive_int(rerank_depth=depth)
    check_depth(candidates, max_k=length, rerank_depth=depth)
    rule = (
        "`rerank_depth` must be at least `max_k`, since `recommend` returns the best of the candidates that it ranks."
    )
    require(depth >= length, rule, rerank_depth=depth, max_k=length)
    return length, depth


def _served_retrieval(model: MultiTaskModel, given: str | None, undesired: Collection[str]) -> str:
    """Return the retrieval task to serve: the given one, or the first that retrieves desired candidates."""
    names = [task.name for task in model.tasks if task.retrieves]
    desired = [name for name in names if name not in undesired]
    require(
        given is not None or bool(desired),
        f"All labels of the retrieval tasks {names} are undesired; name the task to serve in `retrieval`.",
    )
    served = desired[0] if given is None else given
    require_known([served], names, "task", "`retrieval` (the model's retrieval tasks)")
    return served


def _compact(
    columns: Mapping[str, tf.Tensor], statistics: Statistics, features: Sequence[Feature]
) -> dict[str, tf.Variable]:
    """Store encoded candidates [C, ...], indices in the smallest integers that hold their vocabularies.

    The number of candidates is no part of the shape: `replace_candidates` may change it. It finds the variables by
    their names, `candidate_<feature>`.
    """
    found = {}
    for feature in features:
        column = columns[feature.name]
        if feature.vocabulary is not None:
            largest = statistics.size(feature.vocabulary) - 1
            column = tf.cast(column, next(t for t in (tf.uint8, tf.uint16, tf.int32) if largest <= t.max))
        shape = [None, *column.shape[1:]]
        found[feature.name] = tf.Variable(
            column, trainable=False, name=layer_name(f"candidate_{feature.name}"), shape=shape
        )
    return found


def _pick(values: tf.Tensor, order: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Reorder values [B, k, ...] and put 0 where nothing is kept."""
    mask = kept if values.shape.rank == 2 else kept[..., tf.newaxis]
    return tf.where(mask, tf.gather(values, order, batch_dims=1), 0.0)
