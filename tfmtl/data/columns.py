"""Columns of a pandas table as the raw arrays of the model; every error names its column."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._checks import require
from tfmtl.data.arrow_lists import arrow_lists, first_values, is_number, sizes_of
from tfmtl.data.features import MISSING_INTEGER, Categorical, Feature, IdSequence, MultiValued, Numeric, Text, Vector
from tfmtl.data.schema import Label, Schema

Columns = dict[str, np.ndarray]


def check_columns(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise `ValueError` if the table is empty, lacks one of `names` or has it twice."""
    names = list(dict.fromkeys(names))
    missing = [name for name in names if name not in frame.columns]
    known = list(map(str, frame.columns))
    require(not missing, f"The table lacks the columns {missing} that the schema names; it has {known}.")
    twice = [name for name in names if known.count(name) > 1]
    require(not twice, f"The table has the columns {twice} more than once; rename or drop the others.")
    require(len(frame) > 0, "The table is empty; at least one row is needed.")


def to_columns(frame: pd.DataFrame, features: Iterable[Feature]) -> Columns:
    """Convert feature columns to the raw arrays a serving client would send.

    Args:
        frame: the table.
        features: features to convert; each needs a column of its name.

    Returns:
        Strings (object) or int64 [N] for categories, [N, length] for lists, float32 [N] or [N, size] for numbers.

    Raises:
        ValueError: naming the column, if it is absent, holds another type, or an infinite number.
    """
    features = list(features)
    check_columns(frame, [feature.name for feature in features])
    return {feature.name: _convert(feature, frame[feature.name]) for feature in features}


def to_labels(frame: pd.DataFrame, schema: Schema) -> tuple[Columns, Columns]:
    """Convert label and weight columns to float32 [N] by task; a missing label is NaN, its weight 0.

    Raises:
        ValueError: naming the column, if it is absent, not a number, infinite, or a weight is negative or missing.
    """
    check_columns(frame, [c for label in schema.labels for c in (label.column, label.sample_weight) if c])
    labels = {label.task: _label(label, frame[label.column]) for label in schema.labels}
    weights = {label.task: _weight(label, frame, labels[label.task]) for label in schema.labels}
    return labels, weights


def _label(label: Label, column: pd.Series) -> np.ndarray:
    if label.classes:
        known = column.isin(label.classes)
        unknown = column[column.notna() & ~known].unique()[:3].tolist()
        require(
            not unknown,
            f"Label column {label.column!r} holds {unknown}, which the classes {list(label.classes)} lack.",
        )
        positions = column.map({value: float(i) for i, value in enumerate(label.classes)})
        return positions.to_numpy(np.float32, na_value=np.nan)
    return _numbers(column, f"Label column {label.column!r}")


def _weight(label: Label, frame: pd.DataFrame, labels: np.ndarray) -> np.ndarray:
    observed = ~np.isnan(labels)
    if label.sample_weight is None:
        return observed.astype(np.float32)
    weights = _numbers(frame[label.sample_weight], f"Weight column {label.sample_weight!r}")
    bad = observed & ~(weights >= 0)
    require(
        not bad.any(),
        f"Weight column {label.sample_weight!r} of task {label.task!r} must be zero or positive where the label is "
        f"known; {int(bad.sum())} rows are not, the first at position {int(bad.argmax())}.",
    )
    return np.where(observed, weights, 0).astype(np.float32)


def to_numbers(column: pd.Series) -> np.ndarray:
    """Return a column of numbers as float32 [N], NaN where missing.

    Raises:
        ValueError: naming the column, if it holds anything else, or infinity.
    """
    return _numbers(column, f"Column {column.name!r}")


def _numbers(column: pd.Series, where: str) -> np.ndarray:
    require(
        pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column) or _all_numbers(column),
        f"{where} must hold numbers; it has dtype {column.dtype}.",
    )
    values = _float32(column.to_numpy(np.float64, na_value=np.nan))
    infinite = np.isinf(values)
    require(
        not infinite.any(),
        f"{where} holds {int(infinite.sum())} infinite values, the first at position {int(infinite.argmax())}; "
        "replace them or make them missing.",
    )
    return values


def _float32(values: Any) -> np.ndarray:
    with np.errstate(over="ignore"):  # beyond float32 is infinity, which the callers refuse
        return np.asarray(values, np.float32)


def _all_numbers(column: pd.Series) -> bool:
    kinds = ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty")
    return pd.api.types.infer_dtype(column, skipna=True) in kinds


@functools.singledispatch
def _convert(feature: Feature, column: pd.Series) -> np.ndarray:
    raise TypeError(f"No conversion from pandas for the feature kind {type(feature).__name__}.")


@_convert.register
def _(feature: Categorical, column: pd.Series) -> np.ndarray:
    return _ids(column, feature.dtype, feature.name)


@_convert.register
def _(feature: Text, column: pd.Series) -> np.ndarray:
    return _ids(column, "string", feature.name)


@_convert.register
def _(feature: MultiValued, column: pd.Series) -> np.ndarray:
    if feature.separator is not None:
        return _ids(column, "string", feature.name)
    return _lists(column, feature.dtype, feature.max_length, feature.name)


@_convert.register
def _(feature: IdSequence, column: pd.Series) -> np.ndarray:
    return _lists(column, feature.dtype, feature.max_length, feature.name)


@_convert.register
def _(feature: Numeric, column: pd.Series) -> np.ndarray:
    values = to_numbers(column)
    if feature.missing == "error":
        absent = np.isnan(values)
        require(
            not absent.any(),
            f"Column {feature.name!r} has {int(absent.sum())} missing values, the first at position "
            f"{int(absent.argmax())}; fill them or declare the feature with missing='learned'.",
        )
    return values


@_convert.register
def _(feature: Vector, column: pd.Series) -> np.ndarray:
    absent = column.isna().to_numpy()
    values = np.full((len(column), feature.size), np.nan, np.float32)
    rule = f"Column {feature.name!r} must hold vectors of {feature.size} numbers in every row"
    lists = arrow_lists(column)
    if lists is not None and is_number(lists.type.value_type) and (sizes_of(lists)[~absent] == feature.size).all():
        known = _float32(lists.flatten().to_numpy(zero_copy_only=False)).reshape(-1, feature.size)
        if absent.any():
            values[~absent] = known
        else:
            values = known
        require(not np.isinf(values).any(), f"Column {feature.name!r} holds infinite values; replace them.")
        return values
    try:
        rows = [_float32(row) for row in column[~absent]]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{rule}; {error}.") from error
    wrong = next((row.shape for row in rows if row.shape != (feature.size,)), None)
    require(wrong is None, f"{rule}; one has the shape {wrong}.")
    if rows:
        values[~absent] = rows
    require(not np.isinf(values).any(), f"Column {feature.name!r} holds infinite values; replace them.")
    return values


def _ids(column: pd.Series, dtype: str, name: str) -> np.ndarray:
    convert: Mapping[str, Callable[[pd.Series, str], np.ndarray]] = {"string": _strings, "int64": _integers}
    return convert[dtype](column, name)


def _strings(column: pd.Series, name: str) -> np.ndarray:
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    kind = pd.api.types.infer_dtype(column.cat.categories if categorical else column, skipna=True)
    require(
        kind in ("string", "empty", "bytes", "integer", "boolean"),
        f"Column {name!r} must hold strings; it holds {kind} values. Convert it, or declare the feature's dtype.",
    )
    if kind in ("integer", "boolean"):  # pandas would write the numbers of a category column with a gap as "7.0"
        column = column.cat.rename_categories(str) if categorical else column.astype("string")
    values = column.astype(object)
    return np.asarray(values.where(values.notna(), "").to_numpy(), dtype=object)


def _integers(column: pd.Series, name: str) -> np.ndarray:
    numeric = pd.api.types.is_numeric_dtype(column) or _all_numbers(column)
    require(
        numeric, f"Column {name!r} must hold integers; it has dtype {column.dtype}. Declare dtype='string' for strings."
    )
    if pd.api.types.is_float_dtype(column):
        column = pd.Series(
            column.to_numpy(np.float64, na_value=np.nan)
        )  # pandas would cut the fractions of its Float64
    try:  # by way of pandas' integers: a float has too few digits for a large id
        with np.errstate(invalid="ignore"):
            return column.astype("Int64").to_numpy(np.int64, na_value=MISSING_INTEGER)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"Column {name!r} must hold integers of 64 bits; it holds fractions or infinity.") from error


def _lists(column: pd.Series, dtype: str, length: int, name: str) -> np.ndarray:
    """Pad and cut lists to [N, length] through one flat array, without a Python loop over the values."""
    lists = arrow_lists(column)
    if lists is not None:
        values, sizes = first_values(lists, length)
        flat = _ids(values, dtype, name)
    else:
        flat, sizes = _python_lists(column, dtype, length, name)
    padded = np.full((len(sizes), length), "" if dtype == "string" else MISSING_INTEGER, flat.dtype)
    padded[np.arange(length) < sizes[:, None]] = flat
    return padded


def _python_lists(column: pd.Series, dtype: str, length: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `length` values of each row's list [N], flat, and how many each has [N]."""
    rows = column.to_numpy(dtype=object, na_value=None)
    require(
        not any(isinstance(row, str | bytes) for row in rows),
        f"Column {name!r} must hold lists but holds strings; give the feature a `separator`.",
    )
    try:
        cut = [() if row is None else row[:length] for row in rows]
        return _ids(_flat(cut), dtype, name), np.fromiter(map(len, cut), np.int64, len(cut))
    except TypeError as error:
        raise ValueError(f"Column {name!r} must hold lists of {dtype} values; {error}.") from error


def _flat(rows: list[Any]) -> pd.Series:
    """Join rows without making a Python object of every value where they are arrays."""
    filled = [row for row in rows if len(row)]
    if filled and all(isinstance(row, np.ndarray) for row in filled):
        return pd.Series(np.concatenate(filled))
    return pd.Series(list(itertools.chain.from_iterable(filled)), dtype=object)
