"""A copy of a model outside of the distribution strategy that trained it."""

from __future__ import annotations

import pathlib
import tempfile

from tfmtl._keras import keras, tf
from tfmtl.models.inputs import serves_parameters
from tfmtl.models.multi_task import MultiTaskModel


def local_copy(model: MultiTaskModel) -> MultiTaskModel:
    """Return an uncompiled copy of a model with its variables in this process; the model itself if they are already.

    Use it to export a model that was trained with parameter servers: variables there may be cut into shards and cannot
    be saved for serving. The state of the balancer and the tasks is copied, too.

    Args:
        model: trained under any strategy.

    Raises:
        RuntimeError: if called in the strategy's scope, where the variables of the copy would be on the servers, too.

    Cost: one checkpoint written and read.
    """
    if not serves_parameters(model.distribute_strategy):
        return model
    if tf.distribute.has_strategy():
        raise RuntimeError("A local copy of a model is made outside of the strategy's scope; leave the `with` block.")
    copy = type(model)(keras.models.clone_model(model.network), **model.arguments())
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint(model).write(str(pathlib.Path(folder) / "weights"))
        checkpoint(copy).read(path).assert_existing_objects_matched()
    return copy


def checkpoint(model: MultiTaskModel) -> tf.train.Checkpoint:
    """Return a checkpoint of the model's state without its optimiser."""
    return tf.train.Checkpoint(network=model.network, balancer=model.balancer, tasks=model.tasks)
