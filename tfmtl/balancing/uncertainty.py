"""Uncertainty weighting."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import keras, register, tf
from tfmtl.balancing.balancer import Balancer


@register
class Uncertainty(Balancer):
    """Uncertainty weighting (UW): each task's loss is divided by a learned variance, at the price of its logarithm.

    Use it for losses of moderately different scales without a weight to tune.

    objective = sum_i c_i exp(-s_i) L_i + s_i / 2 over the tasks observed in the batch, s_i = log sigma_i^2 learned with
    the model's optimiser, c_i = 1/2 for regression and 1 for classification and retrieval. At the optimum of s_i the
    weight is 1 / (2 L_i), so that every task contributes the same.

    Args:
        initial_log_variance: s_i at the start.

    Example:
        >>> balancer = Uncertainty()
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating", kendall_factor=0.5)])
        >>> float(balancer(tf.constant([2.0, 4.0])))
        4.0

    Reference:
        Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics",
        CVPR 2018, https://arxiv.org/abs/1705.07115, equations 7 and 10 (their approximation for classification).

    Cost: one scalar per task.
    """

    def __init__(self, initial_log_variance: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_log_variance = float(initial_log_variance)

    def build_state(self) -> None:
        """Create one log variance per task."""
        initial = keras.initializers.Constant(self.initial_log_variance)
        self.log_variances = self.add_weight("log_variances", [len(self.task_names)], tf.float32, initializer=initial)

    def call(
        self, losses: tf.Tensor, observed: tf.Tensor | None = None, *, training: bool = False, **extra: Any
    ) -> tf.Tensor:
        """Return the objective of the observed tasks."""
        terms = self.current_weights() * losses + 0.5 * self.log_variances
        if observed is not None:
            terms = tf.where(observed, terms, 0.0)
        return tf.reduce_sum(terms)

    def current_weights(self) -> tf.Tensor:
        """Return c_i exp(-s_i)."""
        return tf.constant([task.kendall_factor for task in self.tasks], tf.float32) * tf.exp(-self.log_variances)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial_log_variance": self.initial_log_variance}
