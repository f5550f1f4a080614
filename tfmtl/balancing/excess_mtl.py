"""Weights that grow with a task's estimated distance from its optimum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.balancing.balancer import assign_if_finite
from tfmtl.balancing.dense_layout import DenseLayout
from tfmtl.balancing.gradient_balancer import GradientBalancer
from tfmtl.balancing.gramian import Gradient, TaskGradients

_SMALLEST = 1e-37
"""Keeps the inverse root of a sum of zeros finite; its product with such zeros is zero."""


@register
class ExcessMTL(GradientBalancer):
    """ExcessMTL: weights tasks by their excess risk, the loss above the optimum, rather than by their noisy losses.

    Use it for tasks with label noise of different strength.

    S_i <- S_i + g_i^2 elementwise; E_i = sum g_i^2 / sqrt(S_i); w_i <- w_i exp(h E_i / E_i(0)), scaled to sum to the
    number of tasks. The update is sum_i w_i g_i.

    Args:
        step_size: h, above 0.

    Example:
        >>> balancer = ExcessMTL(step_size=1.0)
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> balancer.prepare([tf.Variable([0.0])])
        >>> for rating in (4.0, 3.0):  # E / E(0): 1 and 1; then 0 and 9 / 5 / 4
        ...     gradients = TaskGradients(tf.constant([[4.0 * (rating == 4)], [rating]]), None, None)
        ...     mixed = balancer.mix([gradients], tf.ones([2]), tf.constant([True, True]))
        >>> [f"{weight:.4f}" for weight in balancer.current_weights()]  # 2 and 2 exp(0.45), by 1 + exp(0.45)
        ['0.7787', '1.2213']

    Reference:
        He et al., "Robust Multi-Task Learning with Excess Risks", ICML 2024, https://arxiv.org/abs/2402.02009,
        algorithm 1. Decided here: the weights sum to the number of tasks, as the plain sum's do, where the paper's sum
        to 1; E_i(0) is the task's first excess above zero. A task without a label keeps S_i and its share of the
        weights; the others move within theirs and share the sum of the observed tasks' weights. Embedding tables
        (variables called `embeddings`) do not count in E, and take sum_i w_i g_i like all variables.

    Cost: K copies of the dense shared variables in memory, and a few passes over them per step. No evidence in
    recommenders is known to us.
    """

    def __init__(self, step_size: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(step_size > 0, "`step_size` must be a number above 0.", step_size=step_size)
        self.step_size = float(step_size)

    def build_state(self) -> None:
        """Create the weights' logarithms and the first excess risks."""
        self._logits = self.add_state("logits", [len(self.task_names)])
        self._initial = self.add_state("initial", [len(self.task_names)])

    def prepare(self, shared: Sequence[tf.Variable]) -> None:
        """Create the sums of squares of the dense variables."""
        self._layout = DenseLayout.of(shared)
        self._squares = self.add_state("squares", [len(self.task_names), self._layout.size])

    def mix(
        self, gradients: Sequence[TaskGradients | None], losses: tf.Tensor, observed: tf.Tensor
    ) -> Sequence[Gradient]:
        """Return the weighted sums."""
        batch = tf.square(self._layout.join(gradients, len(self.task_names)))
        squares = self._squares + batch
        excess = tf.reduce_sum(batch * tf.math.rsqrt(tf.maximum(squares, _SMALLEST)), axis=1)
        initial = tf.where(observed & (self._initial <= 0), excess, self._initial)
        risen = self.step_size * tf.math.divide_no_nan(excess, initial)
        weights, logits = raised_weights(tf.convert_to_tensor(self._logits), risen, observed)
        of_weights = (self._logits, logits), (self.last_weights, weights)
        assign_if_finite(excess, (self._squares, squares), (self._initial, initial), *of_weights)
        return [None if gradient is None else gradient.weighted(weights) for gradient in gradients]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "step_size": self.step_size}


def raised_weights(logits: tf.Tensor, risen: tf.Tensor, observed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the weights after a step, which sum to the number of observed tasks, and their new logarithms.

    Args:
        logits: logarithms of the weights [K], up to a constant.
        risen: increase of each by the step [K].
        observed: bool [K]; the sum of these tasks' weights is kept, so that the others' shares stay.
    """
    lowest = logits.dtype.min
    before = tf.reduce_logsumexp(tf.where(observed, logits, lowest))
    raised = logits + risen
    after = tf.reduce_logsumexp(tf.where(observed, raised, lowest))
    count = tf.reduce_sum(tf.cast(observed, tf.float32))
    weights = tf.where(observed, count * tf.exp(raised - after), 0.0)
    return weights, tf.where(observed, raised + (before - after), logits)
