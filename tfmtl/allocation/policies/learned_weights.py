"""A callback that sets the loss weights of a training by a policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int, require_type
from tfmtl._keras import keras
from tfmtl.allocation.affinity import Floats
from tfmtl.allocation.policies.interval_cosines import IntervalCosines
from tfmtl.allocation.policies.task_state import TaskState
from tfmtl.allocation.policies.weight_policy import WeightPolicy
from tfmtl.balancing import AssignedWeights
from tfmtl.training.held_out_losses import LossesOnRows

Choose = Callable[[Floats], Floats]
"""From the state of a training [K, 5] to the weights of its tasks [K]."""


class LearnedWeights(keras.callbacks.Callback):
    """Sets the weights of a model's tasks every n-th step by a policy that reads its validation losses.

    Use it with a policy of `train_weight_policy`, on the same data or on others; the model's balancer is
    `AssignedWeights`.

    Args:
        policy: a `WeightPolicy`, or any function from the state [K, 5] to the weights [K].
        validation: rows that the policy reads, in any form that `fit` takes; neither training rows nor those by
            which models are compared.
        every_n_steps: steps between two actions; weights change at the end of a call of up to 32 steps.
        num_steps: steps of this training, of which the state has the share that is left. A resumed training is a new
            one for the policy, which takes its first losses from the resumed weights.
        cosines: whether the state has the cosines of the tasks' gradients; without them it is cheaper.

    Attributes:
        record: of the last training: by action, its step, the state [K, 5], the weights [K] and the objective before
            it: the mean over the tasks of the share by which their losses have fallen.

    Raises:
        ValueError: when training starts, if the balancer is no `AssignedWeights`, or a validation loss is 0.

    Example:
        >>> callback = LearnedWeights(WeightPolicy(), None, every_n_steps=64, num_steps=2000)  # pass a table
        >>> # model.fit(train, callbacks=[callback])

    Cost: at every n-th step a forward pass over the validation rows, and with `cosines` a backward pass to the
    representation for each task.
    """

    def __init__(
        self, policy: WeightPolicy | Choose, validation: Any, *, every_n_steps: int, num_steps: int,
        cosines: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        require(isinstance(policy, WeightPolicy) or callable(policy), "`policy` must be a policy or a function.")
        require_positive_int(every_n_steps=every_n_steps, num_steps=num_steps)
        self.policy, self.validation = policy, validation
        self.every_n_steps, self.num_steps, self.cosines = every_n_steps, num_steps, cosines
        self.record: list[dict[str, Any]] = []
        self._monitor = IntervalCosines(every_n_steps) if cosines else None
        self._losses: ValidationLosses | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> LearnedWeights:
        """Return an unused callback: a tuner copies its callbacks for every trial."""
        return type(self)(
            self.policy, self.validation, every_n_steps=self.every_n_steps, num_steps=self.num_steps,
            cosines=self.cosines,
        )  # fmt: skip

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Measure the losses before training and set the first weights."""
        if self._losses is None or self._losses.model is not self.model:
            self._losses = ValidationLosses(self.model, self.validation)
        if self._monitor is not None:
            self._monitor.set_params(self.params)
            self._monitor.set_model(self.model)
            self._monitor.on_train_begin()
        self.record, self._acted, self._first = [], -1, int(self.model.optimizer.iterations)
        first = self._losses()
        self._state = TaskState(first)
        self._act(first)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Set new weights if it is time."""
        if self._turn() > self._acted:
            assert self._losses is not None
            self._act(self._losses())

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """End the measurement of gradients."""
        if self._monitor is not None:
            self._monitor.on_train_end()

    def _turn(self) -> int:
        return int(self.model.optimizer.iterations) // self.every_n_steps

    def _act(self, losses: Floats) -> None:
        assert self._losses is not None
        step, self._acted = int(self.model.optimizer.iterations), self._turn()
        left = max(1.0 - (step - self._first) / self.num_steps, 0.0)
        cosines = None if self._monitor is None else self._monitor.take()
        losses = np.where(np.isfinite(losses), losses, self._state.largest)
        state = self._state.observe(losses, left, cosines)
        weights = self.policy.weights(state) if isinstance(self.policy, WeightPolicy) else self.policy(state)
        self._losses.assign(weights)
        kept = {"step": step, "state": state, "weights": np.array(weights), "objective": self._state.objective}
        self.record.append(kept)


class ValidationLosses(LossesOnRows):
    """The losses of a model with `AssignedWeights` on rows with labels of all tasks, and the assignment of its weights.

    Args:
        model: a model; its balancer is an `AssignedWeights`.
        table: the rows.

    Raises:
        ValueError: if a task has no label.
    """

    def __init__(self, model: Any, table: Any) -> None:
        require_type(model.balancer, AssignedWeights, "balancer", "Give the model `balancer=AssignedWeights()`.")
        super().__init__(model, table)
        self._names = [task.name for task in model.tasks]
        without = [name for name, loss in zip(self._names, self(), strict=True) if np.isnan(loss)]
        require(not without, f"The validation rows have no label of the tasks {without}, or no finite loss.")

    def assign(self, weights: Floats) -> None:
        """Set the weights of the tasks [K]."""
        self.model.balancer.assign(dict(zip(self._names, map(float, weights), strict=True)))
