"""Tables and raw data sets to batches of encoded features: each value is encoded once, not once an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_known, require_positive_int, require_several
from tfmtl._keras import tf
from tfmtl.data.columns import NAME_CLASSES, Columns, check_columns, to_columns, to_labels
from tfmtl.data.interchange import as_frame
from tfmtl.data.preprocessor import Preprocessor
from tfmtl.data.schema import Label

_ENCODE_ROWS = 65_536  # large enough that the call overhead vanishes, small enough to bound memory
_MOST_ROWS = 8192
_MOST_POSITIONS = 2**18  # of lists of ids in a pass; their embeddings of width 256 take 256 MB


class Batch(NamedTuple):
    """One batch of encoded examples.

    Attributes:
        features: encoded tensors by feature name, [B, ...].
        labels: float32 [B] by task, NaN where the label is missing.
        weights: float32 [B] by task, 0 where the label is missing.
        ids: int64 keys [B] of the users (`"query"`) and of the candidates (`"candidate"`), see `keys_of`; `to_batch`,
            `from_frame` and raw data sets give them.
    """

    features: dict[str, tf.Tensor]
    labels: dict[str, tf.Tensor]
    weights: dict[str, tf.Tensor]
    ids: dict[str, tf.Tensor] = {}  # noqa: RUF012  # never changed


class Table(Protocol):
    """A structure of columns of one length, such as a whole table in one `Batch`."""

    @property
    def features(self) -> Mapping[str, tf.Tensor]:
        """Encoded columns [N, ...] by feature name."""


def encode(preprocessor: Preprocessor, columns: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """Run the preprocessor over whole columns in pieces; texts that repeat are split once.

    Args:
        preprocessor: the model's preprocessor.
        columns: raw columns [N, ...] by feature name, from `to_columns`.

    Returns:
        Encoded columns [N, ...] by feature name.
    """
    rows = len(next(iter(columns.values())))
    starts = range(0, rows, _ENCODE_ROWS)
    parts = [
        _encode({name: values[start : start + _ENCODE_ROWS] for name, values in columns.items()}, preprocessor)
        for start in starts
    ]
    return {
        name: tf.concat([part[name] for part in parts], axis=0) if len(parts) > 1 else parts[0][name]
        for name in columns
    }


def encode_rows(
    preprocessor: Preprocessor, columns: Mapping[str, np.ndarray]
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Return the encoded columns of `encode`, and the keys [N] of the users and candidates by role."""
    ids = {name: tf.constant(columns[name]) for name in preprocessor.schema.ids.values() if name in columns}
    return encode(preprocessor, {**columns, **ids}), preprocessor.keys(ids)  # strings become tensors once


def _encode(columns: Mapping[str, np.ndarray], preprocessor: Preprocessor) -> dict[str, tf.Tensor]:
    encoded, rest = {}, dict(columns)
    for name, values in columns.items():
        codes, distinct = pd.factorize(values) if preprocessor.schema.features[name].repeats else (values, values)
        if 2 * len(distinct) <= len(values):
            once = preprocessor.compiled({name: tf.constant(distinct, tf.string)})[name]
            encoded[name] = tf.gather(once, codes)
            del rest[name]
    return {**encoded, **(preprocessor.compiled(_tensors(rest)) if rest else {})}


def to_batch(
    frame: pd.DataFrame,
    preprocessor: Preprocessor,
    *,
    labels: bool | Collection[str] = True,
    features: Collection[str] | None = None,
) -> Batch:
    """Encode a whole table as one batch.

    Args:
        frame: the table; with `labels=False` only feature columns are needed.
        preprocessor: the model's preprocessor.
        labels: whether to read label and weight columns, or the names of the tasks for which to read them.
        features: names of the features to read; all by default.
    """
    require_several(labels=labels, features=features)
    schema, frame = preprocessor.schema.with_labels_of(labels), as_frame(frame)
    chosen = [feature for name, feature in schema.features.items() if features is None or name in features]
    check_columns(frame, [*(feature.column for feature in chosen), *schema.label_columns])
    encoded, ids = encode_rows(preprocessor, to_columns(frame, chosen))
    values, weights = to_labels(frame, schema) if schema.labels else ({}, {})
    return Batch(encoded, _tensors(values), _tensors(weights), ids)


def from_frame(
    frame: pd.DataFrame,
    preprocessor: Preprocessor,
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
    clock: tf.Variable | None = None,
    labels: bool = True,
) -> tf.data.Dataset:
    """Return a data set of `Batch` from a table.

    Args:
        frame: the table.
        preprocessor: the model's preprocessor; it encodes the columns once, here.
        batch_size: rows per batch; the last batch may be smaller.
        shuffle_seed: seed of the permutations, or None to keep the table's order.
        clock: variable that is read when an epoch begins and seeds the permutation together with `shuffle_seed`; with
            `optimizer.iterations` a resumed training sees the permutations an uninterrupted one would have seen. By
            default epochs are counted from the data set's creation.
        labels: whether to read label and weight columns.

    Raises:
        ValueError: naming the column at fault.

    Cost: one permutation of the row numbers per epoch and one gather per batch, about 1 us per row.
    """
    require_positive_int(batch_size=batch_size)
    batch = to_batch(frame, preprocessor, labels=labels)
    return gather_batches(batch, batch_size, shuffle_seed=shuffle_seed, clock=clock)


def gather_batches(
    table: Table, batch_size: int, *, shuffle_seed: int | None = None, clock: tf.Variable | None = None
) -> tf.data.Dataset:
    """Return a data set that gathers rows of one large `Batch`, or of another structure of columns.

    Its elements have the table's structure; the other arguments are those of `from_frame`.
    """
    order = table_reader(table, batch_size, shuffle_seed=shuffle_seed)
    counter = tf.Variable(0, dtype=tf.int64, trainable=False) if clock is None and shuffle_seed is not None else None

    def read(none: tf.Tensor) -> tf.data.Dataset:
        epoch = clock if counter is None else counter.assign_add(1)
        return order(none if epoch is None else tf.cast(epoch, tf.int64))

    steps = -(-rows_of(table) // batch_size)
    dataset = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64)).flat_map(read)
    return without_autotuning(dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2))


def rows_of(table: Table) -> int:
    """Return the number of rows."""
    return int(next(iter(table.features.values())).shape[0])


def rows_of_pass(features: Mapping[str, Any]) -> int:
    """Return how many rows a network reads at once in a pass over a table: 8192, and fewer where lists of ids are long.

    Layers embed each position of a list, so that the memory of a pass grows with rows and positions.

    Args:
        features: encoded columns [N, ...], or the inputs of a network; a list of no fixed length counts as one id.

    Example:
        >>> rows_of_pass({"user": np.zeros([9], "int32"), "history": np.zeros([9, 1024], "int32")})
        256
    """
    lists = [column.shape[1:] for column in features.values() if tf.as_dtype(column.dtype).is_integer]
    longest = max((math.prod(int(length or 1) for length in shape) for shape in lists), default=1)
    return max(1, min(_MOST_ROWS, _MOST_POSITIONS // max(longest, 1)))


def table_reader(table: Table, batch_size: int, *, shuffle_seed: int | None) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Return a function from the seed of an epoch, an int64 scalar, to the batches of the table in that epoch."""
    rows = rows_of(table)
    packed, unpack = _packed(table)

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        positions = tf.range(rows)
        if shuffle_seed is not None:
            seed = [tf.cast(shuffle_seed, tf.int64), epoch]
            positions = tf.random.experimental.stateless_shuffle(positions, seed=seed)

        def gather(step: tf.Tensor) -> Any:
            start = tf.cast(step, tf.int32) * batch_size
            chosen = positions[start : tf.minimum(start + batch_size, rows)]
            return unpack([tf.gather(matrix, chosen) for matrix in packed])

        return tf.data.Dataset.range(-(-rows // batch_size)).map(gather)

    return order


def _packed(table: Any) -> tuple[list[tf.Tensor], Callable[[list[tf.Tensor]], Any]]:
    """Return the columns side by side, one matrix per type, and a function that splits rows of the matrices again.

    A row of a matrix is contiguous in memory, unlike a row of separate columns.
    """
    columns = tf.nest.flatten(table)
    types = list(dict.fromkeys(column.dtype for column in columns))
    flat = [tf.reshape(column, [column.shape[0], -1]) for column in columns]
    packed = [tf.concat([f for f in flat if f.dtype == kind], axis=1) for kind in types]

    def unpack(matrices: list[tf.Tensor]) -> Any:
        parts = {
            kind: iter(tf.split(matrix, [f.shape[1] for f in flat if f.dtype == kind], axis=1))
            for kind, matrix in zip(types, matrices, strict=True)
        }
        rows = [tf.reshape(next(parts[column.dtype]), [-1, *column.shape[1:]]) for column in columns]
        return tf.nest.pack_sequence_as(table, rows)

    return packed, unpack


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Switch off tf.data's autotuning, which has nothing to tune here.

    Its thread may be waited for when an iterator ends, up to as long again as the iteration took.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def encode_dataset(dataset: tf.data.Dataset, preprocessor: Preprocessor, *, labels: bool = True) -> tf.data.Dataset:
    """Encode a data set of raw batches.

    Args:
        dataset: batches as dicts of raw feature and label columns, or tuples (features, labels[, weights]) of dicts by
            feature and task; already encoded data sets of `Batch` are returned as they are. Values are those a table
            would hold, classes by their names; NaN and `""` are missing labels.
        preprocessor: the model's preprocessor.
        labels: whether to read labels and weights.

    Raises:
        ValueError: if elements have another structure, lack a feature or label, or hold another type. A negative
            weight, an infinite label or an unknown class ends the iteration with an `InvalidArgumentError` that names
            the task.
    """
    spec = dataset.element_spec
    if isinstance(spec, Batch):
        return dataset
    schema = preprocessor.schema
    if isinstance(spec, dict):
        keys = {name: feature.column for name, feature in schema.features.items()}
        names = list(spec)
    else:
        valid = isinstance(spec, tuple) and 0 < len(spec) <= 3 and all(isinstance(part, dict) for part in spec)
        require(valid, "A data set must yield dicts of columns or (features, labels, weights) dicts.", element=spec)
        keys = {name: name for name in schema.features}
        names = list(spec[0])
    missing = [key for key in keys.values() if key not in names]
    require(not missing, f"The data set lacks the features {missing}; it has {names}.")

    def to_encoded(*element: dict[str, tf.Tensor]) -> Batch:
        raw = {name: element[0][key] for name, key in keys.items()}
        read = {label.task: _read_label(element, label) for label in (schema.labels if labels else ())}
        values, weights = ({task: pair[part] for task, pair in read.items()} for part in (0, 1))
        return Batch(preprocessor(raw), values, weights, preprocessor.keys(raw))

    return dataset.map(to_encoded, num_parallel_calls=2).prefetch(2)


def _read_label(element: tuple[dict[str, tf.Tensor], ...], label: Label) -> tuple[tf.Tensor, tf.Tensor]:
    """Return labels [B], NaN where missing, and weights [B], 0 where the label is missing."""
    source, key = (element[1], label.task) if len(element) > 1 else (element[0], label.column)
    require_known([key], source, "label", f"the data set (task {label.task!r})")
    require(
        bool(label.classes) or source[key].dtype != tf.string,
        f"The label of task {label.task!r} must be numbers; the data set holds strings{NAME_CLASSES}.",
    )
    value = _positions(source[key], label) if label.classes else tf.cast(source[key], tf.float32)
    observed = tf.logical_not(tf.math.is_nan(value))
    given = _given_weight(element, label.task, label.sample_weight)
    weight = tf.where(observed, 1.0 if given is None else tf.cast(given, tf.float32), 0.0)
    rule = f"The weights of task `{label.task}` must be zero or positive where the label is known"
    infinite = f"The labels of task `{label.task}` must be finite; a missing label is NaN"
    finite = tf.debugging.Assert(tf.reduce_all(tf.logical_not(tf.math.is_inf(value))), [infinite, value])
    with tf.control_dependencies([tf.debugging.assert_non_negative(weight, rule), finite]):
        return tf.where(observed, value, float("nan")), tf.identity(weight)


def _positions(values: tf.Tensor, label: Label) -> tf.Tensor:
    """Return the positions [B] of values in the label's classes, NaN where missing."""
    classes = tf.constant(label.classes, values.dtype)
    found = tf.equal(values[:, tf.newaxis], classes)
    known = tf.reduce_any(found, axis=1)
    absent = tf.equal(values, "") if values.dtype == tf.string else tf.not_equal(values, values)
    rule = f"A label of task `{label.task}` is not among its classes"
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(known | absent), [rule, values])]):
        return tf.where(known, tf.cast(tf.argmax(found, axis=1), tf.float32), float("nan"))


def _given_weight(element: tuple[dict[str, tf.Tensor], ...], task: str, column: str | None) -> tf.Tensor | None:
    if len(element) == 3:
        return element[2].get(task)
    return element[0][column] if column and len(element) == 1 else None


def _tensors(columns: Columns) -> dict[str, tf.Tensor]:
    return {name: tf.constant(values) for name, values in columns.items()}
