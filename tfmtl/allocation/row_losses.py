"""The losses of single rows, with the encodings and outputs that a model has for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfmtl._keras import tf, traced
from tfmtl.data import Batch
from tfmtl.data.frames import gather_batches, rows_of, rows_of_pass
from tfmtl.layers.marks import marking
from tfmtl.models import MultiTaskModel


class RowLosses(NamedTuple):
    """The rows of a table as a trained model computes them, in inference mode.

    Attributes:
        inputs: the encodings of query, candidate and context, followed by the outputs of the tasks [N, d], float32.
        losses: [N, K], float32; NaN where the label is missing.
    """

    inputs: npt.NDArray[np.float32]
    losses: npt.NDArray[np.float32]


class RowReader:
    """Reads the inputs and losses of rows from a model as it is at the moment.

    The loss of a row is the derivative of sum_i w_i l_i, the mean loss of a task times the weight of its rows, with
    respect to the weight w_i of the row. It exists for every loss that is a weighted mean over rows; `extra_losses`
    between rows do not count.

    Args:
        model: a model.
        task_names: the K tasks.

    Cost: the pass is traced once.
    """

    def __init__(self, model: MultiTaskModel, task_names: Sequence[str]) -> None:
        self._compute = traced(lambda rows: _inputs_and_losses(model, rows, task_names), reduce_retracing=True)

    def __call__(self, batch: Batch) -> RowLosses:
        """Return the inputs and losses of encoded rows."""
        rows = min(rows_of_pass(batch.features), rows_of(batch))
        parts = [[part.numpy() for part in self._compute(piece)] for piece in gather_batches(batch, rows)]
        inputs, losses = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return RowLosses(inputs, losses)


def _inputs_and_losses(model: MultiTaskModel, rows: Batch, task_names: Sequence[str]) -> tuple[tf.Tensor, tf.Tensor]:
    with marking() as marks:
        outputs = model(rows.features, training=False)
    tasks = {task.name: task for task in model.tasks}
    losses = []
    for name in task_names:
        observed = tf.cast(tf.logical_not(tf.math.is_nan(rows.labels[name])), tf.float32)
        labels, _, inputs = model.loss_arguments(tasks[name], rows, training=False)
        with tf.GradientTape() as tape:
            tape.watch(observed)
            mean, total = tasks[name].compute_loss(labels, outputs[name], observed, inputs)
            summed = mean * total
        losses.append(tf.where(observed > 0, tape.gradient(summed, observed), float("nan")))
    parts = [*marks.encodings, *(part for name in task_names for part in tf.nest.flatten(outputs[name]))]
    flat = [tf.reshape(tf.cast(part, tf.float32), [tf.shape(part)[0], part.shape[-1]]) for part in parts]
    return tf.concat(flat, axis=1), tf.stack(losses, axis=1)
