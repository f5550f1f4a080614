"""The part of retrieval scores that candidates of the query's own history have, added to blocks of dot products."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require_known
from tfmtl._identity import FIRST
from tfmtl._keras import tf
from tfmtl.models import Candidates, MultiTaskModel
from tfmtl.tasks import UserNeighbors
from tfmtl.tasks.copies import Copy
from tfmtl.types import Features

_ENTRIES = 4_000_000
"""Entries of histories that are read at a time."""


@dataclasses.dataclass(frozen=True)
class CopiedScores:
    """The part of the scores by a `HistoryCopy` or `UserNeighbors`, for one corpus.

    Attributes:
        copy: the part.
        rows: position in the corpus of each encoded id of the vocabulary [V]; -1 outside the corpus.
    """

    copy: Copy
    rows: npt.NDArray[np.int64]

    @classmethod
    def of(cls, model: MultiTaskModel, task: str, candidates: Candidates) -> CopiedScores | None:
        """Return the part of a retrieval task's scores; None if the task copies nothing."""
        copy = next((getattr(t, "copy", None) for t in model.tasks if t.name == task), None)
        return None if copy is None else cls(copy, rows_of_ids(model, candidates))

    def add(self, scores: npt.NDArray[np.float32], queries: Features, chosen: Any) -> npt.NDArray[np.float32]:
        """Add the part to a block of scores [b, C] in place, and return the block.

        Args:
            scores: dot products of the chosen queries.
            queries: encoded features of all queries.
            chosen: indices [b] of the queries of the block.
        """
        require_known([self.copy.history], queries, "history", "the table")
        history = np.asarray(queries[self.copy.history])[chosen]
        width = self.copy.width if isinstance(self.copy, UserNeighbors) else history.shape[1]
        step = max(1, _ENTRIES // max(1, width))
        for start in range(0, len(history), step):
            ids, parts = (x.numpy() for x in self.copy.of_history(tf.constant(history[start : start + step])))
            add_parts(scores[start : start + step], self.rows[ids], parts)
        return scores


def add_parts(scores: npt.NDArray[np.float32], rows: npt.NDArray[Any], parts: npt.NDArray[np.float32]) -> None:
    """Add parts [b, n] to a block of scores [b, C] in place, at the positions `rows` [b, n]; those below 0 are none.

    The positions of a query are distinct.
    """
    query, place = np.nonzero(rows >= 0)
    scores[query, rows[query, place]] += parts[query, place]


def rows_of_ids(model: MultiTaskModel, candidates: Candidates) -> npt.NDArray[np.int64]:
    """Return the position in the corpus of each encoded id of the vocabulary [V], -1 for ids outside the corpus."""
    name = model.schema.candidate_id
    ids = np.asarray(candidates.features[name])
    rows = np.full(model.preprocessor.statistics.size(name), -1, np.int64)
    rows[ids] = np.arange(len(ids))
    rows[:FIRST] = -1  # ids outside the vocabulary share one index
    return rows
