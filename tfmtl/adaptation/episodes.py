"""A table as tasks to adapt to: rows to learn from, and rows to be judged by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import tf
from tfmtl.data import Batch, Preprocessor, to_batch


class Episodes:
    """The rows of every task, encoded once.

    Args:
        data: a pandas table, one task a value of its column `group`; or the tables of the tasks.
        preprocessor: encodes them.
        group: column of a table that names the task of a row, such as the user.
        support: rows that a task is adapted with.
        query: most rows that it is judged by.

    Attributes:
        batch: all rows.
        rows: row numbers by task; tasks of no more than `support` rows are left out.

    Raises:
        ValueError: if no task has more than `support` rows, or the column is absent.
    """

    def __init__(
        self, data: Any, preprocessor: Preprocessor, group: str = "", *, support: int = 5, query: int = 20
    ) -> None:
        require_positive_int(support=support, query=query)
        if hasattr(data, "columns"):
            require(group in data.columns, f"The table has no column {group!r} to tell tasks by; give `group`.")
            parts = [to_batch(data, preprocessor)]
            places = np.unique(data[group].to_numpy().astype(str), return_inverse=True)[1]
        else:
            require(bool(len(data)), "There are no tasks: the sequence of tables is empty.")
            parts = [to_batch(table, preprocessor) for table in data]
            places = np.repeat(np.arange(len(parts)), [_rows(part) for part in parts])
        self.batch = parts[0] if len(parts) == 1 else _joined(parts)
        order = np.argsort(places, kind="stable")
        groups = np.split(order, np.cumsum(np.bincount(places))[:-1])
        self.rows = [rows for rows in groups if len(rows) > support]
        require(
            bool(self.rows),
            f"No task has more than {support} rows, so that none is left to be judged by; lower `support`.",
            most=max(map(len, groups)),
        )
        self.support, self.query = support, query

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.rows)

    def draw(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield every task once, in random order: row numbers of its support and of its query, drawn anew."""
        for place in rng.permutation(len(self.rows)):
            rows = rng.permutation(self.rows[place])
            yield rows[: self.support], rows[self.support : self.support + self.query]


def take(batch: Batch, rows: tf.Tensor) -> Batch:
    """Return some rows of a batch."""
    parts: Sequence[Mapping[str, Any]] = (batch.features, batch.labels, batch.weights)
    return Batch(*({name: tf.gather(column, rows) for name, column in part.items()} for part in parts))


def _rows(batch: Batch) -> int:
    return int(next(iter(batch.features.values())).shape[0])


def _joined(batches: Sequence[Batch]) -> Batch:
    def join(columns: Sequence[Mapping[str, Any]]) -> dict[str, tf.Tensor]:
        return {name: tf.concat([part[name] for part in columns], 0) for name in columns[0]}

    return Batch(*(join([getattr(b, part) for b in batches]) for part in ("features", "labels", "weights")))
