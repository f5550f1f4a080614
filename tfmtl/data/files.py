"""Tables larger than memory in Parquet, CSV or TFRecord files: read in pieces, in order or shuffled in every epoch."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl.data.arrow_lists import arrow_frame
from tfmtl.data.declared import declared_types
from tfmtl.data.formats import FORMATS, spread
from tfmtl.data.parts import Part
from tfmtl.data.schema import Schema

Paths = str | os.PathLike[str]

_READERS = 4  # parts mixed at a time in a shuffled epoch; each holds one decoded run of rows
_GUESS_WINS = {(pa.float64(), pa.bool_()), (pa.int64(), pa.float64())}  # labels True / False; ids "3.0" beside ""


@dataclasses.dataclass(frozen=True)
class FileSource:
    """A table in files, to be read in pieces; made by `open_files`.

    Attributes:
        parts: runs of rows that are read by themselves: row groups of Parquet files, whole CSV and TFRecord files.
        declared: types the schema states for columns of files that state none (CSV, TFRecord).
    """

    parts: tuple[Part, ...]
    declared: Mapping[str, pa.DataType] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """The files, in order."""
        return tuple(dict.fromkeys(part.path for part in self.parts))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that any of the files has."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.types))

    def count_rows(self) -> int:
        """Return the number of rows; free for Parquet, one pass for the others."""
        return sum(part.count_rows() for part in self.parts)

    def state(self, columns: Sequence[str]) -> list[tuple[str, int, int]]:
        """Return path, size and time of each file, which change when its contents change."""
        states = [(str(path.resolve()), path.stat()) for path in self.paths]
        return [(path, state.st_size, state.st_mtime_ns) for path, state in states]

    def shard(self, index: int, count: int) -> FileSource:
        """Return one of `count` tables of about as many rows, which together have every part of this one once.

        Args:
            index: number of the table, from 0; every process that shares the files takes its own.
            count: number of tables.

        Raises:
            ValueError: if there are fewer parts than tables, or no such table.

        Cost: that of `count_rows`.
        """
        require_positive_int(count=count)
        require(0 <= index < count, f"`index` must lie between 0 and {count - 1}.", index=index)
        cure = "write more files, or Parquet files of more row groups"
        require(len(self.parts) >= count, f"{len(self.parts)} parts cannot be shared by {count} processes; {cure}.")
        return dataclasses.replace(self, parts=spread(self.parts, count)[index])

    def chunks(self, columns: Iterable[str] | None = None, rows: int = 65_536) -> Iterator[pd.DataFrame]:
        """Yield the table in order, `rows` rows at a time; the last piece may be smaller.

        Args:
            columns: columns to read; by default all.
            rows: rows a piece.

        Raises:
            ValueError: naming file and column: a file lacks a column, or holds another type than the files before it;
                while reading, a value that is not of its column's type.

        Cost: memory of about two pieces.
        """
        require_positive_int(rows=rows)
        schema = self.arrow_schema(columns)
        batches = (batch for part in self.parts for batch in part.batches(schema))
        return map(arrow_frame, _regroup(batches, rows))

    def shuffled_chunks(
        self, columns: Iterable[str] | None, rows: int, generator: np.random.Generator
    ) -> Iterator[pd.DataFrame]:
        """Yield every row once, in pieces of `rows` rows; `generator` decides their order and content.

        The parts are taken in random order, four at a time; a piece is filled with short runs of rows of these four
        and then permuted. Rows further apart than that never meet in a batch: write files that are sorted by time in
        many row groups, or many files, if they shall mix well.

        Args:
            columns: columns to read, or None for all.
            rows: rows a piece, the window inside which rows are permuted.
            generator: source of randomness; one in the same state gives the same order.

        Raises:
            ValueError: as `chunks`.

        Cost: memory of about three pieces.
        """
        pieces = self._mixed_pieces(columns, rows, generator)
        return (arrow_frame(piece.take(generator.permutation(piece.num_rows))) for piece in pieces)

    def mixed_chunks(
        self, columns: Iterable[str] | None, rows: int, generator: np.random.Generator
    ) -> Iterator[pd.DataFrame]:
        """Yield the pieces of `shuffled_chunks` before their rows are permuted, to permute them later at less cost."""
        return map(arrow_frame, self._mixed_pieces(columns, rows, generator))

    def _mixed_pieces(
        self, columns: Iterable[str] | None, rows: int, generator: np.random.Generator
    ) -> Iterator[pa.Table]:
        require_positive_int(rows=rows)
        return _regroup(_mixed(self.parts, self.arrow_schema(columns), generator), rows)

    def arrow_schema(self, columns: Iterable[str] | None = None) -> pa.Schema:
        """Return the common type of each column over all files."""
        names = list(self.columns if columns is None else dict.fromkeys(columns))
        rare = [name for name in names if name not in self.columns and self._holds(name)]
        require_known(names, [*self.columns, *rare], "column", f"the files '{self.paths[0]}'...")
        return pa.schema([(name, self._type(name)) for name in names])

    def _holds(self, name: str) -> bool:
        """Return whether a column is declared and in a later row, though no first row has it."""
        return name in self.declared and any(part.holds(pa.field(name, self.declared[name])) for part in self.parts)

    def _type(self, name: str) -> pa.DataType:
        for part in self.parts:
            has = name in part.types or not part.complete
            require(has, f"File '{part.path}' lacks the column {name!r}, which other files have.")
        found = dict.fromkeys((part.types[name], part.typed) for part in self.parts if name in part.types)
        declared = self.declared.get(name)
        if declared is not None and not any(typed for _, typed in found):
            guesses = [kind for kind, _ in found if (declared, kind) in _GUESS_WINS]
            return guesses[0] if guesses else declared
        kind = functools.reduce(functools.partial(self._wider, name), (kind for kind, _ in found))
        return pa.string() if pa.types.is_null(kind) else kind

    def _wider(self, name: str, first: pa.DataType, second: pa.DataType) -> pa.DataType:
        """Return the type that holds both, such as int64 for int32 and int64."""
        pair = [pa.schema([(name, kind)]) for kind in (first, second)]
        try:
            return pa.unify_schemas(pair, promote_options="permissive").field(name).type
        except pa.ArrowException as error:
            path = next(part.path for part in self.parts if part.types.get(name) == second)
            raise ValueError(
                f"File '{path}' holds {second} in column {name!r}, where files before it hold {first}; convert one."
            ) from error


def open_files(paths: Paths | Iterable[Paths], schema: Schema | None = None) -> FileSource:
    r"""Open Parquet, CSV or TFRecord files as one table, without reading them.

    Args:
        paths: a folder (searched with its sub-folders for `.parquet`, `.csv`, `.tfrecord`, `.csv.gz` and
            `.tfrecord.gz`), a glob pattern, a file, or several of these; files are read in the order given, those of a
            folder or pattern by name.
        schema: states the columns that the files must have, and their types in CSV and TFRecord files, which otherwise
            are guessed from the first rows of each ("007" would become 7). Records (`tf.Example`) may leave a column
            out where it is missing, but one of them must have it. Labels and weights may be absent: only `fit` and
            `evaluate` read them.

    Raises:
        FileNotFoundError: if a path or pattern matches no file.
        ValueError: naming the file: an unknown suffix, suffixes that differ, a file given twice, an empty or broken
            file, a feature of the schema that is absent, a type that differs between files, or a list in CSV.

    Example:
        >>> import tempfile
        >>> from tfmtl.data import Categorical, Label
        >>> folder = tempfile.TemporaryDirectory()
        >>> _ = (pathlib.Path(folder.name) / "part-0.csv").write_text("user_id,stars\n007,5\n008,\n")
        >>> source = open_files(folder.name, Schema(query=[Categorical("user_id")], labels=[Label("stars")]))
        >>> next(source.chunks())["user_id"].tolist(), source.count_rows()
        (['007', '008'], 2)
        >>> folder.cleanup()

    Cost: the footer of each Parquet file, the first 4 MB of each CSV file, the first 256 records of each TFRecord file
    and, if a column of the schema is in none of these, the records up to the first that has it.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    require(len(given) > 0, "`paths` must name at least one file.")
    files = [file for path in given for file in _expand(path)]
    twice = [str(file) for file, times in Counter(file.resolve() for file in files).items() if times > 1]
    require(not twice, f"`paths` names the files {twice} more than once; their rows would count double.")
    suffixes = {_suffix(file).removesuffix(".gz") for file in files}
    require(
        len(suffixes) == 1,
        "All files must have one format; choose with a pattern such as 'folder/*.parquet'.",
        suffixes=sorted(suffixes),
    )
    source = FileSource(tuple(part for file in files for part in FORMATS[_suffix(file)](file)))
    if schema is None:
        return source
    if not source.parts[0].typed:
        source = dataclasses.replace(source, declared=declared_types(schema))
        _check_lists(source, schema)
    source.arrow_schema(name for name in schema.columns() if name in schema.feature_columns or name in source.columns)
    return source


def _check_lists(source: FileSource, schema: Schema) -> None:
    listed = [name for name, kind in source.declared.items() if pa.types.is_list(kind)]
    if listed and not source.parts[0].lists:
        kind = next(type(f).__name__ for f in schema.features.values() if f.column == listed[0])
        raise ValueError(
            f"Column {listed[0]!r} of kind {kind} holds lists, which CSV cannot; store the table as Parquet, or use a "
            "MultiValued feature with a separator."
        )


def _expand(path: Paths) -> list[pathlib.Path]:
    found = pathlib.Path(path)
    if found.is_dir():
        files = [file for file in sorted(found.rglob("*")) if file.is_file() and _suffix(file) in FORMATS]
        files = [file for file in files if not any(p.startswith((".", "_")) for p in file.relative_to(found).parts)]
    elif found.exists():
        require(_suffix(found) in FORMATS, f"The suffix of file '{found}' must be one of {list(FORMATS)}.")
        files = [found]
    else:
        root = next((parent for parent in found.parents if parent.is_dir()), pathlib.Path())  # taken literally
        matches = root.glob(str(found.relative_to(root)))
        files = [file for match in sorted(matches) for file in _expand(match)]
    if not files:
        raise FileNotFoundError(f"No file matches `paths`; files end in {list(FORMATS)}. Received: '{path}'.")
    return files


def _suffix(file: pathlib.Path) -> str:
    return "".join(file.suffixes[-2:]) if file.suffix == ".gz" else file.suffix


def _regroup(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Yield tables of exactly `rows` rows, and a last one of the rest."""
    waiting: list[pa.Table] = []
    count = 0
    for batch in batches:
        waiting.append(pa.Table.from_batches([batch]))
        count += batch.num_rows
        if count < rows:
            continue
        table, cut = pa.concat_tables(waiting), count - count % rows
        yield from (table.slice(start, rows) for start in range(0, cut, rows))
        waiting, count = [table.slice(cut)], count - cut
    if count:
        yield pa.concat_tables(waiting)


def _mixed(parts: Sequence[Part], schema: pa.Schema, generator: np.random.Generator) -> Iterator[pa.RecordBatch]:
    """Yield the batches of all parts, the parts in random order and `_READERS` of them interleaved at random."""
    waiting = (parts[position].batches(schema) for position in generator.permutation(len(parts)))
    reading = list(itertools.islice(waiting, _READERS))
    while reading:
        chosen = int(generator.integers(len(reading)))
        batch = next(reading[chosen], None)
        if batch is not None:
            yield batch
            continue
        reading[chosen : chosen + 1] = itertools.islice(waiting, 1)
