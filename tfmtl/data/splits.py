"""One split of an interaction table into a training and a test side; apply twice for a validation side.

Every function keeps the index and the order of the rows, puts each row on exactly one side and never changes its input.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl.data.interchange import as_rows
from tfmtl.data.times import column_of, comparable, times_of


class Split(NamedTuple):
    """The two sides of a split.

    Attributes:
        train: rows to learn from.
        test: rows held out.
    """

    train: pd.DataFrame
    test: pd.DataFrame


def temporal_split(
    frame: pd.DataFrame, column: str, *, test_fraction: float | None = None, test_from: Any = None
) -> Split:
    """Hold out the latest rows, as in production, where only the past is available for training.

    Use it by default for interaction data. Rows of one moment stay together: with `test_fraction` the boundary is the
    change of time that comes closest to the wanted number of rows, so a table of days is cut between two days.

    Args:
        frame: the table.
        column: time of the row: datetimes, with or without time zone, or numbers.
        test_fraction: share of the rows held out, in (0, 1); or
        test_from: first time held out, anything `pandas.Timestamp` takes for a datetime column, else a number.

    Returns:
        Training rows, all earlier than all test rows.

    Raises:
        ValueError: if the column is absent or has missing values, or a side would be empty.
        TypeError: if the column holds no times, or `test_from` is of another kind than the column.

    Example:
        >>> table = pd.DataFrame({"day": [3, 1, 2, 3], "user_id": ["a", "b", "c", "d"]})
        >>> train, test = temporal_split(table, "day", test_fraction=0.5)
        >>> test["user_id"].tolist()
        ['a', 'd']

    Cost: one sort of the column.
    """
    frame = as_rows(frame)
    times = times_of(frame, column)
    require(
        (test_fraction is None) != (test_from is None),
        "Give exactly one of `test_fraction` and `test_from`.",
        test_fraction=test_fraction,
        test_from=test_from,
    )
    if test_fraction is None:
        held_out = np.asarray(times >= comparable(test_from, times, column, "test_from"), dtype=bool)
        return divided(frame, held_out, f"`test_from` and the times of column {column!r}")
    wanted = _share(test_fraction, len(frame))
    codes, distinct = pd.factorize(times, sort=True)
    require(len(distinct) > 1, f"Column {column!r} must hold two different times to split by.", distinct=len(distinct))
    rows_from = np.bincount(codes)[::-1].cumsum()[::-1]  # rows_from[i]: rows at the i-th time or later
    first = 1 + int(np.abs(rows_from[1:] - wanted).argmin())
    return divided(frame, codes >= first, "`test_fraction`")


def leave_last_split(frame: pd.DataFrame, user: str, time: str, *, n: int = 1) -> Split:
    """Hold out the last `n` rows of every user.

    Use it to compare with published results. Rows of one user and one moment stay together: a moment that the boundary
    would cut, such as a basket, is held out whole, so a user's test side can have more than `n` rows. A user who would
    have no training row left stays in training whole. Other users' later rows are in training: use `temporal_split`
    where that would overestimate the model.

    Args:
        frame: the table.
        user: column of the user.
        time: time of the row: datetimes or numbers.
        n: rows held out per user.

    Raises:
        ValueError: if a column is absent or has missing values, or no user has more than `n` rows at two times.
        TypeError: if the time column holds no times.

    Example:
        >>> table = pd.DataFrame({"user_id": ["a", "a", "a", "b"], "day": [2, 3, 1, 9]})
        >>> leave_last_split(table, "user_id", "day").test.index.tolist()
        [1]

    Cost: one sort of the rows.
    """
    require_positive_int(n=n)
    frame = as_rows(frame)
    users, _ = pd.factorize(column_of(frame, user))
    times, _ = pd.factorize(times_of(frame, time), sort=True)
    ordered = times[np.lexsort((times, users))]
    ends = np.bincount(users).cumsum()
    starts = np.concatenate([[0], ends[:-1]])
    earliest, boundary = ordered[starts], ordered[np.maximum(ends - n, starts)]
    boundary = np.where(boundary > earliest, boundary, len(frame))  # no code reaches len(frame): nothing is held out
    cause = f"Holding out the last {n} rows of every {user!r} with earlier rows by {time!r}"
    return divided(frame, times >= boundary[users], cause)


def random_split(frame: pd.DataFrame, *, test_fraction: float, seed: int) -> Split:
    """Hold out a random share of the rows; the same seed and number of rows give the same split.

    Args:
        frame: the table.
        test_fraction: share of the rows held out, in (0, 1); rounded to whole rows.
        seed: seed of `numpy.random.default_rng`.

    Raises:
        ValueError: if a side would be empty.

    Example:
        >>> train, test = random_split(pd.DataFrame({"x": range(10)}), test_fraction=0.2, seed=0)
        >>> len(train), len(test)
        (8, 2)
    """
    frame = as_rows(frame)
    generator = generator_of(seed)
    held_out = np.zeros(len(frame), dtype=bool)
    held_out[generator.permutation(len(frame))[: _share(test_fraction, len(frame))]] = True
    return divided(frame, held_out, "`test_fraction`")


def divided(frame: pd.DataFrame, held_out: np.ndarray, cause: str) -> Split:
    """Return both sides, or raise `ValueError` that names `cause` if one would be empty."""
    rows = int(held_out.sum())
    side = "test" if rows == 0 else "training"
    require(0 < rows < len(frame), f"{cause} must leave a row on the {side} side.", rows=len(frame), test_rows=rows)
    return Split(frame[~held_out], frame[held_out])


def _share(test_fraction: float, rows: int) -> int:
    require_fraction(test_fraction=test_fraction)
    wanted = round(test_fraction * rows)
    require(
        0 < wanted < rows,
        f"`test_fraction` must leave at least one of the {rows} rows on either side.",
        test_fraction=test_fraction,
    )
    return wanted


def generator_of(seed: int) -> np.random.Generator:
    """Return a generator of a seed of at least 0."""
    valid = isinstance(seed, int | np.integer) and seed >= 0
    require(valid, "`seed` must be an integer of at least 0.", seed=seed)
    return np.random.default_rng(seed)
