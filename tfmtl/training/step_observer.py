"""The base of callbacks that take part in every n-th training step."""

from __future__ import annotations

import abc
from typing import Any

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, tf
from tfmtl._replicas import replicas
from tfmtl.balancing import TrainingStep


class StepObserver(keras.callbacks.Callback, abc.ABC):
    """Observes every n-th step of a training inside the traced step; one training takes one such callback.

    Subclasses implement `observe`, and `prepare` if they hold state for the model.

    Args:
        every_n_steps: optimiser steps between two observations, 1 or more; steps 0, n, 2 n, ... of the optimiser's
            counter, across epochs.
    """

    def __init__(self, every_n_steps: int) -> None:
        super().__init__()
        require_positive_int(every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self._watched: Any = None  # the model of the last training
        self._observer: Any = None  # an object of its own for each model: the model's trace holds the state

    @abc.abstractmethod
    def observe(self, step: TrainingStep, due: tf.Tensor) -> None:
        """Observe a step; called while it is traced.

        Args:
            step: the step.
            due: whether it is an n-th step; state must not change otherwise. On one replica it always is.
        """

    def prepare(self, model: Any) -> None:
        """Create the state for a model, before its first training with this callback."""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Let the model trace a step that is observed."""
        model = self.model
        other = getattr(model.step_observer, "__self__", None)
        # Keras passes the same `params` object to all callbacks of a training.
        together = isinstance(other, StepObserver) and other is not self and other.params is self.params
        cure = "leave out one, or set `cosines=False` of `LearnedWeights`"
        names = f"{type(other).__name__} and {type(self).__name__}"
        require(not together, f"One callback observes the steps of a training, not {names}; {cure}.")
        if self._watched is not model:
            self.prepare(model)
            self._watched, self._observer = model, self.measure
        model.observe_steps(self._observer)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """End the observation."""
        self.model.observe_steps(None)

    def measure(self, step: TrainingStep) -> None:
        """Observe a step if its turn has come; called by the model while it traces a step."""
        due = tf.equal(self.model.optimizer.iterations % self.every_n_steps, 0)

        def observed() -> tf.Tensor:
            self.observe(step, due)
            return tf.constant(True)

        if replicas() > 1:  # replicas cannot communicate in a branch
            observed()
        else:
            tf.cond(due, observed, lambda: tf.constant(False))
