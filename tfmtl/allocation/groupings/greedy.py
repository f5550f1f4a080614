"""A partition of tasks by merging the two groups that gain most."""

from __future__ import annotations

import itertools

from tfmtl.allocation.affinity import Floats, score_of


def greedy(values: Floats, num_networks: int, seed: int = 0) -> list[list[int]]:
    """Return a partition: from one group for each task, merge the two groups that gain most.

    Merging ends when there are `num_networks` groups or fewer and no merger has a gain above 0.

    Args:
        values: as in `Affinity`.
        num_networks: largest number of groups.
        seed: not used; there are no draws.

    Cost: K^3 scores.
    """
    del seed
    groups = [[i] for i in range(len(values))]

    def gain(pair: tuple[int, int]) -> float:
        left, right = (groups[i] for i in pair)
        return score_of(values, left + right) - score_of(values, left) - score_of(values, right)

    while len(groups) > 1:
        best = max(itertools.combinations(range(len(groups)), 2), key=gain)
        if len(groups) <= num_networks and gain(best) <= 0:
            break
        merged = groups[best[0]] + groups[best[1]]
        groups = [group for i, group in enumerate(groups) if i not in best] + [merged]
    return groups
