"""A partition of tasks by a search with a population."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmtl.allocation.affinity import Floats, score_of
from tfmtl.allocation.groupings.greedy import greedy
from tfmtl.allocation.population import evolved


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

    numbers = np.zeros(size, np.int64)
    for number, group in enumerate(start):
        numbers[group] = number
    return _groups(evolved(loss, numbers.tolist(), num_networks - 1, seed))


def _groups(numbers: npt.NDArray[np.float64]) -> list[list[int]]:
    """Return the tasks with each number."""
    rounded = np.rint(numbers).astype(np.int64)
    return [np.flatnonzero(rounded == number).tolist() for number in np.unique(rounded)]
