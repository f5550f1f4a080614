"""Counts by a search with a population."""

from __future__ import annotations

import numpy as np

from tfmtl.allocation.affinity import Floats
from tfmtl.allocation.plans.greedy import greedy
from tfmtl.allocation.plans.problem import Counts, Problem
from tfmtl.allocation.population import evolved


def genetic(problem: Problem, seed: int = 0) -> Counts:
    """Return counts [K] by differential evolution from random ones and those of `greedy`, never worse than the latter.

    Counts beyond the budget have the value -(cost / budget), so that the population returns to it.

    Args:
        problem: the problem.
        seed: seed of the population.

    Reference: Storn, Price, "Differential Evolution", Journal of Global Optimization 1997,
        https://doi.org/10.1023/A:1008202821328, by `scipy.optimize.differential_evolution` with integers.

    Cost: 150 generations of 8 K counts at most.
    """
    start = greedy(problem)
    if problem.most == 0:
        return start

    def loss(numbers: Floats) -> float:
        counts = np.rint(numbers).astype(np.int64)
        return -problem.value(counts) if problem.fits(counts) else problem.cost(counts) / problem.budget

    return np.rint(evolved(loss, start.tolist(), problem.most, seed)).astype(np.int64)
