"""Tables of other libraries, such as PyArrow and Polars, as pandas tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.interchange

from tfmtl._checks import require, require_type
from tfmtl.data.arrow_lists import arrow_frame
from tfmtl.data.features import Feature


def as_frame(table: Any) -> Any:
    """Return a table of another library as a pandas table; a pandas table, and any object that is no table, as it is.

    Args:
        table: a `pyarrow.Table` or `RecordBatch`; or an object with Arrow's stream protocol (`__arrow_c_stream__`) or
            the dataframe interchange protocol (`__dataframe__`), as those of Polars and cuDF.

    Example:
        >>> as_frame(pa.table({"user": ["a", "b"]})).shape
        (2, 1)

    Cost: lists are not copied; other columns are, once.
    """
    if isinstance(table, pd.DataFrame | pd.Series | type):
        return table
    if isinstance(table, pa.RecordBatch):
        return _pandas(pa.Table.from_batches([table]))
    if isinstance(table, pa.Table):
        return _pandas(table)
    if hasattr(table, "__arrow_c_stream__"):
        return _pandas(pa.table(table))
    if hasattr(table, "__dataframe__"):
        return _pandas(pyarrow.interchange.from_dataframe(table))
    return table


def as_rows(table: Any, name: str = "frame") -> pd.DataFrame:
    """Return a table as a pandas table, or raise unless it is a table with a row.

    Args:
        table: as for `as_frame`.
        name: of the argument, for the error.

    Raises:
        TypeError: if it is no table.
        ValueError: if it has no row.
    """
    frame: pd.DataFrame = as_frame(table)
    require_type(frame, pd.DataFrame, name, "Convert it, such as by `table.to_pandas()`.")
    require(len(frame) > 0, "The table is empty; at least one row is needed.")
    return frame


def _pandas(table: pa.Table) -> pd.DataFrame:
    return arrow_frame(pa.table({name: _plain(table.column(name)) for name in table.column_names}))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return dictionaries decoded and views of strings as strings, as the conversions of columns expect them."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    view = getattr(pa.types, "is_string_view", lambda _: False)
    return column.cast(pa.large_string()) if view(column.type) else column


def stacked(tables: Sequence[Any], features: Iterable[Feature] = ()) -> Any:
    """Return the rows of several tables as one pandas table, with the columns that all of them have.

    Args:
        tables: the tables.
        features: ids of these are read first where the types of their columns differ, such as integers in one table
            and strings in another, which one column cannot hold.
    """
    frames = [as_frame(table) for table in tables]
    for feature in features:
        name, spec = feature.column, feature.raw_spec
        if spec.dtype.is_floating or spec.shape.rank != 1 or any(name not in frame for frame in frames):
            continue
        if len({frame[name].dtype for frame in frames}) > 1:
            frames = [frame.assign(**{name: feature.read(frame[name])}) for frame in frames]
    return pd.concat(frames, join="inner", ignore_index=True)
