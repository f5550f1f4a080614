"""One protocol for every form of data that `fit`, `evaluate` and `predict` take."""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Any

import pandas as pd

from tfmtl._checks import require, require_fraction
from tfmtl._keras import keras, tf
from tfmtl.data.encoded_table import EncodedTable, cache
from tfmtl.data.files import FileSource
from tfmtl.data.frames import Batch, Table, encode_dataset, from_frame, gather_batches, rows_of, to_batch
from tfmtl.data.interchange import as_frame
from tfmtl.data.preprocessor import Preprocessor
from tfmtl.data.sequences import Sequences
from tfmtl.data.sharded import ShardedFiles, Shared, SharedTable
from tfmtl.data.streams import from_files
from tfmtl.data.windows import Layout


class Source(abc.ABC):
    """Data of any form, read as batches; made by `as_source`.

    Write training loops against this class, so that they take tables, files, caches and data sets alike.
    """

    sequences: bool = False
    """Whether a row holds several events, as in `Sequences`."""

    distributed: bool = False
    """Whether `batches` is no tf.data.Dataset, but distributed by a strategy already."""

    batched: bool = False
    """Whether the data come in batches already, so that a batch size cannot be chosen."""

    @property
    @abc.abstractmethod
    def rows(self) -> int | None:
        """Number of rows, or None if unknown. Files other than Parquet are read to count them."""

    @abc.abstractmethod
    def batches(
        self,
        preprocessor: Preprocessor,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        clock: tf.Variable | None = None,
        labels: bool = True,
    ) -> tf.data.Dataset:
        """Return a data set of `Batch`, or of `Sequences`; the arguments are those of `tfmtl.data.from_frame`."""

    def steps(self, batch_size: int) -> int | None:
        """Return the number of batches of an epoch, or None if unknown."""
        return None if self.rows is None else -(-self.rows // batch_size)

    @property
    def encoded(self) -> Table | None:
        """The rows if they are in memory and encoded already, or None."""
        return None

    def in_memory(self, preprocessor: Preprocessor) -> Table | None:
        """Return all encoded rows if they are in memory, or None if they are streamed."""
        return self.encoded

    def kept(self, preprocessor: Preprocessor, memory_bytes: int) -> Source:
        """Return a pandas table, and files that take at most `memory_bytes`, as an encoded table in memory.

        Any other source is returned as it is.
        """
        return self

    def split(self, share: float) -> tuple[Source, Source]:
        """Return the first rows, and the last ones, a share of all.

        Raises:
            ValueError: if the data are no table in memory, or one part would have no rows.
        """
        cure = "give `validation_data`, such as a part of `tfmtl.data.temporal_split`"
        raise ValueError(f"`validation_split` divides a table in memory; {cure}. Received: {type(self).__name__}.")

    @property
    def shared(self) -> Shared | None:
        """The data of which each worker reads only its own part, or None if all workers read everything."""
        return None

    def for_servers(self, preprocessor: Preprocessor, batch_size: int, shuffle_seed: int | None) -> Shared | None:
        """Return the data that is sent to the workers of parameter servers, or None to iterate over `batches`.

        Raises:
            ValueError: if only a process that runs Python can read the data.
        """
        return self.shared


@dataclasses.dataclass(frozen=True)
class _InMemory(Source):
    """Encoded rows in memory: a large `Batch`, `Sequences`, or another structure of columns."""

    table: Table
    sequences: bool = False

    @property
    def rows(self) -> int:
        return rows_of(self.table)

    def batches(self, preprocessor: Preprocessor, batch_size: int, *, labels: bool = True, **order: Any) -> Any:
        return gather_batches(self.table, batch_size, **order)

    @property
    def encoded(self) -> Table:
        return self.table

    def split(self, share: float) -> tuple[Source, Source]:
        first = _first_rows(self.rows, share)
        parts = (
            tf.nest.map_structure(lambda c, p=part: c[p], self.table) for part in (slice(first), slice(first, None))
        )
        first_part, last_part = (_InMemory(part, self.sequences) for part in parts)
        return first_part, last_part

    def for_servers(self, preprocessor: Preprocessor, batch_size: int, shuffle_seed: int | None) -> Shared:
        return SharedTable(self.table, batch_size, shuffle_seed)


@dataclasses.dataclass(frozen=True)
class _Frame(Source):
    """A pandas table."""

    frame: Any

    @property
    def rows(self) -> int:
        return len(self.frame)

    def batches(self, preprocessor: Preprocessor, batch_size: int, **options: Any) -> tf.data.Dataset:
        return from_frame(self.frame, preprocessor, batch_size, **options)

    def in_memory(self, preprocessor: Preprocessor) -> Table:
        return to_batch(self.frame, preprocessor)

    def kept(self, preprocessor: Preprocessor, memory_bytes: int) -> Source:
        return _InMemory(self.in_memory(preprocessor))

    def split(self, share: float) -> tuple[Source, Source]:
        first = _first_rows(self.rows, share)
        return _Frame(self.frame.iloc[:first]), _Frame(self.frame.iloc[first:])

    def for_servers(self, preprocessor: Preprocessor, batch_size: int, shuffle_seed: int | None) -> Shared:
        return SharedTable(self.in_memory(preprocessor), batch_size, shuffle_seed)


class _Streamed(Source):
    """Rows that are read from files."""

    def for_servers(self, preprocessor: Preprocessor, batch_size: int, shuffle_seed: int | None) -> Shared:
        cure = "raise `memory_bytes`, or give a table"
        raise ValueError(f"Workers of servers take a table that fits in memory; {cure}.")


@dataclasses.dataclass(frozen=True)
class _Files(_Streamed):
    """Raw files, encoded again in every epoch."""

    files: FileSource

    @property
    def rows(self) -> int:
        return self.files.count_rows()

    def batches(self, preprocessor: Preprocessor, batch_size: int, **options: Any) -> tf.data.Dataset:
        return from_files(self.files, preprocessor, batch_size, **options)

    def kept(self, preprocessor: Preprocessor, memory_bytes: int) -> Source:
        fits = memory_bytes and 4 * Layout(preprocessor.schema, labels=True).width * self.rows <= memory_bytes
        return as_source(cache(self.files, preprocessor)) if fits else self


@dataclasses.dataclass(frozen=True)
class _Cache(_Streamed):
    """Encoded rows in a file."""

    table: EncodedTable

    @property
    def rows(self) -> int:
        return len(self.table)

    def batches(self, preprocessor: Preprocessor, batch_size: int, *, labels: bool = True, **order: Any) -> Any:
        return self.table.batches(batch_size, **order)


@dataclasses.dataclass(frozen=True)
class _Shared(Source):
    """Data of which each worker of a distribution strategy reads its own part."""

    data: Shared
    rows: None = None
    batched: bool = True

    def steps(self, batch_size: int) -> int:
        return self.data.steps()

    def batches(
        self, preprocessor: Preprocessor, batch_size: int, *, clock: tf.Variable | None = None, **options: Any
    ) -> tf.data.Dataset:
        return self.data.pipeline(clock=clock).take(self.data.steps())

    @property
    def shared(self) -> Shared:
        return self.data


@dataclasses.dataclass(frozen=True)
class _Dataset(Source):
    """A data set of raw batches, of `Batch` or of `Sequences`."""

    dataset: tf.data.Dataset
    rows: None = None
    batched: bool = True

    @property
    def sequences(self) -> bool:  # type: ignore[override]
        return isinstance(self.dataset.element_spec, Sequences)

    def steps(self, batch_size: int) -> int | None:
        count = int(self.dataset.cardinality())
        return None if count < 0 else count

    def batches(self, preprocessor: Preprocessor, batch_size: int, *, labels: bool = True, **order: Any) -> Any:
        return self.dataset if self.sequences else encode_dataset(self.dataset, preprocessor, labels=labels)


@dataclasses.dataclass(frozen=True)
class _Distributed(Source):
    """A data set that is distributed already, which Keras iterates over as it is."""

    dataset: Any
    rows: None = None
    distributed: bool = True
    batched: bool = True

    def batches(self, preprocessor: Preprocessor, batch_size: int, **options: Any) -> Any:
        return self.dataset


def _first_rows(rows: int, share: float) -> int:
    """Return the number of rows of the first part."""
    require_fraction(validation_split=share)
    first = int(rows * (1 - share))
    require(0 < first < rows, f"`validation_split` leaves a part of the {rows} rows empty.", validation_split=share)
    return first


@functools.singledispatch
def as_source(x: Any) -> Source:
    """Return any form of data as a `Source`; a `Source` as it is.

    Register a further form by `as_source.register`.

    Args:
        x: table (pandas, PyArrow, Polars or another with the interchange protocol), files from `open_files`, a table
            from `cache` or `to_batch`, `Sequences` from `to_sequences`, files from `distribute`, or a data set of raw
            batches, of `Batch` or of `Sequences`.

    Raises:
        ValueError: if `x` has none of these forms.

    Example:
        >>> import pandas as pd
        >>> source = as_source(pd.DataFrame({"user": ["a", "b", "c"]}))
        >>> source.rows, source.steps(2)
        (3, 2)
    """
    frame = as_frame(x)
    require(
        isinstance(frame, pd.DataFrame),
        "Training data must be a table (pandas, PyArrow, Polars), files from `open_files`, a table from `cache`, "
        "sequences from `to_sequences` or a tf.data.Dataset, each with the labels among its columns.",
        type=type(x).__name__,
    )
    return _Frame(frame)


def encoded_source(table: Table) -> Source:
    """Return a structure of encoded columns, such as a `Batch` with further columns, as a `Source`."""
    return _InMemory(table)


as_source.register(Source, lambda x: x)
as_source.register(Batch, _InMemory)
as_source.register(Sequences, lambda x: _InMemory(x, sequences=True))
as_source.register(EncodedTable, _Cache)
as_source.register(FileSource, _Files)
as_source.register(ShardedFiles, _Shared)
as_source.register(SharedTable, _Shared)
as_source.register(tf.data.Dataset, _Dataset)
as_source.register(tf.distribute.DistributedDataset, _Distributed)
as_source.register(keras.utils.experimental.DatasetCreator, _Distributed)
