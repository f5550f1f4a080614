"""Projection of the mean gradient onto the dual cone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tfmtl._keras import register, tf
from tfmtl.balancing.by_task import POSITIVE, numbers_by_task, shares
from tfmtl.balancing.gramian_balancer import GramianBalancer
from tfmtl.balancing.nonnegative import least_weights
from tfmtl.balancing.step_gradients import At


class DualCone(GramianBalancer):
    """Balancers that keep the update in the dual cone of the gradients and follow preferences within it.

    Args:
        preferences: relative importance by task name, above 0, 1 for tasks without one.
        at: as in `GramianBalancer`.

    Subclasses implement `weigh`.
    """

    task_arguments: ClassVar = {"preferences": 1.0}

    def __init__(
        self, preferences: Mapping[str, float] | None = None, at: At = "representation", **kwargs: Any
    ) -> None:
        super().__init__(at, **kwargs)
        self.preferences = numbers_by_task(preferences, "preference", POSITIVE)

    def shares(self, observed: tf.Tensor) -> tf.Tensor:
        """Return each observed task's share of their preferences [K]."""
        return shares(tf.constant(self.in_task_order("preferences", observed.shape[0]), tf.float32), observed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "preferences": dict(self.preferences)}


@register
class DualProj(DualCone):
    """DualProj: projects the preferred sum of the gradients onto their dual cone, where no task's gradient opposes it.

    Use it as an experiment beside tuned fixed weights, for tasks that must not get worse.

    The update is argmin_d |d - sum_i w~_i g_i| with d . g_i >= 0 for every task i. It is d = sum_i v_i g_i with
    v = argmin_{v >= w~} v^T M v, M the Gramian and w~ the preferences.

    Args:
        preferences: relative importance by task name, above 0, 1 for tasks without one; w~ is it divided by its sum
            over the tasks observed in the batch.
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = DualProj()
        >>> gramian = tf.constant([[4.0, -1.5], [-1.5, 1.0]])
        >>> weights = balancer.task_weights(gramian).numpy()
        >>> weights.round(3).tolist()  # the second gradient's product with the update is -1.5 / 2 + 0.75 = 0
        [0.5, 0.75]

    Reference:
        Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017,
        https://arxiv.org/abs/1706.08840, section 3, where the gradient of a new task is projected onto the dual cone of
        those of earlier ones. Here, as Quinton & Rey (https://arxiv.org/abs/2406.16232) compare it, the gradient is
        the tasks' mean and the cone is that of all of them. The weights are not unique if the Gramian has less than
        full rank; `nonnegative.FLOOR` decides, and lets d . g_i fall below zero by 1e-5 of |g_i| times its terms'
        lengths.

    Cost: one small quadratic programme per step, about 0.15 ms for 8 tasks on a CPU. We know of no evidence in
    recommenders. It follows the task with the longest gradient
    unless tasks conflict.
    """

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return v."""
        return least_weights(gramian, self.shares(observed)[tf.newaxis])[0]
