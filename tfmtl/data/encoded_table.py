"""A data set encoded once, in memory or in a file that each epoch reads in another order."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import pandas as pd

from tfmtl._checks import require_type
from tfmtl._keras import tf
from tfmtl._staging import remove_abandoned
from tfmtl.data.files import FileSource
from tfmtl.data.frames import Batch, to_batch
from tfmtl.data.interchange import as_frame
from tfmtl.data.preprocessor import Preprocessor
from tfmtl.data.raw_table import RawTable, raw_table
from tfmtl.data.streams import encoded_words
from tfmtl.data.windows import Layout, batches_of, permuted, window_rows
from tfmtl.data.word_file import WordFile, read_words, write_words

_FORMAT = 2  # of the rows; the first one had no keys
_WINDOW = 65_536  # rows encoded at a time
_BLOCK_BYTES = 1 << 16  # read at one position: less would cost a slow disk more time for seeking than for reading
_BLOCKS = 32  # least number of positions that a window is read from


class EncodedTable:
    """An encoded data set in a file, for tables that do not fit in memory; made by `cache`.

    Args:
        layout: of the rows.
        words: the file.
    """

    def __init__(self, layout: Layout, words: WordFile) -> None:
        self.layout = layout
        self.words = words

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.words.rows

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        shuffle_rows: int = 131_072,
        clock: tf.Variable | None = None,
    ) -> tf.data.Dataset:
        """Return a data set of `Batch`; every row comes once an epoch.

        A shuffled epoch cuts the table into blocks of about 64 kB, at other positions each time, reads the blocks in
        random order and permutes `shuffle_rows` rows at a time. All permutations of a table of at most `shuffle_rows`
        rows are possible; in a larger table, neighbours stay close to each other.

        Args:
            batch_size: rows per batch; the last batch may be smaller.
            shuffle_seed: seed of the order, which differs from epoch to epoch, or None to keep the table's order.
            shuffle_rows: rows permuted at a time, made a multiple of `batch_size`.
            clock: variable that is read when an epoch begins and seeds the order together with `shuffle_seed`, as in
                `from_frame`. By default epochs are counted from the data set's creation.

        Cost: memory of about five times `shuffle_rows` encoded rows; each byte is read once an epoch.
        """
        rows = window_rows(shuffle_rows, batch_size, shuffle_seed)
        windows = functools.partial(_windows, self.words, rows, shuffle_seed)
        return batches_of(windows, self.layout, batch_size, rows=len(self), clock=clock)

    def to_batch(self) -> Batch:
        """Return the whole table as one large `Batch` in memory."""
        return self.layout.unpack(tf.constant(self.words.read(0, len(self))))


def cache(
    source: pd.DataFrame | FileSource,
    preprocessor: Preprocessor,
    path: str | os.PathLike[str] | None = None,
    *,
    labels: bool = True,
) -> Batch | EncodedTable:
    """Encode a data set once, in memory or in a file; `fit`, `evaluate` and `predict` take either.

    Use it if encoding takes a large part of an epoch, or if the table does not fit in memory. The file holds the rows
    as the model's preprocessor encodes them. It is written again if the source (its contents, or the sizes and times of
    its files), the schema, the vocabularies or the moments have changed, or if it is empty or damaged, as checksums
    show. It appears only when it is complete; of several writers at once, the last one stays.

    Args:
        source: pandas table, or files from `open_files`.
        preprocessor: the model's preprocessor.
        path: of the file, or None to keep the rows in memory.
        labels: whether to read label and weight columns.

    Returns:
        A `Batch` of all rows, or with `path` an `EncodedTable`.

    Raises:
        ValueError: naming the file and column at fault, or a `path` to another file than a cache.

    Example:
        >>> import tempfile
        >>> from tfmtl.data import Categorical, Schema, fit_statistics
        >>> frame = pd.DataFrame({"user_id": ["b", "a", "b"]})
        >>> schema = Schema(query=[Categorical("user_id")])
        >>> folder = tempfile.TemporaryDirectory()
        >>> table = cache(frame, Preprocessor.fit(schema, frame), folder.name + "/train.cache")
        >>> [batch.features["user_id"].numpy().tolist() for batch in table.batches(2)]
        [[2, 3], [2]]
        >>> folder.cleanup()

    Cost: one pass; 4 bytes per id, label or weight, 8 per number or key. In memory up to three times as much while
    encoding. An existing file is read once, at the speed of the disk, to compare it with its checksums.
    """
    source = as_frame(source)
    require_type(source, (pd.DataFrame, FileSource), "source")
    layout = Layout(preprocessor.schema, labels)
    if path is None:
        return _in_memory(source, preprocessor, layout)
    path = pathlib.Path(path)
    remove_abandoned(path.parent)  # of a writer that was killed, also if the file is complete
    raw = raw_table(source)
    key = _key(raw, preprocessor, layout)
    words = read_words(path, key, layout.width)
    if words is None:
        write_words(path, key, layout.width, _encoded(raw, preprocessor, layout))
        words = read_words(path, key, layout.width)
    if words is None:  # another writer has replaced the file
        raise ValueError(f"Two data sets are cached in '{path}' at once; give each a path of its own.")
    return EncodedTable(layout, words)


def _in_memory(source: pd.DataFrame | FileSource, preprocessor: Preprocessor, layout: Layout) -> Batch:
    if isinstance(source, pd.DataFrame):
        return to_batch(source, preprocessor, labels=layout.labels)
    return layout.unpack(tf.constant(np.concatenate(list(_encoded(source, preprocessor, layout)))))


def _encoded(source: RawTable, preprocessor: Preprocessor, layout: Layout) -> Iterator[np.ndarray]:
    """Yield the rows in order as words."""
    return (encoded_words(piece, preprocessor, layout) for piece in source.chunks(layout.raw_columns, _WINDOW))


def _key(source: RawTable, preprocessor: Preprocessor, layout: Layout) -> str:
    """Return a hash of everything that the encoded rows depend on."""
    contents = source.state(layout.raw_columns)
    config = {name: preprocessor.get_config()[name] for name in ("schema", "statistics")}
    text = json.dumps([contents, config, layout.labels, _FORMAT], default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _windows(words: WordFile, rows: int, seed: int | None, epoch: np.ndarray) -> Iterator[np.ndarray]:
    if seed is None:
        return _filled(words, [(0, words.rows)], rows)
    generator = np.random.default_rng([seed, int(epoch)])
    return permuted(_filled(words, _blocks(words, rows, generator), rows), generator)


def _blocks(words: WordFile, rows: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """Return the runs of rows [start, end) that make up the table, in random order; the first may also be short."""
    block = max(1, min(_BLOCK_BYTES // (4 * words.width), rows // _BLOCKS))
    starts = np.arange(int(generator.integers(block)) - block, words.rows, block)
    runs = np.stack([np.maximum(starts, 0), np.minimum(starts + block, words.rows)], axis=1)
    runs = runs[runs[:, 0] < runs[:, 1]]
    return [(int(start), int(end)) for start, end in runs[generator.permutation(len(runs))]]


def _filled(words: WordFile, runs: list[tuple[int, int]], rows: int) -> Iterator[np.ndarray]:
    """Yield the runs in windows of `rows` rows, and a last one of the rest."""
    left = sum(end - start for start, end in runs)
    window, used = np.empty([min(rows, left), words.width], np.int32), 0
    for start, end in runs:
        while start < end:
            count = min(end - start, len(window) - used)
            words.read_into(start, window[used : used + count])
            start, used, left = start + count, used + count, left - count
            if used == len(window):
                yield window
                window, used = np.empty([min(rows, left), words.width], np.int32), 0
