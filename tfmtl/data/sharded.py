"""Data that the workers of a distribution strategy share: each reads its own part."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Protocol

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import tf
from tfmtl.data.files import FileSource
from tfmtl.data.formats import spread
from tfmtl.data.frames import Batch, Table, rows_of, table_reader, without_autotuning
from tfmtl.data.preprocessor import Preprocessor
from tfmtl.data.streams import epoch_reader

_FOR_EVER = 2**40


class Shared(Protocol):
    """Data of which every worker of a distribution strategy reads its own part, again and again."""

    read_by_python: ClassVar[bool]
    """Whether reading takes Python, which workers of parameter servers do not run."""

    def steps(self, workers: int = 1) -> int:
        """Return the steps of an epoch."""

    def pipeline(
        self, context: tf.distribute.InputContext | None = None, *, clock: tf.Variable | None = None
    ) -> tf.data.Dataset:
        """Return the endless data set of `Batch` that one worker reads."""


@dataclasses.dataclass(frozen=True)
class SharedTable:
    """An encoded table in memory; its workers take whole batches in turn.

    Use it for workers that compute steps independently. The pipeline holds no state, so it can be sent to a worker.

    Attributes:
        table: the columns.
        batch_size: rows per batch.
        shuffle_seed: seed of the permutations, a new one each epoch, or None to keep the table's order.
    """

    read_by_python: ClassVar[bool] = False

    table: Table
    batch_size: int
    shuffle_seed: int | None = None

    def steps(self, workers: int = 1) -> int:
        """Return the batches of the table, for any number of workers."""
        return -(-rows_of(self.table) // self.batch_size)

    def pipeline(
        self, context: tf.distribute.InputContext | None = None, *, clock: tf.Variable | None = None
    ) -> tf.data.Dataset:
        """Return the endless data set of one worker's batches; `clock` is not read."""
        context = context or tf.distribute.InputContext()
        order = table_reader(self.table, self.batch_size, shuffle_seed=self.shuffle_seed)
        batches = tf.data.Dataset.range(_FOR_EVER).flat_map(order)
        own = batches.shard(context.num_input_pipelines, context.input_pipeline_id)
        return without_autotuning(own.prefetch(2))


@dataclasses.dataclass(frozen=True)
class ShardedFiles:
    """A table in files that workers share; made by `distribute` for `fit` and `evaluate`.

    Attributes:
        source, preprocessor, batch_size, shuffle_seed, shuffle_rows, labels: the arguments of `distribute`.
    """

    read_by_python: ClassVar[bool] = True

    source: FileSource
    preprocessor: Preprocessor
    batch_size: int
    shuffle_seed: int | None = None
    shuffle_rows: int = 131_072
    labels: bool = True

    def steps(self, workers: int = 1) -> int:
        """Return the steps of an epoch: as many as the worker with most rows needs."""
        groups = spread(self.source.parts, workers)
        most = max(sum(part.count_rows() for part in group) for group in groups)
        return -(-most // (self.batch_size // workers))

    def pipeline(
        self, context: tf.distribute.InputContext | None = None, *, clock: tf.Variable | None = None
    ) -> tf.data.Dataset:
        """Return the endless data set of `Batch` that one worker reads, a batch for each of its replicas a step.

        Every epoch has `steps` steps; a worker that has fewer rows than another ends it with batches of no rows.

        Args:
            context: index and number of workers; by default one worker reads everything.
            clock: variable that is read when the iteration begins; its value, the steps since then and `shuffle_seed`
                seed the order. By default 0.

        Raises:
            ValueError: if the batch does not divide into equal parts, or there are fewer parts than workers.
        """
        context = context or tf.distribute.InputContext()
        workers, replicas = context.num_input_pipelines, context.num_replicas_in_sync
        rule = f"`batch_size` must be a multiple of the {replicas} replicas that share a batch."
        require(self.batch_size % replicas == 0, rule, batch_size=self.batch_size)
        own = self.source.shard(context.input_pipeline_id, workers)
        windows = epoch_reader(
            own, self.preprocessor, shuffle_seed=self.shuffle_seed, shuffle_rows=self.shuffle_rows, labels=self.labels
        )
        steps = self.steps(workers)

        def epoch(number: tf.Tensor) -> tf.data.Dataset:
            batches = windows(number).prefetch(1).rebatch(self.batch_size // replicas)
            return batches.concatenate(_empty(batches.element_spec)).take(steps * (replicas // workers))

        def epochs(_: tf.Tensor) -> tf.data.Dataset:
            begin = tf.constant(0, tf.int64) if clock is None else tf.cast(clock, tf.int64)
            return tf.data.Dataset.range(_FOR_EVER).flat_map(lambda passed: epoch(begin + steps * passed))

        return without_autotuning(tf.data.Dataset.from_tensors(0).flat_map(epochs).prefetch(2))


def distribute(
    source: FileSource,
    preprocessor: Preprocessor,
    global_batch_size: int,
    *,
    shuffle_seed: int | None = None,
    shuffle_rows: int = 131_072,
    labels: bool = True,
) -> ShardedFiles:
    """Share files between the workers of a distribution strategy: each reads its own parts, every row once an epoch.

    A part is a row group of a Parquet file or a CSV file. Each of W workers takes
    1 / W of each batch from its own parts; so the batches differ from those of a single process, which mixes all parts.
    Use it under a distribution strategy with several workers; without one it reads like `from_files`.

    Args:
        source: from `open_files`.
        preprocessor: the model's preprocessor.
        global_batch_size: rows of a step over all workers; a multiple of the number of replicas.
        shuffle_seed: seed of each worker's order, which differs from epoch to epoch, or None for the files' order.
        shuffle_rows: rows read, permuted and encoded at a time by each worker.
        labels: whether to read label and weight columns.

    Returns:
        The data for `MultiTaskModel.fit` and `evaluate`, instead of a table.

    Cost: memory of about four times `shuffle_rows` rows per worker. Every worker counts the rows of all files: of
    Parquet in the footers, of CSV in one pass.
    """
    require_positive_int(global_batch_size=global_batch_size, shuffle_rows=shuffle_rows)
    return ShardedFiles(source, preprocessor, global_batch_size, shuffle_seed, shuffle_rows, labels)


def _empty(spec: Any) -> tf.data.Dataset:
    """Return an endless data set of batches without rows."""
    rows = tf.nest.map_structure(lambda column: tf.zeros([0, *column.shape[1:]], column.dtype), spec)
    return tf.data.Dataset.from_tensors(Batch(*rows)).repeat()
