"""Projection of conflicting gradients."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import register, tf
from tfmtl.balancing.balancer import next_seed
from tfmtl.balancing.gramian_balancer import GramianBalancer
from tfmtl.balancing.step_gradients import At


@register
class PCGrad(GramianBalancer):
    """PCGrad, gradient surgery: projects each gradient onto the normal plane of every other it conflicts with.

    Use it for two or three tasks in conflict that dominate the sum in turns.

    p_i starts as g_i; for the other tasks j in random order, if p_i . g_j < 0: p_i <- p_i - (p_i . g_j / |g_j|^2) g_j.
    The update is sum_i p_i. All of it happens on the coefficients of the g_j, so that only the Gramian is needed.

    Args:
        seed: seed of the order of the projections.
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = PCGrad()
        >>> gramian = tf.constant([[1.0, -1.0], [-1.0, 2.0]])  # of (1, 0) and (-1, 1)
        >>> balancer.task_weights(gramian).numpy().tolist()
        [2.0, 1.5]

    Reference:
        Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, https://arxiv.org/abs/2001.06782,
        algorithm 1. Every task draws its own order, as there; the draws depend on the seed and the step.

    Cost: K^2 inner products of vectors of K numbers per step. With two tasks of very different loss scales, tuned fixed
    weights do the same.
    """

    def __init__(self, seed: int = 0, at: At = "representation", **kwargs: Any) -> None:
        super().__init__(at, **kwargs)
        self.seed = seed
        self._draws: tf.Variable | None = None

    def build_state(self) -> None:
        """Create the counter that the orders depend on."""
        self._draws = self.add_state("draws", [])

    @property
    def keeps_state(self) -> bool:
        """Without `bind` every call draws the orders of the first step."""
        return False

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return the sum of the projected gradients' coefficients."""
        tasks = gramian.shape[0]
        draws = tf.random.stateless_uniform([tasks, tasks], next_seed(self.seed, self._draws))
        orders = tf.argsort(draws, axis=1)
        return projected_weights(gramian, observed, orders)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


def projected_weights(gramian: tf.Tensor, observed: tf.Tensor, orders: tf.Tensor) -> tf.Tensor:
    """Return w [K] with sum_i p_i = sum_j w_j g_j.

    Args:
        gramian: [K, K].
        observed: bool [K].
        orders: int [K, K], row i the order in which p_i meets the tasks; its own index is skipped.
    """
    tasks = gramian.shape[0]
    coefficients = tf.eye(tasks)  # row i: p_i in terms of the g_j
    squares = tf.linalg.diag_part(gramian)
    own = tf.range(tasks)
    for position in range(tasks):  # the rows are independent: all projections of one position happen at once
        other = orders[:, position]
        product = tf.reduce_sum(coefficients * tf.gather(gramian, other), axis=1)
        factor = tf.math.divide_no_nan(product, tf.gather(squares, other))
        factor = tf.where((product < 0) & (other != own), factor, 0.0)
        coefficients -= factor[:, tf.newaxis] * tf.one_hot(other, tasks)
    return tf.reduce_sum(tf.where(observed[:, tf.newaxis], coefficients, 0.0), axis=0)
