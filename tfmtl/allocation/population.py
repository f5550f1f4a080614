"""A search for whole numbers with a population."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.optimize

from tfmtl.allocation.affinity import Floats

_MEMBERS, _LEAST = 8, 40
_GENERATIONS = 150


def evolved(loss: Callable[[Floats], float], start: Sequence[int], largest: int, seed: int) -> Floats:
    """Return whole numbers [K] in 0 ... largest with a small loss, never a larger one than that of the start.

    By `scipy.optimize.differential_evolution`, from the start and random numbers: 150 generations of 8 K members.

    Args:
        loss: of numbers [K], which may lie beside whole ones by rounding.
        start: one member of the first population.
        largest: the largest number.
        seed: seed of the population.
    """
    size, rng = len(start), np.random.default_rng(seed)
    population = rng.integers(0, largest + 1, [max(_LEAST, _MEMBERS * size), size]).astype(np.float64)
    population[0] = start
    found = scipy.optimize.differential_evolution(
        loss, [(0, largest)] * size, init=population, integrality=[True] * size, maxiter=_GENERATIONS, polish=False,
        rng=rng, tol=0.0, mutation=(0.3, 0.9), recombination=0.5,
    )  # fmt: skip
    return np.asarray(found.x if loss(found.x) <= loss(population[0]) else population[0])
