"""Balancers that weight the tasks by the inner products of their gradients."""

from __future__ import annotations

import abc
import math
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import tf, traced
from tfmtl._replicas import all_reduce, replicas
from tfmtl.balancing.balancer import Balancer, SeparatingBalancer
from tfmtl.balancing.gramian import Gradient, gramian_of
from tfmtl.balancing.step_gradients import (
    At,
    Deltas,
    checked_location,
    complete_gradients,
    gradients_by_task,
    gramian_at,
    require_reached,
)
from tfmtl.balancing.training_step import TrainingStep


class GramianBalancer(SeparatingBalancer):
    """Weights the tasks by the inner products of their gradients.

    The update of the variables that tasks share is sum_i w_i g_i with w from `weigh`; a variable of one task alone
    takes the gradient of its own loss with weight 1 for every w. A task without a label in the batch has weight 0
    and is left out of the balance. A training loop that is not a `MultiTaskModel` calls `task_weights`.

    Args:
        at: where the gradients are taken. `"representation"`: at the last tensors that all tasks share (the experts'
            outputs of a trunk; the encoded features if tasks outside the trunk take part), at about the cost of one
            backward pass; a bound of the parameters' up to the Jacobian in between (Sener & Koltun, 2018).
            `"shared"`: at all shared variables, embedding tables included (touched rows only), exact, K backward
            passes. Or names of layers of the network: at their variables.

    Subclasses implement `weigh`; those with state from step to step create it by `add_state` in `build_state`.
    """

    reads_losses: bool = False
    """Whether `weigh` reads the losses, so that `task_weights` cannot do without them."""

    def __init__(self, at: At = "representation", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.at = checked_location(at)

    def _build_log(self) -> None:
        super()._build_log()
        # Dozens of operations on K x K numbers take longer to start than to run: XLA makes one of them.
        self._compiled = traced(self.weigh, jit_compile=True, autograph=False)

    @abc.abstractmethod
    def weigh(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        """Return the weight of each task's gradient [K].

        Args:
            gramian: inner products of the tasks' gradients, float32 [K, K]; zero in rows and columns of unobserved
                tasks.
            losses: mean loss of each task [K]; not a number without losses, which only methods that declare
                `reads_losses` notice.
            observed: bool [K]. The weights of the observed tasks must be those of a problem without the others; the
                weights returned for the others are ignored.
        """

    @property
    def keeps_state(self) -> bool:
        """Whether the weights depend on earlier steps, so that `task_weights` needs `bind`."""
        return type(self).build_state is not Balancer.build_state

    def task_weights(self, gramian: Any, losses: Any = None, observed: Any = None) -> tf.Tensor:
        """Return the weight of each task's gradient [K] for a Gramian alone, for use outside of a `MultiTaskModel`.

        `bind` is needed first by methods that keep state from step to step, and by arguments that name tasks.

        Args:
            gramian: inner products of the tasks' gradients [K, K].
            losses: mean loss of each task [K]; may be left out unless the method reads the losses.
            observed: bool [K], whether each task has a label in the batch; None means that all have.

        Returns:
            The weights w, float32 [K]: the update is sum_i w_i g_i.

        Raises:
            ValueError: if the method needs `bind` or the losses and has not got them.
        """
        method, bound = type(self).__name__, hasattr(self, "task_names")
        require(
            bound or not self.keeps_state,
            f"{method} keeps state from step to step; call `bind` with the tasks before `task_weights`.",
        )
        require(losses is not None or not self.reads_losses, f"{method} reads the losses; pass `losses`, one per task.")
        gramian = tf.cast(gramian, tf.float32)
        tasks = gramian.shape[0]
        if observed is None:
            observed = tf.ones([tasks], tf.bool)
        else:
            observed = tf.convert_to_tensor(observed, tf.bool)
            gramian = tf.where(observed[:, tf.newaxis] & observed[tf.newaxis, :], gramian, 0.0)
        losses = tf.fill([tasks], math.nan) if losses is None else tf.cast(losses, tf.float32)
        return self.weigh(gramian, losses, observed)

    def gradients(self, step: TrainingStep) -> list[Any]:
        """Return the gradients of the weighted losses, and of the penalties."""
        deltas = step.output_gradients()
        if self.at == "shared":
            return self._mix_by_variable(step, deltas)
        weights = self._weights_of(step, gramian_at(step, deltas, self.at))
        flat = [output for outputs in step.outputs for output in outputs]
        weighted = [tf.cast(w, d.dtype) * d for w, ds in zip(tf.unstack(weights), deltas, strict=True) for d in ds]
        of_shared = step.tape.gradient([*flat, step.penalty], step.shared, [*weighted, tf.ones_like(step.penalty)])
        return complete_gradients(step, deltas, of_shared)

    def _weights_of(self, step: TrainingStep, gramian: tf.Tensor) -> tf.Tensor:
        losses = all_reduce(tf.stack(step.losses)) / step.scale
        gramian = gramian / step.scale**2
        # A step that overflows in half precision is skipped by the optimiser; it must not spoil state for ever.
        finite = tf.reduce_all(tf.math.is_finite(gramian)) & tf.reduce_all(tf.math.is_finite(losses))
        pairs = finite & step.observed[:, tf.newaxis] & step.observed[tf.newaxis, :]
        weights = self._solve(tf.where(pairs, gramian, 0.0), tf.where(finite, losses, 0.0), step.observed)
        weights = tf.stop_gradient(tf.where(step.observed, weights, 0.0))
        self.last_weights.assign(weights)
        return weights

    def _solve(self, gramian: tf.Tensor, losses: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
        if tf.executing_eagerly() or replicas() > 1:  # XLA does not assign to variables that replicas mirror
            return self.weigh(gramian, losses, observed)
        return self._compiled(gramian, losses, observed)

    def _mix_by_variable(self, step: TrainingStep, deltas: Deltas) -> list[Gradient]:
        joined = gradients_by_task(step, deltas, step.shared, reduce=True)
        weights = self._weights_of(step, gramian_of(require_reached(self.at, joined))) / replicas()
        mixed = [None if g is None else g.weighted(weights) for g in joined]
        return complete_gradients(step, deltas, mixed, penalize=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "at": self.at if isinstance(self.at, str) else list(self.at)}
