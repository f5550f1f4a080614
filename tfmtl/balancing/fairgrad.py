"""Fair allocation of the update's benefit among the tasks."""

from __future__ import annotations

import math
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.balancing.gramian_balancer import GramianBalancer
from tfmtl.balancing.min_norm import directions, dot
from tfmtl.balancing.step_gradients import At

_FLOOR = 1e-6
_TOLERANCE = 1e-7
_ITERATIONS = 60
_LARGEST = 1e30


@register
class FairGrad(GramianBalancer):
    """FairGrad: fair resource allocation, the update with alpha-fair benefits g_i . d to the tasks.

    Use it as an experiment for tasks of very different loss scales.

    d = argmax over |d| <= 1 of sum_i (g_i . d)^(1 - alpha) / (1 - alpha); its direction is d = sum_i w_i g_i with
    w > 0, M w = w^(-1 / alpha), M the Gramian. Alpha 1 is proportional fairness (Nash-MTL), 2 minimises the potential
    delay, large alpha approaches max-min fairness.

    Args:
        alpha: fairness, 0.1 to 10.
        normalize: whether M is divided by the mean of |g_i|^2 first, so that the update keeps the gradients' size. If
            not, the equation is the paper's and the update's size goes with |g|^((1 - alpha) / (1 + alpha)).
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = FairGrad(alpha=2.0, normalize=False)
        >>> gramian = tf.constant([[1.0, 0.0], [0.0, 8.0]])  # orthogonal: |g_i|^2 w_i = w_i^(-1/2)
        >>> weights = balancer.task_weights(gramian)
        >>> [round(w, 4) for w in weights.numpy().tolist()]
        [1.0, 0.25]

    Reference:
        Ban & Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024, https://arxiv.org/abs/2402.15638,
        algorithm 1.

    Where we differ: they solve the equation by SciPy's least squares, we by Newton's method on log w. Normalising is
    ours. Where the paper is silent: tasks in exact opposition have no solution; eigenvalues of the cosines count as at
    least 1e-6, which gives such tasks large weights that cancel. A task with a zero gradient keeps weight 1. The sizes
    of the gradients may differ by a factor of 10^4; beyond that an extreme alpha may use up its 60 iterations.

    Cost: one K x K eigendecomposition and 5 to 10 solutions of a K x K system per step. No evidence in recommenders was
    found (vision, QM9 and reinforcement learning only).
    """

    def __init__(self, alpha: float = 1.0, normalize: bool = True, at: At = "representation", **kwargs: Any) -> None:
        super().__init__(at, **kwargs)
        valid = isinstance(alpha, int | float) and 0.1 <= alpha <= 10
        require(valid, "`alpha` of FairGrad must be a number from 0.1 to 10.", alpha=alpha)
        self.alpha = alpha
        self.normalize = normalize

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return the weights of alpha-fair benefits."""
        return fair_weights(gramian, observed, self.alpha, self.normalize)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "normalize": self.normalize}


def fair_weights(gramian: tf.Tensor, observed: tf.Tensor, alpha: float, normalize: bool) -> tf.Tensor:
    """Return w [K] with M w = w^(-1 / alpha).

    With v_i = |g_i| w_i and the cosines C: log v_i + alpha log (C v)_i = (1 - alpha) log |g_i|.

    Args:
        gramian: M [K, K].
        observed: bool [K].
        alpha: fairness, 0.1 to 10.
        normalize: whether M is divided by the mean of |g_i|^2 over tasks with a gradient.
    """
    split = directions(gramian, observed, _FLOOR)
    mask = tf.cast(split.active, tf.float64)
    mean = tf.math.divide_no_nan(tf.reduce_sum(split.lengths**2), tf.reduce_sum(mask))
    lengths = tf.math.divide_no_nan(split.lengths, tf.sqrt(mean)) if normalize else split.lengths * split.largest
    lengths = tf.where(split.active, lengths, 1.0)
    cosines = tf.linalg.set_diag(split.cosines, tf.linalg.diag_part(split.cosines) + 1.0 - mask)
    scaled = scaled_weights(cosines, (1.0 - alpha) * tf.math.log(lengths), alpha)
    return tf.cast(tf.minimum(scaled / lengths, _LARGEST), tf.float32)


def scaled_weights(cosines: tf.Tensor, level: tf.Tensor, alpha: float) -> tf.Tensor:
    """Return v [K] with log v + alpha log (C v) = level, by Newton's method on log v.

    Args:
        cosines: C, float64 [K, K], positive definite.
        level: float64 [K].
        alpha: fairness.
    """
    most = 2.0 * min(1.0, alpha)  # a step changes neither v nor C v by more than exp(2)

    def benefit(log_v: tf.Tensor) -> tf.Tensor:
        return tf.exp((level - log_v) / alpha)

    def step(error: tf.Tensor, log_v: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        v, s = tf.exp(log_v), benefit(log_v)
        system = tf.linalg.set_diag(cosines, tf.linalg.diag_part(cosines) + s / (alpha * v))
        change = tf.linalg.solve(system, (s - dot(cosines, v))[:, tf.newaxis])[:, 0] / v
        largest = tf.reduce_max(tf.abs(change))
        return largest, log_v + change * tf.minimum(most / tf.maximum(largest, _TOLERANCE), 1.0)

    start = (tf.constant(math.inf, tf.float64), level / (1.0 + alpha))
    _, found = tf.while_loop(lambda error, _: error > _TOLERANCE, step, start, maximum_iterations=_ITERATIONS)
    return tf.exp(found)
