"""The base of every balancer: how the tasks' losses become one step."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tfmtl._checks import require, require_known
from tfmtl._keras import keras, tf
from tfmtl.balancing.training_step import TrainingStep

PERIOD = 2.0**23
"""Steps after which the draws repeat: a float32 counter, like all state, cannot count much further."""


@dataclasses.dataclass(frozen=True)
class BalancedTask:
    """The facts about one task that a balancer may read.

    Attributes:
        name: the task's name in the model.
        kendall_factor: factor of exp(-s) L in uncertainty weighting: 1 for classification and retrieval, 1/2 for
            regression.
    """

    name: str
    kendall_factor: float = 1.0


class Balancer(keras.layers.Layer, abc.ABC):
    """Turns the losses [tasks] of a step into a scalar objective, and the objective into gradients.

    The model binds a balancer to its tasks once. State lives in variables, so that it is traced and checkpointed.

    Subclasses implement `call` and `current_weights`; those with state by task create it in `build_state`, and those
    with arguments by task name list them in `task_arguments`.
    """

    persistent_tape: bool = False
    """Whether `gradients` differentiates more than once."""

    needs_losses_after_step: bool = False
    """Whether `after_step` is called, with the losses of the batch before and after the update."""

    after_step_every: int = 1
    """Optimizer steps between two calls of `after_step`; the losses are not computed in the others."""

    task_arguments: ClassVar[Mapping[str, Any]] = {}
    """Constructor arguments that are mappings by task name, and the value of a task that they do not name."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})  # losses are float32 under every policy

    def bind(self, tasks: Sequence[BalancedTask]) -> None:
        """Attach the balancer to the tasks of a model and create its state.

        Args:
            tasks: the tasks, in the order of the losses.

        Raises:
            ValueError: if the balancer belongs to a model already, or an argument names an unknown task.
        """
        require(
            not hasattr(self, "task_names"),
            f"This {type(self).__name__} balances the tasks of another model; make a new one for each model.",
            tasks=getattr(self, "task_names", None),
        )
        self.tasks = tuple(tasks)
        self.task_names = tuple(task.name for task in self.tasks)
        for argument in self.task_arguments:
            given: Mapping[str, Any] = getattr(self, argument)
            require_known(given, self.task_names, "task", f"`{argument}` of {type(self).__name__}")
        self._build_log()
        self.build_state()

    def build_state(self) -> None:
        """Create state by task with `add_state`; called once by `bind`, when `tasks` and `task_names` are set."""

    def _build_log(self) -> None:
        """Create the state that `current_weights` reads; a hook of the families of balancers."""

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

    def in_task_order(self, argument: str, tasks: int = 0) -> tuple[Any, ...]:
        """Return the value of each task in one of the `task_arguments`, in the order of the losses.

        Args:
            argument: name of the argument.
            tasks: number of tasks, read only without `bind`.

        Raises:
            ValueError: if the argument names tasks and the balancer is not bound.
        """
        given, default = getattr(self, argument), self.task_arguments[argument]
        if hasattr(self, "task_names"):
            return tuple(given.get(name, default) for name in self.task_names)
        rule = f"`{argument}` of {type(self).__name__} names tasks; call `bind` with the tasks first."
        require(not given, rule, **{argument: given})
        return (default,) * tasks

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
        """Update state from the losses [tasks] of a batch before and after its own update, in inference mode.

        With `after_step_every` above 1 no task is observed in the other steps, which must change nothing.
        """

    def observe(self, losses: Any) -> None:
        """Update state from the tasks' losses [tasks] on held-out rows; called by `training.HeldOutLosses`."""

    def end_epoch(self) -> None:
        """Update state that changes once per epoch."""


class SeparatingBalancer(Balancer):
    """A balancer that differentiates the tasks one by one; its weights are those of the last training step.

    Subclasses assign `last_weights` [tasks] in `gradients`.
    """

    persistent_tape = True

    def _build_log(self) -> None:
        self.last_weights = self.add_state("last_weights", [len(self.task_names)], 1.0)

    def call(
        self, losses: tf.Tensor, observed: tf.Tensor | None = None, *, training: bool = False, **extra: Any
    ) -> tf.Tensor:
        """Return the sum of the losses under the weights of the last step, for the log."""
        return tf.tensordot(self.current_weights(), losses, axes=1)

    def current_weights(self) -> tf.Tensor:
        """Return the weights of the last step."""
        return tf.convert_to_tensor(self.last_weights)


def next_seed(seed: int, counter: tf.Variable | None) -> tf.Tensor:
    """Return (seed, count) as two int64 [2] for a stateless random operation, and increment the count.

    The seed changes from step to step and is restored with the state.

    Args:
        seed: the balancer's seed.
        counter: float state of one number, which a training step may change; None for a count of 0.
    """
    count = tf.constant(0, tf.int64) if counter is None else tf.cast(tf.convert_to_tensor(counter), tf.int64)
    pair = tf.stack([tf.constant(seed, tf.int64), count])
    if counter is not None:
        counter.assign(tf.math.floormod(counter + 1.0, PERIOD))
    return pair


def assign_if_finite(of_gradients: tf.Tensor, *pairs: tuple[tf.Variable, tf.Tensor]) -> None:
    """Assign values to state, unless the step's gradients are not finite: one such step would spoil an average forever.

    Mixed precision makes such steps to find its loss scale; the optimiser skips them.

    Args:
        of_gradients: numbers that are not finite where gradients are not.
        pairs: state and its new values.
    """
    finite = tf.reduce_all(tf.math.is_finite(of_gradients))
    for state, value in pairs:
        state.assign(tf.where(finite, value, state))
