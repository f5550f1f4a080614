"""The conflicts between the tasks' gradients, measured while training."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, tf
from tfmtl._replicas import replicas
from tfmtl.balancing import TrainingStep
from tfmtl.balancing.step_gradients import At, checked_location, gramian_at

_MEASURES = ("conflict", "cosine", "magnitude")


class ConflictMonitor(keras.callbacks.Callback):
    """Measures how the gradients of each pair of tasks agree, every n-th step, under any balancer.

    With g_i the gradient of task i's own loss, unweighted, at the chosen location:
    cosine = g_i . g_j / (|g_i| |g_j|); magnitude = 2 |g_i| |g_j| / (|g_i|^2 + |g_j|^2), 1 for equal lengths and 0 if
    one vanishes beside the other; conflict = share of the measurements with a negative cosine.

    The epoch's means enter its log as `conflict/<a>~<b>`, `cosine/<a>~<b>` and `magnitude/<a>~<b>` for each pair in the
    tasks' order. Put the monitor before callbacks that read the log, such as `CSVLogger` and `TensorBoard`; `History`
    always has them. Training itself stays as it is without the monitor.

    A pair is measured in a batch that has labels of both tasks, unless a gradient is zero or not finite. A pair never
    measured in an epoch, for instance in one shorter than `every_n_steps`, has NaN.

    Args:
        every_n_steps: optimiser steps between two measurements, 1 or more; steps 0, n, 2 n, ... of the optimiser's
            counter are measured, across epochs.
        at: where gradients are taken, as in `GramianBalancer`: `"representation"`, `"shared"` or names of layers.

    Attributes:
        history: one dict an epoch of the last `fit`: `"conflict"`, `"cosine"` and `"magnitude"`, arrays [K, K] of
            means, and `"count"`, the number of measurements [K, K].
        task_names: names of the K tasks.

    Raises:
        ValueError: when training starts, if a named layer does not exist or another monitor takes part.

    Example:
        >>> monitor = ConflictMonitor(every_n_steps=20, at="shared")
        >>> # model.fit(table, callbacks=[monitor]); conflict_heat_map(monitor.history, monitor.task_names)
        >>> round(float(pair_measures(tf.constant([[1.0, -1.0], [-1.0, 2.0]]), tf.constant([True, True]))[1, 0, 1]), 4)
        -0.7071

    Reference:
        Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, https://arxiv.org/abs/2001.06782,
        definitions 1 (conflict) and 2 (magnitude similarity); definition 3, the curvature, needs second derivatives and
        is not measured. The paper leaves zero gradients open: they have no direction and are not counted here.

    Cost: at the n-th steps K backward passes from the losses down to the location; nothing at the others, but under a
    strategy with several replicas every step pays, since replicas cannot communicate in a branch.
    Use it to see which tasks disagree before choosing a balancer; a high conflict rate alone is no evidence that
    balancing gradients beats tuned fixed weights.
    """

    def __init__(self, every_n_steps: int = 10, at: At = "representation") -> None:
        super().__init__()
        require_positive_int(every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self.at = checked_location(at)
        self.history: list[dict[str, np.ndarray]] = []
        self.task_names: tuple[str, ...] = ()
        self._watched: Any = None  # the model of the last training
        self._observer: Any = None  # an object of its own for each model: the model's trace holds the sums

    def __deepcopy__(self, memo: dict[int, Any]) -> ConflictMonitor:
        """Return an unused monitor: a tuner copies its callbacks for every trial."""
        return type(self)(self.every_n_steps, self.at)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Let the model trace a step that measures."""
        model = self.model
        self._check_layers()
        self._release_interrupted()
        if self._watched is not model:
            self._watched, self._observer = model, self.measure
            self.task_names = tuple(task.name for task in model.tasks)
            with model.distribute_strategy.scope():
                self._sums = _accumulator(len(self.task_names))
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
            means = {name: total / count for name, total in zip(_MEASURES, sums, strict=True)}
        self.history.append({**means, "count": count.astype(int)})
        self._clear()
        if logs is not None:  # every key in every epoch, NaN or not: CSVLogger takes its columns from the first
            for name, matrix in means.items():
                for (i, a), (j, b) in itertools.combinations(enumerate(self.task_names), 2):
                    logs[f"{name}/{a}~{b}"] = float(matrix[i, j])

    def measure(self, step: TrainingStep) -> None:
        """Add a step to the sums if its turn has come; called by the model while it traces a step."""
        due = tf.equal(self.model.optimizer.iterations % self.every_n_steps, 0)

        def add() -> tf.Tensor:
            measured = pair_measures(gramian_at(step, step.output_gradients(), self.at), step.observed)
            self._sums.assign_add(tf.where(due, measured, 0.0))
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
        if isinstance(other, ConflictMonitor):
            other.on_train_end()
            # Keras passes the same `params` object to all callbacks of a training.
            together = other is not self and other.params is self.params
            require(not together, "One training takes one ConflictMonitor, since both would log the same names.")


def pair_measures(gramian: tf.Tensor, observed: tf.Tensor) -> tf.Tensor:
    """Return conflict (0 or 1), cosine, magnitude similarity and count (0 or 1) of all pairs of tasks [4, K, K].

    All four are 0 for a pair that is not counted: a task is unobserved, or its gradient zero or not finite.

    Args:
        gramian: inner products of the tasks' gradients [K, K], in any unit.
        observed: bool [K].
    """
    norms = tf.sqrt(tf.linalg.diag_part(gramian))
    known = observed & (norms > 0) & tf.math.is_finite(norms)
    counted = known[:, tf.newaxis] & known[tf.newaxis, :] & tf.math.is_finite(gramian)
    norms = tf.where(known, norms, 1.0)
    rows, columns = norms[:, tf.newaxis], norms[tf.newaxis, :]
    cosine = tf.clip_by_value(gramian / (rows * columns), -1.0, 1.0)
    magnitude = 2.0 / (rows / columns + columns / rows)  # the squares of the definition could overflow
    conflict = tf.cast(gramian < 0, tf.float32)
    return tf.where(counted, tf.stack([conflict, cosine, magnitude, tf.ones_like(cosine)]), 0.0)


def _accumulator(tasks: int) -> tf.Variable:
    return tf.Variable(
        tf.zeros([4, tasks, tasks]),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_WRITE,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
