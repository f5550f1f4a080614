"""Checks of a model's arguments, and the data that the workers of a distribution strategy share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_type
from tfmtl._keras import keras, tf
from tfmtl.data import Preprocessor
from tfmtl.data.sharded import Shared
from tfmtl.models.candidates import Candidates
from tfmtl.tasks import Task
from tfmtl.tasks.dependencies import in_order


def shared_batches(data: Shared, strategy: tf.distribute.Strategy, clock: tf.Variable | None) -> tuple[Any, int]:
    """Return an endless data set in which each worker of a strategy reads its own part, and the steps of an epoch.

    Args:
        data: files from `tfmtl.data.distribute`, or a table.
        strategy: TensorFlow's default strategy is one worker.
        clock: see `ShardedFiles.pipeline`.

    Raises:
        ValueError: if `data` are files and the strategy is a parameter server strategy: its workers run no Python.
    """
    if serves_parameters(strategy):
        cure = "give `fit` a table, which is sent to them, or a `DatasetCreator` of batches of `Batch`"
        require(not data.read_by_python, f"Files are read by Python, which workers of servers do not run; {cure}.")
        return keras.utils.experimental.DatasetCreator(data.pipeline), data.steps()
    workers = []

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        workers.append(context.num_input_pipelines)
        return data.pipeline(context, clock=clock)

    dataset = strategy.distribute_datasets_from_function(of_worker)
    return dataset, data.steps(workers[0])


def serves_parameters(strategy: tf.distribute.Strategy) -> bool:
    """Return whether variables are on parameter servers and workers compute steps independently."""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def require_candidates(model: Any) -> Candidates:
    """Return the corpus of a model.

    Raises:
        ValueError: if it has none, naming its retrieval tasks and the reason.
    """
    corpus: Candidates | None = model.candidates
    if corpus is not None:
        return corpus
    tasks = [task.name for task in model.tasks if isinstance(model.network.output[task.name], Mapping)]
    collected = model.preprocessor.fitted_candidates
    reason = collected.conflict if collected is not None else ""
    raise ValueError(
        f"The retrieval tasks {tasks} need the corpus: pass `candidates`, or a preprocessor from `Preprocessor.fit`."
        + (f" The training table holds no corpus: {reason}" if reason else "")
    )


def check_tasks(tasks: Sequence[Task], network: keras.Model, preprocessor: Preprocessor) -> None:
    """Raise unless every task has its output of the network and its label in the schema.

    Raises:
        ValueError: naming the tasks at fault.
    """
    for task in tasks:
        require_type(task, Task, "tasks[...]")
    in_order(tasks)  # raises if a task lacks its parents
    missing = [task.name for task in tasks if task.name not in network.output]
    require(not missing, f"The network has no output for the tasks {missing}; it has {sorted(network.output)}.")
    labels = preprocessor.statistics.labels
    unlabelled = [task.name for task in tasks if task.needs_label and task.name not in labels]
    require(not unlabelled, f"The schema has no label for the tasks {unlabelled}; it has labels for {list(labels)}.")
    for task in tasks:
        if task.name in labels:
            task.check_labels(labels[task.name])
