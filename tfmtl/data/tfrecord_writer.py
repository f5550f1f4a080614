"""Tables to TFRecord files."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Collection, Iterator

import numpy as np
import pandas as pd

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl._staging import flush, remove_abandoned, staged_path
from tfmtl.data.columns import Columns, check_columns, to_columns, to_labels
from tfmtl.data.declared import declared_types
from tfmtl.data.examples import serialized
from tfmtl.data.interchange import as_frame
from tfmtl.data.moments import RunningMoments
from tfmtl.data.schema import Label, Schema
from tfmtl.data.values import to_numbers

_WRITE_ROWS = 8_192  # rows turned into protos at a time


def write_tfrecords(frame: pd.DataFrame, schema: Schema, path: str | os.PathLike[str]) -> None:
    r"""Write a table as a TFRecord file of `tf.Example` protos that `open_files` reads; for shards, call it once each.

    Missing values and empty lists are left out of their rows. Ids are integers of 64 bits, numbers float32; a column
    of whole numbers that float32 would round by more than a thousandth of their deviation is written as integers. Lists
    are written whole.

    Args:
        frame: the table.
        schema: the columns to write.
        path: of the file, which ends in `.tfrecord` or, compressed, in `.tfrecord.gz`; it appears only when it is
            complete.

    Raises:
        ValueError: naming the column, as `to_columns` does; another suffix; a class that float32 cannot hold;
            fractions that float32 would round by more than a thousandth of their deviation.

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
    frame = as_frame(frame)
    check_columns(frame, schema.columns())
    whole = _rounded(frame, schema)
    remove_abandoned(path.parent)
    unfinished = staged_path(path)
    try:
        with tf.io.TFRecordWriter(str(unfinished), "GZIP" if path.suffix == ".gz" else "") as writer:
            for start in range(0, len(frame), _WRITE_ROWS):
                for example in _examples(frame.iloc[start : start + _WRITE_ROWS], schema, whole).numpy():
                    writer.write(example)
        flush(unfinished)
        unfinished.replace(path)
        flush(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _examples(frame: pd.DataFrame, schema: Schema, whole: Collection[str]) -> tf.Tensor:
    to_labels(frame, schema)  # refuses unknown classes and negative weights
    return serialized(_columns(frame, schema), whole)


def _columns(frame: pd.DataFrame, schema: Schema) -> Columns:
    columns: Columns = to_columns(frame, [f.whole(frame[f.column]) for f in schema.features.values()])
    types = declared_types(schema)
    written: Columns = {}
    for feature in schema.features.values():  # of two features with one column, the one that keeps every value
        if feature.arrow_type == types[feature.column]:
            written[feature.column] = columns[feature.name]
    return {**written, **dict(_labels(frame, schema))}


def _rounded(frame: pd.DataFrame, schema: Schema) -> set[str]:
    """Return the columns of whole numbers that float32 would round too much; refuse such columns of fractions."""
    columns = {n: values for n, values in _columns(frame, schema).items() if values.dtype == np.float64}
    errors = {name: _rounding(values) for name, values in columns.items()}
    rounded = [name for name, (error, deviation) in errors.items() if error > 1e-3 * deviation]
    whole: set[str] = set()
    for name in rounded:
        known = columns[name][np.isfinite(columns[name])]
        error, deviation = errors[name]
        if bool((known == np.round(known)).all()) and np.abs(known).max() <= 2**53:
            whole.add(name)
            continue
        require(
            known.min() == known.max(),
            f"Column {name!r} holds numbers that float32 rounds by {error:.3g}, while their deviation is "
            f"{deviation:.3g}; subtract a constant from the column, or write the table as Parquet.",
        )
    return whole


def _rounding(values: np.ndarray) -> tuple[float, float]:
    """Return the largest error of float32 and the least deviation of a column [N] or [N, size]."""
    running = RunningMoments()
    running.add(values)
    known = values[np.isfinite(values)]
    return float(np.abs(known - known.astype(np.float32)).max(initial=0)), min(running.moments().deviation)


def _labels(frame: pd.DataFrame, schema: Schema) -> Iterator[tuple[str, np.ndarray]]:
    for label in schema.labels:
        yield label.column, _classes(label, frame) if label.classes else to_numbers(frame[label.column], np.float64)
        if label.sample_weight:
            yield label.sample_weight, to_numbers(frame[label.sample_weight])


def _classes(label: Label, frame: pd.DataFrame) -> np.ndarray:
    column = frame[label.column]
    if all(isinstance(value, str) for value in label.classes):
        return column.astype(object).where(column.notna(), "").to_numpy(object)
    inexact = [value for value in label.classes if isinstance(value, str) or float(np.float32(value)) != value]
    require(not inexact, f"The classes {inexact} of task {label.task!r} have no float32; write the table as Parquet.")
    return to_numbers(column)  # not as integers, of which -1 would be missing
