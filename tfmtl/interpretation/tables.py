"""The results of interpretation as pandas tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd


def long_table(index: Mapping[str, Sequence[str]], values: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return arrays [n_1, n_2, ...] as the columns of a table with a row for each combination of names.

    Args:
        index: the names along each axis, by name of the axis.
        values: arrays by name of the column.

    Example:
        >>> table = long_table({"task": ["a"], "feature": ["x", "y"]}, {"value": np.array([[1.0, 2.0]])})
        >>> table.loc[("a", "y"), "value"].item()
        2.0
    """
    rows = pd.MultiIndex.from_product([list(names) for names in index.values()], names=list(index))
    return pd.DataFrame({name: np.asarray(array).reshape(-1) for name, array in values.items()}, rows)


def ranked_rows(frame: pd.DataFrame | None, order: np.ndarray, name: str, values: np.ndarray) -> pd.DataFrame:
    """Return some rows of a table, with their values as the first column.

    Args:
        frame: the table [N]; None for rows without columns, with their positions as the index.
        order: positions of the chosen rows [n].
        name: name of the column of values.
        values: value of each row of the table [N].

    Example:
        >>> ranked_rows(pd.DataFrame({"x": [5, 6]}, ["a", "b"]), np.array([1]), "score", np.array([1.0, 2.0]))
           score  x
        b    2.0  6
    """
    chosen = pd.DataFrame(index=order) if frame is None else frame.iloc[order].copy()
    chosen.insert(0, name, values[order])
    return chosen


def columns_table(columns: Mapping[str, Sequence[Any] | np.ndarray]) -> pd.DataFrame:
    """Return columns of one length as a table."""
    return pd.DataFrame(dict(columns))
