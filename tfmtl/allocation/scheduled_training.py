"""A callback by which `fit` follows a schedule of tasks."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from tfmtl._checks import require, require_known, require_type
from tfmtl._keras import keras, tf
from tfmtl.allocation.schedule import Schedule
from tfmtl.data import Batch

logger = logging.getLogger(__name__)


class ScheduledTraining(keras.callbacks.Callback):
    """Trains in each step of `fit` only the tasks that a schedule names for it.

    For all other tasks the loss, the head and the layers of their own are not computed, and variables that only they
    reach stay as they are; for the balancer they are tasks without a label in the batch. Each set of tasks is traced
    once; a traced step chooses between the sets by the optimizer's counter, so that a training that is interrupted and
    resumed with its optimizer, such as by `keras.callbacks.BackupAndRestore`, goes on in the phase where it was.

    After the last phase no step trains anything, and the training ends with the epoch.

    Args:
        schedule: the schedule, of all tasks of the model; its step 0 is step 0 of the optimizer's counter, so that a
            model that was trained before, as by a probe, begins in a later phase.
        clock: returns the time in seconds, such as `time.process_time`, which other processes do not change; None reads
            the time of day in the traced step.

    Attributes:
        seconds: measured seconds of each phase of the last training, with those of reading the data, and of validation
            and other callbacks if an epoch ends in the phase; NaN for a phase that was not run. Tracing counts in the
            phase of the first step.

    Raises:
        ValueError: when training starts, if the tasks are not those of the model, the optimizer's counter is beyond the
            schedule, or a strategy has several replicas, which cannot communicate in a branch.

    Example:
        >>> from tfmtl.allocation import Phase
        >>> schedule = Schedule(["click", "buy"], [Phase(100, ("buy",)), Phase(50, ("click", "buy"))])
        >>> callback = ScheduledTraining(schedule)
        >>> # model.fit(table, epochs=10, callbacks=[callback]); print(callback.report())

    The log has a loss of 0 for a task that no step of the epoch trained; compare by `val_unweighted_loss`.

    Cost: a trace for each set of tasks. Validation computes all tasks.
    """

    def __init__(self, schedule: Schedule, clock: Callable[[], float] | None = None) -> None:
        super().__init__()
        require_type(schedule, Schedule, "schedule", "Pass a `Schedule`, such as that of `plan_schedule`.")
        self.schedule, self.clock = schedule, clock
        self._ended: Any = None
        self._hook: Any = None  # an object of its own for each model: a trace holds the clock
        self._scheduled: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> ScheduledTraining:
        """Return an unused callback: a tuner copies its callbacks for every trial."""
        return type(self)(self.schedule, self.clock)

    @property
    def seconds(self) -> tuple[float, ...]:
        """Measured seconds of each phase."""
        ended = np.full(len(self.schedule.phases) + 1, np.nan) if self._ended is None else self._ended.numpy()
        return tuple(np.diff(np.where(ended > 0, ended, np.nan)))

    def report(self) -> str:
        """Return the schedule as text with the measured seconds beside the expected ones."""
        return self.schedule.table(self.seconds)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Let the model trace a step that chooses its tasks."""
        names = [task.name for task in self.model.tasks]
        require_known(self.schedule.tasks, names, "task", "the schedule")
        require_known(names, self.schedule.tasks, "task", "the model; give the schedule all of its tasks")
        replicas = self.model.distribute_strategy.num_replicas_in_sync
        require(replicas == 1, "A schedule takes one replica; train without a strategy.", replicas=replicas)
        done, steps = int(self.model.optimizer.iterations), self.schedule.steps
        cure = "train another model, or compile this one again"
        require(done < steps, f"The optimizer is beyond the schedule; {cure}.", iterations=done, steps=steps)
        if self._scheduled is not self.model:
            self._scheduled, self._hook = self.model, self._make_step
            self._ended = tf.Variable(tf.zeros([len(self.schedule.phases) + 1], tf.float64), trainable=False)
        self._ended.assign(tf.zeros_like(self._ended))
        self._ended[self._phase()].assign(self._now())
        self.model.schedule_steps(self._hook)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Let the model train all tasks again; warn if the training ended before the schedule."""
        self.model.schedule_steps(None)
        done, steps = int(self.model.optimizer.iterations), self.schedule.steps
        if done < steps:
            rule = "The training ended after %d of the %d steps of its schedule; give `fit` more epochs."
            logger.warning(rule, done, steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """End the training after the last phase."""
        if int(self.model.optimizer.iterations) >= self.schedule.steps:
            self.model.stop_training = True

    def _now(self) -> tf.Tensor:
        if self.clock is None:
            return tf.timestamp()
        return tf.ensure_shape(tf.numpy_function(lambda: np.float64(self.clock()), [], tf.float64), [])

    def _phase(self) -> tf.Tensor:
        """Return the number of the phase of the next step."""
        ends = np.cumsum([phase.steps for phase in self.schedule.phases])
        step = tf.cast(tf.convert_to_tensor(self.model.optimizer.iterations), tf.int64)
        return tf.searchsorted(tf.constant(ends, tf.int64), step[tf.newaxis], side="right")[0]

    def _make_step(self, rows: Batch) -> dict[str, tf.Tensor]:
        sets = list(dict.fromkeys(phase.tasks for phase in self.schedule.phases))
        numbers = [*(sets.index(phase.tasks) for phase in self.schedule.phases), len(sets)]
        phase = self._phase()
        steps = [functools.partial(self.model.make_step, rows, tasks) for tasks in sets]
        logs = tf.switch_case(tf.gather(numbers, phase), [*steps, self.model.get_metrics_result])
        last = len(self.schedule.phases)
        with tf.control_dependencies(tf.nest.flatten(logs)):
            now = self._now()
        self._ended.scatter_nd_update([[tf.minimum(phase + 1, last)]], [tf.where(phase < last, now, self._ended[last])])
        return logs
