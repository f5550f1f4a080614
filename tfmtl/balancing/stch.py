"""Smooth Tchebycheff scalarisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.balancing.by_task import POSITIVE, numbers_by_task, shares
from tfmtl.balancing.loss_weighting import LossWeighting


@register
class STCH(LossWeighting):
    """STCH, smooth Tchebycheff scalarization: a smooth maximum of the losses; the step helps the worst-off task.

    Use it for tasks of one scale of which the worst must not be left behind.

    objective = mu log sum_i exp(v_i (L_i - z_i) / mu) over the observed tasks, v_i = a_i / sum a. The weight of task
    i's gradient is v_i softmax(v (L - z) / mu)_i.

    Args:
        mu: smoothness, at least 1e-6, in the unit of v_i L_i. To 0 it becomes the maximum, where one task alone gets
            the gradient; large it becomes a weighted sum with weights v_i / m.
        ideal_point: z_i by task name, the best loss the task can reach; 0 for the others.
        preferences: a_i by task name, above 0; tasks without one have 1, so that v_i = 1/m for m observed tasks.

    Example:
        >>> balancer = STCH(mu=0.5)
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> round(float(balancer(tf.constant([2.0, 4.0]), training=True)), 4)  # 2 + log(1 + exp(-2)) / 2
        2.0635
        >>> [round(float(weight), 4) for weight in balancer.current_weights()]  # sigmoid(-2) / 2, sigmoid(2) / 2
        [0.0596, 0.4404]

    Reference:
        Lin, Zhang, Yang, Liu, Wang, Zhang, "Smooth Tchebycheff Scalarization for Multi-Objective Optimization",
        ICML 2024, https://arxiv.org/abs/2402.19078.

    Scale: the losses are compared as they are, so they must have one scale; set preferences to about 1 / (the loss of
    the task alone) if they do not. The weights sum to at most the largest v_i, about 1/m, so the learning rate acts
    about m times smaller than under `EqualWeights` with SGD, and alike with Adam. The authors' code instead trains some
    epochs on log losses, divides by the losses then reached and multiplies by the number of tasks; there is no such
    warm-up here.

    Cost: none. No evidence in recommenders.
    """

    task_arguments: ClassVar = {"ideal_point": 0.0, "preferences": 1.0}

    def __init__(
        self,
        mu: float = 1.0,
        ideal_point: Mapping[str, float] | None = None,
        preferences: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        valid = isinstance(mu, int | float) and np.isfinite(mu) and mu >= 1e-6
        require(valid, "`mu` must be a number of at least 1e-6.", mu=mu)
        self.mu = float(mu)
        self.ideal_point = numbers_by_task(ideal_point, "ideal loss")
        self.preferences = numbers_by_task(preferences, "preference", POSITIVE)

    def weigh(self, losses: tf.Tensor, observed: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the smooth maximum and its derivatives."""
        scales = shares(tf.constant(self.in_task_order("preferences"), tf.float32), observed)
        ideal = tf.constant(self.in_task_order("ideal_point"), tf.float32)
        scaled = tf.where(observed, scales * (losses - ideal), tf.float32.min)
        largest = tf.reduce_max(scaled)
        exponentials = tf.where(observed, tf.exp((scaled - largest) / self.mu), 0.0)  # at most 1, and 1 at the largest
        value = largest + self.mu * tf.math.log(tf.reduce_sum(exponentials))
        return tf.where(tf.reduce_any(observed), value, 0.0), scales * shares(exponentials, observed)

    def get_config(self) -> dict[str, Any]:
        own = {"mu": self.mu, "ideal_point": dict(self.ideal_point), "preferences": dict(self.preferences)}
        return {**super().get_config(), **own}
