"""Balancers that read the gradients themselves and mix them variable by variable."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from tfmtl._keras import tf
from tfmtl._replicas import all_reduce, replicas
from tfmtl.balancing.balancer import SeparatingBalancer
from tfmtl.balancing.gramian import Gradient, TaskGradients, scale
from tfmtl.balancing.step_gradients import complete_gradients, gradients_by_task
from tfmtl.balancing.training_step import TrainingStep


class GradientBalancer(SeparatingBalancer):
    """Turns the tasks' gradients of every shared variable into one, by rules that need the gradients themselves.

    Always at all shared variables, embedding tables included (the rows that the batch touches); a variable of one task
    alone takes the gradient of its own loss.

    Subclasses implement `mix`, which may assign `last_weights` for the log; those with
    state create it by `add_state` in `build_state` or `prepare`.

    Cost: one backward pass per task, and K gradients in memory.
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
        joined = gradients_by_task(step, deltas, step.shared, reduce=True)
        unscaled = [None if g is None else g._replace(values=g.values / step.scale) for g in joined]
        mixed = [scale(g, step.scale / replicas()) for g in self.mix(unscaled, losses, step.observed)]
        return complete_gradients(step, deltas, mixed, penalize=True)
