"""The served computations of a recommender: raw features in, ids and values in label units out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmtl._checks import require, require_known
from tfmtl._keras import tf
from tfmtl.data.preprocessor import encoded_spec, raw_spec
from tfmtl.models import MultiTaskModel
from tfmtl.serving.corpus import compact
from tfmtl.serving.examples import MISSING, missing_row
from tfmtl.serving.index import CorpusIndex, Hits
from tfmtl.serving.restriction import restricted
from tfmtl.serving.score_fusion import ScoreFusion
from tfmtl.serving.search import Search
from tfmtl.serving.signature import Answer, FromExamples, Signature
from tfmtl.tasks import Ranking, Retrieval
from tfmtl.types import Features

Limits = tuple[tf.Tensor, tf.Tensor] | None  # ids to exclude [B, m], ids to restrict to [B, n]

_ROWS = 65_536  # candidates embedded at a time


class Recommender:
    """What a trained model can be asked over the network.

    Without a corpus or a retrieval task it only ranks.

    Args:
        model: the trained model.
        max_k, retrieval, fusion_weights, search: as in `RecommenderExporter`.

    Raises:
        ValueError: if `max_k` exceeds the number of candidates, a name is unknown, a weight is negative, an argument
            asks for retrieval from a model that cannot, or a feature or task has the name of a served tensor.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        max_k: int | None = None,
        retrieval: str | None = None,
        fusion_weights: Mapping[str, float] | None = None,
        search: Search | None = None,
    ) -> None:
        self.model = model
        self.schema = model.schema
        # Traced once and called by several signatures, which keeps the saved graph small.
        self._encoders = {role: self._encoder(role) for role in ("query", "candidate", "context")}
        encoded = {name: encoded_spec(feature) for name, feature in self.schema.features.items()}
        self._values = tf.function(self._predict, input_signature=[encoded], autograph=False)
        names = [task.name for task in model.tasks if isinstance(task, Retrieval)]
        corpus = model.candidates
        self.retrieves = bool(names) and corpus is not None
        if corpus is None or not names:
            asked = {"max_k": max_k, "retrieval": retrieval, "fusion_weights": fusion_weights, "search": search}
            asked = {name: value for name, value in asked.items() if value is not None}
            require(not asked, "Only a model with a retrieval task and `candidates` can retrieve.", **asked)
            return
        self.retrieval = names[0] if retrieval is None else retrieval
        require_known([self.retrieval], names, "task", "`retrieval` (the model's retrieval tasks)")
        specs = {feature.name: encoded_spec(feature) for feature in self.schema.candidate}
        self._candidate_tower = tf.function(self._embed_candidates, input_signature=[specs], autograph=False)
        self._columns = compact(corpus.features, model.preprocessor.statistics, self.schema.candidate)
        self._last_ids = corpus.ids[-4:]
        self._tower = model.tower("query")
        raw = {feature.name: raw_spec(feature) for feature in self.schema.query}
        self._embed = tf.function(self._embed_query, input_signature=[raw], autograph=False)
        self.index = self._index(corpus.ids, min(100, len(corpus)) if max_k is None else max_k, search)
        self._missing_context = model.preprocessor({f.name: missing_row(f) for f in self.schema.context})
        self.fusion = ScoreFusion.of(self._fusable(), model.preprocessor.statistics, self.retrieval, fusion_weights)
        self._check_names()

    def _index(self, ids: np.ndarray, max_k: int, search: Search | None) -> CorpusIndex:
        embed = tf.function(self._embed_corpus, autograph=False)
        if search is None:
            return CorpusIndex(ids, embed, max_k)
        queries = search.sample(self.schema, self.model.preprocessor.statistics)
        return search.build_index(ids, embed, max_k, self.embed_query(**queries)["embedding"])

    def _fusable(self) -> list[str]:
        """Return the tasks that have one value a candidate: the retrieval, and scalars of the pair."""
        row = {name: missing_row(feature) for name, feature in self.schema.features.items()}
        values = self.rank(**row)
        own = {t.name for t in self.model.tasks if not isinstance(t, Retrieval) and t.name not in self._of_query}
        return [n for n, value in values.items() if n == self.retrieval or (n in own and value.shape.rank == 1)]

    def _check_names(self) -> None:
        taken = sorted(
            {"exclude_ids", "restrict_ids", "k", "examples", *map(_weight, self.fusion.weights)}
            & set(self.schema.features)
        )
        require(not taken, f"The features {taken} have names of serving inputs; rename the columns.")
        taken = sorted({"ids", "scores"} & {task.name for task in self.model.tasks})
        require(not taken, f"The tasks {taken} have names of serving outputs; rename the tasks.")

    @property
    def _of_query(self) -> set[str]:
        """Tasks that predict something of the query alone, such as age."""
        return {task.name for task in self.model.tasks if isinstance(task, Ranking) and task.scope == "query"}

    def rank(self, /, **features: tf.Tensor) -> Answer:
        """Return each task's served value [B] or [B, classes] of given pairs."""
        return self._values({n: v for role in self._encoders for n, v in self._encode(role, features).items()})

    def retrieve(self, /, **query: tf.Tensor) -> Answer:
        """Return ids and scores [B, max_k] of the best candidates."""
        return self._retrieve(query)

    def retrieve_filtered(
        self, /, *, exclude_ids: tf.Tensor, restrict_ids: tf.Tensor, k: tf.Tensor, **query: tf.Tensor
    ) -> Answer:
        """Return the first `k` of those that are allowed, then padding."""
        return self._retrieve(query, (exclude_ids, restrict_ids), k)

    def embed_query(self, /, **query: tf.Tensor) -> Answer:
        """Return the query's embeddings [B, d], whose dot products with the candidates' are the scores."""
        return {"embedding": tf.cast(self._embed(query)[1], tf.float32)}

    def embed_candidate(self, /, **candidate: tf.Tensor) -> Answer:
        """Return the candidates' embeddings [B, d], of the corpus or not."""
        return {"embedding": self._candidate_tower(self._encode("candidate", candidate))}

    def recommend(self, /, **query: tf.Tensor) -> Answer:
        """Return ids, fused scores and task values of the best candidates."""
        return self._recommend(query)

    def recommend_filtered(
        self, /, *, exclude_ids: tf.Tensor, restrict_ids: tf.Tensor, k: tf.Tensor, **inputs: tf.Tensor
    ) -> Answer:
        """Return the first `k` of those that are allowed, fused with the request's weights."""
        weights = {name: inputs.pop(_weight(name)) for name in self.fusion.weights}
        return self._recommend(inputs, (exclude_ids, restrict_ids), k, weights)

    def signatures(self) -> dict[str, Signature]:
        """Return the signatures by name; `serving_default` recommends if the model retrieves, and ranks otherwise."""
        specs = {name: raw_spec(feature) for name, feature in self.schema.features.items()}
        rank = Signature(self.rank, specs)
        if not self.retrieves:
            return {"serving_default": rank, "rank": rank, "rank_examples": FromExamples.reading(rank)}
        query, candidate = (
            {f.name: specs[f.name] for f in role} for role in (self.schema.query, self.schema.candidate)
        )
        ids = {name: tf.TensorSpec([None, None], self.index.id_dtype, name) for name in ("exclude_ids", "restrict_ids")}
        cut = {**ids, "k": tf.TensorSpec([None], tf.int32, "k")}
        weights = {_weight(name): tf.TensorSpec([None], tf.float32, _weight(name)) for name in self.fusion.weights}
        last, max_k = self._last_ids, self.index.max_k
        nothing = np.full_like(last, MISSING[self.index.id_dtype])
        examples = {
            "exclude_ids": np.stack([last, last[::-1]]),
            "restrict_ids": np.stack([nothing, nothing, last]),
            "k": np.asarray([-1, max_k, 1, 0], np.int32),
        }
        weighed = {name: np.asarray([np.nan, 0.0, 2.0], np.float32) for name in weights}
        retrieve = Signature(self.retrieve_filtered, {**query, **cut}, examples)
        recommend = Signature(self.recommend_filtered, {**query, **cut, **weights}, {**examples, **weighed})
        both = Signature(self.recommend, query)
        embed_query, embed_candidate = Signature(self.embed_query, query), Signature(self.embed_candidate, candidate)
        return {
            "serving_default": both,
            "recommend": both,
            "recommend_filtered": recommend,
            "recommend_examples": FromExamples.reading(recommend),
            "retrieve": Signature(self.retrieve, query),
            "retrieve_filtered": retrieve,
            "retrieve_examples": FromExamples.reading(retrieve),
            "rank": rank,
            "rank_examples": FromExamples.reading(rank),
            "embed_query": embed_query,
            "embed_query_examples": FromExamples.reading(embed_query),
            "embed_candidate": embed_candidate,
            "embed_candidate_examples": FromExamples.reading(embed_candidate),
        }

    @property
    def resources(self) -> list[Any]:
        """Tables and modules that the signatures use."""
        read = {id(t) for encode in self._encoders.values() for t in encode.get_concrete_function().captured_inputs}
        tables = [table for table in self.model.preprocessor.tables.values() if id(table.resource_handle) in read]
        return [*tables, self.index] if self.retrieves else tables

    @property
    def functions(self) -> dict[str, Any]:
        """What `replace_candidates` needs to encode and embed candidates."""
        functions = (self._encoders["candidate"], self._candidate_tower) if self.retrieves else ()
        names = ("encode_candidates", "embed_candidates")[: len(functions)]
        return {name: function.get_concrete_function() for name, function in zip(names, functions, strict=True)}

    def describe(self) -> dict[str, Any]:
        """Return what a client must know besides the signatures, as plain values."""
        if not self.retrieves:
            return {}
        index = {"max_k": self.index.max_k, "candidates": int(self.index.size), "search": self.index.describe()}
        return {**index, "retrieval": self.retrieval, "fusion": self.fusion.describe()}

    def _predict(self, encoded: Features) -> Answer:
        outputs = self.model(encoded, training=False)
        return {task.name: tf.cast(task.predict(outputs[task.name]), tf.float32) for task in self.model.tasks}

    def _encoder(self, role: str) -> Any:
        specs = {feature.name: raw_spec(feature) for feature in getattr(self.schema, role)}
        encode = tf.function(lambda raw: self.model.preprocessor(raw), input_signature=[specs], autograph=False)
        encode.get_concrete_function()  # traced by a call, TensorFlow would warn of retracing at a second model's
        return encode

    def _encode(self, role: str, features: Features) -> Answer:
        """Return the encoded features of one role among the given raw ones."""
        return dict(self._encoders[role]({f.name: features[f.name] for f in getattr(self.schema, role)}))

    def _embed_candidates(self, encoded: Features) -> tf.Tensor:
        return tf.cast(self.model.tower("candidate")(encoded, training=False)[self.retrieval], tf.float32)

    def _embed_query(self, query: Features) -> tuple[Answer, tf.Tensor]:
        encoded = self._encode("query", query)
        return encoded, self._tower(encoded, training=False)[self.retrieval]

    def _candidates(self, rows: tf.Tensor) -> Features:
        """Return the encoded features of the candidates at `rows`."""
        gathered = {name: tf.gather(column, rows) for name, column in self._columns.items()}
        return {n: tf.cast(value, tf.int32) if value.dtype.is_integer else value for n, value in gathered.items()}

    def _embed_corpus(self) -> tf.Tensor:
        """Return the embeddings [C, d] of all candidates, a block of rows at a time."""
        size = tf.shape(next(iter(self._columns.values())))[0]
        blocks = -(-size // _ROWS)
        rows = -(-size // blocks)

        def embed(block: tf.Tensor) -> tf.Tensor:
            places = tf.minimum(block * rows + tf.range(rows), size - 1)  # the last block may reach beyond the end
            return self._candidate_tower(self._candidates(places))

        width = self._candidate_tower.get_concrete_function().structured_outputs.shape[-1]
        found = tf.map_fn(embed, tf.range(blocks), fn_output_signature=tf.float32, parallel_iterations=1)
        return tf.reshape(found, [blocks * rows, width])[:size]

    def _retrieve(self, query: Features, limits: Limits = None, k: tf.Tensor | None = None) -> Answer:
        _, embedding = self._embed(query)
        hits = self._search(embedding, limits)
        kept = self._first(hits.valid, k)
        return {"ids": self.index.ids(hits.rows, kept), "scores": tf.where(kept, hits.scores, 0.0)}

    def _search(self, embedding: tf.Tensor, limits: Limits) -> Hits:
        if limits is None:
            return self.index.search(embedding)
        exclude_ids, restrict_ids = limits
        found = self.index.search(embedding, exclude_ids)
        return restricted(self.index, embedding, found, exclude_ids, restrict_ids)

    def _recommend(
        self,
        query: Features,
        limits: Limits = None,
        k: tf.Tensor | None = None,
        weights: Mapping[str, tf.Tensor] | None = None,
    ) -> Answer:
        encoded, embedding = self._embed(query)
        values = self._values_of_hits(encoded, hits := self._search(embedding, limits))
        fused = self.fusion(values, hits, weights)
        order = tf.math.top_k(tf.where(hits.valid, fused, -np.inf), self.index.max_k).indices
        kept = self._first(tf.gather(hits.valid, order, batch_dims=1), k)
        answer = {
            "ids": self.index.ids(tf.gather(hits.rows, order, batch_dims=1), kept),
            "scores": _pick(fused, order, kept),
        }
        for name, value in values.items():
            answer[name] = value[:, 0] if name in self._of_query else _pick(value, order, kept)
        return answer

    def _values_of_hits(self, encoded: Features, hits: Hits) -> Answer:
        """Rank every query's hits: [B, max_k] or [B, max_k, classes] by task."""
        batch, k = tf.shape(hits.rows)[0], self.index.max_k
        rows = tf.reshape(hits.rows, [batch * k])
        pairs = {name: tf.repeat(value, k, axis=0) for name, value in encoded.items()}
        pairs |= self._candidates(rows)
        for name, value in self._missing_context.items():
            pairs[name] = tf.repeat(value, batch * k, axis=0)
        values = {name: tf.reshape(value, [batch, k, *value.shape[1:]]) for name, value in self._values(pairs).items()}
        return {**values, self.retrieval: hits.scores}

    def _first(self, valid: tf.Tensor, k: tf.Tensor | None) -> tf.Tensor:
        """Keep the first `k` positions; a negative `k` stands for a missing one and keeps all."""
        if k is None:
            return valid
        limit = tf.where(k < 0, self.index.max_k, k)
        return valid & (tf.range(self.index.max_k) < limit[:, tf.newaxis])


def _weight(task: str) -> str:
    return f"weight_{task}"


def _pick(values: tf.Tensor, order: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Reorder values [B, k, ...] and put 0 where nothing is kept."""
    mask = kept if values.shape.rank == 2 else kept[..., tf.newaxis]
    return tf.where(mask, tf.gather(values, order, batch_dims=1), 0.0)
