"""Impartial learning by loss scales."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import keras, register, tf
from tfmtl.balancing.balancer import Balancer

_LIMIT = 50.0
"""exp(50) times a loss of 1e15 is still a float32."""


@register
class IMTLL(Balancer):
    """IMTL-L, the loss balance of impartial multi-task learning: learned scales that make all scaled losses 1.

    Use it like `Uncertainty`, for losses of moderately different scales.

    objective = sum_i exp(s_i) L_i - s_i over the tasks observed in the batch, s_i learned with the model's optimiser.
    At the optimum of s_i the weight is 1 / L_i, so that every task contributes the same.

    Args:
        initial_log_scale: s_i at the start.

    Example:
        >>> balancer = IMTLL()
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> float(balancer(tf.constant([2.0, 4.0])))
        6.0

    Reference:
        Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, https://openreview.net/forum?id=IMPnRXEWpvr,
        section 3.2 (the loss balance IMTL-L, base e).

    Left open there and decided here: a task without a label in the batch leaves its s_i without a gradient; exp(s_i) is
    computed with s_i limited to [-50, 50], beyond which a loss that stays 0 would drive it to infinity, while s_i still
    gets its gradient.

    Cost: one scalar per task. It is `Uncertainty` with other constants, and slow like it where scales differ much
    against the learning rate; the paper joins it with IMTL-G. No evidence in recommenders.
    """

    def __init__(self, initial_log_scale: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_log_scale = float(initial_log_scale)

    def build_state(self) -> None:
        """Create one log scale per task."""
        initial = keras.initializers.Constant(self.initial_log_scale)
        self.log_scales = self.add_weight("log_scales", [len(self.task_names)], tf.float32, initializer=initial)

    def call(
        self, losses: tf.Tensor, observed: tf.Tensor | None = None, *, training: bool = False, **extra: Any
    ) -> tf.Tensor:
        """Return the objective of the observed tasks."""
        terms = self.current_weights() * losses - self.log_scales
        if observed is not None:
            terms = tf.where(observed, terms, 0.0)
        return tf.reduce_sum(terms)

    def current_weights(self) -> tf.Tensor:
        """Return exp(s_i)."""
        scales = tf.convert_to_tensor(self.log_scales)
        limited = tf.clip_by_value(scales, -_LIMIT, _LIMIT)
        return tf.exp(scales + tf.stop_gradient(limited - scales))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial_log_scale": self.initial_log_scale}
