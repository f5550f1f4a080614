"""Logarithms of the losses, and gradients of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_fraction
from tfmtl._keras import register, tf
from tfmtl.balancing.balancer import assign_if_finite
from tfmtl.balancing.dense_layout import DenseLayout, task_norms
from tfmtl.balancing.gradient_balancer import GradientBalancer
from tfmtl.balancing.gramian import Gradient, TaskGradients, scale

_SMALLEST = 1e-28
"""Norms of at most this count as zero, so that the inverse times 1 / epsilon stays in float32."""
_LARGEST_LOGGED = 1e20


@register
class DBMTL(GradientBalancer):
    """DB-MTL, dual balancing: sums averaged gradients of the losses' logarithms, all scaled to the longest one.

    Use it for losses of very different scales that all have to fall.

    a_i <- b_t a_i + (1 - b_t) g_i / (L_i + epsilon), b_t = beta / t^decay. The update is
    max_k |a_k| sum_i a_i / |a_i|, with norms over all shared variables.

    Args:
        beta: in [0, 1); 0 takes the gradients of the batch alone.
        decay: at least 0; 0 keeps b_t at beta.
        epsilon: above 0; keeps the logarithm's gradient finite.

    Example:
        >>> balancer = DBMTL()
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> balancer.prepare([tf.Variable([0.0, 0.0])])
        >>> gradients = TaskGradients(tf.constant([[6.0, 8.0], [0.0, 3.0]]), None, None)
        >>> balancer.mix([gradients], tf.constant([2.0, 1.0]), tf.constant([True, True]))[0].numpy().tolist()
        [3.0, 9.0]

    Reference:
        Lin et al., "Dual-Balancing for Multi-Task Learning", https://arxiv.org/abs/2308.12029, algorithm 1. Decided
        here: t counts the steps in which the task has a label; a_i starts at the task's first gradient, not at zero; a
        task without a label keeps a_i and leaves sum and maximum. Of embedding tables (variables called `embeddings`)
        no average is kept: the batch's own gradient replaces a_i, in the norms and in the update. A loss
        below zero counts as zero.

    Cost: K copies of the dense shared variables in memory, and a few passes over them per step; no solver. A task
    that has been learned has as long a gradient as any other. In
    recommenders it was compared by the authors of GradCraft only.
    """

    def __init__(self, beta: float = 0.9, decay: float = 0.5, epsilon: float = 1e-8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_fraction(beta=beta)
        require(decay >= 0, "`decay` must be a number of at least 0.", decay=decay)
        require(epsilon > 0, "`epsilon` must be a number above 0.", epsilon=epsilon)
        self.beta, self.decay, self.epsilon = float(beta), float(decay), float(epsilon)

    def build_state(self) -> None:
        """Create the number of steps by task."""
        self._steps = self.add_state("steps", [len(self.task_names)])

    def prepare(self, shared: Sequence[tf.Variable]) -> None:
        """Create the averages of the dense variables."""
        self._layout = DenseLayout.of(shared)
        self._averages = self.add_state("averages", [len(self.task_names), self._layout.size])

    def mix(
        self, gradients: Sequence[TaskGradients | None], losses: tf.Tensor, observed: tf.Tensor
    ) -> Sequence[Gradient]:
        """Return the sum of the averages at equal length; of the batch's gradients for tables."""
        to_log = tf.where(observed, 1.0 / (tf.maximum(losses, 0.0) + self.epsilon), 0.0)[:, tf.newaxis]
        batch = to_log * self._layout.join(gradients, len(self.task_names))
        averages, steps = self._average(batch, observed)
        tables = [to_log * gradient.matrix() for gradient in self._layout.others(gradients)]
        norms = tf.where(observed, task_norms([averages, *tables]), 0.0)
        known = norms > _SMALLEST
        units = tf.where(known, 1.0 / tf.where(known, norms, 1.0), 0.0)
        # The length comes last, since length / norm may leave the range of float32 where the products do not.
        length = tf.reduce_max(norms)
        weights = units * to_log[:, 0]
        logged = tf.minimum(length * weights, _LARGEST_LOGGED)
        assign_if_finite(norms, (self._averages, averages), (self._steps, steps), (self.last_weights, logged))
        mixed = self._layout.split(tf.tensordot(units, averages, axes=1), weights, gradients)
        return [scale(gradient, length) for gradient in mixed]

    def _average(self, batch: tf.Tensor, observed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        averages, before = tf.convert_to_tensor(self._averages), tf.convert_to_tensor(self._steps)
        steps = before + tf.cast(observed, tf.float32)
        kept = tf.where(before > 0, self.beta / tf.pow(tf.maximum(steps, 1.0), self.decay), 0.0)
        averages += tf.where(observed, 1.0 - kept, 0.0)[:, tf.newaxis] * (batch - averages)
        return averages, steps

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta, "decay": self.decay, "epsilon": self.epsilon}
