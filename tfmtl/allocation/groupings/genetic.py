"""A partition of tasks by a search with a population."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.optimize

from tfmtl.allocation.affinity import Floats, score_of
from tfmtl.allocation.groupings.greedy import greedy

_MEMBERS, _LEAST = 8, 40
_GENERATIONS = 150


def genetic(values: Floats, num_networks: int, seed: int = 0) -> list[list[int]]:
    """Return a partition by differential evolution from random ones and that of `greedy`, never worse than the latter.

    Args:
        values: as in `Affinity`.
        num_networks: largest number of groups.
        seed: seed of the population.

    Reference: Storn, Price, "Differential Evolution", Journal of Global Optimization 1997,
        https://doi.org/10.1023/A:1008202821328, by `scipy.optimize.differential_evolution` with integers.

    Cost: 150 generations of 8 K partitions at most.
    """
    size, start = len(values), greedy(values, num_networks)
    if num_networks == 1 or size == 1:
        return start

    def loss(numbers: npt.NDArray[np.float64]) -> float:
        return -sum(score_of(values, group) for group in _groups(numbers))

    rng = np.random.default_rng(seed)
    population = rng.integers(0, num_networks, [max(_LEAST, _MEMBERS * size), size]).astype(np.float64)
    for number, group in enumerate(start):
        population[0, group] = number
    found = scipy.optimize.differential_evolution(
        loss, [(0, num_networks - 1)] * size, init=population, integrality=[True] * size, maxiter=_GENERATIONS,
        polish=False, rng=rng, tol=0.0, mutation=(0.3, 0.9), recombination=0.5,
    )  # fmt: skip
    return _groups(found.x) if loss(found.x) <= loss(population[0]) else start


def _groups(numbers: npt.NDArray[np.float64]) -> list[list[int]]:
    """Return the tasks with each number."""
    rounded = np.rint(numbers).astype(np.int64)
    return [np.flatnonzero(rounded == number).tolist() for number in np.unique(rounded)]
