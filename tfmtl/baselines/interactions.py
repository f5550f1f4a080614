"""Interactions: the positive rows of a training table, from which the baselines of retrieval are fitted."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tfmtl._checks import require, require_known
from tfmtl._identity import NO_KEY
from tfmtl._keras import tf
from tfmtl.data import keys_of, to_columns
from tfmtl.data.columns import to_labels
from tfmtl.data.interchange import as_frame
from tfmtl.data.times import times_of
from tfmtl.evaluation.corpus import positions
from tfmtl.evaluation.ranks import candidate_columns
from tfmtl.models import MultiTaskModel
from tfmtl.models.inputs import require_candidates

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Weighting = Literal["count", "log", "binary"]
"""The entry of a pair with n interactions: n, 1 + log(n), or 1."""


@dataclasses.dataclass(frozen=True)
class Interactions:
    """Positive interactions of users and candidates, compared by key; see `tfmtl.data.keys_of`.

    An id outside the vocabulary has a key, so that its interactions count apart from those of other ids.

    Attributes:
        users: key of the user of each interaction [n]; -1 for a missing id, which counts for popularity alone.
        candidate_index: position in the corpus of each interaction [n]; -1 outside the corpus, which does not count.
        num_candidates: C.
        times: time of each interaction [n], larger for newer ones; None if the times are unknown.

    Raises:
        ValueError: if the arrays have different lengths, an index is outside the corpus, a time is not finite, or no
            interaction is inside the corpus.

    Example:
        >>> Interactions([7, 7, 9], [1, 1, 0], num_candidates=3).matrix().toarray()
        array([[0., 2., 0.],
               [1., 0., 0.]])
    """

    users: npt.ArrayLike
    candidate_index: npt.ArrayLike
    num_candidates: int
    times: npt.ArrayLike | None = None

    def __post_init__(self) -> None:
        items = candidate_columns(self.candidate_index, self.num_candidates, "`candidate_index`")
        users = np.asarray(self.users, np.int64)
        times = None if self.times is None else np.asarray(self.times, np.float64)
        shapes = {"users": users.shape, "candidate_index": items.shape}
        shapes |= {} if times is None else {"times": times.shape}
        require(len(set(shapes.values())) == 1, "Interactions need arrays of one length.", **shapes)
        inside = items >= 0
        require(bool(inside.any()), "No positive interaction is inside the corpus; no baseline can be fitted.")
        if times is not None:
            require(bool(np.isfinite(times).all()), "`times` must be finite.")
            object.__setattr__(self, "times", times[inside])
        object.__setattr__(self, "users", users[inside])
        object.__setattr__(self, "candidate_index", items[inside])

    @classmethod
    def from_frame(cls, model: MultiTaskModel, task: str, frame: Any, time: str | None = None) -> Interactions:
        """Read the rows of a table with a positive label of a retrieval task; all rows if the task has no label.

        Args:
            model: model with the schema and the candidates; its weights are not used.
            task: name of the retrieval task.
            frame: training table.
            time: column of datetimes or numbers; None if the table has none.

        Raises:
            ValueError: if a column is absent, a time is missing, or no positive row is inside the corpus.
        """
        schema, frame, candidates = model.schema, as_frame(frame), require_candidates(model)
        if task in schema.tasks:
            labels, weights = to_labels(frame, schema.with_labels_of([task]))
            frame = frame[(weights[task] > 0) & (labels[task] > 0)]
        require(len(frame) > 0, f"The training table has no positive of the retrieval task {task!r}.")
        names = (schema.user("A baseline of retrieval"), schema.candidate_id)
        columns = to_columns(frame, [schema.features[name] for name in names])
        users, items = (keys_of(tf.constant(columns[name])).numpy() for name in names)
        index = np.where(items == NO_KEY, -1, positions(candidates, items))
        return cls(users, index, len(candidates), None if time is None else _seconds(frame, time))

    @functools.cached_property
    def memo(self) -> dict[Hashable, Any]:
        """Results that baselines of these interactions share, such as a decomposition, by their arguments."""
        return {}

    @functools.cached_property
    def known_users(self) -> Ints:
        """The distinct keys of users [U], ascending; the rows of `matrix`."""
        keys = np.unique(np.asarray(self.users))
        return keys[keys != NO_KEY]

    @functools.cached_property
    def popularity(self) -> Floats:
        """The number of interactions of each candidate [C]."""
        return np.bincount(np.asarray(self.candidate_index), minlength=self.num_candidates).astype(np.float64)

    def rows_of(self, users: npt.ArrayLike) -> Ints:
        """Return the row in `matrix` of users by their keys [q], -1 for users without an interaction."""
        keys = np.asarray(users, np.int64)
        if not len(self.known_users):
            return np.full(len(keys), -1)
        found = np.minimum(np.searchsorted(self.known_users, keys), len(self.known_users) - 1)
        return np.where(self.known_users[found] == keys, found, -1)

    def matrix(self, weighting: Weighting = "count") -> Any:
        """Return the interactions as a CSR matrix [U, C] of float64.

        Args:
            weighting: `"count"`, the number n of interactions; `"log"`, 1 + log(n), which dampens repetitions; or
                `"binary"`, 1 for each pair.
        """
        require_known([weighting], ("count", "log", "binary"), "value", "`weighting`")
        counts = self._counts.copy()
        if weighting == "log":
            counts.data = 1 + np.log(counts.data)
        elif weighting == "binary":
            counts.data = np.ones_like(counts.data)
        return counts

    @functools.cached_property
    def _counts(self) -> Any:
        rows, columns, _ = self._named
        counts = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), self._shape)
        counts.sum_duplicates()
        return counts

    @property
    def newest(self) -> Floats:
        """The time of the newest interaction of each entry of `matrix`, in the order of its `data`; 0 without times."""
        rows, columns, times = self._named
        order = np.lexsort((times, columns, rows))
        pairs = rows[order] * self.num_candidates + columns[order]
        last = np.append(pairs[1:] != pairs[:-1], True)[: len(pairs)]
        return times[order][last]

    @property
    def _named(self) -> tuple[Ints, Ints, Floats]:
        """Rows, columns and times of the interactions of users with an id."""
        rows, columns = self.rows_of(self.users), np.asarray(self.candidate_index, np.int64)
        times = np.zeros(len(rows)) if self.times is None else np.asarray(self.times, np.float64)
        named = rows >= 0
        return rows[named], columns[named], times[named]

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.known_users), self.num_candidates


def _seconds(frame: Any, column: str) -> Floats:
    """Return a column of times as numbers; datetimes as seconds."""
    values = times_of(frame, column).values
    if values.dtype.kind == "M":
        return values.astype("datetime64[us]").astype(np.int64) / 1e6
    return values.astype(np.float64)
