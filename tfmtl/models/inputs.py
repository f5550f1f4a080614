"""Checks of a model's arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_type
from tfmtl._keras import keras
from tfmtl.data import Preprocessor
from tfmtl.models.candidates import Candidates
from tfmtl.tasks import Task
from tfmtl.tasks.dependencies import in_order


def require_candidates(model: Any) -> Candidates:
    """Return the corpus of a model.

    Raises:
        ValueError: if it has none, naming its retrieval tasks and the reason.
    """
    corpus: Candidates | None = model.candidates
    if corpus is not None:
        return corpus
    tasks = [task.name for task in model.tasks if isinstance(model.network.output[task.name], Mapping)]
    collected = model.preprocessor.fitted_candidates
    reason = collected.conflict if collected is not None else ""
    raise ValueError(
        f"The retrieval tasks {tasks} need the corpus: pass `candidates`, or a preprocessor from `Preprocessor.fit`."
        + (f" The training table holds no corpus: {reason}" if reason else "")
    )


def check_tasks(tasks: Sequence[Task], network: keras.Model, preprocessor: Preprocessor) -> None:
    """Raise unless every task has its output of the network and its label in the schema.

    Raises:
        ValueError: naming the tasks at fault.
    """
    for task in tasks:
        require_type(task, Task, "tasks[...]")
    in_order(tasks)  # raises if a task lacks its parents
    missing = [task.name for task in tasks if task.name not in network.output]
    require(not missing, f"The network has no output for the tasks {missing}; it has {sorted(network.output)}.")
    labels = preprocessor.statistics.labels
    unlabelled = [task.name for task in tasks if task.needs_label and task.name not in labels]
    require(not unlabelled, f"The schema has no label for the tasks {unlabelled}; it has labels for {list(labels)}.")
    for task in tasks:
        if task.name in labels:
            task.check_labels(labels[task.name])
