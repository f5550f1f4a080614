"""A model outside of the distribution strategy that trained it."""

from __future__ import annotations

import pathlib
import tempfile

from tfmtl._keras import keras, tf
from tfmtl.models.inputs import serves_parameters
from tfmtl.models.multi_task import MultiTaskModel


def local_copy(model: MultiTaskModel) -> MultiTaskModel:
    """Return a model whose variables lie whole in this process, not compiled; the model itself if they do already.

    Variables on parameter servers, of which large ones are cut into shards, cannot be saved for serving. The state of
    balancer and tasks is copied, too.

    Args:
        model: trained under any strategy.

    Raises:
        RuntimeError: if called in the strategy's scope, where the copy's variables would be on the servers, too.

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
    """Return what reads and writes the state of a model but for its optimiser."""
    return tf.train.Checkpoint(network=model.network, balancer=model.balancer, tasks=model.tasks)
