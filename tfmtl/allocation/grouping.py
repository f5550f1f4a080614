"""Which tasks share a network: groups of tasks by their affinity, within a number of networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from tfmtl._checks import require_known, require_positive_int, require_type
from tfmtl.allocation.affinity import Affinity, Floats
from tfmtl.allocation.groupings.exact import exact
from tfmtl.allocation.groupings.genetic import genetic
from tfmtl.allocation.groupings.greedy import greedy

Solver = Callable[[Floats, int, int], list[list[int]]]
SOLVERS: Mapping[str, Solver] = MappingProxyType({"exact": exact, "greedy": greedy, "genetic": genetic})


@dataclasses.dataclass(frozen=True)
class TaskGroups:
    """The result of `group_tasks`; it prints as a table.

    Attributes:
        groups: names of the tasks of each network, in the order of the tasks.
        scores: the score of each group.
        solver: the solver.
    """

    groups: tuple[tuple[str, ...], ...]
    scores: tuple[float, ...]
    solver: str

    @property
    def score(self) -> float:
        """The sum of the scores."""
        return sum(self.scores)

    @property
    def isolate(self) -> list[list[str]]:
        """The groups as the argument of `build_network`, which trains and exports all of them as one network."""
        return [list(group) for group in self.groups] if len(self.groups) > 1 else []

    def __str__(self) -> str:
        lines = [f"{score:+.4f}  {', '.join(group)}" for group, score in zip(self.groups, self.scores, strict=True)]
        return "\n".join([*lines, f"{self.score:+.4f}  in all, by the solver {self.solver!r}"])


def group_tasks(affinity: Affinity, num_networks: int, *, solver: str = "exact", seed: int = 0) -> TaskGroups:
    """Return the groups of tasks that share a network, so that tasks are with those that help them.

    Use it where some of many tasks harm each other, and one network for each task costs too much; give the result to
    `build_network(isolate=groups.isolate)`.

    max over partitions into at most b groups of sum_j mean_{i in group(j), i != j} Z_ij. A task alone has 0.

    Args:
        affinity: Z, such as the mean cosines `monitor.history[-1]["cosine"]` of a `ConflictMonitor(at="shared")`.
        num_networks: b.
        solver: "exact", for up to 16 tasks; "greedy", which merges groups; or "genetic", which starts from its result.
        seed: seed of the solver "genetic".

    Raises:
        ValueError: if `num_networks` is below 1, the solver is unknown, or it cannot take so many tasks.

    Example:
        >>> affinity = Affinity(["click", "buy", "stars"], [[0, 0.3, -0.2], [0.1, 0, -0.1], [-0.2, 0.05, 0]])
        >>> print(group_tasks(affinity, num_networks=2))
        +0.4000  click, buy
        +0.0000  stars
        +0.4000  in all, by the solver 'exact'

    Reference:
        Fifty et al., "Efficiently Identifying Task Groupings for Multi-Task Learning", NeurIPS 2021,
        https://arxiv.org/abs/2109.04617, section 4.2: mean affinities decide. There a task may be trained in several
        networks, and one alone has no score, so that each task needs another one.

    Cost: that of the solver.
    """
    require_type(affinity, Affinity, "affinity", "Pass `Affinity(tasks, values)`.")
    require_positive_int(num_networks=num_networks)
    require_known([solver], SOLVERS, "solver", "`solver`")
    most = min(num_networks, len(affinity.tasks))
    found = sorted(sorted(group) for group in SOLVERS[solver](affinity.values, most, seed))
    groups = tuple(tuple(affinity.tasks[i] for i in group) for group in found)
    return TaskGroups(groups, tuple(affinity.score(group) for group in groups), solver)
