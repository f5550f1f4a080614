"""Compute losses of tasks from plain lists."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from tfmtl._keras import tf
from tfmtl.tasks import CandidateIds, LossInputs, Task

tfrs = importlib.import_module("tensorflow_recommenders")  # after tfmtl has chosen Keras 2
NAN = float("nan")
NOTHING = LossInputs({})


def ids_of(indices: Any) -> CandidateIds:
    """Return candidates that are identified by their encoded ids."""
    return CandidateIds(tf.cast(indices, tf.int64), tf.cast(indices, tf.int32))


def loss_of(
    task: Task, labels: Sequence[float], outputs: Any, weights: Sequence[float], inputs: LossInputs = NOTHING
) -> tuple[float, float, Any]:
    """Return loss, weight and the gradient of the loss by the outputs."""
    towers = isinstance(outputs, dict)
    outputs = (
        {k: tf.constant(v, tf.float32) for k, v in outputs.items()} if towers else tf.constant(outputs, tf.float32)
    )
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss, weight = task.compute_loss(
            tf.constant(labels, tf.float32), outputs, tf.constant(weights, tf.float32), inputs
        )
    gradient = tape.gradient(loss, outputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return float(loss), float(weight), tf.nest.map_structure(lambda value: value.numpy(), gradient)
