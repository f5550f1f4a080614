"""A schedule of tasks under a budget of time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

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

Solver = Callable[[Problem, int], Counts]
SOLVERS: Mapping[str, Solver] = MappingProxyType({"exact": exact, "greedy": greedy, "genetic": genetic})


def plan_schedule(
    costs: StepCosts, curves: Mapping[str, LearningCurve], num_steps: int, *, share: float | None = None,
    seconds: float | None = None, num_phases: int = 20, weights: Mapping[str, float] | None = None,
    solver: str = "exact", seed: int = 0,
) -> Schedule:  # fmt: skip
    """Return the schedule with the largest expected gain within a budget of time.

    Use it where some tasks cost much of a step and learn fast, so that they need not be in every step: the time goes to
    steps of the others, or is saved.

    max over m in 0 ... P of sum_k w_k share_k(m_k n) subject to n (base max(m) + sum_k by_task_k m_k) <= budget, with
    n = num_steps / P steps in a phase and share_k the gain relative to that of `num_steps` steps, see `LearningCurve`.
    A task takes part in its m_k phases at even distances, and in the last one.

    Args:
        costs: seconds of a step, such as of `measure_step_costs`.
        curves: by task, its loss by its number of steps, such as of `fit_learning_curves`.
        num_steps: steps of the training of everything always, to which gains and `share` relate.
        share: budget as a share of the time of everything always, above 0 and at most 1; or
        seconds: budget in seconds, without the time of tracing and validation.
        num_phases: P, between 1 and `num_steps`.
        weights: w_k by task, at least 0; 1 for others.
        solver: "exact", by dynamic programming; "greedy", by gain for the cost; or "genetic", which starts from that.
        seed: seed of the solver "genetic".

    Returns:
        The schedule, with the expected seconds of its phases and the expected share of the gain of each task.

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
    _warn_of_flat(curves)
    require_known([solver], SOLVERS, "solver", "`solver`")
    whole = num_steps * costs.seconds(list(curves))
    budget = _budget(share, seconds, whole)
    names, length = list(curves), num_steps / num_phases
    problem = Problem(
        _values(curves, num_steps, num_phases, weights or {}),
        length * np.array([costs.by_task[name] for name in names]), length * costs.base, budget,
    )  # fmt: skip
    _check_budget(problem)
    counts = SOLVERS[solver](problem, seed)
    require(bool(counts.max() > 0), "No task gains anything by its curve and weight; take curves of a longer training.")
    schedule = Schedule(names, _phases(names, counts, num_steps, num_phases))
    steps = schedule.steps_by_task
    gains = {name: curve.share(steps[name], num_steps) for name, curve in curves.items() if curve.gain > 0}
    return Schedule(names, schedule.phases, costs.of(schedule), gains)


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


def _warn_of_flat(curves: Mapping[str, LearningCurve]) -> None:
    flat = [name for name, curve in curves.items() if curve.gain == 0]
    if flat:
        logger.warning("The tasks %s gain nothing by their curves and are left out; try a longer probe.", flat)


def _budget(share: float | None, seconds: float | None, whole: float) -> float:
    """Return the budget in seconds."""
    given = {"share": share, "seconds": seconds}
    require((share is None) != (seconds is None), "Give the budget by one of `share` and `seconds`.", **given)
    if seconds is not None:
        require(0 < seconds < np.inf, "`seconds` must be a finite number above 0.", seconds=seconds)
        return seconds
    require(share is not None and 0 < share <= 1, "`share` must be above 0 and at most 1.", share=share)
    return float(share or 0.0) * whole


def _values(
    curves: Mapping[str, LearningCurve], num_steps: int, num_phases: int, weights: Mapping[str, float]
) -> Floats:
    """Return the weighted share of the gain [K, P + 1] by the number of phases."""
    require_known(weights, curves, "task", "`weights`")
    valid = all(np.isfinite(weight) and weight >= 0 for weight in weights.values())
    require(valid, "`weights` must be finite and at least 0.", weights=dict(weights))
    steps = np.arange(num_phases + 1) * (num_steps / num_phases)
    shares = [[curve.share(n, num_steps) - curve.share(0, num_steps) for n in steps] for curve in curves.values()]
    return np.array([weights.get(name, 1.0) for name in curves])[:, np.newaxis] * np.array(shares)


def _phases(names: list[str], counts: Counts, num_steps: int, num_phases: int) -> list[Phase]:
    """Return the phases: task k in m_k of them, at even distances and in the last one."""
    most = int(counts.max())
    ends = np.floor(np.arange(most + 1) * counts[:, np.newaxis] / most + 1e-9)  # [K, phases + 1]
    turns = np.diff(ends, axis=1) > 0
    borders = np.rint(np.arange(most + 1) * num_steps / num_phases).astype(int)
    chosen = [tuple(name for name, turn in zip(names, column, strict=True) if turn) for column in turns.T]
    return [Phase(int(n), tasks) for n, tasks in zip(np.diff(borders), chosen, strict=True)]
