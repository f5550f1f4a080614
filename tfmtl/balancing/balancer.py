"""The base of every balancer: how the tasks' losses become one step."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import keras, tf
from tfmtl.balancing.training_step import TrainingStep


class Balancer(keras.layers.Layer, abc.ABC):
    """Turns the losses [tasks] of a step into a scalar objective, and the objective into gradients.

    The model binds a balancer to its tasks once; state lives in variables, so that it is traced and checkpointed.
    """

    persistent_tape: bool = False
    """Whether `gradients` differentiates more than once."""

    needs_losses_after_step: bool = False
    """Whether `after_step` is called, with the losses of the batch before and after the update."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})  # losses are float32 whatever the policy

    def bind(self, task_names: Sequence[str], kendall_factors: Sequence[float]) -> None:
        """Remember the tasks, in the order of the losses, and create variables.

        Args:
            task_names: names of the tasks.
            kendall_factors: factor of exp(-s) L in uncertainty weighting, by task.

        Raises:
            ValueError: if the balancer belongs to a model already.
        """
        require(
            not hasattr(self, "task_names"),
            f"This {type(self).__name__} balances the tasks of another model; make a new one for each model.",
            tasks=getattr(self, "task_names", None),
        )
        self.task_names = tuple(task_names)
        self.kendall_factors = tuple(kendall_factors)

    def prepare(self, shared: Sequence[tf.Variable]) -> None:
        """Create state that depends on the variables more than one task reaches; called by the model after `bind`."""

    def add_state(self, name: str, shape: Sequence[int], initial: float = 0.0) -> tf.Variable:
        """Create a float32 variable that training assigns to and the optimiser does not; replicas keep it equal."""
        return self.add_weight(
            name,
            list(shape),
            tf.float32,
            initializer=keras.initializers.Constant(initial),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_WRITE,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    @abc.abstractmethod
    def call(
        self, losses: tf.Tensor, observed: tf.Tensor | None = None, *, training: bool = False, **extra: Any
    ) -> tf.Tensor:
        """Return the objective.

        Args:
            losses: mean loss of each task [tasks].
            observed: whether each task has a label in the batch [tasks]; None means that all have.
            training: whether this is a training step, in which state may change.
            extra: ignored, so that balancers can be given more.
        """

    @abc.abstractmethod
    def current_weights(self) -> tf.Tensor:
        """Return the weight of each task's loss [tasks], for the log."""

    def gradients(self, step: TrainingStep) -> list[Any]:
        """Return one gradient for each of `step.variables`; None where the objective does not reach it."""
        gradients: list[Any] = step.tape.gradient(step.objective, list(step.variables))
        return gradients

    def after_step(self, before: tf.Tensor, after: tf.Tensor, observed: tf.Tensor) -> None:
        """Learn from what the update did to the losses [tasks] of its own batch, measured in inference mode."""

    def end_epoch(self) -> None:
        """Update state that changes once an epoch."""


class SeparatingBalancer(Balancer):
    """A balancer that differentiates the tasks one by one; its weights are those of the last training step.

    Subclasses assign `last_weights` [tasks] in `gradients`.
    """

    persistent_tape = True

    def bind(self, task_names: Sequence[str], kendall_factors: Sequence[float]) -> None:
        """Create the weights that the log shows."""
        super().bind(task_names, kendall_factors)
        self.last_weights = self.add_state("last_weights", [len(self.task_names)], 1.0)

    def call(
        self, losses: tf.Tensor, observed: tf.Tensor | None = None, *, training: bool = False, **extra: Any
    ) -> tf.Tensor:
        """Return the sum of the losses under the weights of the last step, for the log."""
        return tf.tensordot(self.current_weights(), losses, axes=1)

    def current_weights(self) -> tf.Tensor:
        """Return the weights of the last step."""
        return tf.convert_to_tensor(self.last_weights)
