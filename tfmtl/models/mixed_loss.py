"""The loss of rows that mixup has mixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfmtl._keras import tf
from tfmtl.data import Batch
from tfmtl.layers.marks import Mixing
from tfmtl.tasks import Task


def mixed_loss(
    arguments: Callable[..., Any], task: Task, data: Batch, output: Any, mixing: Mixing
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the mean loss over the labels of the rows and of their partners, and the weight of both.

    Args:
        arguments: labels, weights and the rest of a task's loss, by task, rows and whether they train.
        task: whose loss.
        data: the rows.
        output: the network's output for mixed rows.
        mixing: who was mixed with whom, and how much of each is left.
    """
    sums, total = [], tf.constant(0.0)
    for rows, share in ((data, mixing.kept), (mixing.partners_of(data), 1 - mixing.kept)):
        labels, weights, inputs = arguments(task, rows, training=True)
        loss, weight = task.compute_loss(labels, output, share * weights, inputs)
        sums.append(loss * weight)
        total += weight
    return tf.math.divide_no_nan(tf.add_n(sums), total), total
