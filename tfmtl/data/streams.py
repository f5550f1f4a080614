"""Files to batches of encoded features, streamed: the data set never has to fit in memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import tf
from tfmtl.data.columns import to_columns, to_labels
from tfmtl.data.files import FileSource
from tfmtl.data.frames import Batch, without_autotuning
from tfmtl.data.preprocessor import Preprocessor, raw_spec
from tfmtl.data.schema import Schema


def from_files(
    source: FileSource,
    preprocessor: Preprocessor,
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
    shuffle_rows: int = 131_072,
    clock: tf.Variable | None = None,
    labels: bool = True,
) -> tf.data.Dataset:
    """Return a data set of `Batch` that streams files; every row comes once an epoch.

    Args:
        source: from `open_files`, with the schema for CSV.
        preprocessor: the model's preprocessor.
        batch_size: rows a batch; the last batch may be smaller.
        shuffle_seed: seed of the order, which differs from epoch to epoch, or None to keep the files' order.
        shuffle_rows: rows read, permuted and encoded at a time.
        clock: variable whose value, read when an epoch begins, seeds the order together with `shuffle_seed`, as in
            `from_frame`. By default epochs are counted from the data set's creation.
        labels: whether to read label and weight columns.

    Raises:
        ValueError: naming the file and column, at the call; values that are not of their column's type end the
            iteration with an `InvalidArgumentError` that says so.

    Cost: memory of about four times `shuffle_rows` rows, whatever the size of the files. Parquet is counted first, so
    that Keras knows the steps of an epoch; of CSV it learns them in the first.
    """
    require_positive_int(batch_size=batch_size)
    windows = epoch_reader(source, preprocessor, shuffle_seed=shuffle_seed, shuffle_rows=shuffle_rows, labels=labels)
    epochs = tf.Variable(0, dtype=tf.int64, trainable=False) if clock is None else clock

    def read(_: tf.Tensor) -> tf.data.Dataset:
        return windows(tf.cast(epochs if clock is not None else epochs.assign_add(1), tf.int64))

    dataset = tf.data.Dataset.from_tensors(0).flat_map(read).prefetch(1).rebatch(batch_size)
    if all(part.typed for part in source.parts):
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-source.count_rows() // batch_size)))
    return without_autotuning(dataset.prefetch(2))


def epoch_reader(
    source: FileSource, preprocessor: Preprocessor, *, shuffle_seed: int | None, shuffle_rows: int, labels: bool
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Return a function from what seeds an epoch's order, an int64 scalar, to the epoch in pieces of `shuffle_rows`.

    The arguments are those of `from_files`, and so are the errors.
    """
    require_positive_int(shuffle_rows=shuffle_rows)
    valid = shuffle_seed is None or (isinstance(shuffle_seed, int | np.integer) and shuffle_seed >= 0)
    require(valid, "`shuffle_seed` must be None or an integer of at least 0.", shuffle_seed=shuffle_seed)
    schema = preprocessor.schema
    names = list(dict.fromkeys(schema.columns() if labels else schema.features))
    source.arrow_schema(names)  # so that an absent column fails here and not in the first step
    windows = functools.partial(_windows, source, schema, names, shuffle_rows, shuffle_seed, labels)
    signature = _signature(schema, labels)

    def encode(raw: Batch) -> Batch:
        return raw._replace(features=preprocessor(raw.features))

    def read(epoch: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_generator(windows, output_signature=signature, args=(epoch,)).map(encode)

    return read


def _windows(
    source: FileSource, schema: Schema, names: list[str], rows: int, seed: int | None, labels: bool, epoch: np.ndarray
) -> Iterator[Batch]:
    """Yield one epoch as raw columns, `rows` rows at a time."""
    if seed is None:
        frames = source.chunks(names, rows)
    else:
        frames = source.shuffled_chunks(names, rows, np.random.default_rng([seed, int(epoch)]))
    for frame in frames:
        values, weights = to_labels(frame, schema) if labels else ({}, {})
        yield Batch(to_columns(frame, schema.features.values()), values, weights)


def _signature(schema: Schema, labels: bool) -> Batch:
    number = {task: tf.TensorSpec([None], tf.float32) for task in schema.tasks if labels}
    return Batch({name: raw_spec(feature) for name, feature in schema.features.items()}, number, dict(number))
