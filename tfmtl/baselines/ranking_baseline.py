"""RankingBaseline: the base of the baselines that predict a label of each row."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from tfmtl._checks import require, require_positive_int, require_type
from tfmtl.baselines.interactions import Floats, Ints
from tfmtl.data import Schema, to_columns
from tfmtl.data.columns import Columns, to_labels
from tfmtl.data.features import Feature
from tfmtl.data.interchange import as_frame
from tfmtl.tasks import BinaryClassification, MultiClassClassification, NumberTask, Task

KINDS = (BinaryClassification, MultiClassClassification, NumberTask)
"""The tasks that have baselines."""


class Target(NamedTuple):
    """The observed labels of a task in a training table.

    Attributes:
        labels: [n]; class numbers, or numbers.
        weights: [n], above 0.
        groups: [n] group of each row; rows of one group have one fold.
        num_classes: number of classes; 0 for a regression.
    """

    labels: Floats
    weights: Floats
    groups: Ints
    num_classes: int

    @property
    def columns(self) -> Floats:
        """The numbers to average [n, d]: the label, or an indicator of each class except the first of two classes."""
        if self.num_classes <= 2:
            return self.labels[:, np.newaxis]
        return np.equal(self.labels[:, np.newaxis], np.arange(self.num_classes)).astype(np.float64)

    def sample(self, most: int, seed: int) -> Ints:
        """Return the indices of at most `most` rows, drawn without replacement."""
        rows = np.arange(len(self.labels))
        if len(rows) <= most:
            return rows
        return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


class RankingBaseline(abc.ABC):
    """The base of the baselines of binary, multi-class and regression tasks.

    A subclass implements `uses`, `_fit` and `_predict`. A task of the query reads query features only, without the id
    of the user, because its label is a label of the user. If all training labels are equal, they are predicted.

    Args:
        max_rows: largest number of rows to fit to; they are drawn at random.
        seed: seed of the draw and of the method.
    """

    def __init__(self, max_rows: int = 200_000, seed: int = 0) -> None:
        require_positive_int(max_rows=max_rows)
        self.max_rows = max_rows
        self.seed = seed
        self._task: Task | None = None

    def fit(self, schema: Schema, task: Task, frame: Any) -> Self:
        """Fit the baseline to the rows of a training table that have a label of a task, and return it.

        Args:
            schema: the schema of the model.
            task: a `BinaryClassification`, a `MultiClassClassification` or a `NumberTask`, such as a
                `Regression`.
            frame: training table.

        Raises:
            TypeError: if the task is of another kind.
            ValueError: if a column is absent, no row has a label, or the schema has no feature that the method uses.
        """
        require_type(task, KINDS, "task")
        self._schema, self._features = schema, self.features(schema, task)
        name = type(self).__name__
        require(bool(self._features), f"The schema has no feature that {name} uses for the task {task.name!r}.")
        frame = as_frame(frame)
        labels, weights = to_labels(frame, schema.with_labels_of([task.name]), np.float64)
        rows = np.flatnonzero(weights[task.name] > 0)
        require(len(rows) > 0, f"The training table has no label of the task {task.name!r}.")
        label, weight = labels[task.name][rows], weights[task.name][rows].astype(np.float64)
        self._constant = np.asarray(task.constant_prediction(label, weight, 1), np.float64)
        self._task, self._range, self._varies = task, (label.min(), label.max()), bool(np.ptp(label) > 0)
        if self._varies:
            frame = frame.iloc[rows]
            target = Target(label, weight, _groups(schema, task, frame), _num_classes(task))
            self._fit(frame, target, target.sample(self.max_rows, self.seed))
        return self

    def predict(self, frame: Any) -> npt.NDArray[np.float64]:
        """Return predictions in the form that the task serves: [n], or [n, classes] for a multi-class task.

        Raises:
            ValueError: if the baseline is not fitted, or a column is absent.
        """
        task = self._task
        require(task is not None, f"Call `fit` of {type(self).__name__} before `predict`.")
        frame = as_frame(frame)
        if not self._varies:
            return np.repeat(self._constant, len(frame), axis=0)
        values = self._predict(self._columns(frame, self._features))
        if isinstance(task, NumberTask):
            return np.clip(values, *self._range)
        return values if isinstance(task, MultiClassClassification) else values[:, 1]

    @classmethod
    def features(cls, schema: Schema, task: Task) -> list[Feature]:
        """Return the features that the method uses for a task; none if it is of no use for the schema."""
        if task.query_only:
            return [feature for feature in schema.query if feature.name != schema.query_id and cls.uses(feature)]
        return [feature for feature in schema.features.values() if cls.uses(feature)]

    def _columns(self, frame: Any, features: Iterable[Feature]) -> Columns:
        """Return the columns of some features that the method reads."""
        return to_columns(frame, features)

    @classmethod
    @abc.abstractmethod
    def uses(cls, feature: Feature) -> bool:
        """Return whether the method reads a feature."""

    @abc.abstractmethod
    def _fit(self, frame: Any, target: Target, rows: Ints) -> None:
        """Fit the method to some rows of a table in which every row has a label."""

    @abc.abstractmethod
    def _predict(self, columns: Columns) -> npt.NDArray[np.float64]:
        """Return numbers [n] of a regression, or probabilities [n, classes]."""


def probabilities(estimator: Any, matrix: Any, num_classes: int) -> npt.NDArray[np.float64]:
    """Return the probabilities [n, num_classes] of a fitted classifier; 0 for a class that it has not seen."""
    found = np.zeros((matrix.shape[0], num_classes))
    found[:, estimator.classes_.astype(np.int64)] = estimator.predict_proba(matrix)
    return found


def _num_classes(task: Task) -> int:
    if isinstance(task, NumberTask):
        return 0
    return task.num_classes if isinstance(task, MultiClassClassification) else 2


def _groups(schema: Schema, task: Task, frame: Any) -> Ints:
    """Return the user of each row for a task of the query, because its label repeats in the user's rows."""
    if not task.query_only or not schema.query_id:
        return np.arange(len(frame))
    feature = schema.features[schema.query_id]
    groups: Ints = np.unique(to_columns(frame, [feature])[feature.name], return_inverse=True)[1]
    return groups.reshape(-1)
