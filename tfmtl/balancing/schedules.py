"""Weights that change with the epochs by a schedule fixed in advance."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl._trusted import deserialize
from tfmtl.balancing.balancer import Balancer


class WeightSchedule(abc.ABC):
    """One task's weight by epoch; constant from epoch `settled` on."""

    @abc.abstractmethod
    def at(self, epoch: int) -> float:
        """Return the weight in an epoch, counted from 0."""

    @property
    @abc.abstractmethod
    def settled(self) -> int:
        """The first epoch of the last weight."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> WeightSchedule:
        """Return the schedule of `get_config`."""
        return cls(**config)


@dataclasses.dataclass(frozen=True)
class _Ramp(WeightSchedule):
    start: float
    end: float
    epochs: int
    first_epoch: int = 0

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            object.__setattr__(self, name, _weight(getattr(self, name), f"`{name}`"))
        require_positive_int(epochs=self.epochs)
        valid = isinstance(self.first_epoch, int) and self.first_epoch >= 0
        require(valid, "`first_epoch` must be an integer of at least 0.", first_epoch=self.first_epoch)

    def at(self, epoch: int) -> float:
        """Return the weight in an epoch, counted from 0."""
        done = min(max((epoch - self.first_epoch) / self.epochs, 0.0), 1.0)
        return self.start + (self.end - self.start) * self._eased(done)

    @property
    def settled(self) -> int:
        """The first epoch of the last weight."""
        return self.first_epoch + self.epochs

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @abc.abstractmethod
    def _eased(self, done: float) -> float:
        """Return how much of the way from `start` to `end` is made when `done` of the epochs have passed."""


@register
@dataclasses.dataclass(frozen=True)
class LinearWeight(_Ramp):
    """A weight that moves in equal steps: start + (end - start) x, x = (epoch - first_epoch) / epochs within [0, 1].

    Args:
        start: weight up to `first_epoch`, 0 or more.
        end: weight from epoch `first_epoch + epochs` on, 0 or more.
        epochs: number of epochs it takes.
        first_epoch: the last epoch at `start`, counted from 0.

    Example:
        >>> [LinearWeight(1.0, 0.0, epochs=4).at(epoch) for epoch in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    def _eased(self, done: float) -> float:
        return done


@register
@dataclasses.dataclass(frozen=True)
class CosineWeight(_Ramp):
    """A weight that starts and ends slowly: start + (end - start) (1 - cos(pi x)) / 2, x as in `LinearWeight`.

    Args:
        start, end, epochs, first_epoch: as in `LinearWeight`.

    Example:
        >>> [round(CosineWeight(1.0, 0.0, epochs=4).at(epoch), 4) for epoch in range(6)]
        [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    """

    def _eased(self, done: float) -> float:
        return (1 - math.cos(math.pi * done)) / 2


@register
@dataclasses.dataclass(frozen=True)
class PiecewiseConstantWeight(WeightSchedule):
    """A weight that jumps at given epochs.

    Args:
        weights: weight by the epoch it holds from, counted from 0, until the next one; epoch 0 must be there.

    Example:
        >>> [PiecewiseConstantWeight({0: 1.0, 2: 0.5}).at(epoch) for epoch in range(4)]
        [1.0, 1.0, 0.5, 0.5]
    """

    weights: Mapping[int, float]

    def __post_init__(self) -> None:
        # JSON turns the epochs into strings.
        valid = all(isinstance(e, int) or (isinstance(e, str) and e.isdecimal()) for e in self.weights)
        table = {int(e): _weight(w, f"The weight of epoch {e}") for e, w in self.weights.items()} if valid else {}
        valid = valid and 0 in table and min(table) == 0
        require(valid, "`weights` must map epochs from 0 on, and 0 among them, to weights.", weights=self.weights)
        object.__setattr__(self, "weights", dict(sorted(table.items())))

    def at(self, epoch: int) -> float:
        """Return the weight in an epoch, counted from 0."""
        return self.weights[max(begin for begin in self.weights if begin <= max(epoch, 0))]

    @property
    def settled(self) -> int:
        """The first epoch of the last weight."""
        return max(self.weights)

    def get_config(self) -> dict[str, Any]:
        return {"weights": dict(self.weights)}


@register
class ScheduledWeights(Balancer):
    """Scheduled loss weights: the weighted sum of the losses, with weights that change from epoch to epoch.

    Use it for an auxiliary task that helps early and hurts late, or a task that needs a trained representation.

    objective = sum_i w_i(epoch) L_i, the epoch counted from 0 in the balancer's state: a resumed fit continues there.

    Args:
        schedules: by task name a `LinearWeight`, `CosineWeight`, `PiecewiseConstantWeight` or a number of at least 0;
            tasks without one have weight 1.

    Example:
        >>> balancer = ScheduledWeights({"rating": LinearWeight(1.0, 0.0, epochs=2)})
        >>> from tfmtl.balancing import BalancedTask
        >>> balancer.bind([BalancedTask("click"), BalancedTask("rating")])
        >>> balancer.end_epoch()
        >>> float(balancer(tf.constant([2.0, 4.0])))
        4.0

    Cost: none. The schedules have to be tuned, as `FixedWeights`.
    """

    task_arguments: ClassVar = {"schedules": 1.0}

    def __init__(self, schedules: Mapping[str, WeightSchedule | float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.schedules = {
            task: given if isinstance(given, WeightSchedule) else _weight(given, f"The weight of task {task!r}")
            for task, given in schedules.items()
        }

    def build_state(self) -> None:
        """Compute the weights of all epochs and create the counter."""
        given = self.in_task_order("schedules")
        ordered = [PiecewiseConstantWeight({0: s}) if isinstance(s, float) else s for s in given]
        epochs = 1 + max(schedule.settled for schedule in ordered)
        self._table = tuple(tuple(schedule.at(epoch) for schedule in ordered) for epoch in range(epochs))
        self._epoch = self.add_state("epoch", [])

    def call(
        self, losses: tf.Tensor, observed: tf.Tensor | None = None, *, training: bool = False, **extra: Any
    ) -> tf.Tensor:
        """Return the weighted sum; the loss of an unobserved task is 0."""
        return tf.tensordot(self.current_weights(), losses, axes=1)

    def current_weights(self) -> tf.Tensor:
        """Return the weights of the epoch."""
        row = tf.cast(tf.minimum(self._epoch, len(self._table) - 1.0), tf.int32)
        return tf.gather(tf.constant(self._table, tf.float32), row)

    def end_epoch(self) -> None:
        """Count the epoch."""
        self._epoch.assign_add(1.0)

    def get_config(self) -> dict[str, Any]:
        schedules = {
            task: given if isinstance(given, float) else keras.saving.serialize_keras_object(given)
            for task, given in self.schedules.items()
        }
        return {**super().get_config(), "schedules": schedules}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ScheduledWeights:
        """Return the balancer of `get_config`."""
        read = keras.saving.deserialize_keras_object
        schedules = {
            task: deserialize(read, given, "ScheduledWeights") if isinstance(given, Mapping) else given
            for task, given in config["schedules"].items()
        }
        return cls(**{**config, "schedules": schedules})


def _weight(given: Any, what: str) -> float:
    valid = isinstance(given, int | float | np.number) and bool(np.isfinite(given)) and given >= 0
    require(bool(valid), f"{what} must be a number of at least 0.", given=given)
    return float(given)
