"""The best counts by dynamic programming over a budget in whole units."""

from __future__ import annotations

import numpy as np

from tfmtl.allocation.plans.greedy import filled
from tfmtl.allocation.plans.problem import Counts, Problem

UNITS = 2000
"""Units of the budget; costs are rounded up to whole units, so that a plan never exceeds its budget."""


def exact(problem: Problem, seed: int = 0) -> Counts:
    """Return the best counts [K] for costs in units of 1 / 2000 of the budget, by dynamic programming.

    For each M in 1 ... P, the largest count: f_k(b) = max over m <= M of f_{k-1}(b - costs_k m) + values[k, m], with
    the budget that base M leaves. The best M wins; the rest that rounding leaves is given out as by `greedy`. All
    counts are 0 if no phase fits.

    Args:
        problem: the problem.
        seed: not used; there are no draws.

    Cost: K P^2 operations on arrays of 2000 numbers.
    """
    del seed
    unit = problem.budget / UNITS
    costs = np.ceil(problem.costs / unit - 1e-6).astype(np.int64)
    best, found = -1.0, np.zeros(len(costs), np.int64)
    for most in range(problem.most + 1):
        left = int(np.floor(UNITS - np.ceil(problem.base * most / unit - 1e-6)))
        if left < 0:
            break
        value, counts = _knapsack(problem, costs, most, left)
        if value > best + 1e-12:
            best, found = value, counts
    return filled(problem, found)


def _knapsack(problem: Problem, costs: Counts, most: int, budget: int) -> tuple[float, Counts]:
    """Return the best value and counts of at most `most` phases a task, for whole costs and budget."""
    best = np.zeros(budget + 1)
    chosen = np.zeros([len(costs), budget + 1], np.int64)
    for task, cost in enumerate(costs):
        options = np.full([most + 1, budget + 1], -np.inf)
        for count in range(most + 1):
            if count * cost <= budget:
                options[count, count * cost :] = best[: budget + 1 - count * cost] + problem.values[task, count]
        chosen[task] = options.argmax(axis=0)
        best = options.max(axis=0)
    counts, at = np.zeros(len(costs), np.int64), budget
    for task in reversed(range(len(costs))):
        counts[task] = chosen[task, at]
        at -= counts[task] * costs[task]
    return float(best[budget]), counts
