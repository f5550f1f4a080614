"""Validation losses for balancers that learn from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, tf, traced
from tfmtl.balancing import Balancer
from tfmtl.data.source import as_source

_MEMORY_BYTES = 1 << 30


class HeldOutLosses(keras.callbacks.Callback):
    """Measures the tasks' losses on held-out rows every n-th step, for balancers that learn from them.

    It calls `Balancer.observe` before the first step and then after every n steps, with the mean loss of each task over
    all rows. Use rows that neither train nor choose between models: the balancer learns from them.

    Args:
        table: the rows, in any form that `fit` takes.
        every_n_steps: optimiser steps between two measurements; steps n, 2 n, ... of the optimiser's counter, across
            epochs. Keras calls it only after `steps_per_execution` steps, which `compile` takes.
        batch_size: rows per batch.

    Raises:
        ValueError: when training starts, if the balancer does not learn from validation losses or Keras calls callbacks
            more rarely than every n steps.

    Example:
        >>> # model = tfmtl.MultiTaskModel(network, tasks, preprocessor, ThompsonSampling(primary=["rating"]))
        >>> # model.fit(train, callbacks=[HeldOutLosses(held_out, every_n_steps=50)])
        >>> HeldOutLosses([], every_n_steps=50).every_n_steps
        50

    Cost: a forward pass over all rows every n steps.
    """

    def __init__(self, table: Any, every_n_steps: int = 32, batch_size: int = 4096) -> None:
        super().__init__()
        require_positive_int(every_n_steps=every_n_steps, batch_size=batch_size)
        self.table = table
        self.every_n_steps = every_n_steps
        self.batch_size = batch_size
        self._losses_of: Any = None
        self._step = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> HeldOutLosses:
        """Return an unused callback: a tuner copies its callbacks for every trial."""
        return type(self)(self.table, self.every_n_steps, self.batch_size)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Check the model and measure its losses before the first step."""
        model = self.model
        learns = type(model.balancer).observe is not Balancer.observe
        cure = "take one such as ThompsonSampling, or leave out HeldOutLosses"
        rule = f"The balancer of the model does not learn from validation losses; {cure}."
        require(learns, rule, balancer=type(model.balancer).__name__)
        steps = int(model.steps_per_execution.numpy())
        cure = f"compile(steps_per_execution={self.every_n_steps}) or a larger `every_n_steps`"
        rule = f"Keras calls callbacks every {steps} steps only; use {cure}."
        require(steps <= self.every_n_steps, rule, every_n_steps=self.every_n_steps)
        self._losses_of = LossesOnRows(model, self.table, self.batch_size)
        self._step = int(model.optimizer.iterations.numpy())
        if self._step == 0:
            model.balancer.observe(self.losses())

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Measure the losses if a multiple of n steps has passed."""
        step = int(self.model.optimizer.iterations.numpy())
        if step // self.every_n_steps > self._step // self.every_n_steps:
            self.model.balancer.observe(self.losses())
        self._step = step

    def losses(self) -> np.ndarray:
        """Return the mean loss of each task over all rows [K], not a number without any label."""
        return self._losses_of()


class LossesOnRows:
    """The mean losses of a model's tasks on the same rows, again and again.

    Args:
        model: a model.
        table: the rows, in any form that `fit` takes; those of a table stay in memory, encoded and cut into batches.
        batch_size: rows of a pass; the loss of retrieval depends on it.
    """

    def __init__(self, model: Any, table: Any, batch_size: int = 4096) -> None:
        self.model = model
        source = as_source(table).kept(model.preprocessor, _MEMORY_BYTES)
        batches = source.batches(model.preprocessor, batch_size)
        # An iterator of tf.data costs several times the forward pass over a few thousand rows.
        self._batches = batches if source.encoded is None else list(batches)
        self._sums_of = traced(lambda batch: _sums(model, batch))

    def __call__(self) -> np.ndarray:
        """Return the losses [K], not a number for a task without any label."""
        total = sum(self._sums_of(batch).numpy() for batch in self._batches)
        with np.errstate(invalid="ignore", divide="ignore"):
            means: np.ndarray = total[0] / total[1]
        return means


def _sums(model: Any, batch: Any) -> tf.Tensor:
    """Return each task's sum of losses over the rows of a batch, and the weight of these rows [2, K]."""
    losses = model.compute_losses(model.as_rows(batch), training=False)
    pairs = [losses[task.name] for task in model.tasks]
    return tf.stack([[loss * weight for loss, weight in pairs], [weight for _, weight in pairs]])
