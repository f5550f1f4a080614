"""Encoded rows of a table, and the values of tasks for them that attributions explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_known, require_several, require_type
from tfmtl._keras import keras, tf, traced
from tfmtl.data import Batch, to_batch
from tfmtl.data.frames import rows_of, rows_of_pass
from tfmtl.data.interchange import as_frame
from tfmtl.models.multi_task import MultiTaskModel
from tfmtl.tasks import Task
from tfmtl.tasks.binary_task import BinaryTask
from tfmtl.types import Features

Floats = npt.NDArray[np.float64]


def chosen_tasks(model: MultiTaskModel, names: Sequence[str] | None) -> list[Task]:
    """Return the tasks of a model with some names, all by default, or raise."""
    require_type(model, MultiTaskModel, "model")
    require_several(tasks=names)
    require_known(names or (), [task.name for task in model.tasks], "task", "the model")
    return [task for task in model.tasks if names is None or task.name in names]


def encoded_rows(model: MultiTaskModel, x: Any, labels: Sequence[str] = (), name: str = "table") -> Batch:
    """Return the rows of a table as one batch.

    Args:
        model: encodes the features.
        x: a table (pandas, PyArrow, Polars), or a `Batch` from `to_batch`, which is returned as it is.
        labels: names of the tasks for which labels are needed; those of other tasks are read if the table has them.
        name: of the argument, for the errors.

    Raises:
        TypeError: if `x` has another form.
        ValueError: if a column or a label is missing, or there is no row.
    """
    schema = model.schema
    if isinstance(x, Batch):
        batch = x
    else:
        frame = as_frame(x)
        cure = "Give a table (pandas, PyArrow, Polars), or a `Batch` from `tfmtl.data.to_batch`."
        if not hasattr(frame, "columns"):
            raise TypeError(f"`{name}` must hold rows. Received: type={type(x).__name__}. {cure}")
        require(len(frame) > 0, f"`{name}` has no row; at least one is needed.")
        needed = set(labels) & set(schema.tasks)
        read = [label.task for label in schema.labels if labels and (label.task in needed or label.column in frame)]
        batch = to_batch(frame, model.preprocessor, labels=read)
    for task in labels:
        absent = task in schema.tasks and task not in batch.labels
        require(not absent, f"`{name}` has no labels of task {task!r}; encode it by `to_batch(..., labels=True)`.")
    require_known([f for f in model.network.input if f not in batch.features], (), "feature", f"`{name}`")
    return batch


def rows_at(columns: Mapping[str, Any], rows: Any) -> dict[str, tf.Tensor]:
    """Return some rows of columns [N, ...] by name."""
    return {name: tf.gather(column, rows) for name, column in columns.items()}


class Values:
    """The values of tasks that attributions explain, one number per row and task.

    That of a task for events is the logit of the served probability, and that of any other task the served value. Of
    several served values, such as the probabilities of classes, one column per row counts.

    Args:
        model: a model.
        tasks: some of its tasks.
    """

    def __init__(self, model: MultiTaskModel, tasks: Sequence[Task]) -> None:
        self.model, self.tasks = model, list(tasks)
        self._network = keras.Model(model.network.input, {task.name: model.network.output[task.name] for task in tasks})
        self._outputs = traced(self._of_batch, reduce_retracing=True)

    def _of_batch(self, features: Features) -> list[tf.Tensor]:
        read = {name: features[name] for name in self.model.network.input}
        return self.of_outputs(self._network(read, training=False), features)

    def of_outputs(self, outputs: Any, features: Features) -> list[tf.Tensor]:
        """Return by task the values [B, columns] of outputs of the network; `features` are those of the rows."""
        return [_explained(task, outputs[task.name], features, self.model.schema.candidate_id) for task in self.tasks]

    def columns(self, features: Features, classes: Mapping[str, int] | None = None) -> npt.NDArray[np.int32]:
        """Return the column that counts in each row [N, tasks]: that of `classes`, or the one of the largest value.

        Args:
            features: encoded columns [N, ...].
            classes: the column by task, for tasks with several served values.

        Raises:
            ValueError: if `classes` has an unknown task or column.
        """
        classes = classes or {}
        require_known(classes, [task.name for task in self.tasks], "task", "`classes`")
        found = [
            np.concatenate(parts) for parts in zip(*(self._outputs(part) for part in _passes(features)), strict=True)
        ]
        columns = np.zeros([len(found[0]), len(self.tasks)], np.int32)
        for k, (task, values) in enumerate(zip(self.tasks, found, strict=True)):
            column = classes.get(task.name)
            known = column is None or 0 <= column < values.shape[1]
            rule = f"The class of task {task.name!r} must be one of its {values.shape[1]} served values, from 0."
            require(known, rule, classes=dict(classes))
            columns[:, k] = values.argmax(axis=1) if column is None else column
        return columns

    def widths(self, features: Features) -> list[int]:
        """Return the number of served values of each task; `features` are encoded columns [N, ...] of any rows."""
        return [int(values.shape[1]) for values in self._outputs(features)]

    def __call__(self, features: Features, columns: npt.NDArray[np.int32]) -> Floats:
        """Return the values [N, tasks] of the columns that count [N, tasks]."""
        parts, start = [], 0
        for part in _passes(features):
            outputs = self._outputs(part)
            chosen = columns[start : start + len(outputs[0])]
            picked = [np.take_along_axis(o.numpy(), chosen[:, k : k + 1], axis=1) for k, o in enumerate(outputs)]
            parts.append(np.concatenate(picked, axis=1).astype(np.float64))
            start += len(chosen)
        return np.concatenate(parts)


def _explained(task: Task, outputs: Any, features: Features, candidate_id: str) -> tf.Tensor:
    """Return the values [B, columns] of one task."""
    if isinstance(task, BinaryTask):
        return tf.cast(task.served_logit(outputs), tf.float32)
    served = tf.cast(task.served_value(outputs, features, features.get(candidate_id)), tf.float32)
    return tf.reshape(served, [tf.shape(served)[0], -1]) if served.shape.rank != 1 else served[:, tf.newaxis]


def _passes(features: Features) -> list[dict[str, tf.Tensor]]:
    """Return columns in parts that the network reads at once."""
    rows, size = rows_of(Batch(dict(features), {}, {})), rows_of_pass(features)
    return [{name: column[start : start + size] for name, column in features.items()} for start in range(0, rows, size)]
