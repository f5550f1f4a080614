"""The loss of a task for a batch: its own and its further losses."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf
from tfmtl.tasks.loss_inputs import LossInputs
from tfmtl.tasks.ranking import Ranking
from tfmtl.tasks.task import Task


def batch_loss(
    task: Task, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `task.compute_loss` with the task's `extra_losses` by their weights, and the weight of observed rows."""
    loss, total = task.compute_loss(labels, outputs, sample_weight, inputs)
    if isinstance(task, Ranking) and task.extra_losses:
        further = task.further_losses(labels, outputs, sample_weight, inputs)
        loss += tf.add_n([extra.weight * further[extra.name] for extra in task.extra_losses])
    return loss, total
