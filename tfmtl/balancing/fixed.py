"""Fixed loss weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.balancing.balancer import Balancer
from tfmtl.balancing.by_task import NONNEGATIVE, numbers_by_task


@register
class FixedWeights(Balancer):
    """Fixed loss weights, linear scalarisation: the weighted sum of the losses.

    Use it first: tuned fixed weights are the baseline that every other balancer has to beat.

    objective = sum_i w_i L_i.

    Args:
        task_weights: weight by task name, zero or more; tasks without one have weight 1.

    Example:
        >>> balancer = FixedWeights({"rating": 0.5})
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> float(balancer(tf.constant([2.0, 4.0])))
        4.0

    Cost: none.
    """

    task_arguments: ClassVar = {"task_weights": 1.0}

    def __init__(self, task_weights: Mapping[str, float] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.task_weights = numbers_by_task(task_weights, "weight", NONNEGATIVE)

    def build_state(self) -> None:
        """Fix the order of the weights."""
        self._ordered = self.in_task_order("task_weights")
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
