"""The search of fusion weights with the largest mean NDCG on given lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import scipy.optimize

from tfmtl.recipes.judged_lists import Floats, JudgedLists

Weights = tuple[float, ...]

_LEAST, _MEMBERS, _GENERATIONS = 20, 8, 30
_DIGITS = 4
_PATIENCE = 1e-3


def search_weights(
    lists: JudgedLists, starts: Sequence[Sequence[float]], any_sign: bool = False, seed: int = 0
) -> Weights:
    """Return the weights with the largest mean NDCG; the first start if no others are better.

    Args:
        lists: the shortlists to judge by.
        starts: weights by which the search begins; the first ones are the default ones and give the signs.
        any_sign: whether a weight may have the other sign.
        seed: seed of the population.
    """
    default = tuple(float(weight) for weight in starts[0])
    judged, signs = lists.reached(), np.where(np.asarray(default) < 0, -1.0, 1.0)
    if not len(judged.ideal):
        return default

    def loss(numbers: Floats) -> float:
        weights = directed(numbers * signs)
        return -float(judged.ndcg(weights).sum()) if any(weights) else 0.0

    rng, tasks = np.random.default_rng(seed), len(default)
    low = -1.0 if any_sign else 0.0
    population = rng.uniform(low, 1.0, [max(_LEAST, _MEMBERS * tasks), tasks])
    for row, start in enumerate(starts[: len(population)]):
        population[row] = np.clip(np.asarray(start) * signs / np.abs(start).max(), low, 1.0)
    found = scipy.optimize.differential_evolution(
        loss, [(low, 1.0)] * tasks, init=population, maxiter=_GENERATIONS, polish=False, rng=rng, tol=_PATIENCE,
        mutation=(0.3, 0.9), recombination=0.8,
    )  # fmt: skip
    best = directed(found.x * signs)
    return best if judged.ndcg(best).sum() > judged.ndcg(default).sum() else default


def directed(weights: npt.ArrayLike) -> Weights:
    """Return weights with absolute values that add up to 1, rounded; the lists do not depend on their scale.

    Example:
        >>> directed([2.0, -1.0, 1.0])
        (0.5, -0.25, 0.25)
    """
    array = np.asarray(weights, np.float64)
    total = np.abs(array).sum()
    scaled = array / total if total > 0 else array
    return tuple(float(weight) + 0.0 for weight in np.round(scaled, _DIGITS))


def mixed(first: Weights, second: Weights, share: float) -> Weights:
    """Return `share` of the first direction and the rest of the second one.

    Example:
        >>> mixed((1.0, 0.0), (0.0, 2.0), 0.25)
        (0.25, 0.75)
    """
    return directed(share * np.asarray(directed(first)) + (1 - share) * np.asarray(directed(second)))


def starts_of(default: Mapping[str, float], retrieval: str) -> list[list[float]]:
    """Return the default weights, those of the retrieval alone, and each other task's alone and with the retrieval."""
    signs = {name: -1.0 if weight < 0 else 1.0 for name, weight in default.items()}
    sets = [{retrieval}, *({name} for name in default if name != retrieval)]
    sets += [{retrieval, name} for name in default if name != retrieval]
    return [list(default.values()), *([signs[n] if n in kept else 0.0 for n in default] for kept in sets)]
