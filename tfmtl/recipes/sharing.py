"""The tasks that the recipe trains apart from the others, by the statistics of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tfmtl.data import LabelStatistics, Statistics
from tfmtl.tasks import Task

RARE = 2_000
"""Examples of the rarer of two classes below which a task is apart."""


class Apart(NamedTuple):
    """A group of tasks that share no variable with the other tasks.

    Attributes:
        tasks: names of the tasks.
        reason: the property that separates them.
    """

    tasks: list[str]
    reason: str


def apart(tasks: Sequence[Task], statistics: Statistics) -> list[Apart]:
    """Return the groups of tasks to isolate in `build_network`; all other tasks share.

    The retrieval tasks are one group. A task with fewer than `RARE` examples of the rarer of its two classes is a
    group. Tasks that depend on each other stay together, and are rare only if all of them are.

    Args:
        tasks: the tasks.
        statistics: summaries of the training labels.
    """
    retrieved: list[str] = []
    rare: list[Apart] = []
    for linked in _linked(tasks):
        names = [task.name for task in linked]
        fewest = [_rarer(statistics.labels.get(name)) for name in names]
        known = [count for count in fewest if count is not None]
        if any(task.retrieves for task in linked):
            retrieved += names
        elif len(known) == len(names) and max(known) < RARE:
            rare.append(Apart(names, f"rare: {max(known):,} labels of the rarer class, fewer than {RARE:,}"))
    found = (
        [Apart(retrieved, "a retrieval: its gradient harms the others' ids, and its best epoch is another")]
        if retrieved
        else []
    )
    found += rare
    return [] if len(found) == 1 and len(found[0].tasks) == len(tasks) else found


def _linked(tasks: Sequence[Task]) -> list[list[Task]]:
    """Return the tasks in groups that depend on each other, directly or through other tasks."""
    groups: list[list[Task]] = []
    for task in tasks:
        near = [group for group in groups if any(_depends(task, other) for other in group)]
        groups = [group for group in groups if group not in near]
        groups.append([other for group in near for other in group] + [task])
    return groups


def _depends(task: Task, other: Task) -> bool:
    return other.name in task.depends_on or task.name in other.depends_on


def _rarer(label: LabelStatistics | None) -> int | None:
    """Return the number of examples of the rarer of two classes, or None for a label of another kind."""
    if label is None or not label.frequencies or not set(label.frequencies) <= {0.0, 1.0}:
        return None
    return round(label.count * min(label.frequencies.get(value, 0.0) for value in (0.0, 1.0)))
