"""Columns of lists in the form of Arrow: one flat array and the size of each list, without Python objects."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

_NULLABLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}  # pandas would turn integers with a missing value into floats, which garbles ids above 2^53


def arrow_frame(table: pa.Table) -> pd.DataFrame:
    """Return a table as pandas; integers and booleans keep their types if values are missing."""
    return pd.DataFrame({name: _column(table.column(name)) for name in table.column_names})


def _column(column: pa.ChunkedArray) -> pd.Series:
    if is_listed(column.type):
        return to_series(column)
    return column.to_pandas(types_mapper=_NULLABLE.get if column.null_count else None)


def is_listed(kind: pa.DataType) -> bool:
    """Return whether values of the type are lists."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def is_number(kind: pa.DataType) -> bool:
    """Return whether values of the type are numbers."""
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def to_series(column: pa.ChunkedArray) -> pd.Series:
    """Return a column of lists as pandas without a copy; access to an element gives a Python list."""
    return pd.Series(pd.arrays.ArrowExtensionArray(column))


def arrow_lists(column: pd.Series) -> pa.Array | None:
    """Return the lists [N] of a column that `to_series` has made, or None for any other."""
    kind = column.dtype
    if not isinstance(kind, pd.ArrowDtype) or not is_listed(kind.pyarrow_dtype):
        return None
    lists = column.array.__arrow_array__()
    return lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists


def sizes_of(lists: pa.Array) -> np.ndarray:
    """Return the number of values [N] of each list, 0 for a missing one."""
    sizes: np.ndarray = pa.compute.fill_null(pa.compute.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return sizes


def first_values(lists: pa.Array, length: int) -> tuple[pd.Series, np.ndarray]:
    """Return the first `length` values of each list [N], flat, and how many each has [N]."""
    sizes = sizes_of(lists)
    if sizes.max(initial=0) > length:
        lists = pa.compute.list_slice(lists, 0, length)
        sizes = np.minimum(sizes, length)
    flat = lists.flatten()
    if pa.types.is_dictionary(flat.type):
        flat = flat.cast(flat.type.value_type)
    integers = pa.types.is_integer(flat.type) and flat.null_count  # pandas would make floats of them
    return flat.to_pandas(types_mapper={flat.type: pd.Int64Dtype()}.get if integers else None), sizes
