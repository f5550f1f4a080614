"""A raw table that is read in pieces, whether it is in memory or in files, and a hash of its contents."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from tfmtl.data.columns import check_columns
from tfmtl.data.interchange import as_frame


class RawTable(Protocol):
    """A table of raw columns that is read in pieces: `FileSource` or `FrameTable`."""

    def chunks(self, columns: Iterable[str] | None = None, rows: int = ...) -> Iterable[pd.DataFrame]:
        """Yield the rows in order, `rows` at a time."""

    def state(self, columns: Sequence[str]) -> Any:
        """Return JSON values that change when the contents of the columns change."""


@dataclasses.dataclass(frozen=True)
class FrameTable:
    """A pandas table as a `RawTable`.

    Attributes:
        frame: the table.
    """

    frame: pd.DataFrame

    def chunks(self, columns: Iterable[str] | None = None, rows: int | None = None) -> Iterator[pd.DataFrame]:
        """Yield the table in pieces of `rows` rows, by default in one piece; all columns are kept."""
        total = max(len(self.frame), 1)  # an empty table is one empty piece
        step = rows or total
        return (self.frame.iloc[start : start + step] for start in range(0, total, step))

    def state(self, columns: Sequence[str]) -> Any:
        """Return the fingerprint of the columns."""
        check_columns(self.frame, columns)
        return fingerprint(self.frame[list(columns)])


def raw_table(source: Any) -> Any:
    """Return a table as a `FrameTable`; another `RawTable` as it is.

    Raises:
        TypeError: if it is neither.
    """
    source = as_frame(source)
    if isinstance(source, str | os.PathLike):
        cure = f"read the files by `tfmtl.data.open_files({str(source)!r})`"
        raise TypeError(f"A path is not a table; {cure}. Received: source={source!r}.")
    if isinstance(source, pd.DataFrame):
        return FrameTable(source)
    if not hasattr(source, "chunks"):
        forms = "a table (pandas, PyArrow, Polars) or files from `tfmtl.data.open_files`"
        raise TypeError(f"Training data must be {forms}. Received: {type(source).__name__}.")
    return source


def fingerprint(table: pd.DataFrame) -> str:
    """Return the SHA-256 of a table: of its columns, names, values and order of rows, but not of its index.

    Store it with a model to find out later which table the model was trained on.

    Example:
        >>> fingerprint(pd.DataFrame({"a": [1, 2]})) == fingerprint(pd.DataFrame({"a": [2, 1]}))
        False

    Cost: one pass over the table; about 1 s per million lists or strings.
    """
    digest = hashlib.sha256()
    for name, column in table.items():
        values = column.map(_text) if column.dtype == object or isinstance(column.dtype, pd.ArrowDtype) else column
        digest.update(f"{name}\0".encode())
        digest.update(pd.util.hash_pandas_object(values, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def _text(value: Any) -> str:
    return repr(value.tolist() if isinstance(value, np.ndarray) else value)
