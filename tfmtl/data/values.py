"""Values of a pandas column as arrays: numbers, ids and lists of ids; every error names its column."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tfmtl._checks import require
from tfmtl.data.arrow_lists import arrow_lists, first_values, is_number, sizes_of

_LARGEST = np.iinfo(np.int64).max

_DIGITS = {"float16": 11, "halffloat[pyarrow]": 11, "float32": 24, "Float32": 24, "float[pyarrow]": 24}
"""Binary digits of floats by the name of a column's type."""

MISSING_INTEGER = -1
"""The integer that means "no value" in an integer column, in training and in serving requests."""


def to_numbers(column: pd.Series, dtype: Any = np.float32) -> np.ndarray:
    """Return a column of numbers as float32 or float64 [N], NaN where missing.

    Raises:
        ValueError: naming the column, if it holds anything else, or a number beyond the largest float32.
    """
    return numbers(column, f"Column {column.name!r}", dtype)


def numbers(column: pd.Series, where: str, dtype: Any = np.float32, cure: str = "") -> np.ndarray:
    """Return a column of numbers as float32 or float64 [N].

    Errors begin with `where`; for values that are no numbers they end with `cure`.
    """
    column = _without_dictionary(column)
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column)
    require(
        numeric or pd.api.types.is_bool_dtype(column) or _all_numbers(column),
        f"{where} must hold numbers; it has dtype {column.dtype}{cure}.",
    )
    values = column.to_numpy(np.float64, na_value=np.nan)
    infinite = np.isinf(_float32(values))
    require(
        not infinite.any(),
        f"{where} holds {int(infinite.sum())} infinite values, the first at position {_first(infinite)}; "
        "replace them or make them missing.",
    )
    return values.astype(dtype)


def _first(where: np.ndarray) -> int:
    """Return the first position at which a mask is true; 0 if none is, such as in a table of empty lists."""
    return int(where.argmax()) if where.size else 0


def _float32(values: Any) -> np.ndarray:
    return _cast(values, np.float32)


def _cast(values: Any, dtype: Any) -> np.ndarray:
    with np.errstate(over="ignore"):  # beyond float32 is infinity, which the callers refuse
        return np.asarray(values, dtype)


def _all_numbers(column: pd.Series) -> bool:
    kinds = ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty")
    return pd.api.types.infer_dtype(column, skipna=True) in kinds


def vectors(column: pd.Series, size: int, dtype: Any = np.float32) -> np.ndarray:
    """Return a column of vectors as float32 or float64 [N, size]; a row without a vector is NaN.

    Raises:
        ValueError: naming the column, if a vector has another size, or holds anything except numbers, or a number
            beyond the largest float32.
    """
    absent = column.isna().to_numpy()
    known = _known_vectors(column[~absent], size, dtype)
    require(not np.isinf(_float32(known)).any(), f"Column {column.name!r} holds infinite values; replace them.")
    if not absent.any():
        return known
    values = np.full((len(column), size), np.nan, dtype)
    values[~absent] = known
    return values


def _known_vectors(column: pd.Series, size: int, dtype: Any) -> np.ndarray:
    rule = f"Column {column.name!r} must hold vectors of {size} numbers in every row"
    lists = arrow_lists(column)
    if lists is not None and is_number(lists.type.value_type) and (sizes_of(lists) == size).all():
        return _cast(lists.flatten().to_numpy(zero_copy_only=False), dtype).reshape(-1, size)
    try:
        require(not any(np.iscomplexobj(row) for row in column), f"{rule}; they are complex.")
        rows = [_cast(row, dtype) for row in column]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{rule}; {error}.") from error
    wrong = next((row.shape for row in rows if row.shape != (size,)), None)
    require(wrong is None, f"{rule}; one has the shape {wrong}.")
    return np.stack(rows) if rows else np.empty([0, size], dtype)


def ids(column: pd.Series, dtype: str, name: str) -> np.ndarray:
    """Return a column of ids as strings (object) or int64 [N]; a missing one is `""` or -1.

    Raises:
        ValueError: naming the column, if it holds other values.
    """
    convert: Mapping[str, Callable[[pd.Series, str], np.ndarray]] = {"string": _strings, "int64": _integers}
    return convert[dtype](_without_dictionary(column), name)


def _without_dictionary(column: pd.Series) -> pd.Series:
    """Return the values of a column of Arrow dictionaries; another column as it is."""
    kind = column.dtype
    if not isinstance(kind, pd.ArrowDtype) or not pa.types.is_dictionary(kind.pyarrow_dtype):
        return column
    values = column.array.__arrow_array__().cast(kind.pyarrow_dtype.value_type)
    return pd.Series(pd.arrays.ArrowExtensionArray(values), name=column.name, index=column.index)


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
    if kind == "bytes":  # bytes and the string that they spell are one id
        values = _decoded(values, name)
    return np.asarray(values.where(values.notna(), "").to_numpy(), dtype=object)


def _decoded(column: pd.Series, name: str) -> pd.Series:
    try:
        return column.str.decode("utf-8")
    except UnicodeDecodeError as error:
        cure = "write them as text, such as hexadecimal digits"
        raise ValueError(f"Column {name!r} holds bytes that are no UTF-8 text; {cure}.") from error


def _integers(column: pd.Series, name: str) -> np.ndarray:
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column)
    require(
        numeric or _all_numbers(column),
        f"Column {name!r} must hold integers; it has dtype {column.dtype}. Declare dtype='string' for strings.",
    )
    _check_digits(column, name)
    if pd.api.types.is_float_dtype(column):
        column = pd.Series(
            column.to_numpy(np.float64, na_value=np.nan)
        )  # pandas would cut the fractions of its Float64
    try:  # by way of pandas' integers: a float has too few digits for a large id
        with np.errstate(invalid="ignore"):
            return column.astype("Int64").to_numpy(np.int64, na_value=MISSING_INTEGER)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"Column {name!r} must hold integers of 64 bits; it holds fractions or infinity.") from error


def _check_digits(column: pd.Series, name: str) -> None:
    """Raise if an id is above int64, or went through floats that cannot tell it from its neighbours."""
    if pd.api.types.is_unsigned_integer_dtype(column) or column.dtype == object:
        large = [
            value for value in column.dropna().unique() if isinstance(value, int | np.integer) and value > _LARGEST
        ]
        require(
            not large,
            f"Column {name!r} holds ids above the largest int64, such as {[*large, 0][0]}; declare the feature with "
            "dtype='string'.",
        )
    if pd.api.types.is_float_dtype(column):
        digits = _DIGITS.get(str(column.dtype), 53)
        values = column.to_numpy(np.float64, na_value=np.nan)
    elif column.dtype == object:
        digits, values = 53, np.array([value for value in column if isinstance(value, float | np.floating)], float)
    else:
        return
    check_ids(values, 2**digits, f"Column {name!r}")


def check_ids(values: np.ndarray, limit: int, where: str) -> None:
    """Raise if floats that hold ids are so large that two ids may have become one."""
    whole = np.isfinite(values) & (np.abs(values) < 2.0**63)
    merged = values[whole & (np.abs(values) >= limit)]
    require(
        not len(merged),
        f"{where} holds ids such as {merged[0] if len(merged) else 0:.0f} as floats, which merge integers from "
        f"2**{limit.bit_length() - 1} on; read the column as integers (pandas' 'Int64') or as strings.",
    )


def lists(column: pd.Series, dtype: str, length: int, name: str) -> np.ndarray:
    """Pad and cut lists of ids to [N, length] through one flat array, without a Python loop over the values."""
    missing = "" if dtype == "string" else MISSING_INTEGER
    return _padded(column, length, missing, lambda flat: ids(flat, dtype, name), f"{dtype} values", _SEPARATOR)


def number_lists(column: pd.Series, length: int) -> np.ndarray:
    """Pad by NaN and cut lists of numbers to float32 [N, length]."""
    where = f"Column {column.name!r}"
    return _padded(column, length, np.nan, lambda flat: numbers(flat, where), "numbers")


_SEPARATOR = "; give the feature a `separator`"


def _padded(
    column: pd.Series, length: int, missing: Any, convert: Callable[[pd.Series], np.ndarray], kind: str, cure: str = ""
) -> np.ndarray:
    """Return the lists of a column as [N, length].

    Args:
        column: lists, or None for an empty one.
        length: values kept of each list, the first ones.
        missing: the padding of shorter lists.
        convert: turns the flat values into an array of one type, or raises.
        kind, cure: the values and the advice against strings, for errors.
    """
    lists = arrow_lists(column)
    if lists is not None:
        values, sizes = first_values(lists, length)
        flat = convert(values)
    else:
        flat, sizes = _python_lists(column, length, convert, kind, cure)
    padded = np.full((len(sizes), length), missing, flat.dtype)
    padded[np.arange(length) < sizes[:, None]] = flat
    return padded


def _python_lists(
    column: pd.Series, length: int, convert: Callable[[pd.Series], np.ndarray], kind: str, cure: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `length` values of each row's list [N], flat, and how many each has [N]."""
    rows = column.to_numpy(dtype=object, na_value=None)
    require(
        not any(isinstance(row, str | bytes) for row in rows),
        f"Column {column.name!r} must hold lists but holds strings{cure}.",
    )
    try:
        cut = [() if row is None else row[:length] for row in rows]
        return convert(_flat(cut)), np.fromiter(map(len, cut), np.int64, len(cut))
    except TypeError as error:
        raise ValueError(f"Column {column.name!r} must hold lists of {kind}; {error}.") from error


def _flat(rows: list[Any]) -> pd.Series:
    """Join rows without making a Python object of every value where they are arrays."""
    filled = [row for row in rows if len(row)]
    if filled and all(isinstance(row, np.ndarray) for row in filled):
        return pd.Series(np.concatenate(filled))
    return pd.Series(list(itertools.chain.from_iterable(filled)), dtype=object)


def longest(column: pd.Series) -> int:
    """Return the length of the longest list of a column, at least 1."""
    sizes = column.map(lambda row: len(row) if hasattr(row, "__len__") else 0)
    return max(int(sizes.max()), 1)
