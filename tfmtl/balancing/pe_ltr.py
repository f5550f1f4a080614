"""Pareto-efficient weights with lower bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.balancing.by_task import UNIT_INTERVAL, numbers_by_task
from tfmtl.balancing.gramian_balancer import GramianBalancer
from tfmtl.balancing.min_norm import project_to_simplex
from tfmtl.balancing.nonnegative import cosines_of
from tfmtl.balancing.step_gradients import At

_SHORTEST = 1e-6


@register
class PELTR(GramianBalancer):
    """PE-LTR, Pareto-efficient learning to rank: the shortest weighted sum of the gradients, with lower bounds.

    Use it for lower bounds that are a business rule.

    min_w |sum_i w_i g_i|^2 with sum_i w_i = 1 and w_i >= c_i, in the paper's two steps: w* = M^-1 1 / (1^T M^-1 1), M
    the Gramian, solves it without the lower bounds; w is the point of {w >= c, sum w = 1} closest to w*.

    Args:
        lower_bounds: c_i by task name, 0 for tasks without one; together at most 1.
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = PELTR({"rating": 0.25})
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> gramian = tf.constant([[1.0, 0.0], [0.0, 9.0]])  # w* = (0.9, 0.1)
        >>> balancer.task_weights(gramian).numpy().round(4).tolist()
        [0.75, 0.25]

    Reference:
        Lin et al., "A Pareto-Efficient Algorithm for Multiple Objective Optimization in E-Commerce Recommendation",
        RecSys 2019, https://doi.org/10.1145/3298689.3346998, the two steps of its solver of the condition of Pareto
        efficiency. There the equations of w - c are solved by (Z^T Z)^-1 Z^T, which a Gramian of less than full rank
        does not allow; here `nonnegative.FLOOR` does, so that equal tasks share equally, and gradients shorter than a
        millionth of the longest count as that long. Without the bounds the result does not depend on c, so w* is solved
        for directly. The second step, least squares with bounds, is a projection and needs no iterations. For two tasks
        w is the exact minimum; for three or more it need not be, as in the paper.

    Cost: one system of K equations per step. The paper reports experiments offline and online, on clicks and revenue of
    a shop's ranking; we know of no later ones. As a balancer it follows the shortest gradient, like MGDA, and a task
    without a gradient takes all that the bounds leave.
    """

    task_arguments: ClassVar = {"lower_bounds": 0.0}

    def __init__(
        self, lower_bounds: Mapping[str, float] | None = None, at: At = "representation", **kwargs: Any
    ) -> None:
        super().__init__(at, **kwargs)
        self.lower_bounds = numbers_by_task(lower_bounds, "lower bound", UNIT_INTERVAL)
        total = float(sum(self.lower_bounds.values()))
        require(total <= 1 + 1e-6, "The lower bounds must not sum to more than 1, as the weights do.", sum=total)

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return w."""
        weights = shortest_weights(gramian, observed)
        lower = tf.constant(self.in_task_order("lower_bounds", gramian.shape[0]), tf.float64)
        return tf.cast(bounded_weights(weights, lower, observed), tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "lower_bounds": dict(self.lower_bounds)}


def shortest_weights(gramian: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Return argmin_w |sum_i w_i g_i|^2 with sum w = 1 over the observed tasks, of any sign, float64 [K].

    Example:
        >>> weights = shortest_weights(tf.constant([[1.0, 2.0], [2.0, 5.0]]), tf.constant([True, True]))
        >>> weights.numpy().round(3).tolist()
        [1.5, -0.5]
    """
    cosines, lengths = cosines_of(gramian)
    relative = tf.math.divide_no_nan(lengths, tf.reduce_max(lengths))
    inverse = tf.where(observed, 1 / tf.maximum(relative, _SHORTEST), 0.0)
    weights = inverse * tf.linalg.solve(cosines, inverse[:, tf.newaxis])[:, 0]
    return tf.math.divide_no_nan(weights, tf.reduce_sum(weights))


def bounded_weights(weights: tf.Tensor, lower: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Return the point of {w >= lower, sum w = 1} that is closest to `weights`, over the observed tasks [K].

    Example:
        >>> weights, lower = tf.constant([1.5, -0.5, 0.0]), tf.constant([0.0, 0.25, 0.25])
        >>> bounded_weights(weights, lower, tf.constant([True, True, False])).numpy().tolist()
        [0.75, 0.25, 0.0]
    """
    left = tf.maximum(1 - tf.reduce_sum(tf.where(observed, lower, 0.0)), 0.0)
    parts = project_to_simplex(tf.math.divide_no_nan(weights - lower, left), observed)
    return tf.where(observed, lower + left * parts, 0.0)
