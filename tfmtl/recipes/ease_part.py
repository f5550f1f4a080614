"""EASE and popularity as fixed coordinates of a retrieval task's embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import scipy.sparse

from tfmtl._checks import require
from tfmtl._identity import FIRST
from tfmtl._keras import keras, tf
from tfmtl._names import layer_name
from tfmtl.baselines import Decomposition, PairFactors, als_factors, decompose
from tfmtl.data import Batch, IdSequence, Preprocessor, Schema
from tfmtl.evaluation.corpus import positives
from tfmtl.models import MultiTaskModel
from tfmtl.models.keras_arguments import require_compiled
from tfmtl.models.optimizer_copies import fresh_copy
from tfmtl.recipes.neighbor_part import Similarities
from tfmtl.tasks.interests import interests_in, joined_to_each

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Weighting = Literal["binary", "log"]
"""The entry of a pair with n interactions: 1, or 1 + log(n)."""
_PASSES, _FEW = 10, 3
"""Iterations of ALS, and those from factors for almost the same rows."""
_HELD = 0.5
"""Share of the squares of a matrix's entries, held by a decomposition, below which its normalized form is tried."""


def sources_of(schema: Schema) -> list[str]:
    """Return the features from which a query's history can be read: the user's id, and histories of candidates."""
    vocabulary = schema.features[schema.candidate_id].vocabulary
    histories = [f.name for f in schema.query if isinstance(f, IdSequence) and f.vocabulary == vocabulary]
    user = [schema.query_id] if schema.query_id in {f.name for f in schema.query} else []
    return [*user, *histories]


class EaseSettings(NamedTuple):
    """Settings of EASE.

    Attributes:
        weighting: see `Weighting`.
        source: query feature with the history, or the user's id.
        regularizations: see `tfmtl.baselines.ease_factors`; the scores of several are averaged.
        normalized: whether EASE is that of entries x_qi / (d_q^1/2 d_i^1/4) with the sums d of rows and columns, and of
            regularizations in the unit of their squares.
        als: factor of the scores of ALS beside EASE's; 0 without them.
        recency: exponent p of the factor (1 + j)^-p of the candidate at position j of a history, most recent first; 0
            for the plain sum, and for the user's id.
        half_life: share of the newest rows after which a row counts half in the popularity; 0 if all count alike.
    """

    weighting: Weighting
    source: str
    regularizations: tuple[float, ...]
    normalized: bool = False
    als: float = 0.0
    recency: float = 0.0
    half_life: float = 0.0


def weighted(counts: Any, weighting: Weighting) -> Any:
    """Return the entries of a matrix of counts weighted."""
    matrix = counts.copy()
    matrix.data = np.ones_like(matrix.data) if weighting == "binary" else 1 + np.log(matrix.data)
    return matrix


@dataclasses.dataclass(frozen=True)
class EasePart:
    """The embeddings that EASE and popularity add to those of a network.

    The score of query q and candidate i is w_n <u_q, v_i> + w_e sum_{j in history(q)} x_qj <Q_j, C_i> +
    w_p log(1 + n_i): the network's, EASE's, and the log of the number n_i of interactions. All are coordinates of one
    dot product. The entries x_qj of a history are (1 + position)^-recency.

    Attributes:
        task: the retrieval task.
        source: query feature that is the user's id, or a history of candidate ids.
        query: embedding [V, d] of each index of the source's vocabulary.
        candidate: embedding [C, d] of each index of the candidates' vocabulary.
        popularity: log(1 + n) [C] of each index of the candidates' vocabulary; n is that of `EaseParts.fading` if it
            fades.
        weights: w_n, w_e and w_p; a part with weight 0 is left out.
        recency: as in `EaseSettings`.
    """

    task: str
    source: str
    query: Floats
    candidate: Floats
    popularity: Floats
    weights: tuple[float, float, float] = (1.0, 1.0, 0.0)
    recency: float = 0.0

    def queries(self, features: Mapping[str, Any]) -> Floats:
        """Return EASE's embeddings [n, d] of encoded queries."""
        indices = np.asarray(features[self.source])
        if indices.ndim == 1:
            return np.asarray(self.query[indices])
        found = np.zeros([len(indices), self.query.shape[1]], np.float32)
        for position, entry in enumerate(self._entries(indices.shape[1])):  # [n, length, d] can take gigabytes
            found += entry * self.query[indices[:, position]]
        return found

    def _entries(self, length: int) -> Floats:
        """Return the entry [length] of each position of a history."""
        found: Floats = (1 + np.arange(length, dtype=np.float32)) ** np.float32(-self.recency)
        return found

    def candidates(self, indices: npt.ArrayLike) -> Floats:
        """Return EASE's embeddings [n, d] of candidates by their encoded ids."""
        rows: Floats = self.candidate[np.asarray(indices)]
        return rows

    def beside(self, other: EasePart, scale: float) -> EasePart:
        """Return the part with the scores of this one plus `scale` times those of another one of the same source."""
        query = np.concatenate([self.query, other.query], axis=1)
        candidate = np.concatenate([self.candidate, np.float32(scale) * other.candidate], axis=1)
        return dataclasses.replace(self, query=query, candidate=candidate)

    def join(self, model: MultiTaskModel) -> MultiTaskModel:
        """Return a compiled model of the same class and state with this part in its scores.

        The tables are not trained. They can grow, be saved and exported like those of other embeddings.

        Raises:
            RuntimeError: if the model is not compiled.
            ValueError: if no weight is above 0.
        """
        network, ease, popularity = self.weights
        require(max(self.weights) > 0, "One of `weights` must be above 0.", weights=self.weights)
        require_compiled(model, "join_ease")
        inputs, outputs = model.network.input, dict(model.network.output)
        own = outputs[self.task]
        query, candidate = ([own[side]] if network > 0 else [] for side in ("query", "candidate"))
        interests = interests_in(own["query"], own["candidate"]) if network > 0 else 1
        if network > 0:
            query = [keras.layers.Rescaling(network, name=f"{self.task}_ease_network")(own["query"])]
        item = model.schema.candidate_id
        if ease > 0:
            rows = _table(ease * self.query, f"{self.task}_ease_query", model.schema, self.source)(inputs[self.source])
            if self.recency and len(rows.shape) == 3:
                rows *= self._entries(rows.shape[1])[:, np.newaxis].tolist()  # numbers take the type of the rows
            query.append(tf.reduce_sum(rows, axis=1) if len(rows.shape) == 3 else rows)
            table = _table(self.candidate, f"{self.task}_ease_candidate", model.schema, item)
            candidate.append(table(inputs[item]))
        if popularity > 0:
            query.append(tf.ones_like(tf.cast(query[0] if query else own["query"], tf.float32)[:, :1]))
            column = _table(popularity * self.popularity[:, None], f"{self.task}_ease_popularity", model.schema, item)
            candidate.append(column(inputs[item]))
        outputs[self.task] = {
            side: joined_to_each(parts[0], parts[1:], number, f"{self.task}_ease_{side}") if parts[1:] else parts[0]
            for side, parts, number in (("query", query, interests), ("candidate", candidate, 1))
        }
        return _compiled(model, outputs)


def without_ease(model: MultiTaskModel, task: str) -> MultiTaskModel:
    """Return a compiled model with the network alone in the scores of a task; the given one if it has no EASE.

    Raises:
        ValueError: if the scores are those of EASE and popularity alone.
    """
    layers = {layer.name: layer for layer in model.network.layers if layer.name.startswith(f"{task}_ease_")}
    if not layers:
        return model
    name, candidate = f"{task}_ease_network", layers.get(f"{task}_ease_candidate")
    require(name in layers, f"The retrieval task {task!r} has EASE alone, without a network; train a new model.")
    outputs = dict(model.network.output)
    own = outputs[task]["candidate"] if candidate is None else candidate.input[0]
    return _compiled(model, {**outputs, task: {"query": layers[name].input, "candidate": own}})


def _compiled(model: MultiTaskModel, outputs: Mapping[str, Any]) -> MultiTaskModel:
    """Return a compiled model of the same class and state with other outputs of the same layers."""
    found = model.with_network(keras.Model(model.network.input, outputs, name=model.network.name))
    found.compile(fresh_copy(model.optimizer))
    return found


@dataclasses.dataclass(frozen=True)
class EaseParts:
    """Computes `EasePart` from encoded rows.

    Attributes:
        preprocessor: holds the schema and the sizes of the vocabularies.
        task: the retrieval task.
        rank: width of the embeddings, at most.
        seed: seed of the decomposition.
        moments: by batch, numbers [n] that order its rows in time; () if they are unknown.
        decomposed: the first decomposition by weighting and normalization, from which `fit` takes one step.
        sparse: the weightings with matrices of which the rank holds less than half of the squares.
        factors: the first factors of ALS by weighting, from which `fit` takes a few passes.
    """

    preprocessor: Preprocessor
    task: str
    rank: int
    seed: int
    moments: Sequence[Ints] = ()
    decomposed: dict[tuple[Weighting, bool], Decomposition] = dataclasses.field(default_factory=dict)
    sparse: set[Weighting] = dataclasses.field(default_factory=set)
    factors: dict[Weighting, PairFactors] = dataclasses.field(default_factory=dict)

    def options(self, batches: Sequence[Batch], regularizations: Sequence[float]) -> dict[EaseSettings, EasePart]:
        """Return the part for each source of the history, weighting that differs, and single regularization.

        Both normalizations are options only if the rank holds less than half of the squares of the entries: then the
        normalized entries put other, less frequent candidates among the largest singular values.
        """
        counts = self.counts(batches)
        weightings = get_args(Weighting) if counts.max() > 1 else ("binary",)
        found = {}
        for name in weightings:
            found.update(self._parts(counts, name, False, regularizations))
            held = np.square(self.decomposed[name, False].values).sum()
            if held < _HELD * weighted(counts, name).power(2).sum():
                self.sparse.add(name)
                found.update(self._parts(counts, name, True, regularizations))
        return found

    def fit(self, batches: Sequence[Batch], settings: EaseSettings) -> EasePart:
        """Return the part for one choice of settings."""
        chosen = settings.weighting, settings.normalized, settings.regularizations
        base = settings._replace(als=0.0, recency=0.0, half_life=0.0)
        part = mean(self._parts(self.counts(batches), *chosen), base)
        part = dataclasses.replace(part, recency=settings.recency)
        if settings.half_life > 0:
            part = dataclasses.replace(part, popularity=self.fading(batches, settings.half_life))
        als = self.als(batches, settings) if settings.als > 0 else None
        return part if als is None else part.beside(als, settings.als)

    def als(self, batches: Sequence[Batch], settings: EaseSettings) -> EasePart | None:
        """Return the factors of ALS as a part, or None where they hardly help: see `sparse`.

        A user without interactions has the score 0, so that a history as the source has no such part.
        """
        name = settings.weighting
        if name not in self.sparse or settings.source != self.preprocessor.schema.query_id:
            return None
        counts, start = self.counts(batches), self.factors.get(name)
        passes = _PASSES if start is None else _FEW
        found = als_factors(weighted(counts, name), iterations=passes, seed=self.seed, start=start)
        self.factors.setdefault(name, found)
        return EasePart(self.task, settings.source, *found, popularity=_popularity(counts))

    def similarities(self, batches: Sequence[Batch], settings: EaseSettings) -> Similarities | None:
        """Return the similarities of candidates, or None where EASE holds most of them; see `sparse`."""
        counts = self.counts(batches) if settings.weighting in self.sparse else None
        return Similarities(counts) if counts is not None and Similarities.cheap(counts) else None

    def fading(self, batches: Sequence[Batch], half_life: float) -> Floats:
        """Return log(1 + n) [C] of each candidate, with the sum n of 2^(-age / half_life) over its positive rows.

        The age of a row is the share of the positive rows that are newer. Users and candidates outside the vocabularies
        do not count, as in `counts`.
        """
        rows = [positives(batch, self.task) for batch in batches]
        moments = np.concatenate([moment[chosen] for moment, chosen in zip(self.moments, rows, strict=False)])
        schema = self.preprocessor.schema
        users, items = (
            np.concatenate([np.asarray(b.features[name])[chosen] for b, chosen in zip(batches, rows, strict=True)])
            for name in (schema.query_id, schema.candidate_id)
        )
        age = 1 - np.searchsorted(np.sort(moments), moments, side="right") / len(moments)
        weights = np.where((users >= FIRST) & (items >= FIRST), 2.0 ** (-age / half_life), 0.0)
        return np.asarray(
            np.log1p(np.bincount(items, weights, self.preprocessor.statistics.size(schema.candidate_id))), np.float32
        )

    def counts(self, batches: Sequence[Batch]) -> Any:
        """Return how often each user and candidate of the vocabularies occur in positive rows, CSR [users, candidates].

        Users and candidates outside the vocabularies share an embedding row and cannot have one of their own: they are
        left out.
        """
        schema, size = self.preprocessor.schema, self.preprocessor.statistics.size
        names, pairs = (schema.query_id, schema.candidate_id), []
        for batch in batches:
            rows = positives(batch, self.task)
            pairs.append(np.stack([batch.features[name].numpy()[rows] for name in names]).astype(np.int64))
        users, items = np.concatenate(pairs, axis=1)
        known = (users >= FIRST) & (items >= FIRST)
        require(bool(known.any()), f"No positive of {self.task!r} has a user and a candidate of the vocabularies.")
        sizes = tuple(size(name) for name in names)
        matrix = scipy.sparse.csr_matrix((np.ones(known.sum()), (users[known], items[known])), sizes)
        matrix.sum_duplicates()
        return matrix

    def _parts(
        self, counts: Any, weighting: Weighting, normalized: bool, regularizations: Sequence[float]
    ) -> dict[EaseSettings, EasePart]:
        schema, matrix, key = self.preprocessor.schema, weighted(counts, weighting), (weighting, normalized)
        rows, columns = _scales(matrix) if normalized else (np.ones(size) for size in matrix.shape)
        scaled = scipy.sparse.diags(rows) @ matrix @ scipy.sparse.diags(columns)
        unit = scaled.power(2).sum() / matrix.power(2).sum()
        found = decompose(scaled, self.rank, self.seed, self.decomposed.get(key))
        self.decomposed.setdefault(key, found)
        history, popularity, parts = (found.right * columns[:, None]).astype(np.float32), _popularity(counts), {}
        queries = {
            source: np.asarray(matrix @ history if source == schema.query_id else history, np.float32)
            for source in sources_of(schema)
        }
        for value in regularizations:
            candidate = (found.factors(value * unit).candidate / columns[:, None]).astype(np.float32)
            for source, query in queries.items():
                settings = EaseSettings(weighting, source, (value,), normalized)
                parts[settings] = EasePart(self.task, source, query, candidate, popularity)
        return parts


def _popularity(counts: Any) -> Floats:
    """Return log(1 + n) [C] of each candidate."""
    return np.asarray(np.log1p(np.asarray(counts.sum(axis=0)).ravel()), np.float32)


def _scales(matrix: Any) -> tuple[Any, Any]:
    """Return d_q^-1/2 of each row and d_i^-1/4 of each column, 1 for an empty one."""
    degrees = (np.asarray(matrix.sum(axis=axis)).ravel() for axis in (1, 0))
    rows, columns = (np.where(degree > 0, degree, 1.0) for degree in degrees)
    return rows**-0.5, columns**-0.25


def mean(parts: Mapping[EaseSettings, EasePart], settings: EaseSettings) -> EasePart:
    """Return the part with the mean of the scores of several regularizations.

    One part holds it: all regularizations share the embeddings of the queries.

    Args:
        parts: parts of single regularizations.
        settings: the regularizations to average, of one source, weighting and normalization.
    """
    chosen = [parts[settings._replace(regularizations=(value,))] for value in settings.regularizations]
    return dataclasses.replace(chosen[0], candidate=np.mean([part.candidate for part in chosen], axis=0))


def _table(rows: Floats, group: str, schema: Schema, feature: str) -> keras.layers.Embedding:
    """Return a fixed embedding; its name has the vocabulary, by which growth and warm starts find tables."""
    vocabulary = schema.features[feature].vocabulary
    name = layer_name(f"{group}_{layer_name(f'{vocabulary}_embedding')}")
    return keras.layers.Embedding(
        *rows.shape, embeddings_initializer="zeros", weights=[rows], trainable=False, name=name
    )
