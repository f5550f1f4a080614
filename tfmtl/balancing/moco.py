"""Tracked gradients under weights that seek their smallest combination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.balancing.balancer import assign_if_finite
from tfmtl.balancing.dense_layout import DenseLayout
from tfmtl.balancing.gradient_balancer import GradientBalancer
from tfmtl.balancing.gramian import Gradient, TaskGradients
from tfmtl.balancing.min_norm import project_to_simplex


@register
class MoCo(GradientBalancer):
    """MoCo, multi-objective gradient correction: combines moving averages of the tasks' gradients as MGDA does.

    Use it for many steps on small, noisy batches.

    Y_i <- Y_i - b (Y_i - g_i); w <- P(w - c (Y Y^T + rho I) w), P the projection to the simplex; the update is
    sum_i w_i Y_i. The averages take out the bias that a single batch gives to such weights.

    Args:
        tracking_rate: b in (0, 1].
        step_size: c, above 0; c times the largest |Y_i|^2 should stay below about 1.
        rho: at least 0; above 0 it draws the weights together.

    Example:
        >>> balancer = MoCo(step_size=0.125)
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> balancer.prepare([tf.Variable([0.0, 0.0])])
        >>> gradients = TaskGradients(tf.constant([[2.0, 0.0], [0.0, 1.0]]), None, None)
        >>> mixed = balancer.mix([gradients], tf.ones([2]), tf.constant([True, True]))
        >>> mixed[0].numpy().tolist(), balancer.current_weights().numpy().tolist()
        ([0.8125, 0.59375], [0.40625, 0.59375])

    Reference:
        Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent Approach", ICLR
        2023, https://arxiv.org/abs/2210.12624, algorithm 1, with constant b and c. Open there and decided here: Y_i
        starts at the task's first gradient. A task without a label keeps Y_i and its share of the weights; the others
        move within theirs, and the update uses them as if they were all. Embedding tables (variables called
        `embeddings`) are not tracked: they count neither in Y Y^T nor wait for it, and take sum_i w_i g_i of the batch.

    Cost: K copies of the dense shared variables in memory, and a few passes over them per step. The update is a mean, K
    times shorter than the plain sum. No evidence in recommenders is known to us.
    """

    def __init__(self, tracking_rate: float = 0.5, step_size: float = 0.1, rho: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(0 < tracking_rate <= 1, "`tracking_rate` must be a number in (0, 1].", tracking_rate=tracking_rate)
        require(step_size > 0, "`step_size` must be a number above 0.", step_size=step_size)
        require(rho >= 0, "`rho` must be a number of at least 0.", rho=rho)
        self.tracking_rate, self.step_size, self.rho = float(tracking_rate), float(step_size), float(rho)

    def build_state(self) -> None:
        """Create the weights."""
        tasks = len(self.task_names)
        self._weights = self.add_state("weights", [tasks], 1.0 / tasks)
        self._seen = self.add_state("seen", [tasks])

    def prepare(self, shared: Sequence[tf.Variable]) -> None:
        """Create the averages Y of the dense variables."""
        self._layout = DenseLayout.of(shared)
        self._tracked = self.add_state("tracked", [len(self.task_names), self._layout.size])

    def mix(
        self, gradients: Sequence[TaskGradients | None], losses: tf.Tensor, observed: tf.Tensor
    ) -> Sequence[Gradient]:
        """Return the combination of the averages; of the batch's gradients for tables."""
        rates = tf.where(observed, tf.where(self._seen > 0, self.tracking_rate, 1.0), 0.0)
        tracked = tf.convert_to_tensor(self._tracked)
        batch = self._layout.join(gradients, len(self.task_names))
        tracked += rates[:, tf.newaxis] * (batch - tracked)
        gramian = tf.matmul(tracked, tracked, transpose_b=True)
        kept = tf.convert_to_tensor(self._weights)
        weights, moved = moved_weights(kept, gramian, observed, self.step_size, self.rho)
        seen = tf.maximum(self._seen, tf.cast(observed, tf.float32))
        of_weights = (self._weights, moved), (self.last_weights, weights)
        assign_if_finite(gramian, (self._seen, seen), (self._tracked, tracked), *of_weights)
        return self._layout.split(tf.tensordot(weights, tracked, axes=1), weights, gradients)

    def get_config(self) -> dict[str, Any]:
        own = {"tracking_rate": self.tracking_rate, "step_size": self.step_size, "rho": self.rho}
        return {**super().get_config(), **own}


def moved_weights(
    weights: tf.Tensor, gramian: tf.Tensor, observed: tf.Tensor, step_size: float, rho: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the weights after a step, first those to use, which the observed tasks share, then those to keep.

    Args:
        weights: on the simplex [K].
        gramian: Y Y^T [K, K].
        observed: bool [K].
        step_size: c.
        rho: rho.
    """
    share = tf.reduce_sum(tf.where(observed, weights, 0.0))
    even = 1.0 / tf.maximum(tf.reduce_sum(tf.cast(observed, tf.float32)), 1.0)
    own = tf.where(share > 0, weights / tf.where(share > 0, share, 1.0), even)
    own = tf.where(observed, own, 0.0)
    downhill = tf.linalg.matvec(gramian, own) + rho * own
    own = project_to_simplex(own - step_size * downhill, observed)
    return own, tf.where(observed, share * own, weights)
