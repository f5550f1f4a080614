"""Optimisers with the settings of another one and no state."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import keras

_HELD = (
    keras.optimizers.Optimizer,
    keras.optimizers.legacy.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
)


def fresh_copy(optimizer: Any) -> Any:
    """Return an optimiser with the same settings, and without state or variables.

    Classes of the user need no registration, as saving needs it: those of optimisers and schedules inside
    the given one are known.

    Example:
        >>> class Halved(keras.optimizers.schedules.LearningRateSchedule):
        ...     def __call__(self, step):
        ...         return 0.5
        ...
        ...     def get_config(self):
        ...         return {}
        >>> float(fresh_copy(keras.optimizers.SGD(Halved())).learning_rate)
        0.5
    """
    with keras.utils.custom_object_scope({kind.__name__: kind for kind in _kinds(optimizer)}):
        return type(optimizer).from_config(optimizer.get_config())


def _kinds(holder: Any) -> list[type]:
    """Return the classes of an optimiser or schedule and of those that it holds, as attributes or in a dictionary."""
    found, waiting = {id(holder): type(holder)}, [holder]
    while waiting:
        values = list(vars(waiting.pop()).values())
        values += [inner for value in values if isinstance(value, dict) for inner in value.values()]
        inside = [value for value in values if isinstance(value, _HELD) and id(value) not in found]
        found |= {id(value): type(value) for value in inside}
        waiting += inside
    return list(found.values())
