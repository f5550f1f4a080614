"""Equal magnitudes first, then all conflicts of a task resolved at once."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require, require_fraction
from tfmtl._keras import register, tf
from tfmtl.balancing.balancer import assign_if_finite
from tfmtl.balancing.gramian_balancer import GramianBalancer
from tfmtl.balancing.metabalance import SMALLEST
from tfmtl.balancing.step_gradients import At

_DAMPING = 1e-4
"""Cosines of nearly dependent conflicting gradients: singular values far below this are not inverted."""


@register
class GradCraft(GramianBalancer):
    """GradCraft: brings the tasks' gradients towards the largest one's size, then turns each out of all conflicts.

    Use it in recommenders with three or more conflicting tasks of different sizes.

    h_i = r g_i max_k m_k / m_i + (1 - r) g_i with m_i a moving average of |g_i|. For the tasks C with h_j . h_i < 0,
    p_i = h_i + H_C^T (H_C H_C^T)^-1 (e |h_i| |h_C| - H_C h_i), so that p_i . h_j = e |h_i| |h_j| for all of C at once.
    The update is sum_i p_i. All of it happens on the coefficients of the g_j, so that only the Gramian is needed.

    Args:
        relax: r in [0, 1]; 0 leaves the sizes as they are, 1 makes them equal.
        epsilon: e in [0, 1), the cosine that conflicting tasks are turned to.
        beta: share of the old average that a step keeps, in [0, 1).
        at: as in `GramianBalancer`.

    Example:
        >>> balancer = GradCraft(relax=0.0, epsilon=0.0)
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> gramian = tf.constant([[1.0, -1.0], [-1.0, 2.0]])  # of (1, 0) and (-1, 1)
        >>> balancer.task_weights(gramian).numpy().round(4).tolist()
        [2.0, 1.5]

    Reference:
        Bai et al., "GradCraft: Elevating Multi-task Recommendations through Holistic Gradient Crafting", KDD 2024,
        https://arxiv.org/abs/2407.19682. Decided here: the average of a task without a label stays, it leaves the
        maximum for that step, and averages are corrected for their start at zero, which changes nothing as long as all
        tasks are observed. Conflicting gradients that depend on each other have no inverse: the damped one used here
        keeps the weights bounded, and meets the e of such tasks only in part. The default of e is from the range that
        the authors' program searches, r and the average's share are to be tuned.

    Cost: a factorisation of K matrices K x K per step. It was made for recommenders and reported offline and online at
    Kuaishou, by its authors. With two tasks
    and r = 0 it is PCGrad.
    """

    def __init__(
        self,
        relax: float = 0.5,
        epsilon: float = 1e-8,
        beta: float = 0.9,
        at: At = "representation",
        **kwargs: Any,
    ) -> None:
        super().__init__(at, **kwargs)
        require(0 <= relax <= 1, "`relax` must be a number in [0, 1].", relax=relax)
        require_fraction(epsilon=epsilon, beta=beta)
        self.relax, self.epsilon, self.beta = float(relax), float(epsilon), float(beta)

    def build_state(self) -> None:
        """Create the averages and the number of steps by task."""
        self._averages = self.add_state("averages", [len(self.task_names)])
        self._steps = self.add_state("steps", [len(self.task_names)])

    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return the sum of the crafted gradients' coefficients."""
        norms = tf.sqrt(tf.linalg.diag_part(gramian))
        steps = self._steps + tf.cast(observed, tf.float32)
        averages = tf.where(observed, self.beta * self._averages + (1.0 - self.beta) * norms, self._averages)
        assign_if_finite(norms, (self._steps, steps), (self._averages, averages))
        unbiased = tf.math.divide_no_nan(averages, 1.0 - tf.pow(self.beta, steps))
        largest = tf.reduce_max(tf.where(observed, unbiased, 0.0))
        known = unbiased > SMALLEST
        ratios = tf.where(known, largest, 1.0) / tf.where(known, unbiased, 1.0)
        return crafted_weights(gramian, observed, self.relax * ratios + (1.0 - self.relax), self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "relax": self.relax, "epsilon": self.epsilon, "beta": self.beta}


def crafted_weights(gramian: tf.Tensor, observed: tf.Tensor, factors: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Return w [K] with sum_i p_i = sum_j w_j g_j.

    Args:
        gramian: of the g_i [K, K], zero in rows and columns of unobserved tasks.
        observed: bool [K].
        factors: of the g_i [K], above 0: h_i = f_i g_i.
        epsilon: e.
    """
    norms = tf.sqrt(tf.linalg.diag_part(gramian))
    inverse = tf.math.divide_no_nan(1.0, norms)
    cosines = gramian * (inverse * inverse[:, tf.newaxis])  # the h_i have the same: factors are positive
    conflict = cosines < 0
    # One system per task: p_i = h_i + |h_i| sum_j c_ij h_j / |h_j|, where the cosines of its C times c_i are e - cos_i.
    within = tf.where(conflict[:, tf.newaxis, :] & conflict[:, :, tf.newaxis], cosines, 0.0)
    wanted = tf.where(conflict, epsilon - cosines, 0.0)
    coefficients = damped_solution(within, wanted)
    ratios = (factors * norms)[:, tf.newaxis] * inverse
    turned = tf.reduce_sum(tf.where(observed[:, tf.newaxis], coefficients * ratios, 0.0), axis=0)
    return factors + turned


def damped_solution(matrices: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """Return x [..., K] that minimises |A x - b|^2 + d^2 |x|^2 for A [..., K, K] and b [..., K].

    In float64, since the normal equations square the condition.
    """
    matrix, column = tf.cast(matrices, tf.float64), tf.cast(wanted, tf.float64)[..., tf.newaxis]
    normal = tf.matmul(matrix, matrix, transpose_a=True) + _DAMPING**2 * tf.eye(matrix.shape[-1], dtype=tf.float64)
    solution = tf.linalg.cholesky_solve(tf.linalg.cholesky(normal), tf.matmul(matrix, column, transpose_a=True))
    return tf.cast(solution[..., 0], tf.float32)
