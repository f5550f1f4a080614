"""Equal projections of the update onto the tasks' gradients."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import register, tf
from tfmtl.balancing.gramian_balancer import GramianBalancer
from tfmtl.balancing.min_norm import directions, dot, equal_shares
from tfmtl.balancing.step_gradients import At

_RANK = 1e-6
_LARGEST_SUM = 100.0


@register
class IMTLG(GramianBalancer):
    """IMTL-G, impartial multi-task learning: the update has the same projection onto every task's unit gradient.

    Use it for tasks with gradients that differ in size but agree in direction.

    With u_i = g_i / |g_i| and d = sum_i a_i g_i: d . u_i equal for all i, sum_i a_i = 1; a = v / sum v, where
    v_i = y_i / |g_i| and y solves sum_j (u_i . u_j) y_j = 1. Weights may be below zero from three tasks on.

    Args:
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = IMTLG()
        >>> gramian = tf.constant([[1.0, 0.0], [0.0, 9.0]])
        >>> weights = balancer.task_weights(gramian)
        >>> [round(w, 4) for w in weights.numpy().tolist()]
        [0.75, 0.25]

    Reference:
        Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, https://openreview.net/forum?id=IMPnRXEWpvr,
        section 3.1. Their closed form solves differences of the equations; ours is the same where it exists.

    Where the paper is silent: the system is solved by its pseudo-inverse, with eigenvalues of the cosines below 1e-6
    counted as zero (duplicate or opposite tasks). A task with a zero gradient has no direction and gets weight 0; if
    all are zero, the weights are equal. Where sum v is below zero the paper's update would climb on every task: we
    divide by its absolute value, and by no less than a hundredth of sum |v|, so that sum |a| stays below 100.

    Cost: one K x K eigendecomposition per step. The task with the smallest gradient gets the largest weight. Evidence
    in recommenders: only as a baseline in GradCraft's repository (KDD 2024).
    """

    def __init__(self, at: At = "representation", **kwargs: Any) -> None:
        super().__init__(at, **kwargs)

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return the weights of equal projections."""
        return impartial_weights(gramian, observed)


def impartial_weights(gramian: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Return a [K] with equal d . u_i for d = sum_i a_i g_i.

    Args:
        gramian: [K, K].
        observed: bool [K].
    """
    split = directions(gramian, observed)
    values, vectors = tf.linalg.eigh(split.cosines)
    inverse = tf.where(values > _RANK, 1.0 / tf.maximum(values, _RANK), 0.0)
    along = inverse * tf.reduce_sum(vectors * tf.cast(split.active, tf.float64)[:, tf.newaxis], axis=0)
    weights = tf.math.divide_no_nan(dot(vectors, along), split.lengths)
    total, size = tf.abs(tf.reduce_sum(weights)), tf.reduce_sum(tf.abs(weights))
    weights = tf.math.divide_no_nan(weights, tf.maximum(total, size / _LARGEST_SUM))
    return tf.cast(tf.where(size > 0, weights, equal_shares(observed)), tf.float32)
