"""Averages instead of weights: for validation, after training, for export."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tfmtl._checks import require
from tfmtl._keras import keras
from tfmtl.training.grouped_optimizer import GroupedOptimizer
from tfmtl.training.iterate_averages import IterateAverages


class SwapAverages(keras.callbacks.Callback):
    """Validates a model with the averages that its optimiser keeps, and leaves them in after training.

    While a test runs the weights hold the averages; after it they hold the iterates again, and training goes on from
    them. What saves weights at the end of an epoch, such as `ModelCheckpoint`, saves iterates, with the averages beside
    them in the optimiser. A next `fit` with this callback takes the averages out first.

    Args:
        after_fit: whether the averages stay in at the end of `fit`, for export; else use `averaged(model)`.

    Raises:
        ValueError: when training starts, if the model's optimiser keeps no averages.

    Example:
        >>> # model.compile(ASGD(0.1, start_step=1000))
        >>> # model.fit(table, validation_data=held_out, callbacks=[SwapAverages()])
        >>> # tfmtl.export(model, folder)  # the averages

    Cost: two passes over all weights a validation, and the memory of the largest variable.
    """

    def __init__(self, after_fit: bool = True) -> None:
        super().__init__()
        self.after_fit = after_fit
        self._swapped = False

    def on_train_begin(self, logs: Any = None) -> None:
        """Take averages out that an earlier training left in."""
        self._put(averages=False)

    def on_test_begin(self, logs: Any = None) -> None:
        """Put the averages in."""
        self._swapped = self._put(averages=True)

    def on_test_end(self, logs: Any = None) -> None:
        """Take them out, unless they were in before."""
        if self._swapped:
            self._put(averages=False)

    def on_train_end(self, logs: Any = None) -> None:
        """Leave the averages in, if this is asked for."""
        if self.after_fit:
            self._put(averages=True)

    def _put(self, averages: bool) -> bool:
        return _put(self.model, averages)


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[keras.Model]:
    """Put the averages that a model's optimiser keeps in for the block, and take them out after it.

    Args:
        model: compiled with an optimiser such as `ASGD`, alone, in a `GroupedOptimizer` or under a loss scale.

    Raises:
        ValueError: if the model's optimiser keeps no averages.

    Example:
        >>> from tfmtl._keras import tf
        >>> from tfmtl.training import ASGD
        >>> model = keras.Sequential([keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
        >>> model.compile(ASGD(1.0), "mse")
        >>> ones = tf.ones([1, 1])
        >>> model.fit(ones, 0 * ones, epochs=2, verbose=0) and None  # 1, -1, 1
        >>> with averaged(model):
        ...     float(model(ones)[0, 0])
        0.0
        >>> float(model(ones)[0, 0])
        1.0
    """
    swapped = _put(model, averages=True)
    try:
        yield model
    finally:
        if swapped:
            _put(model, averages=False)


def _put(model: keras.Model, averages: bool) -> bool:
    """Put averages in or out of a model's weights; return whether anything changed."""
    changed = False
    for optimizer, variables in _averaging(model):
        optimizer.build(variables)
        if optimizer.holds_averages != averages:
            optimizer.swap_averages(variables)
            changed = True
    return changed


def _averaging(model: keras.Model) -> list[tuple[Any, list[Any]]]:
    """Return the optimisers of a model that keep averages, each with its variables."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    variables = model.trainable_variables
    parts = optimizer.split(variables) if isinstance(optimizer, GroupedOptimizer) else [(optimizer, variables)]
    found = [(part, own) for part, own in parts if isinstance(part, IterateAverages)]
    require(bool(found), "The model's optimiser keeps no averages; use ASGD.", optimizer=type(optimizer).__name__)
    return found
