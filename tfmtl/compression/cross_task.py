"""Cross-task distillation: the teacher of one task orders the rows that have equal labels in another task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfmtl._checks import require, require_known
from tfmtl._keras import tf
from tfmtl.tasks import Task
from tfmtl.tasks.task import mean_over_observed

CrossTask = Mapping[str, Mapping[str, float]]
"""Weights by the task that learns and the task that its teacher comes from."""


def order_loss(logits: tf.Tensor, taught: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the distance between a student's and a teacher's order of rows with equal labels.

    L = mean over pairs (i, i + 1) of a batch with y_i = y_i+1 of the cross entropy between sigmoid(z_i - z_i+1) and
    sigmoid(t_i - t_i+1), less its least value: 0 where the student's differences are the teacher's.

    Args:
        logits: the student's, z [B].
        taught: the teacher's of another task, t [B].
        labels: of the task that learns, [B].
        weights: [B]; rows without a label have 0 and are in no pair.

    Example:
        >>> ones, taught = tf.ones([2]), tf.constant([1.0, 0.0])
        >>> [round(float(order_loss(z, taught, ones, ones)), 4) for z in (taught, -taught)]
        [0.0, 0.4621]
    """
    own, target = (value - tf.roll(value, -1, 0) for value in (logits, taught))
    alike = tf.cast(tf.equal(labels, tf.roll(labels, -1, 0)), logits.dtype)
    pairs = alike * tf.cast(weights > 0, logits.dtype) * tf.cast(tf.roll(weights, -1, 0) > 0, logits.dtype)
    share = tf.sigmoid(target)
    cross, least = (tf.nn.sigmoid_cross_entropy_with_logits(labels=share, logits=x) for x in (own, target))
    return mean_over_observed(cross - least, pairs)[0]


def check_cross_task(cross_task: CrossTask, tasks: Sequence[Task]) -> None:
    """Raise unless every task that learns or teaches is one of yes or no, and every weight is 0 or more.

    Raises:
        ValueError: naming the task or weight at fault.
    """
    binary = [task.name for task in tasks if type(task).event_logit is not Task.event_logit]
    require_known(cross_task, binary, "task", "`cross_task` (tasks of yes or no)")
    for name, weights in cross_task.items():
        require_known(weights, [other for other in binary if other != name], "task", f"`cross_task[{name!r}]`")
        for other, weight in weights.items():
            require(weight >= 0, f"`cross_task[{name!r}][{other!r}]` must be 0 or more.", weight=weight)
