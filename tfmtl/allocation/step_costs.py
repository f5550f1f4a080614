"""The time of a training step by the tasks that it trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int, require_type
from tfmtl.allocation.affinity import Floats
from tfmtl.allocation.schedule import Phase, Schedule
from tfmtl.allocation.scheduled_training import ScheduledTraining
from tfmtl.data.source import as_source
from tfmtl.models import MultiTaskModel
from tfmtl.models.optimizer_parts import variables_of


@dataclasses.dataclass(frozen=True)
class StepCosts:
    """Seconds of a step: those that any step takes, and those that each of its tasks adds.

    seconds(S) = base + sum over k in S of by_task_k.

    Attributes:
        base: seconds of a step before any task: reading the batch, the layers that all tasks share, the optimizer.
        by_task: further seconds of each task.

    Raises:
        ValueError: if there is no task, a number is below 0 or not finite, or all are 0.

    Example:
        >>> round(StepCosts(0.002, {"click": 0.001, "watch": 0.004}).seconds(["click"]), 3)
        0.003
    """

    base: float
    by_task: Mapping[str, float]

    def __post_init__(self) -> None:
        values = np.array([self.base, *self.by_task.values()], np.float64)
        valid = len(values) > 1 and bool(np.isfinite(values).all()) and (values >= 0).all() and values.sum() > 0
        rule = "The seconds of a step must be finite, of at least 0, and not all 0."
        require(bool(valid), rule, base=self.base, by_task=dict(self.by_task))
        object.__setattr__(self, "by_task", dict(self.by_task))

    @classmethod
    def from_turns(cls, together: float, alone: Mapping[str, float]) -> StepCosts:
        """Return the costs by the seconds t of a step of all K tasks and of a step of each task alone.

        base = (sum_k t_k - t_all) / (K - 1), by_task_k = t_k - base, neither below 0, and all of them scaled so that
        their sum is t_all.

        Args:
            together: t_all.
            alone: t_k by task, of two tasks or more.

        Example:
            >>> StepCosts.from_turns(0.5, {"click": 0.25, "watch": 0.375})  # (0.625 - 0.5) / 1
            StepCosts(base=0.125, by_task={'click': 0.125, 'watch': 0.25})
        """
        require(len(alone) > 1, "`alone` must have two tasks or more.", alone=dict(alone))
        seconds = np.array(list(alone.values()), np.float64)
        base = min(max((seconds.sum() - together) / (len(seconds) - 1), 0.0), seconds.min())
        own = seconds - base
        scale = together / (base + own.sum())
        return cls(float(base * scale), dict(zip(alone, map(float, own * scale), strict=True)))

    def seconds(self, tasks: Collection[str]) -> float:
        """Return the seconds of a step of some tasks."""
        require_known(tasks, self.by_task, "task", "`tasks`")
        return self.base + sum(self.by_task[name] for name in tasks)

    def of(self, schedule: Schedule) -> list[float]:
        """Return the seconds of each phase of a schedule."""
        return [phase.steps * self.seconds(phase.tasks) for phase in schedule.phases]


def measure_step_costs(
    model: MultiTaskModel, x: Any, *, batch_size: int | None = None, steps: int = 32, rounds: int = 3,
    clock: Callable[[], float] | None = None,
) -> StepCosts:  # fmt: skip
    """Return the seconds that a training step of a model takes on this machine, by task.

    One training runs steps of all tasks and of each task alone in turns. The costs are those of `StepCosts.from_turns`
    by the medians over the turns. The variables of the model and its optimizer have their values again afterwards,
    except a loss scale.

    Args:
        model: a compiled model.
        x: training table, in any form that `fit` takes except data sets.
        batch_size: as in `fit`.
        steps: steps of each turn, 32 or more, since `fit` makes up to 32 in one call.
        rounds: turns of each set of tasks.
        clock: as in `ScheduledTraining`; on a shared machine, `time.process_time` with TensorFlow in one thread.

    Raises:
        RuntimeError: if the model is not compiled.
        ValueError: if a number is too small, the model has one task, or a strategy has several replicas.

    Cost: (K + 1) (rounds + 1) turns, of which the first of each set is not counted, a trace with K + 1 steps, and a
    copy of all variables.
    """
    require_type(model, MultiTaskModel, "model")
    require_positive_int(steps=steps, rounds=rounds)
    require(steps >= 32, "`steps` must be 32 or more, since `fit` makes up to 32 steps in one call.", steps=steps)
    require(not as_source(x).batched, "Costs are measured on a table, which `fit` repeats.", x=type(x).__name__)
    names = [task.name for task in model.tasks]
    require(len(names) > 1, "A model of one task has no time to share between tasks.", tasks=names)
    sets = [tuple(names), *((name,) for name in names)]
    seconds = _measured(model, x, batch_size, sets * (rounds + 1), steps, clock)
    whole, *each = seconds.reshape(rounds + 1, -1)[1:].T
    alone = dict(zip(names, np.median(each, axis=1) / steps, strict=True))
    return StepCosts.from_turns(float(np.median(whole)) / steps, alone)


def _measured(
    model: MultiTaskModel, x: Any, batch_size: int | None, turns: Sequence[tuple[str, ...]], steps: int,
    clock: Callable[[], float] | None,
) -> Floats:  # fmt: skip
    """Return the seconds of each turn of some steps, and leave all variables as they are."""
    schedule = Schedule([task.name for task in model.tasks], [Phase(steps, turn) for turn in turns])
    callback = ScheduledTraining(schedule, clock)
    variables = [*model.variables, *variables_of(model.optimizer, model.trainable_variables)]
    before = [variable.numpy() for variable in variables]
    model.optimizer.iterations.assign(0)
    try:
        total = callback.schedule.steps
        model.fit(x, batch_size=batch_size, steps_per_epoch=total, callbacks=[callback], verbose=0)
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        model.retrace()  # the trace holds a step for each turn
    return np.array(callback.seconds)
