"""Early stopping by the quality of each group of tasks on validation rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require_positive_int
from tfmtl._keras import keras, tf
from tfmtl.evaluation import RetrievalEvaluation
from tfmtl.models.graph import state_of
from tfmtl.models.isolation import independent_groups
from tfmtl.tasks import Task

_SMALLEST = 1e-6


@dataclasses.dataclass
class _Group:
    """Tasks that share variables, and their best epoch so far."""

    tasks: Sequence[Task]
    variables: Sequence[tf.Variable]
    epoch: int = 0
    best: float = -math.inf
    weights: Sequence[np.ndarray] | None = None

    def judge(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Keep the weights of an epoch that is better than those before it."""
        quality = quality_of(self.tasks, logs)
        if quality > self.best:
            self.epoch, self.best, self.weights = epoch, quality, keras.backend.batch_get_value(self.variables)

    def restore(self) -> None:
        """Set the weights of the best epoch."""
        if self.weights is not None:
            keras.backend.batch_set_value(list(zip(self.variables, self.weights, strict=True)))


class BestEpoch(keras.callbacks.Callback):
    """Stop training when no group of tasks improves on validation rows, and keep the best epoch of each group.

    Use it instead of `EarlyStopping` on a loss where tasks are retrieved and ranked together: the loss of retrieval
    falls on while its ranks become worse, and ids overfit in each task at another epoch.

    quality = mean_k log q_k over the tasks of a group, with q_k the NDCG@10 of a retrieval task on the whole corpus,
    and 1 / loss of any other task, so that a relative change counts alike in every task. A task without a label on the
    validation rows does not count; a group of such tasks keeps its last epoch. The mean over all tasks is logged as
    `val_quality`. Unlike `EarlyStopping`, the best weights are kept when training ends for another reason, too.

    Tasks are in one group if they read a trainable variable in common, directly or through other tasks; see `isolate`
    of `build_network`. The weights of a group, its batch statistics and the counts of its tasks are those of the
    group's best epoch; with several groups, the state of the balancer is that of the last epoch.

    Args:
        validation: table outside the training table; `fit` needs it as `validation_data`, too.
        seen: table of known interactions to remove from the lists of their users, or None.
        patience: epochs without improvement of any group after which training stops.

    Cost: that of `RetrievalEvaluation` and a copy of the weights.
    """

    def __init__(self, validation: Any, seen: Any = None, patience: int = 3) -> None:
        super().__init__()
        require_positive_int(patience=patience)
        self.patience = patience
        self._ranks = RetrievalEvaluation(validation, seen, ks=None)
        self._groups: list[_Group] = []

    @property
    def groups(self) -> list[tuple[list[str], int]]:
        """The names of the tasks of each group, and the group's best epoch, counted from 0."""
        return [([task.name for task in group.tasks], group.epoch) for group in self._groups]

    def set_model(self, model: Any) -> None:
        """Keep the model, also for the evaluation of retrieval."""
        super().set_model(model)
        self._ranks.set_model(model)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Find the groups, and forget an earlier training."""
        found = independent_groups(self.model.network)
        self._groups = [_Group(self.model.tasks, self.model.weights)]
        if len(found) > 1:
            self._groups = [self._group(names, variables) for names, variables in found]
        self._ranks.on_train_begin(logs)

    def _group(self, names: Sequence[str], variables: Sequence[tf.Variable]) -> _Group:
        tasks = [task for task in self.model.tasks if task.name in names]
        return _Group(tasks, [*variables, *state_of(tasks)])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measure; keep the weights of groups that improved, or stop."""
        logs = {} if logs is None else logs
        self._ranks.on_epoch_end(epoch, logs)
        logs["val_quality"] = quality_of(self.model.tasks, logs)
        for group in self._groups:
            group.judge(epoch, logs)
        if epoch - max(group.epoch for group in self._groups) >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Restore the weights of the best epochs."""
        for group in self._groups:
            group.restore()


def quality_of(tasks: Sequence[Task], logs: Mapping[str, float]) -> float:
    """Return the mean of log q_k over the tasks with a value in the log of an epoch; see `BestEpoch`."""
    values = []
    for task in tasks:
        ranked = [logs[key] for key in logs if key.startswith(f"val_{task.name}_ndcg@")]
        loss = logs.get(f"val_{task.name}_loss")
        if ranked or loss:  # Keras logs the loss 0 for a task without a label on the validation rows
            values.append(float(ranked[0]) if ranked else 1 / max(float(loss or 0.0), _SMALLEST))
    if not values or any(math.isnan(value) for value in values):
        return -math.inf  # a diverged task must not drop out of the mean
    return sum(math.log(max(value, _SMALLEST)) for value in values) / len(values)
