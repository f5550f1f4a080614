"""Columns of times: the one rule for which columns can be ordered, and for values that are compared with them."""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_known, require_type

_ZONE_CURE = "give all of them a time zone, or none"


def column_of(frame: pd.DataFrame, name: str, *, missing: bool = False) -> pd.Series:
    """Return a column, or raise; with `missing=False` also if values are missing."""
    require_known([name], frame.columns, "column", "the table")
    column = frame[name]
    require(isinstance(column, pd.Series), f"The table has more than one column {name!r}; rename or drop one.")
    absent = 0 if missing else int(column.isna().sum())
    require(absent == 0, f"Column {name!r} has {absent} missing values in {len(frame)} rows; drop these rows.")
    return column


def group_numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return the numbers [N] of the distinct values of a column, such as sessions, from 0; -1 where it is missing.

    Raises:
        ValueError: if the column is absent.
    """
    return np.asarray(pd.factorize(column_of(frame, name, missing=True))[0])


def times_of(frame: pd.DataFrame, name: str, *, missing: bool = False) -> pd.Index:
    """Return a column as an index that sorts: a `DatetimeIndex` in its own unit, or numbers.

    Raises:
        ValueError: if the column is absent or, with `missing=False`, has missing values.
        TypeError: if it holds no times, or times with and without a time zone.
    """
    column = column_of(frame, name, missing=missing)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if pd.api.types.is_datetime64_any_dtype(column.dtype) or kind in ("date", "datetime", "datetime64"):
        try:
            return pd.DatetimeIndex(pd.to_datetime(column))
        except (TypeError, ValueError) as error:  # objects with several time zones, or some without
            raise TypeError(
                f"Column {name!r} mixes time zones; convert it with pandas.to_datetime(..., utc=True)."
            ) from error
    if pd.api.types.is_any_real_numeric_dtype(column.dtype):
        return pd.Index(column)
    # text would sort by its letters: "10/1/2024" before "9/1/2024"
    raise TypeError(
        f"Column {name!r} must hold datetimes or numbers to order rows by time. Received: {kind} values of dtype "
        f"{column.dtype}; convert it with pandas.to_datetime or pandas.to_numeric."
    )


def moments_of(frames: Sequence[pd.DataFrame], name: str) -> np.ndarray:
    """Return the times of the rows of several tables as numbers that order them, equal for rows of one moment.

    Raises:
        ValueError, TypeError: as `times_of`; also if the tables hold times of different kinds.
    """
    return np.asarray(pd.factorize(_joined(frames, name), sort=True)[0])


def days_of(frames: Sequence[pd.DataFrame], name: str) -> np.ndarray:
    """Return the times of the rows of several tables as float64, in days since the first one.

    Times that are numbers stay in their own unit.

    Raises:
        ValueError, TypeError: as `moments_of`.
    """
    times = _joined(frames, name)
    since = times - times.min()
    return np.asarray(since / pd.Timedelta(days=1) if isinstance(times, pd.DatetimeIndex) else since, np.float64)


def _joined(frames: Sequence[pd.DataFrame], name: str) -> pd.Index:
    """Return the times of the rows of several tables as one index."""
    times = [times_of(frame, name) for frame in frames]
    kinds = {_kind(index) for index in times}
    require(
        len(kinds) == 1,
        f"Column {name!r} of the tables must hold times of one kind; {_ZONE_CURE}.",
        kinds=sorted(kinds),
    )
    if kinds == {"datetimes with a time zone"}:
        times = [index.tz_convert("UTC") for index in times]
    return times[0].append(times[1:]) if len(times) > 1 else times[0]


def _kind(times: pd.Index) -> str:
    if not isinstance(times, pd.DatetimeIndex):
        return "numbers"
    return "datetimes" if times.tz is None else "datetimes with a time zone"


def comparable(value: Any, times: pd.Index, column: str, argument: str) -> Any:
    """Return a time given as `argument` as a value that compares with `times`.

    A time without a zone takes the zone of the column.

    Raises:
        TypeError: if the value is of another kind than the column.
    """
    if not isinstance(times, pd.DatetimeIndex):
        require_type(value, numbers.Real, argument, f"Column {column!r} holds numbers.")
        return value
    rule = f"`{argument}` must be a datetime, as column {column!r} is. Received: {argument}={value!r}."
    if isinstance(value, numbers.Number):  # its unit is a guess: pandas 2 counts nanoseconds, 3 microseconds
        raise TypeError(rule)
    try:
        bound = pd.Timestamp(value)
    except (TypeError, ValueError) as error:
        raise TypeError(rule) from error
    if bound.tz is not None and times.tz is None:
        raise TypeError(f"{rule} It must have no time zone, because the column has none.")
    return bound if bound.tz is not None or times.tz is None else bound.tz_localize(times.tz)


def duration(value: Any, times: pd.Index, column: str, argument: str) -> Any:
    """Return a duration given as `argument` as a value that can be added to `times`: a number, or an offset of pandas.

    Raises:
        TypeError: if the value is of another kind than the column.
        ValueError: if it is negative.
    """
    if not isinstance(times, pd.DatetimeIndex):
        require_type(value, numbers.Real, argument, f"Column {column!r} holds numbers.")
        require(value >= 0, f"`{argument}` must be 0 or more.", **{argument: value})
        return value
    if not isinstance(value, pd.Timedelta | datetime.timedelta | np.timedelta64 | pd.offsets.BaseOffset):
        raise TypeError(
            f"`{argument}` must be a pandas.Timedelta or an offset of pandas, because column {column!r} holds "
            f"datetimes. Received: {argument}={value!r}."
        )
    length = value if isinstance(value, pd.offsets.BaseOffset) else pd.Timedelta(value)
    start = pd.Timestamp("2000-01-01")
    require(start + length >= start, f"`{argument}` must be 0 or more.", **{argument: value})
    return length
