"""TFRecord files of `tf.Example` protos, in which a row may leave out missing values; parsed in batches."""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.data.parts import READ_ROWS, Part
from tfmtl.data.values import check_ids

_SAMPLE = 256  # records that are read for the columns when a file is opened
_BUFFER = 1 << 20
_KINDS = {"bytes_list": pa.string(), "int64_list": pa.int64(), "float_list": pa.float32()}
_PARSED = {pa.string(): tf.string, pa.int64(): tf.int64, pa.float32(): tf.float32}
_ACTUAL = {"string": pa.string(), "int64": pa.int64(), "float": pa.float32()}  # how TensorFlow names them in errors
_ONE_KIND = "give all records of a file one kind"


class TFRecordPart(Part):
    """A whole TFRecord file, plain or `.gz`; each record is a `tf.Example`."""

    complete: ClassVar[bool] = False

    @property
    def typed(self) -> bool:
        """False, because a number may be written as an integer or a float."""
        return False

    def count_rows(self) -> int:
        """Return the number of records, by reading the file."""
        return sum(int(tf.size(records)) for records in _records(self.path, READ_ROWS))

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Parse the file `READ_ROWS` records at a time."""
        kinds = {field.name: _item(self.types.get(field.name, field.type)) for field in schema}
        first = 0
        for records in _records(self.path, READ_ROWS):
            parsed = self._parse(records, kinds)
            columns = [_column(parsed[field.name], kinds[field.name], field, self.path, first) for field in schema]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)
            first += int(tf.size(records))

    def holds(self, field: pa.Field) -> bool:
        """Return whether any record has the column; reads to the first record that has it."""
        if super().holds(field):
            return True
        kinds = {field.name: _item(field.type)}
        return any(int(self._parse(r, kinds)[field.name].row_splits[-1]) for r in _records(self.path, READ_ROWS))

    def _parse(self, records: tf.Tensor, kinds: dict[str, pa.DataType]) -> Mapping[str, tf.RaggedTensor]:
        """Return the values of serialized records; corrects `kinds` for columns that no early record has."""
        settled = set(self.types)
        while True:
            features = {name: tf.io.RaggedFeature(_PARSED[kind]) for name, kind in kinds.items()}
            try:
                return tf.io.parse_example(records, features)
            except tf.errors.InvalidArgumentError as error:
                wrong = re.search(r"Key: (.*), Index: .*Expected type: (\w+), Actual type: (\w+)", error.message)
                if wrong is None:
                    raise ValueError(f"File '{self.path}' holds a record that is no tf.Example.") from error
                name, *both = wrong.groups()
                if name in settled:
                    raise ValueError(
                        f"File '{self.path}': column {name!r} holds {' and '.join(both)} values; {_ONE_KIND}."
                    ) from error
                kinds[name] = _ACTUAL[both[1]]
                settled.add(name)


def tfrecord_parts(path: pathlib.Path) -> Iterator[Part]:
    """Yield a TFRecord file as one part; its first records are read to find the names and kinds of its columns."""
    first = next(_records(path, _SAMPLE), None)
    require(first is not None, f"File '{path}' holds no rows; delete it or leave it out.")
    found: dict[str, pa.DataType] = {}
    lists: set[str] = set()
    for number, record in enumerate(first.numpy()):  # type: ignore[union-attr]
        for name, kind, count in _described(record, path, number):
            require(
                found.setdefault(name, kind) == kind,
                f"File '{path}': column {name!r} holds {found[name]} and, in record {number}, {kind}; {_ONE_KIND}.",
            )
            lists |= {name} if count > 1 else set()
    yield TFRecordPart(path, {name: pa.list_(kind) if name in lists else kind for name, kind in sorted(found.items())})


def _described(record: bytes, path: pathlib.Path, number: int) -> Iterator[tuple[str, pa.DataType, int]]:
    """Yield name, kind and number of values of a record's columns."""
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError as error:
        raise ValueError(f"File '{path}': record {number} is no tf.Example.") from error
    for name, feature in features.items():
        kind = feature.WhichOneof("kind")
        if kind is not None:
            yield name, _KINDS[kind], len(getattr(feature, kind).value)


def _compression(path: pathlib.Path) -> str:
    return "GZIP" if path.suffix == ".gz" else ""


def _records(path: pathlib.Path, rows: int) -> Iterator[tf.Tensor]:
    """Yield serialized records [rows] in order."""
    with _explained(path):
        yield from tf.data.TFRecordDataset(str(path), _compression(path), buffer_size=_BUFFER).batch(rows)


@contextlib.contextmanager
def _explained(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except tf.errors.DataLossError as error:
        text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", error.message)
        raise ValueError(f"File '{path}' is damaged: {' '.join(text.split())}.") from error


def _item(kind: pa.DataType) -> pa.DataType:
    """Return the kind of a column's values as records hold them."""
    kind = kind.value_type if pa.types.is_list(kind) else kind
    if pa.types.is_floating(kind):
        return pa.float32()
    return pa.int64() if pa.types.is_integer(kind) or pa.types.is_boolean(kind) else kind


def _column(ragged: Any, kind: pa.DataType, field: pa.Field, path: pathlib.Path, first: int) -> pa.Array:
    """Return one column of parsed records as the type of `field`; a record without a value is null."""
    starts = ragged.row_splits.numpy().astype(np.int32)
    sizes = np.diff(starts)
    listed = pa.types.is_list(field.type)
    wanted = field.type.value_type if listed else field.type
    fits = wanted == kind or pa.types.is_string(wanted) == pa.types.is_string(kind)
    fits = fits or (pa.types.is_string(wanted) and pa.types.is_integer(kind))
    require(fits, f"File '{path}': column {field.name!r} holds {kind} values and cannot be read as {wanted}.")
    values = ragged.flat_values.numpy()
    if pa.types.is_integer(wanted) and kind == pa.float32():
        check_ids(values, 2**24, f"File '{path}': column {field.name!r}")
    try:
        items = pa.array(values, pa.binary()) if values.dtype == object else pa.array(values)
        items = items.cast(wanted)
    except pa.ArrowException as error:
        raise ValueError(
            f"File '{path}': column {field.name!r} cannot be read as {wanted}: {str(error).rstrip('.')}."
        ) from error
    if listed:
        return pa.ListArray.from_arrays(pa.array(starts, mask=np.append(sizes == 0, False)), items)
    require(
        int(sizes.max(initial=0)) <= 1,
        f"File '{path}': column {field.name!r} holds {int(sizes.max(initial=0))} values in record "
        f"{first + int(sizes.argmax()) if len(sizes) else 0}, where one was expected.",
    )
    return items if (sizes == 1).all() else items.take(pa.array(starts[:-1], mask=sizes == 0))
