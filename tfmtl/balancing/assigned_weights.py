"""Loss weights that a callback assigns while training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmtl._checks import require, require_known
from tfmtl._keras import register, tf
from tfmtl.balancing.balancer import Balancer


@register
class AssignedWeights(Balancer):
    """Loss weights that are assigned from outside, even during `fit`: the weighted sum of the losses, at first plain.

    Use it under callbacks that learn weights, such as `tfmtl.allocation.LearnedWeights`, or your own.

    objective = sum_i w_i L_i, with w_i = 1 until `assign`.

    Example:
        >>> balancer = AssignedWeights()
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> balancer.assign({"rating": 0.5})
        >>> float(balancer(tf.constant([2.0, 4.0])))
        4.0

    Cost: none.
    """

    def build_state(self) -> None:
        """Create the weights."""
        self._assigned = self.add_state("assigned_weights", [len(self.task_names)], 1.0)

    def assign(self, task_weights: Mapping[str, float]) -> None:
        """Set the weights of some tasks.

        Raises:
            ValueError: if a task is unknown, a weight is below 0 or not finite, or all would be 0.
        """
        require_known(task_weights, self.task_names, "task", "`task_weights`")
        found = dict(zip(self.task_names, self._assigned.numpy(), strict=True)) | dict(task_weights)
        values = np.array(list(found.values()), np.float64)
        valid = bool(np.isfinite(values).all()) and (values >= 0).all() and values.sum() > 0
        rule = "`task_weights` must be finite numbers of at least 0 that are not all 0."
        require(bool(valid), rule, task_weights=dict(task_weights))
        self._assigned.assign(values.astype(np.float32))

    def call(
        self, losses: tf.Tensor, observed: tf.Tensor | None = None, *, training: bool = False, **extra: Any
    ) -> tf.Tensor:
        """Return the weighted sum; the loss of an unobserved task is 0."""
        return tf.tensordot(self.current_weights(), losses, axes=1)

    def current_weights(self) -> tf.Tensor:
        """Return the assigned weights."""
        return tf.convert_to_tensor(self._assigned)
