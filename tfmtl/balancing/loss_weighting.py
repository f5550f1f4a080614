"""Balancers that look at the tasks' losses alone."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_known
from tfmtl._keras import tf
from tfmtl._replicas import mean_over_replicas
from tfmtl.balancing.balancer import Balancer


class LossWeighting(Balancer):
    """Weights each task's loss by a number that depends on the losses of the batch and on state.

    The objective has the value F and the gradient sum_i w_i grad L_i, with (F, w) from `weigh`; the weights themselves
    are not differentiated, and the log shows them. A task without a label in the batch has weight 0. Under a
    distribution strategy F and w are those of the mean losses over the replicas.

    Subclasses implement `weigh`; state they keep is made by `add_state` in `bind`.
    """

    def bind(self, task_names: Sequence[str], kendall_factors: Sequence[float]) -> None:
        """Create the weights that the log shows."""
        super().bind(task_names, kendall_factors)
        self.last_weights = self.add_state("last_weights", [len(task_names)], self._first_weight())

    def _first_weight(self) -> float:
        return 1.0 / len(self.task_names)

    @abc.abstractmethod
    def weigh(self, losses: tf.Tensor, observed: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the value of the objective and the weights [K] of the losses' gradients.

        Args:
            losses: mean loss of each task [K], 0 for unobserved ones; not differentiated.
            observed: bool [K]; unobserved tasks must not matter, what is returned for them is ignored.
            training: whether state may change.
        """

    def call(
        self, losses: tf.Tensor, observed: tf.Tensor | None = None, *, training: bool = False, **extra: Any
    ) -> tf.Tensor:
        """Return the objective, whose gradient with respect to the losses are the weights."""
        observed = tf.ones_like(losses, tf.bool) if observed is None else observed
        losses = tf.where(observed, losses, 0.0)
        constant = tf.stop_gradient(losses)
        value, weights = self.weigh(mean_over_replicas(constant), observed, training)
        weights = tf.where(observed, weights, 0.0)
        if training:
            self.last_weights.assign(weights)
        change = tf.tensordot(tf.stop_gradient(weights), losses - constant, axes=1)  # 0, but for its gradient
        return tf.stop_gradient(value) + change

    def current_weights(self) -> tf.Tensor:
        """Return the weights of the last training step."""
        return tf.convert_to_tensor(self.last_weights)


def masked_softmax(logits: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Return the softmax of the observed tasks' logits [K], 0 for the others.

    Example:
        >>> masked_softmax(tf.constant([5.0, 9.0, 5.0]), tf.constant([True, False, True])).numpy().tolist()
        [0.5, 0.0, 0.5]
    """
    chosen = tf.where(observed, logits, logits.dtype.min)
    return shares(tf.exp(chosen - tf.reduce_max(chosen)), observed)


def shares(values: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Return the observed tasks' values [K] divided by their sum, 0 for the others and if the sum is 0."""
    chosen = tf.where(observed, values, 0.0)
    return tf.math.divide_no_nan(chosen, tf.reduce_sum(chosen))


def checked_numbers(given: Mapping[str, float] | None, what: str, *, positive: bool = False) -> dict[str, float]:
    """Return finite numbers by task name as floats, or name the task whose number is none."""
    numbers = dict(given or {})
    kind = "a number above 0" if positive else "a finite number"
    for task, number in numbers.items():
        valid = isinstance(number, int | float | np.number) and np.isfinite(number) and (number > 0 or not positive)
        require(valid, f"The {what} of task {task!r} must be {kind}.", given=number)
    return {task: float(number) for task, number in numbers.items()}


def in_order(given: Mapping[str, float], task_names: Sequence[str], default: float, what: str) -> tuple[float, ...]:
    """Return one number a task, after checking the names."""
    require_known(given, task_names, "task", f"the {what} by task")
    return tuple(given.get(name, default) for name in task_names)
