"""Encoded rows as one matrix of words, and batches from windows of such rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import tf
from tfmtl.data.frames import Batch, without_autotuning
from tfmtl.data.schema import Schema

_KINDS = (tf.int64, tf.int32, tf.float32)  # the order of the columns of a row

Windows = Callable[[np.ndarray], Iterator[np.ndarray]]
"""A function from the number of an epoch to windows of its rows: words [rows, `width`]."""


class Layout:
    """The positions of the columns of an encoded table in rows of 4-byte words: 64-bit and other integers, then floats.

    Args:
        schema: of the table.
        labels: whether it has labels and weights.

    Example:
        >>> from tfmtl.data import Categorical, Numeric
        >>> layout = Layout(Schema(query=[Categorical("user_id"), Numeric("age")]), labels=False)
        >>> columns = {"user_id": np.int32([7]), "age": np.float32([[0.5, 0.0]])}
        >>> words = layout.pack(Batch(columns, {}, {}, {"query": np.int64([2**40])}))
        >>> words.shape, layout.unpack(tf.constant(words)).features["user_id"].numpy().tolist()
        ((1, 5), [7])
    """

    def __init__(self, schema: Schema, labels: bool) -> None:
        self.schema = schema
        self.labels = labels
        number = {task: tf.TensorSpec([None], tf.float32) for task in schema.tasks if labels}
        features = {name: feature.encoded_spec for name, feature in schema.features.items()}
        ids = {role: tf.TensorSpec([None], tf.int64) for role in schema.ids}
        self._spec = Batch(features, number, dict(number), ids)
        self._columns: list[tf.TensorSpec] = tf.nest.flatten(self._spec)
        self._order = [i for kind in _KINDS for i, spec in enumerate(self._columns) if spec.dtype == kind]
        self._sizes = [self._columns[i].dtype.size // 4 * int(np.prod(self._columns[i].shape[1:])) for i in self._order]

    @property
    def raw_columns(self) -> list[str]:
        """Names of the raw columns that are encoded, each once."""
        return list(dict.fromkeys(self.schema.columns() if self.labels else self.schema.feature_columns))

    @property
    def width(self) -> int:
        """Words per row."""
        return sum(self._sizes)

    def pack(self, table: Any) -> np.ndarray:
        """Return a table of arrays or tensors [N, ...] as int32 words [N, width]."""
        columns = tf.nest.flatten(table)
        flat = [np.asarray(columns[i]).reshape(len(columns[i]), -1).view(np.int32) for i in self._order]
        return np.concatenate(flat, axis=1)

    def unpack(self, words: tf.Tensor) -> Batch:
        """Return words [B, width] as a batch."""
        parts: list[tf.Tensor] = []
        start = 0
        for kind in _KINDS:
            sizes = [n for n, i in zip(self._sizes, self._order, strict=True) if self._columns[i].dtype == kind]
            block = words[:, start : start + sum(sizes)]
            start += sum(sizes)
            if kind == tf.int64:
                block, sizes = tf.reshape(block, [-1, len(sizes), 2]), [1] * len(sizes)
            parts += tf.split(tf.bitcast(block, kind), sizes, axis=1) if sizes else []
        columns = list(self._columns)
        for i, part in zip(self._order, parts, strict=True):
            columns[i] = tf.reshape(part, [-1, *self._columns[i].shape[1:]])
        return tf.nest.pack_sequence_as(self._spec, columns)


def batches_of(
    windows: Windows, layout: Layout, batch_size: int, *, rows: int | None, clock: tf.Variable | None = None
) -> tf.data.Dataset:
    """Return a data set of `Batch` from windows, each except the last a multiple of `batch_size` rows.

    Args:
        windows: the source; called when an epoch begins, with the clock's value.
        layout: of the words.
        batch_size: rows per batch; the last batch may be smaller.
        rows: rows of an epoch, which give Keras the number of steps, or None if unknown.
        clock: as in `from_frame`.
    """
    epochs = tf.Variable(0, dtype=tf.int64, trainable=False) if clock is None else clock
    signature = tf.TensorSpec([None, layout.width], tf.int32)

    def read(_: tf.Tensor) -> tf.data.Dataset:
        epoch = tf.cast(epochs if clock is not None else epochs.assign_add(1), tf.int64)
        return tf.data.Dataset.from_generator(windows, output_signature=signature, args=(epoch,))

    def cut(window: tf.Tensor) -> tf.data.Dataset:
        rows = tf.shape(window, tf.int64)[0]
        starts = tf.data.Dataset.range(0, rows, batch_size)
        return starts.map(lambda start: layout.unpack(window[start : start + batch_size]))

    dataset = tf.data.Dataset.from_tensors(0).flat_map(read).prefetch(1).flat_map(cut)
    if rows is not None:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-rows // batch_size)))
    options = tf.data.Options()
    options.threading.private_threadpool_size = 2  # reading must not wait for the threads that train
    return without_autotuning(dataset.prefetch(2)).with_options(options)


def window_rows(shuffle_rows: int, batch_size: int, shuffle_seed: int | None) -> int:
    """Return the rows of a window: `shuffle_rows` or the next multiple of the batch size; checks all three."""
    require_positive_int(batch_size=batch_size, shuffle_rows=shuffle_rows)
    valid = shuffle_seed is None or (isinstance(shuffle_seed, int | np.integer) and shuffle_seed >= 0)
    require(valid, "`shuffle_seed` must be None or an integer of at least 0.", shuffle_seed=shuffle_seed)
    return -(-shuffle_rows // batch_size) * batch_size


def regrouped(pieces: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Yield the rows of all pieces [n, width] in windows of `rows` rows, and a last one of the rest."""
    window, used = np.empty([0, 0], np.int32), 0
    for piece in pieces:
        start = 0
        while start < len(piece):
            if not used:
                window = np.empty([rows, piece.shape[1]], np.int32)
            count = min(len(piece) - start, rows - used)
            window[used : used + count] = piece[start : start + count]
            start, used = start + count, used + count
            if used == rows:
                yield window
                used = 0
    if used:
        yield window[:used]


def permuted(windows: Iterator[np.ndarray], generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield windows with their rows in random order."""
    return (window[generator.permutation(len(window))] for window in windows)
