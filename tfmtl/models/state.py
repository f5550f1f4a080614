"""What balancers and tasks remember beside their weights."""

from __future__ import annotations

from collections.abc import Sequence

from tfmtl._keras import keras, tf


def state_of(parts: Sequence[keras.layers.Layer]) -> list[tf.Variable]:
    """Return the variables of balancers and tasks, those of their metrics aside."""
    of_metrics = {id(variable) for part in parts for metric in part.metrics for variable in metric.variables}
    return [v for part in parts for v in part.weights if id(v) not in of_metrics]


def adopt(state: Sequence[tf.Variable], other: Sequence[tf.Variable]) -> None:
    """Copy a state, where it has the same shape; counts of more candidates than before begin as those before."""
    for own, theirs in zip(state, other, strict=True):
        if own.shape == theirs.shape:
            own.assign(theirs)
        elif own.name.split(":")[0].endswith("counts"):
            own.assign(tf.concat([theirs, own[theirs.shape[0] :]], axis=0))
