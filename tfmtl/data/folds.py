"""Folds of an interaction table for cross-validation: splits, one after the other, that keep the order of the rows."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_positive_int, require_type
from tfmtl.data.interchange import as_rows
from tfmtl.data.splits import Split, divided, generator_of
from tfmtl.data.times import column_of, times_of


def random_kfold(frame: pd.DataFrame, *, folds: int, seed: int) -> Iterator[Split]:
    """Yield one split per fold, each row at random in the test side of exactly one of them.

    Rows of one user fall on both sides: the model has seen the test users. Test sides differ by at most one row.

    Args:
        frame: the table.
        folds: number of folds, from 2 to the number of rows.
        seed: seed of `numpy.random.default_rng`.

    Raises:
        ValueError: at the call, if the table has fewer rows than folds.

    Example:
        >>> table = pd.DataFrame({"x": range(5)})
        >>> [len(test) for _, test in random_kfold(table, folds=2, seed=0)]
        [3, 2]

    Cost: one copy of the table per fold, made when the fold is yielded.
    """
    frame = as_rows(frame)
    require_positive_int(folds=folds)
    require(2 <= folds <= len(frame), f"`folds` must be from 2 to the {len(frame)} rows of the table.", folds=folds)
    fold_of = generator_of(seed).permutation(np.arange(len(frame)) % folds)
    return (divided(frame, fold_of == fold, "A fold") for fold in range(folds))


def grouped_kfold(frame: pd.DataFrame, group: str, *, folds: int, seed: int) -> Iterator[Split]:
    """Yield one split per fold, in which all rows of a group, such as a user, are on the same side.

    Each row is in the test side of exactly one fold. Groups are dealt in turn, largest first and equal ones at random,
    so two test sides differ by at most the rows of the largest group.

    Args:
        frame: the table.
        group: column of the group.
        folds: number of folds, from 2 to the number of groups.
        seed: seed of `numpy.random.default_rng`.

    Raises:
        ValueError: at the call, if the column is absent or has missing values, or there are fewer groups than folds.

    Example:
        >>> table = pd.DataFrame({"user_id": ["a", "a", "b", "c"]})
        >>> [len(test) for _, test in grouped_kfold(table, "user_id", folds=2, seed=0)]
        [3, 1]

    Cost: one copy of the table per fold, made when the fold is yielded.
    """
    require_positive_int(folds=folds)
    frame = as_rows(frame)
    groups, distinct = pd.factorize(column_of(frame, group))
    require(
        2 <= folds <= len(distinct),
        f"`folds` must be from 2 to the {len(distinct)} different values of column {group!r}.",
        folds=folds,
    )
    dealt = generator_of(seed).permutation(len(distinct))
    dealt = dealt[np.argsort(-np.bincount(groups)[dealt], kind="stable")]
    fold_of = np.empty(len(distinct), dtype=np.int64)
    fold_of[dealt] = np.arange(len(distinct)) % folds
    return (divided(frame, fold_of[groups] == fold, "A fold") for fold in range(folds))


def rolling_origin(frame: pd.DataFrame, time: str, *, folds: int, horizon: Any, window: Any = None) -> Iterator[Split]:
    """Yield one split per fold, the earliest first: training on the past of an origin, testing on the rows after it.

    With the last time T and the horizon h, fold i of k has the origin o_i = T - (k - i) h; its test rows are
    in (o_i, o_i + h], its training rows up to o_i, or in (o_i - window, o_i]. Later rows are on neither side. Each row
    after the first origin is tested exactly once, and rows of one moment stay together.

    Args:
        frame: the table.
        time: time of the row: datetimes, with or without time zone, or numbers.
        folds: number of folds, at least 1.
        horizon: length of a test side, above 0: for datetimes a value for `pandas.Timedelta` ("7D"; a day is 24 hours,
            even where clocks change), else a number.
        window: length of a training side, in the same unit; by default all of the past.

    Raises:
        ValueError: at the call, if the column is absent or has missing values, a length is not above 0, or a fold would
            have an empty side.
        TypeError: if the column holds no times, or a length is of another kind than the column.

    Example:
        >>> table = pd.DataFrame({"day": [1, 2, 3, 4, 4]})
        >>> [(train["day"].tolist(), test["day"].tolist()) for train, test in
        ...  rolling_origin(table, "day", folds=2, horizon=1)]
        [([1, 2], [3]), ([1, 2, 3], [4, 4])]

    Reference:
        Tashman, "Out-of-sample tests of forecasting accuracy: an analysis and review", International Journal of
        Forecasting 16(4), 2000, https://doi.org/10.1016/S0169-2070(00)00065-0.

    Cost: one copy of the past per fold, made when the fold is yielded.
    """
    require_positive_int(folds=folds)
    frame = as_rows(frame)
    times = times_of(frame, time)
    step = _length(horizon, times, time, "horizon")
    past = None if window is None else _length(window, times, time, "window")
    sides = [_sides(times, times.max() - (folds - fold) * step, step, past) for fold in range(folds)]
    for fold, (train, test) in enumerate(sides):
        side = "training" if not train.any() else "test"
        rule = f"Fold {fold} of {folds} has no {side} row in column {time!r}; give fewer folds or another `horizon`."
        require(bool(train.any() and test.any()), rule, horizon=horizon, window=window)
    return (Split(frame[train], frame[test]) for train, test in sides)


def _sides(times: pd.Index, origin: Any, step: Any, past: Any) -> tuple[np.ndarray, np.ndarray]:
    train = np.asarray(times <= origin, dtype=bool)
    if past is not None:
        train &= np.asarray(times > origin - past, dtype=bool)
    return train, np.asarray((times > origin) & (times <= origin + step), dtype=bool)


def _length(value: Any, times: pd.Index, name: str, argument: str) -> Any:
    """Return a length of time that can be taken from `times`."""
    if isinstance(times, pd.DatetimeIndex):
        rule = f"`{argument}` must be a length of time such as '7D': column {name!r} holds datetimes."
        if isinstance(value, numbers.Number):  # its unit would be a guess
            raise TypeError(f"{rule} Received: {argument}={value!r}.")
        try:
            value = pd.Timedelta(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{rule} Received: {argument}={value!r}.") from error
        require(value > pd.Timedelta(0), f"`{argument}` must be above 0.", **{argument: value})
        return value
    require_type(value, numbers.Real, argument, f"Column {name!r} holds numbers.")
    require(value > 0, f"`{argument}` must be above 0.", **{argument: value})
    return value
