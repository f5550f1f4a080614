"""Checks that the labels of training and evaluation data are values that the losses of the tasks can use."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.data import Schema
from tfmtl.tasks import Task

_CURE = "correct these labels, or make them missing"


def check_values(task: Task, schema: Schema, labels: Any, weights: Any) -> None:
    """Raise `ValueError` if an observed label of a table is none that the task can use.

    Args:
        task: the task.
        schema: names the column of the label.
        labels: [N] or [R, L], NaN where missing.
        weights: of the same shape; labels with the weight 0 are not checked.

    Raises:
        ValueError: naming the task, the column, the first wrong label and its row.
    """
    labels = np.asarray(labels)
    wrong = (np.asarray(weights) > 0) & ~np.asarray(task.usable_labels(tf.constant(labels)))
    if wrong.any():
        row = np.unravel_index(int(wrong.argmax()), wrong.shape)
        require(
            False,
            f"{_rule(task, schema)} in {int(wrong.sum())} rows; {_CURE}.",
            label=float(labels[row]),
            row=int(row[0]),
        )


def check_table(tasks: Sequence[Task], schema: Schema, table: Any) -> None:
    """Check the labels of a table in memory, such as a `Batch` or `Sequences`; see `check_values`."""
    labels = getattr(table, "labels", {})
    for task in tasks:
        if task.name in labels:
            check_values(task, schema, labels[task.name], table.weights[task.name])


def check_groups(tasks: Sequence[Task], table: Any) -> None:
    """Raise `ValueError` if a task has a `GroupLoss` and no two rows of a training table have one group.

    Args:
        tasks: the tasks.
        table: a `Batch`, or None; sequences, which hold several rows of a user, are not checked.
    """
    for task in [] if table is None else tasks:
        losses = getattr(task, "group_losses", ())
        if not losses or task.name not in table.labels or np.ndim(table.labels[task.name]) != 1:
            continue
        rows = np.asarray(table.weights[task.name]) > 0
        for loss in losses:
            groups = np.asarray(table.features[loss.group])[rows]
            require(
                len(groups) == 0 or len(np.unique(groups)) < len(groups),
                f"The `GroupLoss` of task {task.name!r} ranks the rows of one {loss.group!r}, and no two rows have the "
                "same; choose a feature in which values repeat.",
                rows=len(groups),
            )


def checked(task: Task, schema: Schema, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the labels [B] of a batch, NaN where the weight is 0; a wrong label ends the step.

    Outside of `label_errors` the error is an `InvalidArgumentError`.
    """
    observed = weights > 0
    wrong = observed & ~task.usable_labels(labels)
    row = tf.argmax(tf.pad(wrong, [[0, 1]]))  # a replica may have no row
    message = f"{_rule(task, schema)} in a batch; {_CURE}. Received: label="
    fine = tf.debugging.Assert(~tf.reduce_any(wrong), [message, tf.pad(labels, [[0, 1]])[row], row])
    with tf.control_dependencies([fine] if fine is not None else []):
        return tf.where(observed, labels, float("nan"))


@contextlib.contextmanager
def label_errors() -> Iterator[None]:
    """Raise the errors of `checked` as `ValueError` with one sentence."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(r"\[(Task [^\n]*? Received: label=)\] \[(\S+)\] \[(\d+)\]", error.message)
        if found is None:
            raise
        message, label, row = found.groups()
        message = message.replace("\\'", "'").replace('\\"', '"')  # TensorFlow escapes quotes
        raise ValueError(f"{message}{float(label)}, row of the batch={row}.") from error


def _rule(task: Task, schema: Schema) -> str:
    column = schema.label(task.name).column
    return f"Task {task.name!r} needs labels that are {task.label_rule}; column {column!r} holds others"
