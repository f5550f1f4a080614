"""A schedule of tasks under a budget of time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_known, require_positive_int, require_type
from tfmtl.allocation.affinity import Floats
from tfmtl.allocation.learning_curves import LearningCurve
from tfmtl.allocation.plans.exact import exact
from tfmtl.allocation.plans.genetic import genetic
from tfmtl.allocation.plans.greedy import greedy
from tfmtl.allocation.plans.problem import Counts, Problem
from tfmtl.allocation.schedule import Phase, Schedule
from tfmtl.allocation.step_costs import StepCosts

logger = logging.getLogger(__name__)

_FAST = 0.25
"""A task with half of its gain in this share of the steps is fast: half of the steps have 5/6 of its gain or more."""

Flags = npt.NDArray[np.bool_]
Solver = Callable[[Problem, int], Counts]
SOLVERS: Mapping[str, Solver] = MappingProxyType({"exact": exact, "greedy": greedy, "genetic": genetic})


def plan_schedule(
    costs: StepCosts, curves: Mapping[str, LearningCurve], num_steps: int, *, share: float | None = None,
    seconds: float | None = None, num_phases: int = 20, weights: Mapping[str, float] | None = None,
    solver: str = "exact", seed: int = 0,
) -> Schedule:  # fmt: skip
    """Return the schedule with the largest gain that the curves guarantee, within a budget of time.

    Use it where some tasks cost much of a step and learn fast, so that they need not be in every step: the time goes to
    steps of the others, or is saved.

    max over m in 0 ... P of sum_k w_k share_k(m_k n) subject to n (base max(m) + sum_k by_task_k m_k) <= budget, with
    n = num_steps / P steps in a phase and share_k = `LearningCurve.least_share`, the least gain that the measurements
    allow. A task takes part in its m_k phases at even distances, and in the last one.

    Only a task that learns fast may leave phases out: one that is sure to have half of its gain in a quarter of
    `num_steps`, `upper_tau` <= num_steps / 4. Any other with a weight above 0 is in every phase, so that it has as many
    steps or more as if the plan were whole phases of everything, which is the plan if no task learns fast.

    Args:
        costs: seconds of a step, such as of `measure_step_costs`.
        curves: by task, such as of `fit_learning_curves`.
        num_steps: steps of the training of everything always, to which gains and `share` relate.
        share: budget as a share of the time of everything always, above 0 and at most 1; or
        seconds: budget in seconds, without the time of tracing and validation.
        num_phases: P, between 1 and `num_steps`.
        weights: w_k by task, at least 0; 1 for others.
        solver: "exact", by dynamic programming; "greedy", by gain for the cost; or "genetic", which starts from that.
        seed: seed of the solver "genetic".

    Returns:
        The schedule, with the expected seconds of its phases and the least share of the gain of each task.

    Raises:
        ValueError: if there is no budget or two, one phase of any task exceeds it, or an argument is out of its range.

    Example:
        >>> curves = {"click": LearningCurve(0.2, 0.5, tau=50.0), "watch": LearningCurve(0.3, 0.5, tau=400.0)}
        >>> costs = StepCosts(0.001, {"click": 0.004, "watch": 0.001})
        >>> print(plan_schedule(costs, curves, 1000, share=0.5, num_phases=5))
        phase  from step  steps  expected s  tasks
        1      0          800    1.6         watch
        2      800        200    1.2         click, watch
        all               1000   2.8         click 200 (84.0% of the gain), watch 1000 (100.0% of the gain)

    Cost: that of the solver; "exact" takes milliseconds.
    """
    _check(costs, curves, num_steps, num_phases)
    require_known([solver], SOLVERS, "solver", "`solver`")
    weight = _weights(curves, weights or {})
    always = np.array([_is_slow(curve, num_steps) for curve in curves.values()]) & (weight > 0)
    _warn(curves, always)
    budget = _budget(share, seconds, num_steps * costs.seconds(list(curves)))
    names, length = list(curves), num_steps / num_phases
    values = weight[:, np.newaxis] * _values(curves, num_steps, num_phases)
    own = length * np.array([costs.by_task[name] for name in names])
    counts = _solved(values, own, length * costs.base, budget, always, lambda given: SOLVERS[solver](given, seed))
    require(bool(counts.max() > 0), "No task gains anything by its curve and weight; take curves of a longer training.")
    schedule = Schedule(names, _phases(names, counts, num_steps, num_phases))
    return Schedule(names, schedule.phases, costs.of(schedule), _gains(curves, schedule, num_steps))


def _solved(
    values: Floats, costs: Floats, base: float, budget: float, always: Flags, solve: Callable[[Problem], Counts]
) -> Counts:
    """Return the counts [K]; the tasks of `always` are one task without a cost, and `base` has their costs."""
    if not always.any():
        problem = Problem(values, costs, base, budget)
        _check_budget(problem)
        return solve(problem)
    base += float(costs[always].sum())
    joined = np.concatenate([values[always].sum(axis=0, keepdims=True), values[~always]])
    problem = Problem(joined, np.append(0.0, costs[~always]), base, budget)
    _check_budget(problem)
    found = solve(problem)
    counts = np.full(len(costs), found.max())
    counts[~always] = found[1:]
    return counts


def _check(costs: StepCosts, curves: Mapping[str, LearningCurve], num_steps: int, num_phases: int) -> None:
    require_type(costs, StepCosts, "costs", "Pass the result of `measure_step_costs`.")
    require(len(curves) > 0, "`curves` must have a curve for each task.", curves=dict(curves))
    require_known(curves, costs.by_task, "task", "`curves`")
    without = [name for name in costs.by_task if name not in curves]
    require(not without, f"`curves` has no curve for the tasks {without}.", curves=list(curves))
    require_positive_int(num_steps=num_steps, num_phases=num_phases)
    rule = "`num_phases` must be at most `num_steps`."
    require(num_phases <= num_steps, rule, num_phases=num_phases, num_steps=num_steps)


def _check_budget(problem: Problem) -> None:
    least = problem.base + float(problem.costs.min())
    rule = "The budget is below one phase of any task; raise it, or `num_phases`."
    require(problem.budget >= least, rule, budget=problem.budget, phase=least)


def _is_slow(curve: LearningCurve, num_steps: int) -> bool:
    """Return whether the task may need more than a quarter of the steps for half of its gain."""
    return curve.upper_tau is not None and curve.upper_tau > _FAST * num_steps


def _warn(curves: Mapping[str, LearningCurve], always: Flags) -> None:
    flat = [name for name, curve in curves.items() if curve.gain == 0 and curve.slows]
    if flat:
        logger.warning("The tasks %s gain nothing by their curves and are left out; try a longer probe.", flat)
    slow = [name for name, in_every_phase in zip(curves, always, strict=True) if in_every_phase]
    if slow:
        logger.info("The tasks %s may learn slowly by their curves and are in every phase.", slow)


def _budget(share: float | None, seconds: float | None, whole: float) -> float:
    """Return the budget in seconds."""
    given = {"share": share, "seconds": seconds}
    require((share is None) != (seconds is None), "Give the budget by one of `share` and `seconds`.", **given)
    if seconds is not None:
        require(0 < seconds < np.inf, "`seconds` must be a finite number above 0.", seconds=seconds)
        return seconds
    require(share is not None and 0 < share <= 1, "`share` must be above 0 and at most 1.", share=share)
    return float(share or 0.0) * whole


def _weights(curves: Mapping[str, LearningCurve], weights: Mapping[str, float]) -> Floats:
    """Return the weights [K] of the tasks."""
    require_known(weights, curves, "task", "`weights`")
    valid = all(np.isfinite(weight) and weight >= 0 for weight in weights.values())
    require(valid, "`weights` must be finite and at least 0.", weights=dict(weights))
    return np.array([float(weights.get(name, 1.0)) for name in curves])


def _values(curves: Mapping[str, LearningCurve], num_steps: int, num_phases: int) -> Floats:
    """Return the least share of the gain [K, P + 1] by the number of phases."""
    steps = np.arange(num_phases + 1) * (num_steps / num_phases)
    shares = np.array([[curve.least_share(n, num_steps) for n in steps] for curve in curves.values()])
    return shares - shares[:, :1]  # a task that gains nothing has a share of 1 without a step


def _gains(curves: Mapping[str, LearningCurve], schedule: Schedule, num_steps: int) -> dict[str, float]:
    """Return the least share of the gain of each task with a gain, or with one that may come."""
    steps = schedule.steps_by_task
    gaining = {name: curve for name, curve in curves.items() if curve.gain > 0 or not curve.slows}
    return {name: curve.least_share(steps[name], num_steps) for name, curve in gaining.items()}


def _phases(names: list[str], counts: Counts, num_steps: int, num_phases: int) -> list[Phase]:
    """Return the phases: task k in m_k of them, at even distances and in the last one."""
    most = int(counts.max())
    ends = np.floor(np.arange(most + 1) * counts[:, np.newaxis] / most + 1e-9)  # [K, phases + 1]
    turns = np.diff(ends, axis=1) > 0
    borders = np.rint(np.arange(most + 1) * num_steps / num_phases).astype(int)
    chosen = [tuple(name for name, turn in zip(names, column, strict=True) if turn) for column in turns.T]
    return [Phase(int(n), tasks) for n, tasks in zip(np.diff(borders), chosen, strict=True)]
