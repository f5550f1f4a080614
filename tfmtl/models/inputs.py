"""What users pass to a model: checked, and tables as data sets of encoded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_type
from tfmtl._keras import keras, tf
from tfmtl.data import Batch, EncodedTable, FileSource, Preprocessor, Sequences, cache, from_files, from_frame, to_batch
from tfmtl.data.frames import encode_dataset, gather_batches
from tfmtl.data.sharded import ShardedFiles, SharedTable
from tfmtl.data.windows import Layout
from tfmtl.models.candidates import Candidates
from tfmtl.tasks import Task
from tfmtl.tasks.dependencies import in_order

_READY = (ShardedFiles, SharedTable, tf.distribute.DistributedDataset, keras.utils.experimental.DatasetCreator)


def as_dataset(
    x: Any,
    preprocessor: Preprocessor,
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
    clock: tf.Variable | None = None,
    labels: bool = True,
) -> tf.data.Dataset:
    """Return a data set of `Batch` from a table, files, an encoded table (a large `Batch`, a file) or a data set.

    Of `Sequences` it is one of smaller `Sequences`.

    The other arguments are those of `tfmtl.data.from_frame`. Shared files, of which `shared_batches` makes a data set,
    and distributed data sets are returned as they are.

    Raises:
        ValueError: if `x` is neither.
    """
    if isinstance(x, _READY):
        return x
    if isinstance(x, Batch | Sequences):
        return gather_batches(x, batch_size, shuffle_seed=shuffle_seed, clock=clock)
    if isinstance(x, EncodedTable):
        return x.batches(batch_size, shuffle_seed=shuffle_seed, clock=clock)
    if isinstance(x, FileSource):
        return from_files(x, preprocessor, batch_size, shuffle_seed=shuffle_seed, clock=clock, labels=labels)
    if isinstance(x, tf.data.Dataset):
        if isinstance(x.element_spec, Sequences):
            return x
        return encode_dataset(x, preprocessor, labels=labels)
    require(
        hasattr(x, "columns"),
        "Training data must be a pandas DataFrame, files from `open_files`, a table from `cache`, sequences from "
        "`to_sequences` or a tf.data.Dataset.",
        type=type(x).__name__,
    )
    return from_frame(x, preprocessor, batch_size, shuffle_seed=shuffle_seed, clock=clock, labels=labels)


def shared_batches(
    data: ShardedFiles | SharedTable, strategy: tf.distribute.Strategy, clock: tf.Variable | None
) -> tuple[Any, int]:
    """Return what each worker of a strategy reads of shared data, endlessly, and the steps of an epoch.

    Args:
        data: files from `tfmtl.data.distribute`, or a table.
        strategy: TensorFlow's own default stands for one worker.
        clock: see `ShardedFiles.pipeline`.

    Raises:
        ValueError: for files under a parameter server strategy, whose workers run no Python.
    """
    if serves_parameters(strategy):
        cure = "give `fit` a table, which is sent to them, or a `DatasetCreator` of batches of `Batch`"
        require(
            isinstance(data, SharedTable), f"Files are read by Python, which workers of servers do not run; {cure}."
        )
        return keras.utils.experimental.DatasetCreator(data.pipeline), data.steps()
    workers = []

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        workers.append(context.num_input_pipelines)
        return data.pipeline(context, clock=clock)

    dataset = strategy.distribute_datasets_from_function(of_worker)
    return dataset, data.steps(workers[0])


def shared_table(x: Any, preprocessor: Preprocessor, batch_size: int, shuffle_seed: int | None = None) -> Any:
    """Return a table, or an encoded one, as workers share it; other data as it is."""
    if isinstance(x, _READY):
        return x
    cure = "raise `memory_bytes`, or give a table"
    require(
        not isinstance(x, EncodedTable | FileSource), f"Workers of servers take a table that fits in memory; {cure}."
    )
    return SharedTable(x if isinstance(x, Batch | Sequences) else to_batch(x, preprocessor), batch_size, shuffle_seed)


def serves_parameters(strategy: tf.distribute.Strategy) -> bool:
    """Return whether variables live on servers and workers compute steps of their own."""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def encoded_once(x: Any, preprocessor: Preprocessor, memory_bytes: int) -> Any:
    """Return files as an encoded table in memory if that takes at most `memory_bytes`, else as they are.

    Cost: counts the rows of the files, for which those that are not Parquet are read.
    """
    require(memory_bytes >= 0, "`memory_bytes` must be 0 or more.", memory_bytes=memory_bytes)
    if not isinstance(x, FileSource) or not memory_bytes:
        return x
    size = 4 * Layout(preprocessor.schema, labels=True).width * x.count_rows()
    return cache(x, preprocessor) if size <= memory_bytes else x


def check_tasks(
    tasks: Sequence[Task], network: keras.Model, preprocessor: Preprocessor, candidates: Candidates | None
) -> None:
    """Raise unless the network has every task's output, the schema its label and the corpus what it draws from.

    Raises:
        ValueError: naming the tasks at fault.
    """
    for task in tasks:
        require_type(task, Task, "tasks[...]")
    in_order(tasks)  # every task with those it comes after
    missing = [task.name for task in tasks if task.name not in network.output]
    require(not missing, f"The network has no output for the tasks {missing}; it has {sorted(network.output)}.")
    wanting = [task.name for task in tasks if (task.num_extra_negatives or task.needs_corpus) and candidates is None]
    require(not wanting, f"The tasks {wanting} learn from candidates of the corpus and need `candidates`.")
    labels = preprocessor.statistics.labels
    unlabelled = [task.name for task in tasks if task.needs_label and task.name not in labels]
    require(not unlabelled, f"The schema has no label for the tasks {unlabelled}; it has labels for {list(labels)}.")
    for task in tasks:
        if task.name in labels:
            task.check_labels(labels[task.name])
