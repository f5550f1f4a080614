"""The base of callbacks that measure pairs of tasks while training."""

from __future__ import annotations

import abc
import copy
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, tf
from tfmtl._replicas import replicas
from tfmtl.balancing import TrainingStep
from tfmtl.balancing.step_gradients import At, checked_location


class PairMonitor(keras.callbacks.Callback, abc.ABC):
    """Measures pairs of tasks every n-th step, keeps the means of each epoch and logs them.

    Subclasses name their `measures` and implement `pair_values` and `logged_pairs`.

    Args:
        every_n_steps: optimiser steps between two measurements, 1 or more; steps 0, n, 2 n, ... of the optimiser's
            counter are measured, across epochs.
        at: where gradients are taken, as in `GramianBalancer`: `"representation"`, `"shared"` or names of layers.

    Attributes:
        history: one dict an epoch of the last `fit`: an array [K, K] of means for each measure, and `"count"`, the
            number of measurements [K, K].
        task_names: names of the K tasks.
    """

    measures: ClassVar[tuple[str, ...]]

    def __init__(self, every_n_steps: int, at: At) -> None:
        super().__init__()
        require_positive_int(every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self.at = checked_location(at)
        self.history: list[dict[str, np.ndarray]] = []
        self.task_names: tuple[str, ...] = ()
        self._watched: Any = None  # the model of the last training
        self._observer: Any = None  # an object of its own for each model: the model's trace holds the sums

    @abc.abstractmethod
    def pair_values(self, step: TrainingStep) -> tf.Tensor:
        """Return the measures and a count of 0 or 1 for all pairs of tasks [M + 1, K, K], all 0 without a count."""

    @abc.abstractmethod
    def logged_pairs(self) -> Iterable[tuple[int, int]]:
        """Return the pairs of tasks that the log shows."""

    def __deepcopy__(self, memo: dict[int, Any]) -> PairMonitor:
        """Return an unused monitor: a tuner copies its callbacks for every trial."""
        unused = copy.copy(self)
        unused.history, unused.task_names = [], ()
        unused.model = unused._watched = unused._observer = None
        return unused

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Let the model trace a step that measures."""
        model = self.model
        self._check_layers()
        self._release_interrupted()
        if self._watched is not model:
            self._watched, self._observer = model, self.measure
            self.task_names = tuple(task.name for task in model.tasks)
            with model.distribute_strategy.scope():
                self._sums = _accumulator(len(self.measures) + 1, len(self.task_names))
        model.observe_steps(self._observer)
        self._clear()
        self.history = []

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """End the observation."""
        self.model.observe_steps(None)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Log the epoch's means, keep them and reset the sums."""
        *sums, count = self._sums.numpy()
        with np.errstate(invalid="ignore"):
            means = {name: total / count for name, total in zip(self.measures, sums, strict=True)}
        self.history.append({**means, "count": count.astype(int)})
        self._clear()
        if logs is not None:  # every key in every epoch, NaN or not: CSVLogger takes its columns from the first
            for name, matrix in means.items():
                for i, j in self.logged_pairs():
                    logs[f"{name}/{self.task_names[i]}~{self.task_names[j]}"] = float(matrix[i, j])

    def measure(self, step: TrainingStep) -> None:
        """Add a step to the sums if its turn has come; called by the model while it traces a step."""
        due = tf.equal(self.model.optimizer.iterations % self.every_n_steps, 0)

        def add() -> tf.Tensor:
            self._sums.assign_add(tf.where(due, self.pair_values(step), 0.0))
            return tf.constant(True)

        if replicas() > 1:
            add()
        else:
            tf.cond(due, add, lambda: tf.constant(False))

    def _clear(self) -> None:
        self._sums.assign(tf.zeros_like(self._sums))

    def _check_layers(self) -> None:
        for name in () if isinstance(self.at, str) else self.at:
            self.model.network.get_layer(name)

    def _release_interrupted(self) -> None:
        """End the watch of a training that an exception ended, for which Keras calls no `on_train_end`."""
        other = getattr(self.model.step_observer, "__self__", None)
        if isinstance(other, PairMonitor):
            other.on_train_end()
            # Keras passes the same `params` object to all callbacks of a training.
            together = other is not self and other.params is self.params
            cure = "remove one, or set `cosines=False` of `LearnedWeights`"
            require(not together, f"One training takes one monitor of pairs; {cure}.")


def _accumulator(values: int, tasks: int) -> tf.Variable:
    return tf.Variable(
        tf.zeros([values, tasks, tasks]),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_WRITE,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
