"""The mean of the gradients after each is projected onto the dual cone."""

from __future__ import annotations

from tfmtl._keras import register, tf
from tfmtl.balancing.dual_proj import DualCone
from tfmtl.balancing.nonnegative import least_weights


@register
class UPGrad(DualCone):
    """UPGrad: unconflicting projection of gradients (Jacobian descent), projects each onto the dual cone and averages.

    Use it as an experiment for tasks that must not get worse, such as a small one beside a large one.

    The update is d = sum_i p_i, where p_i is the vector closest to w~_i g_i with p_i . g_j >= 0 for every task j, and
    w~ the preferences. On the coefficients: v_i = argmin_{v >= w~_i e_i} v^T M v, d = sum_j w_j g_j with w = sum_i v_i,
    M the Gramian and e_i the i-th unit vector. No task's loss rises to first order; gradients without conflict are
    averaged.

    Args:
        preferences: relative importance by task name, above 0, 1 for tasks without one; w~ is it divided by its sum
            over the tasks observed in the batch.
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = UPGrad()
        >>> gramian = tf.constant([[1.0, -1.0], [-1.0, 2.0]])  # of (1, 0) and (-1, 1)
        >>> weights = balancer.task_weights(gramian).numpy()
        >>> weights.round(3).tolist(), (gramian.numpy() @ weights).round(3).tolist()
        ([1.0, 0.75], [0.25, 0.5])

    Reference:
        Quinton & Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, https://arxiv.org/abs/2406.16232,
        proposition 1. There, any solver of quadratic programmes; here all K projections at once by block principal
        pivoting in the graph. The weights are not unique if the Gramian has less than full rank; `nonnegative.FLOOR`
        decides, and lets d . g_i fall below zero by 1e-5 of |g_i| times its terms' lengths.

    Cost: K small quadratic programmes per step, about 0.2 ms for 8 tasks on a CPU. We know of no evidence in
    recommenders. A task with a short and noisy gradient can cancel much of the others' update.
    """

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return w."""
        return tf.reduce_sum(least_weights(gramian, tf.linalg.diag(self.shares(observed))), axis=0)
