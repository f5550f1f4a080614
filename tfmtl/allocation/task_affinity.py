"""The effect of a step on one task on the losses of the others, measured while training."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from tfmtl._checks import require, require_known
from tfmtl._keras import tf
from tfmtl._replicas import mean_over_replicas, replicas
from tfmtl.allocation.affinity import Affinity
from tfmtl.balancing import TrainingStep
from tfmtl.balancing.gramian import TaskGradients, gramian_of
from tfmtl.balancing.step_gradients import At, gradients_by_task, gramian_at, require_reached
from tfmtl.training.pair_monitor import PairMonitor

_FORMS = ("first_order", "lookahead")


class TaskAffinity(PairMonitor):
    """Measures, every n-th step, how much a step on each task lowers the losses of the others, under any balancer.

    form="lookahead": Z_ij = (L_j(theta_s, theta_j) - L_j(theta_s - eta g_i, theta_j)) / |L_j(theta_s, theta_j)|, with
    theta_s the shared variables that are trained, theta_j the others that task j reads, and both losses those of the
    batch in inference mode. form="first_order": Z_ij = eta g_i . g_j / |L_j|, its first term for a small eta, which
    needs no further forward pass.

    The epoch's means enter its log as `affinity/<i>~<j>`, the effect of task i on task j, for each ordered pair.
    Training itself stays as it is. Give `affinity` to `group_tasks`.

    Args:
        every_n_steps: optimiser steps between two measurements, 1 or more, as in `ConflictMonitor`.
        form: `"first_order"` or `"lookahead"`.
        at: where gradients of the first-order form are taken, as in `GramianBalancer`: `"representation"`, cheap and in
            units of the representation, `"shared"` or names of layers. "lookahead" has `"shared"` always.
        learning_rate: eta, above 0. The first-order form is proportional to it.

    Attributes:
        history: one dict an epoch of the last `fit`: `"affinity"` [K, K], and `"count"`, the number of measurements.
        task_names: names of the K tasks.

    Raises:
        ValueError: if an argument is out of its range; when training starts, if a named layer does not exist, another
            monitor of pairs takes part, or "lookahead" shall run on several replicas.

    Example:
        >>> monitor = TaskAffinity(every_n_steps=10)
        >>> # model.fit(table, callbacks=[monitor])
        >>> # print(group_tasks(monitor.affinity, num_networks=2))
        >>> values = first_order(tf.constant([[4.0, -2.0], [-2.0, 9.0]]), tf.constant([0.5, 2.0]), 0.1)
        >>> [[round(float(value), 2) for value in row] for row in values]
        [[0.8, -0.1], [-0.4, 0.45]]

    Reference:
        Fifty et al., "Efficiently Identifying Task Groupings for Multi-Task Learning", NeurIPS 2021,
        https://arxiv.org/abs/2109.04617, equation 1. There the step is that of the optimizer; here it is a plain
        gradient step, so that all tasks are compared at one state, and no state of the optimizer changes.

    Left open there and decided here: losses below 0 count by their size; a pair is measured in a batch that has labels
    of both tasks; a value that is not finite, or a loss of 0, is not counted; the diagonal is measured and shown, but
    `Affinity` does not read it.

    Cost: "lookahead", at the n-th steps K backward and K + 1 forward passes, and a copy of the shared variables, of
    embedding tables only the rows of the batch; "first_order", K backward passes down to the location.
    """

    measures = ("affinity",)

    def __init__(
        self,
        every_n_steps: int = 10,
        form: str = "first_order",
        at: At = "representation",
        learning_rate: float = 0.01,
    ) -> None:
        super().__init__(every_n_steps, at)
        require_known([form], _FORMS, "form", "`form`")
        valid = isinstance(learning_rate, int | float) and np.isfinite(learning_rate) and learning_rate > 0
        require(valid, "`learning_rate` must be a number above 0.", learning_rate=learning_rate)
        self.form, self.learning_rate = form, float(learning_rate)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Let the model trace a step that measures."""
        number = self.model.distribute_strategy.num_replicas_in_sync
        rule = 'The form "lookahead" takes one replica; choose "first_order", or train without a strategy.'
        require(self.form == "first_order" or number == 1, rule, replicas=number)
        super().on_train_begin(logs)

    @property
    def affinity(self) -> Affinity:
        """The mean over all measurements of the last training.

        Raises:
            ValueError: if a pair was not measured.
        """
        require(bool(self.history), "No epoch has been measured; give the callback to `fit` first.")
        counts = np.array([epoch["count"] for epoch in self.history])
        sums = [np.where(n > 0, epoch["affinity"] * n, 0.0) for epoch, n in zip(self.history, counts, strict=True)]
        total = counts.sum(axis=0)
        names = self.task_names
        without = [(names[i], names[j]) for i, j in self.logged_pairs() if total[i, j] == 0]
        rule = f"The pairs {without} were never measured; train longer, or with a smaller `every_n_steps`."
        require(not without, rule, every_n_steps=self.every_n_steps)
        return Affinity(names, np.sum(sums, axis=0) / np.maximum(total, 1))

    def logged_pairs(self) -> Iterable[tuple[int, int]]:
        """Return all ordered pairs of two tasks."""
        return itertools.permutations(range(len(self.task_names)), 2)

    def pair_values(self, step: TrainingStep) -> tf.Tensor:
        """Return the affinities and their counts [2, K, K] of a step."""
        if self.form == "lookahead":
            values = lookahead(step, self.learning_rate)
        else:
            gramian = self._gramian(step) / step.scale**2
            losses = mean_over_replicas(replicas() * tf.stack(list(step.losses)) / step.scale)
            values = first_order(gramian, losses, self.learning_rate)
        counted = step.observed[:, tf.newaxis] & step.observed[tf.newaxis, :] & tf.math.is_finite(values)
        return tf.where(counted, tf.stack([values, tf.ones_like(values)]), 0.0)

    def _gramian(self, step: TrainingStep) -> tf.Tensor:
        deltas = step.output_gradients()
        if self.at != "shared":
            return gramian_at(step, deltas, self.at)
        joined = gradients_by_task(step, deltas, trained_shared(step), reduce=True)
        return gramian_of(require_reached(self.at, joined))


def trained_shared(step: TrainingStep) -> list[tf.Variable]:
    """Return the shared variables that the step trains; `step.shared` has those that were frozen later, too."""
    trained = {id(variable) for variable in step.variables}
    return [variable for variable in step.shared if id(variable) in trained]


def first_order(gramian: tf.Tensor, losses: tf.Tensor, learning_rate: float) -> tf.Tensor:
    """Return Z_ij = eta g_i . g_j / |L_j| [K, K]; not finite where L_j is 0.

    Args:
        gramian: inner products of the gradients [K, K].
        losses: losses [K].
        learning_rate: eta.
    """
    return learning_rate * gramian / tf.abs(losses)[tf.newaxis, :]


def lookahead(step: TrainingStep, learning_rate: float) -> tf.Tensor:
    """Return Z_ij = (L_j(theta_s) - L_j(theta_s - eta g_i)) / |L_j(theta_s)| [K, K]; the variables stay as they are.

    Args:
        step: the step, on one replica.
        learning_rate: eta.
    """
    shared = trained_shared(step)
    joined = gradients_by_task(step, step.output_gradients(), shared)
    pairs = [(variable, found) for variable, found in zip(shared, joined, strict=True) if found is not None]
    saved = [_rows_of(variable, found) for variable, found in pairs]
    before = step.losses_now()
    values = []
    for task in range(len(step.losses)):
        for (variable, found), value in zip(pairs, saved, strict=True):
            moved = learning_rate / step.scale * found.values[task]
            _assign(variable, found, value - tf.cast(moved, value.dtype))
        values.append((before - step.losses_now()) / tf.abs(before))
        _restore(pairs, saved)
    return tf.stack(values)


def _restore(pairs: Sequence[tuple[tf.Variable, TaskGradients]], saved: Sequence[tf.Tensor]) -> None:
    for (variable, found), value in zip(pairs, saved, strict=True):
        _assign(variable, found, value)


def _rows_of(variable: tf.Variable, found: TaskGradients) -> tf.Tensor:
    """Return a copy of a variable, of an embedding table only the rows that the batch touches."""
    return tf.identity(variable) if found.rows is None else tf.gather(variable, found.rows)


def _assign(variable: tf.Variable, found: TaskGradients, value: tf.Tensor) -> None:
    if found.rows is None:
        variable.assign(value)
    else:
        variable.scatter_update(tf.IndexedSlices(value, found.rows))
