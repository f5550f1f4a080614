"""Models under a distribution strategy: the data that its workers share, and a copy of the model outside of it."""

from __future__ import annotations

import pathlib
import tempfile
from typing import TYPE_CHECKING, Any

from tfmtl._checks import require
from tfmtl._keras import keras, tf
from tfmtl._replicas import serves_parameters as serves_parameters
from tfmtl.data.sharded import Shared

if TYPE_CHECKING:
    from tfmtl.models.multi_task import MultiTaskModel


def shared_batches(data: Shared, strategy: tf.distribute.Strategy, clock: tf.Variable | None) -> tuple[Any, int]:
    """Return an endless data set in which each worker of a strategy reads its own part, and the steps of an epoch.

    Args:
        data: files from `tfmtl.data.distribute`, or a table.
        strategy: the strategy; TensorFlow's default strategy has one worker.
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


def local_copy(model: MultiTaskModel) -> MultiTaskModel:
    """Return a copy of a model, not compiled, with its variables in this process, or the model if they already are.

    Use it to export a model that was trained with parameter servers, where variables may be cut into shards and cannot
    be saved for serving. The copy includes the state of the balancer and the tasks.

    Args:
        model: a model trained under any strategy.

    Raises:
        RuntimeError: if called in the strategy's scope, where the copy would be made on the servers.

    Cost: one checkpoint written and read.
    """
    if not serves_parameters(model.distribute_strategy):
        return model
    if tf.distribute.has_strategy():
        raise RuntimeError("A local copy must be made outside of the strategy's scope; leave the `with` block.")
    copy = type(model)(keras.models.clone_model(model.network), **model.arguments())
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint(model).write(str(pathlib.Path(folder) / "weights"))
        checkpoint(copy).read(path).assert_existing_objects_matched()
    return copy


def checkpoint(model: MultiTaskModel) -> tf.train.Checkpoint:
    """Return a checkpoint of the model's state without its optimizer."""
    return tf.train.Checkpoint(network=model.network, balancer=model.balancer, tasks=model.tasks)
