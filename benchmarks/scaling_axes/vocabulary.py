"""The time of a training step by rows of an embedding table, with LazyAdam and with Keras' Adam."""

from __future__ import annotations

import functools
from typing import Any

import optimizer_speed

from scaling_axes.curves import Axis, Measure, decades
from tfmtl import keras, training

BATCH_SIZE = 1024
LAZY, WHOLE = "step, LazyAdam, CPU", "step, Keras' Adam, CPU"


def vocabulary_axis(quick: bool) -> Axis:
    """Return the axis of rows of a table of width 32, with a long tail of ids; Keras' Adam up to a million rows."""
    makers = {
        LAZY: functools.partial(_measure, LAZY, training.LazyAdam, 64),
        WHOLE: functools.partial(_measure, WHOLE, keras.optimizers.Adam, 4),
    }
    sizes = {LAZY: decades(4, 7, quick), WHOLE: decades(4, 6, quick)}
    return Axis("rows of an embedding table of width 32", dict.fromkeys(makers, "ms"), makers, sizes)


def _measure(line: str, optimizer: Any, steps: int, rows: int) -> Measure:
    entrant = optimizer_speed.Entrant(rows, optimizer(1e-3), BATCH_SIZE, count=steps, tail=True)
    return lambda: {line: 1000 * entrant.time()[0]}
