"""The distinct candidates of a table of interactions: one row per candidate id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._checks import require
from tfmtl.data.columns import Columns, to_columns
from tfmtl.data.features import MISSING_INTEGER
from tfmtl.data.schema import Schema


class DistinctCandidates:
    """Collects the first row of each candidate id over the pieces of a table.

    Rows without an id are left out. A table in which rows of one id disagree holds no corpus: `conflict` then names the
    id and the column, and is "" otherwise.

    Args:
        schema: its candidate features are collected.

    Cost: memory of the distinct candidates; one hash look-up and one comparison per row and column.
    """

    def __init__(self, schema: Schema) -> None:
        self._id = schema.candidate_id
        self._positions: dict[Any, int] = {}
        self._kept: dict[str, _GrowingArray] = {feature.name: _GrowingArray() for feature in schema.candidate}
        self.conflict = ""

    def __len__(self) -> int:
        """Return the number of distinct candidates."""
        return len(self._positions)

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Collect the rows of raw columns [N, ...], from `to_columns`, that hold all candidate features."""
        if self.conflict:
            return
        ids = columns[self._id]
        present = np.flatnonzero(~_is_missing(ids))
        if not len(present):
            return
        columns = {name: columns[name] if len(present) == len(ids) else columns[name][present] for name in self._kept}
        codes, distinct = pd.factorize(columns[self._id])
        first = np.flatnonzero(np.diff(np.maximum.accumulate(codes), prepend=-1))  # codes count up as values appear
        self._check_equal({name: (column, column[first][codes]) for name, column in columns.items()}, columns[self._id])
        known = np.asarray([self._positions.get(value, -1) for value in distinct.tolist()], np.int64)
        seen, fresh = np.flatnonzero(known >= 0), np.flatnonzero(known < 0)
        rows = {name: column[first] for name, column in columns.items()}
        if len(seen):
            pairs = {name: (rows[name][seen], kept.values[known[seen]]) for name, kept in self._kept.items()}
            self._check_equal(pairs, distinct[seen])
        if self.conflict:
            return
        start = len(self._positions)
        self._positions.update({value: start + i for i, value in enumerate(distinct[fresh].tolist())})
        for name, kept in self._kept.items():
            kept.append(rows[name][fresh])

    def columns(self) -> Columns:
        """Return the raw candidate columns [C, ...] in the order in which the ids appeared.

        Raises:
            ValueError: if there is a conflict.
        """
        require(not self.conflict, self.conflict)
        return {name: kept.values for name, kept in self._kept.items()}

    def _check_equal(self, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], ids: Sequence[Any] | np.ndarray) -> None:
        for name, (left, right) in pairs.items():
            if left.dtype.kind == "f":  # numbers that are equal in float32 do not contradict
                left, right = left.astype(np.float32), right.astype(np.float32)
            same = left == right
            if left.dtype.kind == "f":
                same |= np.isnan(left) & np.isnan(right)
            bad = ~same.reshape(len(left), -1).all(axis=1)
            if bad.any():
                self._stop(
                    f"Candidate {ids[bad.argmax()]!r} occurs with different values of column {name!r}; "
                    "give each candidate id one row, or make the column a context feature."
                )
                return

    def _stop(self, conflict: str) -> None:
        self.conflict = conflict
        self._positions, self._kept = {}, {}


def distinct_candidates(frame: pd.DataFrame, schema: Schema) -> tuple[np.ndarray, Columns]:
    """Return the ids [C] and raw candidate columns [C, ...] of a table, in the order in which the ids appear.

    Raises:
        ValueError: if an id occurs with different features, an id is missing, a column is absent, or there is no row.
    """
    require(bool(schema.candidate), "The schema has no candidate features, so there is no corpus.")
    columns = to_columns(frame, schema.candidate)
    absent = int(_is_missing(columns[schema.candidate_id]).sum())
    require(not absent, f"Candidate id column {schema.candidate_id!r} has {absent} missing values.")
    collected = DistinctCandidates(schema)
    collected.add(columns)
    columns = collected.columns()
    return columns[schema.candidate_id], columns


def raw_candidate_ids(ids: Sequence[Any], schema: Schema, argument: str) -> list[Any]:
    """Return ids as a table's column of candidate ids is converted: strings or integers.

    Args:
        ids: list of ids of any type that the column may have.
        schema: holds the candidate id.
        argument: name of the argument that holds the ids, for errors.

    Raises:
        ValueError: naming the argument, if it is no list or its values are no ids.

    Example:
        >>> from tfmtl.data import Categorical
        >>> raw_candidate_ids([7, 8], Schema([Categorical("user")], [Categorical("item")]), "ids")
        ['7', '8']
    """
    require(pd.api.types.is_list_like(ids), f"`{argument}` must be a list of ids.", **{argument: ids})
    if not len(ids):
        return []
    feature = schema.features[schema.candidate_id]
    try:
        column = to_columns(pd.DataFrame({feature.column: list(ids)}), [feature])[feature.name]
    except ValueError as error:
        raise ValueError(f"`{argument}` must be a list of ids like those of the candidates: {error}") from error
    return list(column.tolist())


def _is_missing(ids: np.ndarray) -> np.ndarray:
    missing: np.ndarray = ids == ("" if ids.dtype == object else MISSING_INTEGER)
    return missing


class _GrowingArray:
    """Rows [N, ...] that are appended in place, so that many short pieces cost no copy of all rows each."""

    def __init__(self) -> None:
        self._buffer: np.ndarray = np.empty(0)
        self._rows = 0

    @property
    def values(self) -> np.ndarray:
        return self._buffer[: self._rows]

    def append(self, rows: np.ndarray) -> None:
        total = self._rows + len(rows)
        if not self._rows:
            self._buffer = np.array(rows)
        elif total > len(self._buffer):
            larger = np.empty([max(total, 2 * len(self._buffer)), *rows.shape[1:]], rows.dtype)
            larger[: self._rows] = self.values
            self._buffer = larger
        self._buffer[self._rows : total] = rows
        self._rows = total
