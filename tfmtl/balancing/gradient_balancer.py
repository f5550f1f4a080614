"""Balancers that mix the tasks' gradients variable by variable."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from tfmtl._keras import tf
from tfmtl._replicas import all_reduce, replicas
from tfmtl.balancing.balancer import SeparatingBalancer
from tfmtl.balancing.gramian import Gradient, TaskGradients
from tfmtl.balancing.gramian_balancer import by_variable, complete
from tfmtl.balancing.training_step import TrainingStep


class GradientBalancer(SeparatingBalancer):
    """Turns the tasks' gradients of every shared variable into one, by more than their inner products.

    Always at all shared variables, embedding tables included (the rows that the batch touches); a variable of one task
    alone takes the gradient of its own loss.

    Subclasses implement `mix`, which may assign `last_weights` for the log; state they keep is made by `add_state` in
    `bind` or `prepare`.

    Cost: one backward pass a task, and K gradients in memory.
    """

    @abc.abstractmethod
    def mix(
        self, gradients: Sequence[TaskGradients | None], losses: tf.Tensor, observed: tf.Tensor
    ) -> Sequence[Gradient]:
        """Return one gradient for each shared variable, None where none is given.

        Args:
            gradients: of the shared variables in the order of `prepare`, zero for unobserved tasks; None for a variable
                that no loss of the batch reaches.
            losses: mean loss of each task [K].
            observed: bool [K]; unobserved tasks must not take part.
        """

    def gradients(self, step: TrainingStep) -> list[Any]:
        """Return the mixed gradients, and those of the penalties."""
        deltas = step.output_gradients()
        losses = all_reduce(tf.stack(step.losses)) / step.scale
        joined = by_variable(step, deltas, step.shared, reduce=True)
        unscaled = [None if g is None else g._replace(values=g.values / step.scale) for g in joined]
        mixed = [_times(g, step.scale / replicas()) for g in self.mix(unscaled, losses, step.observed)]
        return complete(step, deltas, mixed, penalize=True)


def _times(gradient: Gradient, factor: tf.Tensor) -> Gradient:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(factor * gradient.values, gradient.indices, gradient.dense_shape)
    return None if gradient is None else factor * gradient
