"""Fixed loss weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_known
from tfmtl._keras import register, tf
from tfmtl.balancing.balancer import Balancer


@register
class FixedWeights(Balancer):
    """The weighted sum of the losses.

    objective = sum_i w_i L_i.

    Args:
        task_weights: weight by task name, zero or more; tasks without one have weight 1.

    Example:
        >>> balancer = FixedWeights({"rating": 0.5})
        >>> balancer.bind(["click", "rating"], [1.0, 0.5])
        >>> float(balancer(tf.constant([2.0, 4.0])))
        4.0

    Cost: none. Tuned fixed weights are the baseline every other balancer has to beat.
    """

    def __init__(self, task_weights: Mapping[str, float] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        given = dict(task_weights or {})
        for task, weight in given.items():
            valid = isinstance(weight, int | float | np.number) and np.isfinite(weight) and weight >= 0
            require(valid, f"The weight of task {task!r} must be a number of at least 0.", weight=weight)
        self.task_weights = {task: float(weight) for task, weight in given.items()}

    def bind(self, task_names: Sequence[str], kendall_factors: Sequence[float]) -> None:
        """Check the names and fix the order."""
        super().bind(task_names, kendall_factors)
        require_known(self.task_weights, task_names, "task", "the loss weights")
        self._ordered = tuple(self.task_weights.get(name, 1.0) for name in task_names)
        require(sum(self._ordered) > 0, "At least one task must have a weight above 0.", weights=self.task_weights)

    def call(
        self, losses: tf.Tensor, observed: tf.Tensor | None = None, *, training: bool = False, **extra: Any
    ) -> tf.Tensor:
        """Return the weighted sum; the loss of an unobserved task is 0."""
        return tf.tensordot(self.current_weights(), losses, axes=1)

    def current_weights(self) -> tf.Tensor:
        """Return the weights in the order of the tasks."""
        return tf.constant(self._ordered, tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "task_weights": dict(self.task_weights)}
