"""Gradients on a meta split, for balancers that learn weights from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import tf
from tfmtl._replicas import all_reduce
from tfmtl.balancing import MetaWeights, TrainingStep
from tfmtl.balancing.gramian import Gradient, gramian_of, join
from tfmtl.data.frames import rows_of
from tfmtl.data.source import as_source
from tfmtl.training.step_observer import StepObserver

_MEMORY_BYTES = 1 << 30


class MetaGradients(StepObserver):
    """Compares the tasks' gradients on the training batch and on rows of a meta split, for `MetaWeights` balancers.

    In every n-th step the balancer gets the inner products of the gradients of all trainable variables, g_i on the
    batch of the step and v_i on rows of the meta split in inference mode, and changes the weights of the next steps.
    The meta split is a third one: the weights are fitted to it, so that it cannot judge models.

    Args:
        table: rows of the meta split, in any form that `fit` takes and that fits in memory.
        every_n_steps: optimiser steps between two measurements; steps 0, n, 2 n, ... of the optimiser's counter, across
            epochs.
        batch_size: rows of a measurement, drawn with replacement; all rows if there are no more.
        seed: seed of the draws; a draw depends on the seed and the step.

    Raises:
        ValueError: when training starts, if the balancer is none of `MetaWeights`, the table does not fit in memory, or
            another callback observes the steps.

    Example:
        >>> # model = tfmtl.MultiTaskModel(network, tasks, preprocessor, AutoLambda())
        >>> # model.fit(train, validation_data=validation, callbacks=[MetaGradients(meta)])
        >>> MetaGradients([], every_n_steps=20).every_n_steps
        20

    Cost: at the n-th steps 2 K backward passes and a forward pass, with 8 tasks as much as several steps; under a
    strategy with several replicas every step pays, since replicas cannot communicate in a branch.
    """

    def __init__(self, table: Any, every_n_steps: int = 64, batch_size: int = 1024, seed: int = 0) -> None:
        super().__init__(every_n_steps)
        require_positive_int(batch_size=batch_size)
        self.table = table
        self.batch_size = batch_size
        self.seed = seed
        self._rows: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> MetaGradients:
        """Return an unused callback: a tuner copies its callbacks for every trial."""
        return type(self)(self.table, self.every_n_steps, self.batch_size, self.seed)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Let the model trace a step that measures."""
        model = self.model
        learns = isinstance(model.balancer, MetaWeights)
        rule = "MetaGradients are for a balancer such as AutoLambda or MultiDDS; take one, or leave out MetaGradients."
        require(learns, rule, balancer=type(model.balancer).__name__)
        super().on_train_begin(logs)

    def prepare(self, model: Any) -> None:
        """Encode the rows."""
        rows = as_source(self.table).kept(model.preprocessor, _MEMORY_BYTES).encoded
        require(rows is not None, "The meta split must fit in memory; give a smaller table.")
        self._rows = rows

    def observe(self, step: TrainingStep, due: tf.Tensor) -> None:
        """Give the balancer the inner products."""
        gramian, observed = self._measured(step)
        self.model.balancer.learn(gramian, observed & due)

    def _measured(self, step: TrainingStep) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the inner products [2K, 2K] of the gradients, and whether tasks have labels in both batches [K]."""
        model, variables = self.model, list(step.variables)
        with tf.GradientTape(persistent=True) as tape:
            losses = model.compute_losses(model.as_rows(self._drawn()), training=False)
            scaled = [step.scale * losses[task.name][0] for task in model.tasks]
        training = [_reduced(step.tape.gradient(loss, variables)) for loss in step.losses]
        meta = [tape.gradient(loss, variables) for loss in scaled]
        joined = [join(gradients) for gradients in zip(*training, *meta, strict=True)]
        gramian = gramian_of([gradients for gradients in joined if gradients is not None]) / step.scale**2
        weights = tf.stack([losses[task.name][1] for task in model.tasks])
        return gramian, step.observed & (weights > 0)

    def _drawn(self) -> Any:
        """Return rows of the meta split."""
        rows = rows_of(self._rows)
        if rows <= self.batch_size:
            return self._rows
        seed = tf.stack([tf.constant(self.seed, tf.int64), tf.cast(self.model.optimizer.iterations, tf.int64)])
        chosen = tf.random.stateless_uniform([self.batch_size], seed, 0, rows, tf.int64)
        return tf.nest.map_structure(lambda column: tf.gather(column, chosen), self._rows)


def _reduced(gradients: Sequence[Gradient]) -> list[Gradient]:
    return [None if gradient is None else all_reduce(gradient) for gradient in gradients]
