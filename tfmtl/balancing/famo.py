"""Fast adaptive multitask optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl._replicas import mean_over_replicas
from tfmtl.balancing.by_task import numbers_by_task, observed_softmax, shares
from tfmtl.balancing.loss_weighting import LossWeighting

_BETA_1, _BETA_2, _ADAM_EPSILON = 0.9, 0.999, 1e-8
_EPSILON = 1e-8
"""Added to L_i - b_i, as in the authors' code."""


@register
class FAMO(LossWeighting):
    """FAMO, fast adaptive multitask optimization: learns weights under which all losses fall at the same relative rate.

    Use it for losses of different scales where a backward pass per task is too expensive.

    objective = c sum_i z_i log(L_i - b_i + e), c = 1 / sum_i (z_i / (L_i - b_i + e)) not differentiated,
    z = softmax(x); the weights of the gradients, c z_i / (L_i - b_i + e), sum to 1. After the step, with the losses of
    its batch before and after (L'), d_i = log(L_i - b_i + e) - log(L'_i - b_i + e), g = (diag(z) - z z^T) d + gamma x,
    and x makes an Adam step along -g: the task that fell most loses weight.

    Args:
        learning_rate: of x, above 0.
        weight_decay: gamma, at least 0, as L2 in the gradient.
        minimum_losses: b_i by task name, a bound below which the loss cannot fall; 0 for the others.

    Example:
        >>> balancer = FAMO()
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> _ = balancer(tf.constant([2.0, 8.0]), training=True)
        >>> [round(float(weight), 4) for weight in balancer.current_weights()]  # z = 1/2, so in proportion to 1 / L_i
        [0.8, 0.2]
        >>> balancer.after_step(tf.constant([2.0, 8.0]), tf.constant([1.0, 8.0]), tf.constant([True, True]))
        >>> [round(float(logit), 4) for logit in balancer.logits.numpy()]
        [-0.025, 0.025]

    Reference:
        Liu, Feng, Stone, Liu, "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023,
        https://arxiv.org/abs/2306.03792, algorithm 1, with Adam for x and its learning rate 0.025 as in the authors'
        code; their experiments have gamma from 0.001 to 0.01.

    Left open there and decided here: tasks that the batch does not observe take no part in the softmax, and their x_i
    and moments stay; with fewer than two observed tasks, or a loss that is not finite, the weights stay; L_i - b_i
    below 0 counts as 0; e = 1e-8; both losses are taken in inference mode.

    Cost: two more forward passes per step. Where few batches have labels of several tasks, the weights change little.
    No evidence in recommenders.
    """

    needs_losses_after_step = True
    task_arguments: ClassVar = {"minimum_losses": 0.0}

    def __init__(
        self,
        learning_rate: float = 0.025,
        weight_decay: float = 1e-3,
        minimum_losses: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        valid = isinstance(learning_rate, int | float) and np.isfinite(learning_rate) and learning_rate > 0
        require(valid, "`learning_rate` must be a number above 0.", learning_rate=learning_rate)
        valid = isinstance(weight_decay, int | float) and np.isfinite(weight_decay) and weight_decay >= 0
        require(valid, "`weight_decay` must be a number of at least 0.", weight_decay=weight_decay)
        self.learning_rate = float(learning_rate)
        self.weight_decay = float(weight_decay)
        self.minimum_losses = numbers_by_task(minimum_losses, "minimum loss")

    def build_state(self) -> None:
        """Create x and the state of its optimiser."""
        shape = [len(self.task_names)]
        self.logits, self._updates = self.add_state("logits", shape), self.add_state("updates", shape)
        self._momentum, self._velocity = self.add_state("momentum", shape), self.add_state("velocity", shape)

    def _above_minimum(self, losses: tf.Tensor) -> tf.Tensor:
        return tf.maximum(losses - tf.constant(self.in_task_order("minimum_losses"), tf.float32), 0.0) + _EPSILON

    def weigh(self, losses: tf.Tensor, observed: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the scaled sum of log losses and its derivatives."""
        z = observed_softmax(tf.convert_to_tensor(self.logits), observed)
        above = self._above_minimum(losses)
        rates = z / above
        value = tf.math.divide_no_nan(tf.reduce_sum(z * tf.math.log(above)), tf.reduce_sum(rates))
        return value, shares(rates, observed)

    def after_step(self, before: tf.Tensor, after: tf.Tensor, observed: tf.Tensor) -> None:
        """Make an Adam step of x."""
        before, after = mean_over_replicas(before), mean_over_replicas(after)
        seen = observed & tf.math.is_finite(before) & tf.math.is_finite(after)
        fell = tf.math.log(self._above_minimum(before)) - tf.math.log(self._above_minimum(after))
        learns = seen & (tf.reduce_sum(tf.cast(seen, tf.int32)) > 1)
        logits = tf.convert_to_tensor(self.logits)
        gradient = logit_gradient(logits, tf.where(seen, fell, 0.0), seen) + self.weight_decay * logits
        momentum = tf.where(learns, _BETA_1 * self._momentum + (1 - _BETA_1) * gradient, self._momentum)
        velocity = tf.where(learns, _BETA_2 * self._velocity + (1 - _BETA_2) * gradient**2, self._velocity)
        updates = self._updates.assign_add(tf.cast(learns, tf.float32))
        mean = tf.math.divide_no_nan(momentum, 1 - _BETA_1**updates)
        root = tf.sqrt(tf.math.divide_no_nan(velocity, 1 - _BETA_2**updates))
        change = self.learning_rate * mean / (root + _ADAM_EPSILON)
        self._momentum.assign(momentum)
        self._velocity.assign(velocity)
        self.logits.assign(tf.where(learns, logits - change, logits))

    def get_config(self) -> dict[str, Any]:
        own = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
        return {**super().get_config(), **own, "minimum_losses": dict(self.minimum_losses)}


def logit_gradient(logits: tf.Tensor, fell: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Return (diag(z) - z z^T) d [K] for the observed tasks, 0 for the others.

    Args:
        logits: x [K].
        fell: d [K], by how much the logarithm of each loss fell.
        observed: bool [K].
    """
    z = observed_softmax(logits, observed)
    return z * (fell - tf.reduce_sum(z * fell))
