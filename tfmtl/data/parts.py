"""The interface of a file format: parts, runs of rows that are read independently, with bounded memory."""

from __future__ import annotations

import abc
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

import pyarrow as pa

READ_ROWS = 8_192
"""Rows decoded at a time: the grain at which rows of several parts are mixed."""


@dataclasses.dataclass(frozen=True)
class Part(abc.ABC):
    """A run of rows of one file.

    Attributes:
        path: the file.
        types: type of each of the file's columns, by name.
    """

    lists: ClassVar[bool] = True
    """Whether the format can hold lists."""
    complete: ClassVar[bool] = True
    """Whether every row states every column; if not, `types` holds the columns of the first rows."""

    path: pathlib.Path
    types: Mapping[str, pa.DataType] = dataclasses.field(repr=False)

    @property
    @abc.abstractmethod
    def typed(self) -> bool:
        """Whether the file states its types; if not, they are a guess from its first lines."""

    @abc.abstractmethod
    def count_rows(self) -> int:
        """Return the number of rows."""

    @abc.abstractmethod
    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yield the columns of `schema`, as its types, in runs of rows."""

    def holds(self, field: pa.Field) -> bool:
        """Return whether any row has the column."""
        return field.name in self.types
