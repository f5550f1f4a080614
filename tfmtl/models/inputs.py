"""Checks of a model's arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_known, require_type
from tfmtl._keras import keras
from tfmtl.data import IdSequence, Preprocessor, Schema
from tfmtl.models.candidates import Candidates
from tfmtl.tasks import DurationQuantiles, Task, UserNeighbors
from tfmtl.tasks.dependencies import in_order
from tfmtl.tasks.extra_metrics import check_losses, check_metrics


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


def require_tasks(tasks: Any) -> None:
    """Raise `TypeError` unless `tasks` is a sequence of tasks."""
    cure = 'Pass a list of tasks, such as [Regression("rating")].'
    require_type(tasks, Sequence, "tasks", cure)
    for task in tasks:
        require_type(task, Task, "tasks[...]", cure)


def check_tasks(tasks: Sequence[Task], network: keras.Model, preprocessor: Preprocessor) -> None:
    """Raise unless every task has its output of the network and its label in the schema.

    Raises:
        ValueError: naming the tasks at fault.
    """
    require_type(network, keras.Model, "network", "Pass the network of `build_network`.")
    require_type(preprocessor, Preprocessor, "preprocessor", "Pass `Preprocessor.fit(schema, table)`.")
    require_tasks(tasks)
    _require_own_metrics(tasks, preprocessor.schema)
    _check_copies(tasks, preprocessor.schema)
    _check_query_keys(tasks, preprocessor.schema)
    _check_group_losses(tasks, preprocessor.schema)
    _check_durations(tasks, preprocessor.schema)
    in_order(tasks)  # raises if a task lacks its parents
    missing = [task.name for task in tasks if task.name not in network.output]
    require(not missing, f"The network has no output for the tasks {missing}; it has {sorted(network.output)}.")
    labels = preprocessor.statistics.labels
    unlabelled = [task.name for task in tasks if task.needs_label and task.name not in labels]
    require(not unlabelled, f"The schema has no label for the tasks {unlabelled}; it has labels for {list(labels)}.")
    for task in tasks:
        if task.name in labels:
            task.check_labels(labels[task.name])
        check_metrics(task, network.output[task.name])
        check_losses(task, network.output[task.name])


def histories_of(schema: Schema) -> list[str]:
    """Return the names of the query features that are lists of the candidate's ids."""
    own = [feature for feature in schema.query if isinstance(feature, IdSequence)]
    return [feature.name for feature in own if feature.of == schema.candidate_id]


def _check_copies(tasks: Sequence[Task], schema: Schema) -> None:
    """Raise unless every `HistoryCopy` reads a query feature with ids of candidates, every `UserNeighbors` the user."""
    for task in tasks:
        copy = getattr(task, "copy", None)
        if isinstance(copy, UserNeighbors):
            ids = [feature.name for feature in schema.query if feature.is_id]
            require_known([copy.history], ids, "query feature of ids", f"`copy` of task {task.name!r}")
        elif copy is not None:
            where = f"`copy` of task {task.name!r} (the query's lists of candidate ids)"
            require_known([copy.history], histories_of(schema), "history", where)


def _check_query_keys(tasks: Sequence[Task], schema: Schema) -> None:
    """Raise unless the `query_key` of every retrieval task is a query or context feature of ids."""
    for task in tasks:
        key = getattr(task, "query_key", None)
        ids = [feature.name for feature in (*schema.query, *schema.context) if feature.is_id]
        require_known([] if key is None else [key], ids, "feature of ids", f"`query_key` of task {task.name!r}")


def _check_group_losses(tasks: Sequence[Task], schema: Schema) -> None:
    """Raise unless the group of every `GroupLoss` is an id of the schema."""
    for task in tasks:
        groups = [loss.group for loss in getattr(task, "group_losses", ())]
        ids = [feature.name for feature in schema.features.values() if feature.is_id]
        require_known(groups, ids, "feature of ids", f"the `GroupLoss` of task {task.name!r}")


def _check_durations(tasks: Sequence[Task], schema: Schema) -> None:
    """Raise unless the duration of every task of the query alone is a feature of the query."""
    for task in tasks:
        if isinstance(task, DurationQuantiles) and task.query_only:
            where = f"`duration` of task {task.name!r} with scope='query'"
            require_known([task.duration], [feature.name for feature in schema.query], "query feature", where)


def _require_own_metrics(tasks: Sequence[Task], schema: Schema) -> None:
    """Raise unless every task has metric objects of its own, and every group of a metric is an id of the schema.

    A shared metric would count the rows of several tasks.
    """
    owners: dict[int, str] = {}
    for task in tasks:
        for metric in task.extra_metrics:
            other = owners.setdefault(id(metric), task.name)
            require(
                other == task.name,
                f"The tasks {other!r} and {task.name!r} have one metric object in `extra_metrics`; make one for each.",
                metric=metric.name,
            )
            group = getattr(metric, "group", None)
            require_known([] if group is None else [group], schema.features, "feature", "`group` of a metric")
            rule = f"`group` of a metric of task {task.name!r} must be a Categorical feature."
            require(group is None or schema.features[group].is_id, rule, group=group)


def check_log_names(names: Sequence[str]) -> None:
    """Raise unless all values of the log of an epoch have names of their own.

    Args:
        names: names of the values of training and validation, without the `val_` of the latter.

    Raises:
        ValueError: naming the values that share a name.
    """
    every = [*names, *(f"val_{name}" for name in names)]
    twice = sorted({name for name in every if every.count(name) > 1})
    require(
        not twice,
        f"The log would have two values named {twice}: rename a task, or a metric of `extra_metrics` or "
        "a loss of `extra_losses` by its `name`.",
    )
