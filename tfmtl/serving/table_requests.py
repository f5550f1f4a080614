"""Requests and answers as tables: rows in several forms, and columns for the values of tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._checks import require
from tfmtl.data import Schema
from tfmtl.data.interchange import as_frame


def as_queries(given: Any, schema: Schema, roles: Sequence[str] = ("query",)) -> pd.DataFrame:
    """Return rows as a table.

    Args:
        given: a table; one row as a `dict` or `Series`; or ids, if the roles have one feature.
        schema: the features.
        roles: roles of the features that are read.

    Raises:
        ValueError: if ids are given and the roles have several features, or there is no row.
    """
    given = as_frame(given)
    if isinstance(given, Mapping | pd.Series) and (isinstance(given, Mapping) or _is_row(given, schema)):
        given = pd.DataFrame([dict(given)])
    if not isinstance(given, pd.DataFrame):
        columns = [feature.column for role in roles for feature in getattr(schema, role)]
        require(
            len(columns) == 1,
            f"Ids alone are enough where they are the only feature; give a table with the columns {columns}.",
            found=type(given).__name__,
        )
        given = pd.DataFrame({columns[0]: [given] if np.ndim(given) == 0 else list(given)})
    require(len(given) > 0, "The table is empty; at least one row is needed.")
    return given


def _is_row(series: pd.Series, schema: Schema) -> bool:
    """Return whether a series is one row: its labels are columns."""
    return bool({feature.column for feature in schema.features.values()} & set(series.index))


def column_names(schema: Schema, frame: pd.DataFrame) -> tuple[str, str]:
    """Return the columns of queries and candidates in an answer."""
    user = schema.features[schema.query_id].column if schema.query_id in schema.features else "query"
    return user if user in frame else "query", schema.features[str(schema.candidate_id)].column


def named_values(
    values: Mapping[str, np.ndarray], schema: Schema, taken: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Return a column for each task, or for each class of a task.

    Args:
        values: [n] or [n, classes] by task.
        schema: names the classes of labels of text; others have numbers.
        taken: columns that exist; the value of a task with such a name is `<task>_value`.
    """
    found: dict[str, np.ndarray] = {}
    classes = {label.task: label.classes for label in schema.labels if label.classes}
    for task, value in values.items():
        name = f"{task}_value" if task in taken else task
        if value.ndim == 1:
            found[name] = value
        else:
            known = classes.get(task, range(value.shape[1]))
            found |= {f"{name}[{one}]": value[:, i] for i, one in enumerate(known)}
    return found


def as_text(values: np.ndarray) -> np.ndarray:
    """Return the texts of an array of bytes; other arrays as they are.

    Example:
        >>> as_text(np.array([b"tee", "größe".encode()], object)).tolist()
        ['tee', 'größe']
    """
    if values.dtype.kind != "O":
        return values
    found = np.empty(values.shape, object)
    found.ravel()[:] = [one.decode() for one in values.ravel()]
    return found
