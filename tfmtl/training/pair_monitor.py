"""The base of callbacks that measure pairs of tasks while training."""

from __future__ import annotations

import abc
import copy
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from tfmtl._keras import tf
from tfmtl.balancing import TrainingStep
from tfmtl.balancing.step_gradients import At, checked_location
from tfmtl.training.step_observer import StepObserver


class PairMonitor(StepObserver):
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
        super().__init__(every_n_steps)
        self.at = checked_location(at)
        self.history: list[dict[str, np.ndarray]] = []
        self.task_names: tuple[str, ...] = ()

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

    def prepare(self, model: Any) -> None:
        """Create the sums."""
        self.task_names = tuple(task.name for task in model.tasks)
        with model.distribute_strategy.scope():
            self._sums = _accumulator(len(self.measures) + 1, len(self.task_names))

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Let the model trace a step that measures."""
        for name in () if isinstance(self.at, str) else self.at:
            self.model.network.get_layer(name)
        super().on_train_begin(logs)
        self._clear()
        self.history = []

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

    def observe(self, step: TrainingStep, due: tf.Tensor) -> None:
        """Add a step to the sums."""
        self._sums.assign_add(tf.where(due, self.pair_values(step), 0.0))

    def _clear(self) -> None:
        self._sums.assign(tf.zeros_like(self._sums))


def _accumulator(values: int, tasks: int) -> tf.Variable:
    return tf.Variable(
        tf.zeros([values, tasks, tasks]),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_WRITE,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
