"""The positives of a table as pairs of a distinct query and a position in the corpus."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require
from tfmtl._identity import NO_KEY
from tfmtl._keras import keras, tf, traced
from tfmtl.data import Batch, keys_of
from tfmtl.data.columns import to_columns
from tfmtl.data.frames import rows_of_pass
from tfmtl.data.interchange import as_frame
from tfmtl.evaluation.baselines import popularity, popularity_scorer
from tfmtl.evaluation.copied_scores import CopiedScores
from tfmtl.evaluation.counting import FloatArray, IntArray
from tfmtl.evaluation.ranks import BLOCK_BYTES, Progress, rank_by_scores, rank_positives
from tfmtl.evaluation.retrieval_metrics import retrieval_metrics
from tfmtl.models import Candidates, MultiTaskModel
from tfmtl.models.inputs import require_candidates
from tfmtl.tasks.interests import best_scores, interests_in
from tfmtl.types import Features

Ints = npt.NDArray[np.int64]
Outside = Literal["miss", "ignore"]
REPEATED = 0.05
"""Share of repeated pairs among held-out positives from which seen candidates stay in the lists."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The positives of one retrieval task in a table, as indices of distinct queries and candidates.

    A query is a distinct combination of a user and encoded query features. One user in two situations has two queries
    with a list each. Users and candidates are compared by key; see `tfmtl.data.keys_of`.

    Attributes:
        queries: encoded features of the Q distinct queries, by name.
        users: key of the user of each distinct query [Q].
        query_index: index of the query of each positive [n].
        items: key of the candidate of each positive [n].
        candidate_index: position in the corpus of each positive [n], -1 outside the corpus.
        seen: (query indices, candidate positions) of the pairs to remove from the lists, or None.
        candidates: the corpus.
        seen_share: share of the table's positives that were left out because their pair is in `seen`.
        copied: the part of the scores that candidates of the query's history have, or None.
        first: position in the table of the first row of each distinct query [Q].
    """

    queries: Features
    users: Ints
    query_index: Ints
    items: Ints
    candidate_index: Ints
    seen: tuple[Ints, Ints] | None
    candidates: Candidates
    seen_share: float
    copied: CopiedScores | None = None
    first: Ints = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def coverage(self) -> float:
        """Share of the positives that are in the corpus."""
        return float(np.mean(self.candidate_index >= 0))

    def rank(
        self,
        query_tower: keras.Model | Embedder,
        candidate_tower: keras.Model | Embedder,
        task: str,
        progress: Progress | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> Any:
        """Return the rank [n] of each positive by the dot product of the towers, with the copied part if any.

        A query tower of K times the width of the candidate tower has K vectors, of which the largest product counts.
        """
        query = embed(query_tower, self.queries)[task]
        candidate = embed(candidate_tower, self.candidates.features)[task]
        positives = (self.query_index, self.candidate_index)
        options: Any = {"seen": self.seen, "block_bytes": block_bytes, "progress": progress}
        if self.copied is None:
            interests = interests_in(query, candidate)
            return rank_positives(query, candidate, *positives, **options, num_interests=interests)
        copied = self.copied
        query, candidate = query.astype(np.float32), candidate.astype(np.float32)

        def scores(chosen: IntArray) -> FloatArray:
            return copied.add(best_scores(query[chosen], candidate), self.queries, chosen)

        return rank_by_scores(scores, len(self.candidates), *positives, **options)

    def rank_by_popularity(self, chosen: Ints) -> Any:
        """Return the rank [n] of each positive by the number of times its candidate occurs in `chosen`."""
        scores = popularity_scorer(popularity(chosen, len(self.candidates)))
        return rank_by_scores(scores, len(self.candidates), self.query_index, self.candidate_index, seen=self.seen)

    def metrics(
        self, ranks: npt.NDArray[np.float64], ks: Sequence[int] | int | None, outside: Outside = "miss"
    ) -> dict[str, float]:
        """Return the metrics of the ranks [n] of the positives, and the shares that `evaluate` documents."""

        def measured(rows: Ints) -> dict[str, float]:
            size = len(self.candidates)
            return retrieval_metrics(
                ranks[rows], self.query_index[rows], ks, items=self.items[rows], num_candidates=size
            )

        inside = np.flatnonzero(self.candidate_index >= 0)
        left_out = {"seen_share": self.seen_share} if self.seen_share > 0 else {}
        if len(inside) == len(ranks):
            return {**measured(inside), **left_out}
        within = measured(inside) if len(inside) else {}
        report = within if outside == "ignore" else measured(np.arange(len(ranks)))
        apart = {f"{name}_in_corpus": value for name, value in within.items()}
        return {**report, **apart, "corpus_coverage": self.coverage, **left_out}


def locate(model: MultiTaskModel, task: str, batch: Batch, seen: Seen | None = None) -> Corpus:
    """Find the indices of the positives of a table, and of known interactions of its users, for one retrieval task.

    A positive without a candidate id does not count. A positive that is in `seen` is left out, because a list without
    seen candidates cannot hold it.

    Args:
        model: model with the schema and the candidates.
        task: name of the retrieval task.
        batch: the encoded table to evaluate.
        seen: known interactions to exclude.

    Raises:
        ValueError: if the model has no candidates, or the table has no positive of the task or none outside `seen`.
    """
    candidates = require_candidates(model)
    model.schema.user("Evaluation of retrieval")
    users, items = (batch.ids[role].numpy() for role in ("query", "candidate"))
    rows = positives(batch, task)
    rows = rows[items[rows] != NO_KEY]
    require(len(rows) > 0, f"The table has no positive of the retrieval task {task!r}; nothing can be evaluated.")
    found = len(rows)
    if seen is not None:
        rows = rows[~seen.holds(users[rows], items[rows])]
        require(
            len(rows) > 0,
            f"All {found} positives of the retrieval task {task!r} are in `seen`, so that no list can hold them; pass "
            "`seen=None` to measure repeated interactions.",
        )
    first, query_index = distinct_queries(model, batch, rows)
    names = [feature.name for feature in model.schema.query if feature.name in batch.features]
    queries = {name: batch.features[name].numpy()[first] for name in names}
    owners = users[first]
    pairs = None if seen is None else seen.spread(owners, candidates)
    index = positions(candidates, items[rows])
    share = 1 - len(rows) / found
    copied = CopiedScores.of(model, task, candidates)
    return Corpus(queries, owners, query_index, items[rows], index, pairs, candidates, share, copied, first)


def distinct_queries(model: MultiTaskModel, batch: Batch, rows: Ints) -> tuple[Ints, Ints]:
    """Return the first of `rows` [Q] with each distinct user and query features, and the query [n] of each row."""
    names = [feature.name for feature in model.schema.query if feature.name in batch.features]
    columns = {name: batch.features[name].numpy()[rows] for name in names}
    keyed = _as_bytes({**columns, "": batch.ids["query"].numpy()[rows]})  # no feature has the name ""
    _, first, query_index = np.unique(keyed, return_index=True, return_inverse=True)
    return rows[first], query_index.reshape(-1)


@dataclasses.dataclass(frozen=True)
class Seen:
    """Known interactions: keys of users [m] and of candidates [m]."""

    users: Ints
    items: Ints

    @classmethod
    def from_frame(cls, model: MultiTaskModel, task: str, frame: Any) -> Seen:
        """Read the two id columns of a table; if the table has the label of `task`, read only its positive rows."""
        schema, frame = model.schema, as_frame(frame)
        if task in schema.tasks and schema.label(task).column in frame:
            frame = frame[frame[schema.label(task).column] > 0]
        if not len(frame):
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))
        ids = (schema.user("`seen`"), schema.candidate_id)
        columns = to_columns(frame, [schema.features[name] for name in ids])
        users, items = (keys_of(tf.constant(columns[name])).numpy() for name in ids)
        known = (users != NO_KEY) & (items != NO_KEY)
        return cls(users[known], items[known])

    def holds(self, users: Ints, items: Ints) -> npt.NDArray[np.bool_]:
        """Return whether each pair of a user [n] and an item [n] is a known interaction."""
        if not len(self.users):
            return np.zeros(len(users), bool)
        return np.isin(_pairs(users, items), _pairs(self.users, self.items))

    def spread(self, query_users: Ints, candidates: Candidates) -> tuple[Ints, Ints]:
        """Return the pairs (query indices, candidate positions) of every query with the items of its user."""
        items = positions(candidates, self.items)
        pairs = np.unique(np.stack([self.users, items])[:, items >= 0], axis=1)
        start = np.searchsorted(pairs[0], query_users, "left")
        count = np.searchsorted(pairs[0], query_users, "right") - start
        query = np.repeat(np.arange(len(query_users)), count)
        offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return query, pairs[1][np.repeat(start, count) + offset]


def _pairs(users: Ints, items: Ints) -> npt.NDArray[Any]:
    return _as_bytes({"users": users, "items": items})


def positives(batch: Batch, task: str) -> Ints:
    """Return the indices of the rows with a label of `task` above 0; all rows if the task has no label."""
    if task not in batch.labels:
        return np.arange(len(next(iter(batch.features.values()))))
    labels, weights = batch.labels[task].numpy(), batch.weights[task].numpy()
    return np.flatnonzero((weights > 0) & (labels > 0))


def repeated(task: str, batch: Batch, seen: Seen) -> float:
    """Return the share of the positives of a task with a pair in `seen`; 0 without positives."""
    rows = positives(batch, task)
    users, items = (batch.ids[role].numpy()[rows] for role in ("query", "candidate"))
    return float(seen.holds(users, items).mean()) if len(rows) else 0.0


def positions(candidates: Candidates, keys: Ints) -> Ints:
    """Return the positions in the corpus of candidates by their keys, -1 for candidates outside it."""
    found: Ints = candidates.positions(tf.constant(keys, tf.int64)).numpy().astype(np.int64)
    return found


class Embedder:
    """A tower that is traced once, for several passes over rows."""

    def __init__(self, tower: keras.Model) -> None:
        self._inputs = list(tower.input)
        self._call = traced(tower, reduce_retracing=True)

    def __call__(self, features: Features) -> dict[str, npt.NDArray[np.float32]]:
        """Run the tower over all rows in batches and return its embeddings by retrieval task."""
        rows = len(next(iter(features.values())))
        found: dict[str, npt.NDArray[np.float32]] = {}
        read = {name: features[name] for name in self._inputs}
        step = rows_of_pass(read)
        for start in range(0, rows, step):
            piece = slice(start, start + step)
            inputs = {name: tf.convert_to_tensor(column[piece]) for name, column in read.items()}
            for task, values in self._call(inputs).items():
                if task not in found:  # filled in place: a concatenation of pieces would need twice the memory
                    found[task] = np.empty([rows, *values.shape[1:]], values.dtype.as_numpy_dtype)
                found[task][piece] = values.numpy()
        return found


def embed(tower: keras.Model | Embedder, features: Features) -> dict[str, npt.NDArray[np.float32]]:
    """Run a tower over all rows in batches and return its embeddings by retrieval task."""
    return (tower if isinstance(tower, Embedder) else Embedder(tower))(features)


def _as_bytes(columns: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return one opaque key per row, so that one sort finds equal rows of columns of any types."""
    parts = [np.ascontiguousarray(c.reshape(len(c), -1)).view(np.uint8).reshape(len(c), -1) for c in columns.values()]
    matrix = np.ascontiguousarray(np.concatenate(parts, axis=1))
    return matrix.view(np.dtype((np.void, matrix.shape[1]))).reshape(-1)
