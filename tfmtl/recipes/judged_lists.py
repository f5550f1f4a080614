"""JudgedLists: the candidates that a served model orders for each validation query, with grades, for any weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require
from tfmtl._identity import NO_KEY
from tfmtl._keras import tf
from tfmtl.data import Batch, to_batch
from tfmtl.data.columns import to_columns
from tfmtl.data.interchange import as_rows
from tfmtl.data.preprocessor import MISSING_VALUES
from tfmtl.evaluation.corpus import Ints, Seen, distinct_queries, positions
from tfmtl.evaluation.ranks import Progress
from tfmtl.models.inputs import require_candidates
from tfmtl.serving.recommender import Recommender

Floats = npt.NDArray[np.float64]

_PAIRS = 16_384
"""Pairs of a query and a candidate that are ranked at a time."""


@dataclasses.dataclass(frozen=True)
class JudgedLists:
    """The shortlists of Q queries, and the NDCG of their best k candidates by any weights of the T tasks.

    Attributes:
        tasks: names of the tasks with a weight.
        standard: float32 [T, Q, depth], standardised values, as in `ScoreFusion`.
        valid: bool [Q, depth], false where a query has fewer candidates.
        grades: [Q, depth] of the candidates.
        ideal: [Q] sum of the k largest positive grades of a query with the discounts, in or outside the shortlist.
        users: [Q] key of the user of each query.
        rows: [Q] first row of the table of each query.
        k: length of a list.
    """

    tasks: tuple[str, ...]
    standard: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    grades: Floats
    ideal: Floats
    users: Ints
    rows: Ints
    k: int

    @classmethod
    def of(
        cls, recommender: Recommender, table: Any, utilities: Mapping[str, float], seen: Any, progress: Progress | None
    ) -> JudgedLists:
        """Retrieve and rank the shortlist of each query with a positive grade.

        Args:
            recommender: the served computations.
            table: rows with the features of the query, the id of the candidate, and the labels.
            utilities: factor of each label in the grade of a candidate.
            seen: table of known interactions to leave out, or None.
            progress: called with the numbers of ranked queries and of all queries.
        """
        names = tuple(recommender.fusion.weights)
        rule = "Weights need a ranking task with one value per candidate beside the retrieval."
        require(len(names) > 1, rule, tasks=[*names])
        model, frame = recommender.model, as_rows(table, "validation")
        wanted = [*model.schema.query, model.schema.features[model.schema.candidate_id]]
        batch = to_batch(frame, model.preprocessor, labels=list(utilities), features=[f.name for f in wanted])
        known = None if seen is None else Seen.from_frame(model, recommender.retrieval, seen)
        graded = _Graded.of(recommender, batch, utilities, known)
        raw = {name: column[graded.rows] for name, column in to_columns(frame, model.schema.query).items()}
        excluded = excluded_ids(recommender, graded.users, known)
        parts = _shortlists(recommender, raw, excluded, progress)
        standard, positions_, valid = (np.concatenate(part, axis=-2) for part in zip(*parts, strict=True))
        finite = bool(np.isfinite(standard[:, valid]).all())
        require(finite, "The values of the tasks must be finite; the model gives NaN or infinity for some candidate.")
        grades = np.where(valid, graded.at(positions_), 0.0)
        ideal = graded.ideal(recommender.max_k)
        return cls(names, standard, valid, grades, ideal, graded.users, graded.rows, recommender.max_k)

    def of_queries(self, chosen: Any) -> JudgedLists:
        """Return the lists of some queries."""
        return JudgedLists(
            self.tasks, self.standard[:, chosen], self.valid[chosen], self.grades[chosen], self.ideal[chosen],
            self.users[chosen], self.rows[chosen], self.k,
        )  # fmt: skip

    def reached(self) -> JudgedLists:
        """Return the queries with a grade in the shortlist; the others have NDCG 0 by any weights."""
        return self.of_queries((self.grades != 0).any(axis=1))

    def order(self, weights: Sequence[float]) -> Ints:
        """Return the columns [Q, k] of the best candidates, as `recommend` orders them; ties in the order of retrieval.

        Args:
            weights: one per task, in the order of `tasks`.
        """
        total = np.zeros(self.valid.shape, np.float32)
        for weight, standard in zip(weights, self.standard, strict=True):
            total += np.float32(weight) * standard
        total[~self.valid] = -np.inf
        return np.argsort(-total, axis=1, kind="stable")[:, : self.k]

    def ndcg(self, weights: Sequence[float]) -> Floats:
        """Return the NDCG [Q] of the lists by some weights."""
        return self._gain(np.take_along_axis(self.grades, self.order(weights), axis=1))

    def best(self) -> Floats:
        """Return the NDCG [Q] of the best order of the shortlist, an upper bound for all weights."""
        return self._gain(-np.sort(-self.grades, axis=1)[:, : self.k])

    def _gain(self, grades: Floats) -> Floats:
        found: Floats = grades @ _discounts(grades.shape[1]) / self.ideal
        return found


@dataclasses.dataclass(frozen=True)
class _Graded:
    """The graded pairs of the queries with a positive grade.

    Attributes:
        rows, users: [Q] first row and key of the user of each query.
        query: [n] query of each pair, ascending.
        position: [n] of the candidate in the corpus, -1 outside of it.
        grade: [n].
        size: number of candidates in the corpus.
    """

    rows: Ints
    users: Ints
    query: Ints
    position: Ints
    grade: Floats
    size: int

    @classmethod
    def of(cls, recommender: Recommender, batch: Batch, utilities: Mapping[str, float], seen: Seen | None) -> _Graded:
        """Read the pairs of a table; of repeated pairs the largest value of each label counts."""
        model = recommender.model
        users, items = (batch.ids[role].numpy() for role in ("query", "candidate"))
        values = {name: np.where(batch.weights[name] > 0, batch.labels[name], 0.0) for name in utilities}
        some = np.any([value != 0 for value in values.values()], axis=0) & (items != NO_KEY)
        labels = list(utilities)
        require(bool(some.any()), f"The validation rows have no positive of {labels}; weights need some.")
        if seen is not None:
            some &= ~seen.holds(users, items)
            require(bool(some.any()), f"All validation rows with a positive of {labels} are in `seen`; pass others.")
        rows = np.flatnonzero(some)
        first, query = distinct_queries(model, batch, rows)
        pairs, pair = np.unique(np.stack([query, items[rows]]), axis=1, return_inverse=True)
        grade = np.zeros(pairs.shape[1])
        for name, utility in utilities.items():
            largest = np.full(len(grade), -np.inf)
            np.maximum.at(largest, pair.reshape(-1), values[name][rows].astype(np.float64))
            grade += utility * largest
        candidates = require_candidates(model)
        position = positions(candidates, pairs[1])
        positive = np.zeros(len(first), bool)
        positive[pairs[0][grade > 0]] = True
        require(bool(positive.any()), f"No query of the validation rows has a positive utility by {labels}.")
        number, kept = np.cumsum(positive) - 1, positive[pairs[0]]
        first = first[positive]
        return cls(first, users[first], number[pairs[0]][kept], position[kept], grade[kept], len(candidates))

    def at(self, columns: Ints) -> Floats:
        """Return the grades [Q, depth] of candidates by their positions in the corpus."""
        inside = self.position >= 0
        keys, grades = self.query[inside] * self.size + self.position[inside], self.grade[inside]
        order = np.argsort(keys)
        keys, grades = np.append(keys[order], -1), np.append(grades[order], 0.0)
        wanted = np.arange(len(columns))[:, None] * self.size + columns
        found = np.searchsorted(keys[:-1], wanted)
        return np.where(keys[found] == wanted, grades[found], 0.0)

    def ideal(self, k: int) -> Floats:
        """Return the sum [Q] of the k largest positive grades with their discounts."""
        order = np.lexsort((-self.grade, self.query))
        query, grade = self.query[order], np.maximum(self.grade[order], 0.0)
        sizes = np.bincount(query, minlength=len(self.rows))
        position = np.arange(len(query)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        first = position < k
        found: Floats = np.bincount(
            query[first], grade[first] * _discounts(k)[position[first]], minlength=len(self.rows)
        ).astype(np.float64)
        return found


def _discounts(k: int) -> Floats:
    return np.asarray(1 / np.log2(np.arange(k) + 2), np.float64)


def excluded_ids(recommender: Recommender, users: Ints, seen: Seen | None) -> list[npt.NDArray[Any]]:
    """Return the raw ids that each query leaves out."""
    candidates = require_candidates(recommender.model)
    query, column = (np.zeros(0, np.int64),) * 2 if seen is None else seen.spread(users, candidates)
    counts = np.bincount(query, minlength=len(users))
    return np.split(np.asarray(candidates.ids)[column], np.cumsum(counts)[:-1])


def _shortlists(
    recommender: Recommender, raw: Mapping[str, Any], excluded: list[npt.NDArray[Any]], progress: Progress | None
) -> list[tuple[npt.NDArray[Any], ...]]:
    """Return standardised values, positions and validity of the shortlists, by pieces."""
    total, step = len(excluded), max(1, _PAIRS // recommender.index.max_k)
    names = list(recommender.fusion.weights)
    found: list[tuple[npt.NDArray[Any], ...]] = []
    for start in range(0, total, step):
        piece = slice(start, start + step)
        query = {name: tf.convert_to_tensor(column[piece]) for name, column in raw.items()}
        limits = limits_of(recommender, excluded[piece])
        _, _, hits, values = recommender.shortlist(recommender.without_context(query), limits)
        standard = recommender.fusion.standardize(values, hits)
        columns, valid = hits.rows.numpy().astype(np.int64), hits.valid.numpy()
        found.append((np.stack([standard[name].numpy() for name in names]), columns, valid))
        if progress is not None:
            progress(min(start + step, total), total)
    return found


def limits_of(recommender: Recommender, excluded: list[npt.NDArray[Any]]) -> tuple[tf.Tensor, tf.Tensor] | None:
    """Return ids to exclude [B, m], padded, and no ids to restrict to [B, 0]; None if nothing is excluded."""
    longest, dtype = max(map(len, excluded)), recommender.index.id_dtype
    if not longest:
        return None
    missing = MISSING_VALUES[dtype]
    ids = [[*own.tolist(), *[missing] * (longest - len(own))] for own in excluded]
    return tf.constant(ids, dtype), tf.zeros([len(ids), 0], dtype)
