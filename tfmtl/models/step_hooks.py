"""Functions that take part in every training step: observers and schedules."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

from tfmtl._keras import tf, traced
from tfmtl.balancing import TrainingStep
from tfmtl.data import Batch
from tfmtl.models.one_batch import OneBatch, unpacked

StepSchedule = Callable[[Batch], dict[str, tf.Tensor]]
"""Chooses the tasks of the steps on the rows of a batch and makes them; see `StepHooks.schedule_steps`."""


class StepHooks(OneBatch, abc.ABC):
    """A training step that is traced once, with an observer and a schedule if a callback sets them."""

    step_observer: Callable[[TrainingStep], object] | None = None
    """The observer that `observe_steps` set."""
    step_schedule: StepSchedule | None = None
    """The schedule that `schedule_steps` set."""
    _last_hooks: tuple[object, object] = (None, None)

    @abc.abstractmethod
    def as_rows(self, data: Any) -> Any:
        """Return the events of `Sequences` as rows, or a `Batch` unchanged."""

    @abc.abstractmethod
    def make_step(self, data: Batch, tasks: Collection[str] | None = None) -> dict[str, tf.Tensor]:
        """Make one training step of the tasks with these names, by default of all, and return the running means."""

    def train_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """Make one step and return the running means."""
        data = unpacked(data)
        if self.run_eagerly or tf.distribute.has_strategy():
            return self._train_on(data)
        plain = self.step_observer is None and self.step_schedule is None
        return self._traced_train_on(data) if plain else self._hooked_train_on(data)

    def _train_on(self, data: Batch) -> dict[str, tf.Tensor]:
        arrived = tf.group(*tf.nest.flatten(data))  # one control edge per operation, not one per column
        with tf.control_dependencies([arrived]):  # otherwise counters increase beyond the end of a data set
            rows = self.as_rows(data)
            return self.make_step(rows) if self.step_schedule is None else self.step_schedule(rows)

    def trace_steps(self) -> None:
        """Trace the steps again."""
        self._traced_train_on, self._hooked_train_on = traced(self._train_on), traced(self._train_on)

    def observe_steps(self, observer: Callable[[TrainingStep], object] | None) -> None:
        """Call a function in every training step, or stop calling it, even during `fit`.

        Use it in callbacks that measure gradients while training, such as `tfmtl.training.ConflictMonitor`. A traced
        step calls the function once, while it is traced, so that its TensorFlow operations become part of the step.
        The step without observer and that of the last observer keep their traces: an observer that is set again, as the
        same object, costs no second trace.

        Args:
            observer: receives the `tfmtl.balancing.TrainingStep` before the balancer reads it; None to stop.
        """
        self._set_hooks(observer, self.step_schedule)

    def schedule_steps(self, schedule: StepSchedule | None) -> None:
        """Let a function make the training steps of every batch, or train all tasks again, even during `fit`.

        Use it in callbacks that choose the tasks of a step, such as `tfmtl.allocation.ScheduledTraining`. A
        traced step calls the function once, while it is traced; traces are kept as by `observe_steps`.

        Args:
            schedule: receives the rows of the batch, passes them to `make_step` with the names of the tasks, once or
                more often, and returns the logs; it may choose between sets of tasks by `tf.switch_case`. None to stop.
        """
        self._set_hooks(self.step_observer, schedule)

    @contextlib.contextmanager
    def hooks_kept(self) -> Iterator[None]:
        """Restore the observer and the schedule at the end: Keras ends no callbacks after an exception."""
        before = self.step_observer, self.step_schedule
        try:
            yield
        except BaseException:
            self._set_hooks(*before)
            raise

    def _set_hooks(self, observer: Callable[[TrainingStep], object] | None, schedule: StepSchedule | None) -> None:
        hooks = observer, schedule
        same = all(hook is last for hook, last in zip(hooks, self._last_hooks, strict=True))
        if not same and any(hook is not None for hook in hooks):
            self._last_hooks, self._hooked_train_on = hooks, traced(self._train_on)
        self.step_observer, self.step_schedule = hooks
        self._renew_training_loop()

    def _renew_training_loop(self) -> None:
        """Make Keras' loop around the step again, which holds the step that it was made of."""
        if self.train_function is not None:
            self.make_train_function(force=True)
