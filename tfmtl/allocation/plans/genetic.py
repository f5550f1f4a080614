"""Counts by a search with a population."""

from __future__ import annotations

import numpy as np
import scipy.optimize

from tfmtl.allocation.affinity import Floats
from tfmtl.allocation.plans.greedy import greedy
from tfmtl.allocation.plans.problem import Counts, Problem

_MEMBERS, _LEAST = 8, 40
_GENERATIONS = 150


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
    start, size = greedy(problem), len(problem.costs)
    if problem.most == 0:
        return start

    def loss(numbers: Floats) -> float:
        counts = np.rint(numbers).astype(np.int64)
        return -problem.value(counts) if problem.fits(counts) else problem.cost(counts) / problem.budget

    rng = np.random.default_rng(seed)
    population = rng.integers(0, problem.most + 1, [max(_LEAST, _MEMBERS * size), size]).astype(np.float64)
    population[0] = start
    found = scipy.optimize.differential_evolution(
        loss, [(0, problem.most)] * size, init=population, integrality=[True] * size, maxiter=_GENERATIONS,
        polish=False, rng=rng, tol=0.0, mutation=(0.3, 0.9), recombination=0.5,
    )  # fmt: skip
    return np.rint(found.x).astype(np.int64) if loss(found.x) <= loss(population[0]) else start
