"""Episodes: a table split into tasks, each with a support to adapt to and a query to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import tf
from tfmtl.data import Batch, Preprocessor, to_batch


class Episodes:
    """Episodes of meta-learning: the encoded rows of all tasks, and random splits of each into support and query.

    Args:
        data: a pandas table with one task per value of its column `group`; or one table per task.
        preprocessor: encodes the tables.
        group: column of a table that contains the task of each row, such as the user.
        support: number of rows that a task is adapted to.
        query: largest number of other rows of a task to evaluate on.

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
            require(
                group in data.columns, f"The table has no column {group!r}; pass the column of the tasks as `group`."
            )
            parts = [to_batch(data, preprocessor)]
            tasks = np.unique(data[group].to_numpy().astype(str), return_inverse=True)[1]
        else:
            require(bool(len(data)), "There are no tasks: the sequence of tables is empty.")
            parts = [to_batch(table, preprocessor) for table in data]
            tasks = np.repeat(np.arange(len(parts)), [_rows(part) for part in parts])
        self.batch = parts[0] if len(parts) == 1 else _joined(parts)
        order = np.argsort(tasks, kind="stable")
        groups = np.split(order, np.cumsum(np.bincount(tasks))[:-1])
        self.rows = [rows for rows in groups if len(rows) > support]
        require(
            bool(self.rows),
            f"No task has more than {support} rows, so that the query is empty; lower `support`.",
            most=max(map(len, groups)),
        )
        self.support, self.query = support, query

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.rows)

    def draw(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the row numbers of support and query per task, newly drawn, in random order of the tasks."""
        for index in rng.permutation(len(self.rows)):
            rows = rng.permutation(self.rows[index])
            yield rows[: self.support], rows[self.support : self.support + self.query]


def take(batch: Batch, rows: tf.Tensor) -> Batch:
    """Return the given rows [n] of a batch."""
    return Batch(*({name: tf.gather(column, rows) for name, column in part.items()} for part in batch))


def _rows(batch: Batch) -> int:
    return int(next(iter(batch.features.values())).shape[0])


def _joined(batches: Sequence[Batch]) -> Batch:
    def join(columns: Sequence[Mapping[str, Any]]) -> dict[str, tf.Tensor]:
        return {name: tf.concat([part[name] for part in columns], 0) for name in columns[0]}

    return Batch(*(join([getattr(b, part) for b in batches]) for part in Batch._fields))
