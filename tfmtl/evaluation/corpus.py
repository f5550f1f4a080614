"""The positives of a table as pairs of a distinct query and a position in the corpus."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require
from tfmtl._keras import keras, tf
from tfmtl.data import Batch
from tfmtl.data.columns import to_columns
from tfmtl.evaluation.baselines import popularity, popularity_scorer
from tfmtl.evaluation.ranks import BLOCK_BYTES, Progress, rank_by_scores, rank_positives
from tfmtl.models import Candidates, MultiTaskModel
from tfmtl.models.inputs import require_candidates
from tfmtl.types import Features

Ints = npt.NDArray[np.int64]
_BATCH = 8192
_USER = ""  # no feature can have this name


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The positives of one retrieval task in a table, as indices of distinct queries and candidates.

    A query is a distinct combination of a raw user id and encoded query features. One user in two situations has two
    queries with a list each.

    Attributes:
        queries: encoded features of the Q distinct queries, by name.
        query_index: index of the query of each positive [n].
        candidate_index: position in the corpus of each positive [n], -1 outside the corpus.
        seen: (query indices, candidate positions) of the pairs to remove from the lists, or None.
        candidates: the corpus.
    """

    queries: Features
    query_index: Ints
    candidate_index: Ints
    seen: tuple[Ints, Ints] | None
    candidates: Candidates

    def rank(
        self,
        query_tower: keras.Model,
        candidate_tower: keras.Model,
        task: str,
        progress: Progress | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> Any:
        """Return the rank [n] of each positive by the dot product of the towers."""
        return rank_positives(
            embed(query_tower, self.queries)[task],
            embed(candidate_tower, self.candidates.features)[task],
            self.query_index,
            self.candidate_index,
            seen=self.seen,
            block_bytes=block_bytes,
            progress=progress,
        )

    def rank_by_popularity(self, chosen: Ints) -> Any:
        """Return the rank [n] of each positive by the number of times its candidate occurs in `chosen`."""
        scores = popularity_scorer(popularity(chosen, len(self.candidates)))
        return rank_by_scores(scores, len(self.candidates), self.query_index, self.candidate_index, seen=self.seen)


def locate(model: MultiTaskModel, task: str, frame: Any, batch: Batch, seen: Seen | None = None) -> Corpus:
    """Find the indices of the positives of a table, and of known interactions of its users, for one retrieval task.

    Args:
        model: model with the schema and the candidates.
        task: name of the retrieval task.
        frame: table to evaluate.
        batch: the same table, encoded.
        seen: known interactions to exclude. They are matched by the raw id of the user, so that users outside the
            vocabulary are not confused with each other.

    Raises:
        ValueError: if the model has no candidates or the table has no positive of the task.
    """
    candidates = require_candidates(model)
    schema = model.schema
    rows = positives(batch, task)
    require(len(rows) > 0, f"The table has no positive of the retrieval task {task!r}; nothing can be evaluated.")
    columns = {feature.name: batch.features[feature.name].numpy()[rows] for feature in schema.query}
    users = to_columns(frame, [schema.features[schema.query_id]])[schema.query_id][rows]
    columns[_USER] = _codes(users)
    _, first, query_index = np.unique(_as_bytes(columns), return_index=True, return_inverse=True)
    queries = {feature.name: columns[feature.name][first] for feature in schema.query}
    item = schema.candidate_id
    candidate_index = positions(candidates, item, batch.features[item].numpy()[rows])
    pairs = None if seen is None else seen.spread(users[first])
    return Corpus(queries, query_index.reshape(-1), candidate_index, pairs, candidates)


@dataclasses.dataclass(frozen=True)
class Seen:
    """Known interactions: raw user ids [m] and positions in the corpus [m], -1 outside it."""

    users: npt.NDArray[Any]
    items: Ints

    @classmethod
    def from_frame(cls, model: MultiTaskModel, task: str, frame: Any) -> Seen:
        """Read the two id columns of a table; if the table has the label of `task`, read only its positive rows."""
        schema = model.schema
        if task in schema.tasks and schema.label(task).column in frame:
            frame = frame[frame[schema.label(task).column] > 0]
        if not len(frame):
            return cls(np.zeros(0, object), np.zeros(0, np.int64))
        columns = to_columns(frame, [schema.features[schema.query_id], schema.features[schema.candidate_id]])
        encoded = model.preprocessor({schema.candidate_id: columns[schema.candidate_id]})[schema.candidate_id].numpy()
        return cls(columns[schema.query_id], positions(require_candidates(model), schema.candidate_id, encoded))

    def spread(self, query_users: npt.NDArray[Any]) -> tuple[Ints, Ints]:
        """Return the pairs (query indices, candidate positions) of every query with the items of its user."""
        codes = _codes(np.concatenate([query_users, self.users]))
        own, others = codes[: len(query_users)], codes[len(query_users) :]
        pairs = np.unique(np.stack([others, self.items])[:, self.items >= 0], axis=1)
        start = np.searchsorted(pairs[0], own, "left")
        count = np.searchsorted(pairs[0], own, "right") - start
        query = np.repeat(np.arange(len(own)), count)
        offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return query, pairs[1][np.repeat(start, count) + offset]


def positives(batch: Batch, task: str) -> Ints:
    """Return the indices of the rows with a label of `task` above 0; all rows if the task has no label."""
    if task not in batch.labels:
        return np.arange(len(next(iter(batch.features.values()))))
    labels, weights = batch.labels[task].numpy(), batch.weights[task].numpy()
    return np.flatnonzero((weights > 0) & (labels > 0))


def positions(candidates: Candidates, name: str, encoded: npt.NDArray[Any]) -> Ints:
    """Return the positions in the corpus of encoded candidate ids, -1 for ids outside it."""
    own = candidates.features[name].numpy()
    table = np.full(int(max(own.max(), encoded.max(initial=0))) + 1, -1, np.int64)
    table[own] = np.arange(len(own))
    table[:2] = -1  # "missing" and "unknown" are not candidates
    return table[encoded]


def embed(tower: keras.Model, features: Features) -> dict[str, npt.NDArray[np.float32]]:
    """Run a tower over all rows in batches and return its embeddings by retrieval task."""
    call = tf.function(tower, reduce_retracing=True)
    rows = len(next(iter(features.values())))
    inputs = {name: features[name] for name in tower.input}
    found: dict[str, npt.NDArray[np.float32]] = {}
    for start in range(0, rows, _BATCH):
        piece = slice(start, start + _BATCH)
        for task, values in call(
            {name: tf.convert_to_tensor(column[piece]) for name, column in inputs.items()}
        ).items():
            if task not in found:  # filled in place: a concatenation of pieces would need twice the memory
                found[task] = np.empty([rows, *values.shape[1:]], values.dtype.as_numpy_dtype)
            found[task][piece] = values.numpy()
    return found


def _codes(values: npt.NDArray[Any]) -> Ints:
    """Return a number for each distinct value; by a dictionary, because objects cannot be sorted."""
    numbers: dict[Any, int] = {}
    return np.asarray([numbers.setdefault(value, len(numbers)) for value in values.tolist()], np.int64)


def _as_bytes(columns: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return one opaque key per row, so that one sort finds equal rows of columns of any types."""
    parts = [np.ascontiguousarray(c.reshape(len(c), -1)).view(np.uint8).reshape(len(c), -1) for c in columns.values()]
    matrix = np.ascontiguousarray(np.concatenate(parts, axis=1))
    return matrix.view(np.dtype((np.void, matrix.shape[1]))).reshape(-1)
