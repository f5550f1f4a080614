"""The best partition of tasks by dynamic programming."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require
from tfmtl.allocation.affinity import Floats

MOST_TASKS = 16
"""Largest number of tasks: 3^16 / 2 pairs of a set and its subset take seconds."""

Ints = npt.NDArray[np.int64]


def exact(values: Floats, num_networks: int, seed: int = 0) -> list[list[int]]:
    """Return the partition with the largest score, by dynamic programming.

    f_b(S) = max over T in S with min S in T of f_{b-1}(S without T) + score(T), f_0 of the empty set is 0 and of other
    sets -inf. Groups may be fewer than b.

    Args:
        values: as in `Affinity`.
        num_networks: b, largest number of groups.
        seed: not used; there are no draws.

    Raises:
        ValueError: if there are more than 16 tasks.

    Cost: b 3^K / 2 additions and a table of b 2^K numbers.
    """
    del seed
    size = len(values)
    require(
        size <= MOST_TASKS,
        f'The solver "exact" takes at most {MOST_TASKS} tasks; choose "greedy" or "genetic".',
        tasks=size,
    )
    score = scores_of_subsets(values)
    best = np.full([num_networks + 1, 1 << size], -np.inf)
    best[:, 0] = 0.0
    chosen = np.zeros([num_networks + 1, 1 << size], np.int64)
    for whole in range(1, 1 << size):
        first = whole & -whole
        groups = subsets_of(whole ^ first) | first
        found = best[:-1, whole ^ groups] + score[groups]  # [networks, subsets]
        at = found.argmax(axis=1)
        best[1:, whole] = found[np.arange(num_networks), at]
        chosen[1:, whole] = groups[at]
    return _read(chosen, num_networks, (1 << size) - 1)


def _read(chosen: Ints, left: int, whole: int) -> list[list[int]]:
    """Return the groups by the chosen subset of each set."""
    groups = []
    while whole:
        group = int(chosen[left, whole])
        groups.append([i for i in range(group.bit_length()) if group >> i & 1])
        whole, left = whole ^ group, left - 1
    return groups


def subsets_of(whole: int) -> Ints:
    """Return all subsets of a set, each as a number of which bit i is task i.

    Example:
        >>> subsets_of(0b101).tolist()
        [0, 1, 4, 5]
    """
    found = np.zeros(1, np.int64)
    for i in range(whole.bit_length()):
        if whole >> i & 1:
            found = np.concatenate([found, found | (1 << i)])
    return found


def scores_of_subsets(values: Floats) -> Floats:
    """Return the score [2^K] of each subset of the tasks; see `Affinity.score`."""
    size = len(values)
    total, count = np.zeros(1 << size), np.zeros(1 << size)
    for i in range(size):
        before = np.arange(1 << i)
        added = np.zeros(1 << i)  # the sum of both effects between task i and the members of each subset
        for j in range(i):
            added += np.where(before >> j & 1, values[i, j] + values[j, i], 0.0)
        total[before | 1 << i] = total[before] + added
        count[before | 1 << i] = count[before] + 1
    return total / np.maximum(count - 1, 1)
