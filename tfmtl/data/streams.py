"""Files to batches of encoded features, streamed: the data set never has to fit in memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from tfmtl._keras import tf
from tfmtl.data.columns import to_columns, to_labels
from tfmtl.data.files import FileSource
from tfmtl.data.frames import Batch, encode_rows
from tfmtl.data.preprocessor import Preprocessor
from tfmtl.data.windows import Layout, batches_of, permuted, regrouped, window_rows

_PIECE_ROWS = 32_768  # rows decoded and encoded at a time: less would cost more calls than it saves memory


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
        source: from `open_files`, with the schema for CSV and TFRecord.
        preprocessor: the model's preprocessor.
        batch_size: rows per batch; the last batch may be smaller.
        shuffle_seed: seed of the order, which differs from epoch to epoch, or None to keep the files' order.
        shuffle_rows: rows read, permuted and encoded at a time, made a multiple of `batch_size`.
        clock: variable that is read when an epoch begins and seeds the order together with `shuffle_seed`, as in
            `from_frame`. By default epochs are counted from the data set's creation.
        labels: whether to read label and weight columns.

    Raises:
        ValueError: naming the file and column, at the call; values that are not of their column's type end the
            iteration with an `InvalidArgumentError` that names the column.

    Cost: memory of about six times `shuffle_rows` encoded rows, however large the files. Parquet files are
    counted first, which gives Keras the steps of an epoch; Keras counts those of other formats in the first epoch.
    Every epoch decodes and encodes the rows again; `cache` does so once.
    """
    rows = window_rows(shuffle_rows, batch_size, shuffle_seed)
    layout = Layout(preprocessor.schema, labels)
    source.arrow_schema(layout.raw_columns)  # an absent column fails here, not in a step
    windows = functools.partial(encoded_windows, source, preprocessor, layout, rows, shuffle_seed)
    typed = all(part.typed for part in source.parts)
    return batches_of(windows, layout, batch_size, rows=source.count_rows() if typed else None, clock=clock)


def epoch_reader(
    source: FileSource, preprocessor: Preprocessor, *, shuffle_seed: int | None, shuffle_rows: int, labels: bool
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Return a function from the seed of an epoch, an int64 scalar, to that epoch in pieces of `shuffle_rows`.

    The arguments are those of `from_files`, and so are the errors.
    """
    rows = window_rows(shuffle_rows, 1, shuffle_seed)
    layout = Layout(preprocessor.schema, labels)
    source.arrow_schema(layout.raw_columns)
    windows = functools.partial(encoded_windows, source, preprocessor, layout, rows, shuffle_seed)
    spec = tf.TensorSpec([None, layout.width], tf.int32)
    return lambda epoch: tf.data.Dataset.from_generator(windows, output_signature=spec, args=(epoch,)).map(
        layout.unpack
    )


def encoded_windows(
    source: FileSource, preprocessor: Preprocessor, layout: Layout, rows: int, seed: int | None, epoch: int | np.ndarray
) -> Iterator[np.ndarray]:
    """Yield one epoch as encoded words, `rows` rows at a time, permuted if there is a seed."""
    generator = np.random.default_rng([seed or 0, int(epoch)])
    piece = min(rows, _PIECE_ROWS)
    names = layout.raw_columns
    frames = source.chunks(names, piece) if seed is None else source.mixed_chunks(names, piece, generator)
    windows = regrouped((encoded_words(frame, preprocessor, layout) for frame in frames), rows)
    return windows if seed is None else permuted(windows, generator)


def encoded_words(frame: pd.DataFrame, preprocessor: Preprocessor, layout: Layout) -> np.ndarray:
    """Return the rows of a table as encoded words."""
    schema = layout.schema
    values, weights = to_labels(frame, schema) if layout.labels else ({}, {})
    encoded, ids = encode_rows(preprocessor, to_columns(frame, schema.features.values()))
    return layout.pack(Batch(encoded, values, weights, ids))
