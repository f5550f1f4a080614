"""The two Keras 2 callbacks a trial runs with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tfmtl._keras import keras
from tfmtl.tuning._keras_tuner import keras_tuner


class EpochRelay(keras.callbacks.Callback):
    """Call the tuner's `on_epoch_begin` and `on_epoch_end`.

    Its batch hooks are not called: they would make every training step wait for the logs.
    """

    def __init__(self, tuner: keras_tuner.Tuner, trial: Any) -> None:
        super().__init__()
        self.tuner = tuner
        self.trial = trial

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Tell the tuner that an epoch begins."""
        self.tuner.on_epoch_begin(self.trial, self.model, epoch, logs=logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Tell the tuner that an epoch has ended."""
        self.tuner.on_epoch_end(self.trial, self.model, epoch, logs=logs)


class BestCheckpoint(keras.callbacks.Callback):
    """Keep the weights and the optimizer's state of the best epoch over all fits it is given to.

    The TensorFlow checkpoint format restores variables that do not exist yet, hence also subclassed models that are
    only built by their first batch. Without a value of the objective in the logs every epoch overwrites the last.

    Args:
        objective: orders the epochs.
        path: prefix of the checkpoint's files.
    """

    def __init__(self, objective: keras_tuner.Objective, path: str) -> None:
        super().__init__()
        self.objective = objective
        self.path = path
        self.best: float | None = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Save the model if this epoch is the best so far."""
        if self.objective.has_value(logs or {}):
            value = float(self.objective.get_value(logs))
            if not self._improves(value):
                return
            self.best = value
        self.model.save_weights(self.path, save_format="tf")

    def _improves(self, value: float) -> bool:
        return math.isfinite(value) and (self.best is None or self.objective.better_than(value, self.best))
