"""Alignment of the principal components of the tasks' gradients."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.balancing.gramian_balancer import GramianBalancer
from tfmtl.balancing.min_norm import directions, dot, equal_shares
from tfmtl.balancing.step_gradients import At

_RANK = 1e-6
_ROUNDING = 1e-15  # of an eigenvalue in float64, relative to the largest squared norm
_SCALES = ("min", "median", "rmse")


@register
class AlignedMTL(GramianBalancer):
    """Aligned-MTL: replaces the gradients by the nearest orthogonal ones of one length, and averages them.

    Use it as an experiment where one component dominates the gradients of all tasks.

    With the Gramian M = V S V^T of rank R: w = sqrt(sigma) V S^{-1/2} V^T p, p_i = 1 / K, over the R components. The
    condition number of the system becomes 1: no component of the gradients dominates.

    Args:
        scale: sigma, the squared length that the gradients get: `"min"` the smallest of the R eigenvalues (the paper),
            `"median"` their median, `"rmse"` their mean.
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = AlignedMTL()
        >>> gramian = tf.constant([[1.0, 0.0], [0.0, 4.0]])
        >>> weights = balancer.task_weights(gramian)
        >>> [round(w, 4) for w in weights.numpy().tolist()]
        [0.5, 0.25]

    Reference:
        Senushkin et al., "Independent Component Alignment for Multi-Task Learning", CVPR 2023,
        https://arxiv.org/abs/2305.19000, algorithm 1 (Aligned-MTL; `"median"` and `"rmse"` as in the authors' code).

    Where the paper is silent: R is the number of eigenvalues of the matrix of cosines above 1e-6, so that tasks of very
    different scales count and duplicates do not; the R largest eigenvalues of M are kept. A task with a zero gradient
    gets weight 0; if all are zero, the weights are p. The median of an even number is the lower one. Where the rank
    drops, as two tasks become equal, the weights jump.

    Cost: two K x K eigendecompositions per step. No evidence in recommenders was found (vision and reinforcement
    learning only): an experiment. With `"min"` nearly equal tasks make the update of the shared variables very small.
    """

    def __init__(self, scale: str = "min", at: At = "representation", **kwargs: Any) -> None:
        super().__init__(at, **kwargs)
        require(scale in _SCALES, f"`scale` of AlignedMTL must be one of {list(_SCALES)}.", scale=scale)
        self.scale = scale

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return the weights of the aligned gradients' mean."""
        return aligned_weights(gramian, observed, self.scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}


def aligned_weights(gramian: tf.Tensor, observed: tf.Tensor, scale: str = "min") -> tf.Tensor:
    """Return sqrt(sigma) V S^{-1/2} V^T p [K].

    Args:
        gramian: [K, K].
        observed: bool [K].
        scale: as in `AlignedMTL`.
    """
    split, preference = directions(gramian, observed), equal_shares(observed)
    tasks = gramian.shape[0]
    rank = tf.reduce_sum(tf.cast(tf.linalg.eigvalsh(split.cosines) > _RANK, tf.int32))
    values, vectors = tf.linalg.eigh(split.matrix())  # ascending
    kept = (tf.range(tasks) >= tasks - rank) & (values > _ROUNDING)
    rank = tf.reduce_sum(tf.cast(kept, tf.int32))
    if scale == "rmse":
        sigma = tf.math.divide_no_nan(tf.reduce_sum(tf.where(kept, values, 0.0)), tf.cast(rank, tf.float64))
    else:
        position = tasks - rank + (0 if scale == "min" else (rank - 1) // 2)
        sigma = tf.gather(values, tf.clip_by_value(position, 0, tasks - 1))
    along = tf.reduce_sum(vectors * preference[:, tf.newaxis], axis=0)
    stretch = tf.sqrt(tf.maximum(sigma, 0.0) / tf.where(kept, values, 1.0))
    aligned = dot(vectors, tf.where(kept, stretch * along, 0.0))
    return tf.cast(tf.where(rank > 0, aligned, preference), tf.float32)
