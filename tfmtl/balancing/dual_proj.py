"""Projection of the mean gradient onto the dual cone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._keras import register, tf
from tfmtl.balancing.gramian_balancer import At, GramianBalancer
from tfmtl.balancing.loss_weighting import checked_numbers, in_order, shares
from tfmtl.balancing.nonnegative import least_weights


class DualCone(GramianBalancer):
    """Balancers that keep the update in the dual cone of the gradients and follow preferences within it.

    Args:
        preferences: relative importance by task name, above 0, 1 for tasks without one.
        at: as in `GramianBalancer`.

    Subclasses implement `task_weights`.
    """

    def __init__(
        self, preferences: Mapping[str, float] | None = None, at: At = "representation", **kwargs: Any
    ) -> None:
        super().__init__(at, **kwargs)
        self.preferences = checked_numbers(preferences, "preference", positive=True)

    def bind(self, task_names: Sequence[str], kendall_factors: Sequence[float]) -> None:
        """Check the names and fix the order."""
        super().bind(task_names, kendall_factors)
        self._ordered = in_order(self.preferences, task_names, 1.0, "preferences")

    def shares(self, observed: tf.Tensor) -> tf.Tensor:
        """Return each observed task's share of their preferences [K]."""
        return shares(tf.constant(self._ordered, tf.float32), observed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "preferences": dict(self.preferences)}


@register
class DualProj(DualCone):
    """The direction closest to the preferred sum of the gradients that no task's gradient opposes.

    The update is argmin_d |d - sum_i w~_i g_i| with d . g_i >= 0 for every task i. It is d = sum_i v_i g_i with
    v = argmin_{v >= w~} v^T M v, M the Gramian and w~ the preferences.

    Args:
        preferences: relative importance by task name, above 0, 1 for tasks without one; w~ is it divided by its sum
            over the tasks observed in the batch.
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = DualProj()
        >>> balancer.bind(["click", "rating"], [1.0, 0.5])
        >>> gramian = tf.constant([[4.0, -1.5], [-1.5, 1.0]])
        >>> weights = balancer.task_weights(gramian, tf.ones([2]), tf.constant([True, True])).numpy()
        >>> weights.round(3).tolist()  # the second gradient's product with the update is -1.5 / 2 + 0.75 = 0
        [0.5, 0.75]

    Reference:
        Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017,
        https://arxiv.org/abs/1706.08840, section 3, where the gradient of a new task is projected onto the dual cone of
        those of earlier ones. Here, as Quinton & Rey (https://arxiv.org/abs/2406.16232) compare it, the gradient is
        the tasks' mean and the cone is that of all of them. The weights are not unique if the Gramian has less than
        full rank; `nonnegative.FLOOR` decides, and lets d . g_i fall below zero by 1e-5 of |g_i| times its terms'
        lengths.

    Cost: one small quadratic programme a step, about 0.15 ms for 8 tasks on a CPU. We know of no evidence in
    recommenders; use it as an experiment beside tuned fixed weights. It follows the task with the longest gradient
    unless tasks conflict.
    """

    def task_weights(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return v."""
        return least_weights(gramian, self.shares(observed)[tf.newaxis])[0]
