"""The loss of a task for a batch: that of its rows, and that between them."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf
from tfmtl.tasks.loss_inputs import LossInputs
from tfmtl.tasks.ranking import Ranking
from tfmtl.tasks.task import Task


def batch_loss(
    task: Task, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `task.compute_loss` with that of the task's `group_loss`, and the weight of the observed rows."""
    loss, total = task.compute_loss(labels, outputs, sample_weight, inputs)
    between = task.group_loss if isinstance(task, Ranking) else None
    if between is None:
        return loss, total
    return loss + between.of_batch(outputs[:, 0], labels, sample_weight, inputs), total
