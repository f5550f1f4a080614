"""The order in which heads are connected when one task reads the logit of another."""

from __future__ import annotations

from collections.abc import Sequence

from tfmtl._checks import require
from tfmtl._label_graph import LabelGraph
from tfmtl.tasks.task import Task


def in_order(tasks: Sequence[Task]) -> list[Task]:
    """Sort the tasks so that each follows the tasks it depends on.

    Raises:
        ValueError: if a task depends on itself or on a task that is not in `tasks`, or if a task of the query alone
            depends on a task of pairs.
    """
    by_name = {task.name: task for task in tasks}
    for task in tasks:
        for name in task.depends_on:
            require(name in by_name, f"Task {task.name!r} comes after {name!r}, which is not among {list(by_name)}.")
            require(
                task.uses_trunk or not by_name[name].uses_trunk,
                f"Task {task.name!r} reads the query alone and cannot come after {name!r}, which reads pairs.",
            )
    return [by_name[name] for name in LabelGraph({task.name: task.depends_on for task in tasks}).order]
