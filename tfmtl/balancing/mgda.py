"""The multiple-gradient descent algorithm."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.balancing.gramian_balancer import GramianBalancer
from tfmtl.balancing.min_norm import Directions, directions, min_norm_weights
from tfmtl.balancing.step_gradients import At

_NORMALIZERS = (None, "l2", "loss")


@register
class MGDA(GramianBalancer):
    """MGDA, multiple-gradient descent algorithm: the shortest convex combination of the tasks' gradients.

    Use it if no task may get worse; it favours the task with the smallest gradient and is often slow.

    w = argmin |sum_i w_i g_i|^2 over w_i >= 0, sum_i w_i = 1. The update d = sum_i w_i g_i has g_i . d >= |d|^2 for
    every task; it is zero where no direction improves all tasks (Pareto stationarity).

    Args:
        normalize: divisor of the gradients before they are compared: None (nothing), `"l2"` (their norm),
            `"loss"` (the task's loss, which should be above zero). The weights are divided by the same and made to sum
            to 1, so that the update stays a common descent direction.
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = MGDA()
        >>> gramian = tf.constant([[1.0, 0.0], [0.0, 4.0]])
        >>> weights = balancer.task_weights(gramian)
        >>> [round(w, 4) for w in weights.numpy().tolist()]
        [0.8, 0.2]

    Reference:
        Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", Comptes Rendus
        Mathématique 350, 2012; Sener & Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018,
        https://arxiv.org/abs/1810.04650, equation 3. With `at="representation"` it is their MGDA-UB (section 3.3).

    Where we differ: they solve by Frank-Wolfe, we by an interior-point method, exactly. Their code applies the weights
    found for normalised gradients to the others, which loses common descent; ours does not. A task with a zero gradient
    is Pareto stationary already: it gets all the weight and the shared variables stand still. Of several solutions
    (duplicate tasks) the one in the middle is taken.

    Cost: some 12 solutions of a K x K system per step. Evidence in recommenders: only as a baseline in GradCraft's
    repository (KDD 2024).
    """

    def __init__(self, normalize: str | None = None, at: At = "representation", **kwargs: Any) -> None:
        super().__init__(at, **kwargs)
        rule = f"`normalize` of MGDA must be one of {list(_NORMALIZERS)}."
        require(normalize in _NORMALIZERS, rule, normalize=normalize)
        self.normalize = normalize
        self.reads_losses = normalize == "loss"

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return the point of the simplex with the shortest combination."""
        split = directions(gramian, observed)
        if self.normalize is None:
            return tf.cast(min_norm_weights(split.matrix(), observed), tf.float32)
        divisors = tf.cast(losses, tf.float64) if self.normalize == "loss" else split.lengths
        return normalized_weights(split, divisors, observed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "normalize": self.normalize}


def normalized_weights(split: Directions, divisors: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Return the weights [K] of the gradients, from the min-norm point of the gradients over `divisors` [K].

    Divisors below a millionth of the largest count as that, or as 1 if none is above zero.
    """
    kept = tf.where(observed, tf.maximum(divisors, 0.0), 0.0)
    most = tf.reduce_max(kept)
    relative = tf.where(most > 0, tf.maximum(tf.math.divide_no_nan(kept, most), 1e-6), 1.0)
    lengths = split.lengths / relative
    lengths = tf.math.divide_no_nan(lengths, tf.reduce_max(lengths))
    weights = min_norm_weights(split._replace(lengths=lengths).matrix(), observed) / relative
    return tf.cast(tf.math.divide_no_nan(weights, tf.reduce_sum(weights)), tf.float32)
