"""Tables to TFRecord files."""

from __future__ import annotations

import os
import pathlib
import uuid
from collections.abc import Iterator

import numpy as np
import pandas as pd

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.data.columns import Columns, check_columns, to_columns, to_labels
from tfmtl.data.examples import to_examples
from tfmtl.data.schema import Label, Schema
from tfmtl.data.values import to_numbers

_WRITE_ROWS = 8_192  # rows turned into protos at a time


def write_tfrecords(frame: pd.DataFrame, schema: Schema, path: str | os.PathLike[str]) -> None:
    r"""Write a table as a TFRecord file of `tf.Example` protos that `open_files` reads; for shards, call it once each.

    What is missing is left out of its row, an empty list too. Integers are 64 bits, other numbers float32; lists are
    written whole.

    Args:
        frame: the table.
        schema: the columns to write.
        path: of the file, which ends in `.tfrecord` or, compressed, in `.tfrecord.gz`; it appears only when it is
            complete.

    Raises:
        ValueError: naming the column, as `to_columns` does; another suffix; a class that float32 cannot hold.

    Example:
        >>> import tempfile
        >>> from tfmtl.data import Categorical, open_files
        >>> folder = tempfile.TemporaryDirectory()
        >>> schema = Schema(query=[Categorical("user_id")])
        >>> write_tfrecords(pd.DataFrame({"user_id": ["b", "a"]}), schema, folder.name + "/part-0.tfrecord")
        >>> next(open_files(folder.name, schema).chunks())["user_id"].tolist()
        ['b', 'a']
        >>> folder.cleanup()

    Cost: about 20 us per row.
    """
    path = pathlib.Path(path)
    suffixes = (".tfrecord", ".tfrecord.gz")
    require(path.name.endswith(suffixes), f"`path` must end in one of {list(suffixes)}.", path=str(path))
    check_columns(frame, schema.columns())
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with tf.io.TFRecordWriter(str(unfinished), "GZIP" if path.suffix == ".gz" else "") as writer:
            for start in range(0, len(frame), _WRITE_ROWS):
                for example in _examples(frame.iloc[start : start + _WRITE_ROWS], schema).numpy():
                    writer.write(example)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _examples(frame: pd.DataFrame, schema: Schema) -> tf.Tensor:
    columns: Columns = to_columns(frame, [f.whole(frame[f.name]) for f in schema.features.values()])
    to_labels(frame, schema)  # refuses unknown classes and negative weights
    return to_examples({**columns, **dict(_labels(frame, schema))})


def _labels(frame: pd.DataFrame, schema: Schema) -> Iterator[tuple[str, np.ndarray]]:
    for label in schema.labels:
        yield label.column, _classes(label, frame) if label.classes else to_numbers(frame[label.column])
        if label.sample_weight:
            yield label.sample_weight, to_numbers(frame[label.sample_weight])


def _classes(label: Label, frame: pd.DataFrame) -> np.ndarray:
    column = frame[label.column]
    if all(isinstance(value, str) for value in label.classes):
        return column.astype(object).where(column.notna(), "").to_numpy(object)
    inexact = [value for value in label.classes if isinstance(value, str) or float(np.float32(value)) != value]
    require(not inexact, f"The classes {inexact} of task {label.task!r} have no float32; write the table as Parquet.")
    return to_numbers(column)  # not as integers, of which -1 would be missing
