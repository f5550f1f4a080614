"""Which tasks are trained in which steps."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl.allocation.json_form import read_form, write_form


@dataclasses.dataclass(frozen=True)
class Phase:
    """Some steps with the same tasks.

    Attributes:
        steps: number of steps, 1 or more.
        tasks: names of the tasks that these steps train, one or more.
    """

    steps: int
    tasks: tuple[str, ...]

    def __post_init__(self) -> None:
        require_positive_int(steps=self.steps)
        tasks = tuple(self.tasks)
        valid = not isinstance(self.tasks, str) and len(tasks) > 0 and len(set(tasks)) == len(tasks)
        require(valid, "`tasks` of a phase must name one task or more, each once.", tasks=self.tasks)
        object.__setattr__(self, "tasks", tasks)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The tasks of each phase of a training; it prints as a table and is saved as JSON.

    `ScheduledTraining` makes `fit` follow it. `plan_schedule` finds one under a budget of time; compare it with the
    schedules `everything`, `round_robin`, `proportional` and `random`.

    Attributes:
        tasks: names of all K tasks of the model.
        phases: the phases in their order; neighbours with the same tasks are joined.
        seconds: expected seconds of each phase, or empty.
        gains: least expected share of the gain of training everything always, by task, or empty.

    Raises:
        ValueError: if there is no phase, or one names an unknown task.

    Example:
        >>> print(Schedule(["click", "buy"], [Phase(100, ("buy",)), Phase(50, ("click", "buy"))]))
        phase  from step  steps  tasks
        1      0          100    buy
        2      100        50     click, buy
        all               150    click 50, buy 150
    """

    tasks: Sequence[str]
    phases: Sequence[Phase]
    seconds: Sequence[float] = ()
    gains: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        names = tuple(self.tasks)
        require(len(names) > 0 and len(set(names)) == len(names), "`tasks` must have distinct names.", tasks=names)
        require(len(self.phases) > 0, "A schedule needs a phase or more.", phases=self.phases)
        for phase in self.phases:
            require_known(phase.tasks, names, "task", "a phase of the schedule")
        require_known(self.gains, names, "task", "`gains`")
        number = len(self.phases)
        valid = len(self.seconds) in (0, number)
        require(valid, "`seconds` must hold a number for each phase, or nothing.", seconds=self.seconds, phases=number)
        seconds = list(self.seconds) or [float("nan")] * number
        runs = itertools.groupby(zip(self.phases, seconds, strict=True), lambda pair: frozenset(pair[0].tasks))
        joined = [list(run) for _, run in runs]
        in_order = [tuple(name for name in names if name in run[0][0].tasks) for run in joined]
        phases = [Phase(sum(p.steps for p, _ in run), told) for run, told in zip(joined, in_order, strict=True)]
        object.__setattr__(self, "tasks", names)
        object.__setattr__(self, "phases", tuple(phases))
        object.__setattr__(self, "seconds", tuple(sum(s for _, s in run) for run in joined) if self.seconds else ())
        object.__setattr__(self, "gains", dict(self.gains))

    @property
    def steps(self) -> int:
        """The number of steps."""
        return sum(phase.steps for phase in self.phases)

    @property
    def steps_by_task(self) -> dict[str, int]:
        """The number of steps that train each task."""
        return {name: sum(p.steps for p in self.phases if name in p.tasks) for name in self.tasks}

    @classmethod
    def everything(cls, tasks: Sequence[str], steps: int) -> Schedule:
        """Return the schedule that trains all tasks in all steps."""
        return cls(tasks, [Phase(steps, tuple(tasks))])

    @classmethod
    def round_robin(cls, tasks: Sequence[str], steps: int, steps_per_phase: int = 1) -> Schedule:
        """Return the schedule that trains one task after another, each for some steps."""
        require_positive_int(steps=steps, steps_per_phase=steps_per_phase)
        turns = itertools.cycle([(name,) for name in tasks])
        return cls(tasks, [Phase(length, next(turns)) for length in _lengths(steps, steps_per_phase)])

    @classmethod
    def proportional(cls, shares: Mapping[str, float], steps: int, steps_per_phase: int = 1, seed: int = 0) -> Schedule:
        """Return the schedule that trains one task in each phase, drawn with probabilities in proportion to `shares`.

        Args:
            shares: a number of at least 0 for each task, such as its number of labels.
            steps: number of steps.
            steps_per_phase: steps between two draws.
            seed: seed of the draws.
        """
        require_positive_int(steps=steps, steps_per_phase=steps_per_phase)
        values = np.array(list(shares.values()), np.float64)
        valid = len(values) > 0 and bool(np.isfinite(values).all()) and (values >= 0).all() and values.sum() > 0
        require(bool(valid), "`shares` must be numbers of at least 0 that are not all 0.", shares=dict(shares))
        lengths, names = _lengths(steps, steps_per_phase), list(shares)
        drawn = np.random.default_rng(seed).choice(len(names), len(lengths), p=values / values.sum())
        return cls(names, [Phase(length, (names[i],)) for length, i in zip(lengths, drawn, strict=True)])

    @classmethod
    def random(
        cls, tasks: Sequence[str], steps: int, steps_per_phase: int = 1, share: float = 0.5, seed: int = 0
    ) -> Schedule:
        """Return the schedule that trains each task in each phase with a probability, and always one task or more.

        Args:
            tasks: names of all tasks.
            steps: number of steps.
            steps_per_phase: steps between two draws.
            share: the probability, above 0 and at most 1.
            seed: seed of the draws.
        """
        require_positive_int(steps=steps, steps_per_phase=steps_per_phase)
        require(0 < share <= 1, "`share` must be above 0 and at most 1.", share=share)
        rng, phases = np.random.default_rng(seed), []
        for length in _lengths(steps, steps_per_phase):
            chosen = [name for name in tasks if rng.random() < share] or [tasks[int(rng.integers(len(tasks)))]]
            phases.append(Phase(length, tuple(chosen)))
        return cls(tasks, phases)

    def save(self, path: str | pathlib.Path) -> None:
        """Write the schedule to a JSON file; an older file is replaced in one step."""
        write_form(path, "schedule", dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | pathlib.Path) -> Schedule:
        """Return the schedule of a file that `save` wrote.

        Raises:
            ValueError: if the file holds no schedule.
        """
        values = read_form(path, "schedule")
        return cls(**{**values, "phases": [Phase(**phase) for phase in values["phases"]]})

    def table(self, measured: Sequence[float] = ()) -> str:
        """Return the schedule as text, with the expected and the measured seconds of each phase if there are any."""
        columns = {"expected s": self.seconds, "measured s": measured}
        given = {name: values for name, values in columns.items() if len(values)}
        starts = np.cumsum([0, *(phase.steps for phase in self.phases)])
        lines = [["phase", "from step", "steps", *given, "tasks"]]
        for i, phase in enumerate(self.phases):
            numbers = [str(i + 1), str(starts[i]), str(phase.steps), *(f"{v[i]:.1f}" for v in given.values())]
            lines.append([*numbers, ", ".join(phase.tasks)])
        by_task = [f"{name} {steps}" + self._gain(name) for name, steps in self.steps_by_task.items()]
        sums = [f"{np.nansum(values):.1f}" for values in given.values()]
        lines.append(["all", "", str(self.steps), *sums, ", ".join(by_task)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def _gain(self, name: str) -> str:
        return f" ({self.gains[name]:.1%} of the gain)" if name in self.gains else ""

    def __str__(self) -> str:
        return self.table()


def _lengths(steps: int, steps_per_phase: int) -> list[int]:
    """Return the lengths of phases that add up to `steps`."""
    return [min(steps_per_phase, steps - start) for start in range(0, steps, steps_per_phase)]
