"""Parquet and CSV files as parts, and the function that cuts files into parts by their suffix."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tfmtl._checks import require
from tfmtl.data.parts import READ_ROWS, Part
from tfmtl.data.tfrecords import tfrecord_parts

_STREAMED = {"buffer_size": 1 << 20, "pre_buffer": False}  # by default pyarrow loads a row group before its first row
_BLOCK_BYTES = 4 << 20  # also the longest line of a CSV file
_PARSE = pyarrow.csv.ParseOptions(newlines_in_values=True)
_NULLS = (  # those of pandas.read_csv, so that a table read either way has the same missing values
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ParquetPart(Part):
    """One row group of a Parquet file.

    Attributes:
        group: position of the row group.
        metadata: the file's footer, kept so that it is read once.
    """

    group: int
    metadata: pyarrow.parquet.FileMetaData = dataclasses.field(repr=False, compare=False)

    @property
    def typed(self) -> bool:
        """True, because the footer holds the types."""
        return True

    def count_rows(self) -> int:
        """Return the number of rows, from the footer."""
        return int(self.metadata.row_group(self.group).num_rows)

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Decode the row group `READ_ROWS` rows at a time."""
        with (
            _explained(self.path),
            pyarrow.parquet.ParquetFile(self.path, metadata=self.metadata, **_STREAMED) as file,
        ):
            for batch in file.iter_batches(READ_ROWS, row_groups=[self.group], columns=schema.names):
                columns = [_cast(batch.column(field.name), field, self.path) for field in schema]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)


@dataclasses.dataclass(frozen=True)
class CsvPart(Part):
    """A whole CSV file, plain or `.gz`; its first line names the columns."""

    lists: ClassVar[bool] = False

    @property
    def typed(self) -> bool:
        """False, because CSV holds text."""
        return False

    def count_rows(self) -> int:
        """Return the number of rows, by reading the file."""
        first = next(iter(self.types))
        return sum(batch.num_rows for batch in self.batches(pa.schema([(first, pa.string())])))

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Parse the file block by block."""
        types = dict(zip(schema.names, schema.types, strict=True))
        with _explained(self.path, tuple(self.types)), _open_csv(self.path, types) as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, READ_ROWS):
                    yield batch.slice(start, READ_ROWS)


def parquet_parts(path: pathlib.Path) -> Iterator[Part]:
    """Yield the row groups of a Parquet file; only its footer is read."""
    with _explained(path), pyarrow.parquet.ParquetFile(path) as file:
        metadata, schema = file.metadata, file.schema_arrow
    _require_filled(path, schema, metadata.num_rows)
    types = {field.name: _plain(field.type) for field in schema}
    for group in range(metadata.num_row_groups):
        yield ParquetPart(path, types, group, metadata)


def csv_parts(path: pathlib.Path) -> Iterator[Part]:
    """Yield a CSV file as one part; its first block is read to find the names and guess the types of its columns."""
    with _explained(path), _open_csv(path, {}) as reader:
        schema, first = reader.schema, next(iter(reader), None)
    _require_filled(path, schema, 0 if first is None else first.num_rows)
    yield CsvPart(path, {field.name: field.type for field in schema})


def spread(parts: Sequence[Part], count: int) -> list[tuple[Part, ...]]:
    """Return `count` groups of parts with about as many rows: the largest part goes to the group with the fewest rows.

    In a group the parts keep their order.
    """
    rows = [part.count_rows() for part in parts]
    filled = [0] * count
    owners = {}
    for position in sorted(range(len(parts)), key=lambda position: -rows[position]):
        owners[position] = min(range(count), key=filled.__getitem__)
        filled[owners[position]] += rows[position]
    return [tuple(part for position, part in enumerate(parts) if owners[position] == group) for group in range(count)]


FORMATS: Mapping[str, Callable[[pathlib.Path], Iterator[Part]]] = {
    ".parquet": parquet_parts,
    ".csv": csv_parts,
    ".csv.gz": csv_parts,
    ".tfrecord": tfrecord_parts,
    ".tfrecord.gz": tfrecord_parts,
}
"""How a file is cut into parts, by suffix."""


def _open_csv(path: pathlib.Path, types: Mapping[str, pa.DataType]) -> pyarrow.csv.CSVStreamingReader:
    convert = pyarrow.csv.ConvertOptions(
        column_types=types, include_columns=list(types), null_values=_NULLS, strings_can_be_null=True
    )
    read = pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES)
    return pyarrow.csv.open_csv(str(path), read_options=read, parse_options=_PARSE, convert_options=convert)


def _require_filled(path: pathlib.Path, schema: pa.Schema, rows: int) -> None:
    names = schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, f"File '{path}' has more than one column of the names {twice}; rename or drop one.")
    require(rows > 0, f"File '{path}' holds no rows; delete it or leave it out.")


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values: shards number the same categories in different ways."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _cast(column: pa.Array, field: pa.Field, path: pathlib.Path) -> pa.Array:
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise ValueError(
            f"File '{path}': column {field.name!r} of type {column.type} cannot be read as {field.type}: {error}"
        ) from error


_CONVERSION = re.compile(r"In CSV column #(\d+): CSV conversion error to ([^:]+): (.*)")


@contextlib.contextmanager
def _explained(path: pathlib.Path, names: tuple[str, ...] = ()) -> Iterator[None]:
    """Turn pyarrow's errors into one sentence that names the file and the column."""
    try:
        yield
    except pa.ArrowException as error:
        text = " ".join(str(error).split())
        found = _CONVERSION.search(text)
        if found and int(found[1]) < len(names):
            text = f"column {names[int(found[1])]!r} cannot be read as {found[2]}: {found[3]}"
        raise ValueError(f"File '{path}': {text.rstrip('.')}.") from error
