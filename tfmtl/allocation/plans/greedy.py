"""Counts by the largest gain for the cost."""

from __future__ import annotations

import numpy as np

from tfmtl.allocation.plans.problem import Counts, Problem


def greedy(problem: Problem, seed: int = 0) -> Counts:
    """Return counts [K]: give phases one by one to the task that gains most for the cost, while the budget lasts.

    The result is compared with the best single phase. For values that rise by ever smaller amounts and `base` 0, it has
    at least (1 - 1/e) / 2 of the value of the best counts.

    Args:
        problem: the problem.
        seed: not used; there are no draws.

    Reference: Khuller, Moss, Naor, "The Budgeted Maximum Coverage Problem", Information Processing Letters 1999,
        https://doi.org/10.1016/S0020-0190(99)00031-9, for coverage; the elements are the phases of the tasks.

    Cost: K^2 P values.
    """
    del seed
    counts = filled(problem, np.zeros(len(problem.costs), np.int64))
    every = np.eye(len(counts), dtype=np.int64)
    return max([counts, *(one for one in every if one.max() <= problem.most and problem.fits(one))], key=problem.value)


def filled(problem: Problem, counts: Counts) -> Counts:
    """Return counts [K] with further phases within the budget, each for the task that gains most for the cost."""
    while True:
        longer = [counts + step for step in np.eye(len(counts), dtype=np.int64)]
        possible = [c for c in longer if c.max() <= problem.most and problem.fits(c)]
        rates = [_rate(problem, counts, c) for c in possible]
        if not rates or max(rates) <= 0:
            return counts
        counts = possible[int(np.argmax(rates))]


def _rate(problem: Problem, before: Counts, after: Counts) -> float:
    """Return the gain of value by the gain of cost."""
    gain, cost = problem.value(after) - problem.value(before), problem.cost(after) - problem.cost(before)
    return gain / cost if cost > 0 else np.inf if gain > 0 else 0.0
