"""The schema of a table: columns of the query, the candidate and the context, and labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfmtl._checks import require, require_known, require_several, require_type
from tfmtl._names import require_task_name
from tfmtl.data.features import Feature
from tfmtl.data.features.saved import from_plain, to_plain

if TYPE_CHECKING:
    from tfmtl.data.statistics import Statistics


@dataclasses.dataclass(frozen=True)
class Label:
    """The label of one task; NaN or None in its column means that the row has no label of the task.

    Attributes:
        task: name of the task.
        column: label column; the task's name by default.
        sample_weight: column of weights of this task's rows, or None for 1.
        classes: values of a class label in order; the task sees their positions. Empty if the column holds numbers.
        desired: whether larger values are better for the user or the shop. Give False for events such as a return, a
            complaint or churn: served candidates then lose score by them, see `tfmtl.serving.ScoreFusion`.

    Example:
        >>> Label("rating", column="stars").column
        'stars'
        >>> Label("returned", desired=False).desired
        False
    """

    task: str
    column: str = ""
    sample_weight: str | None = None
    classes: tuple[Any, ...] = ()
    desired: bool = True

    def __post_init__(self) -> None:
        require_type(self.desired, bool, "desired")
        require_task_name("task", self.task)
        if not self.column:
            object.__setattr__(self, "column", self.task)
        object.__setattr__(self, "classes", _plain_classes(self.classes))
        require(len(set(self.classes)) == len(self.classes), "`classes` must be distinct.", classes=self.classes)


def _plain_classes(classes: Any) -> tuple[Any, ...]:
    """Return classes as strings, numbers or booleans of Python, which a saved model can hold.

    Raises:
        ValueError: if there are others, or no sequence is given.
    """
    require(not isinstance(classes, str | bytes), "`classes` must be a sequence of values.", classes=classes)
    plain = tuple(value.item() if isinstance(value, np.generic) else value for value in classes)
    for value in plain:
        require(
            isinstance(value, str | int | float) and value == value,
            "`classes` must be strings, numbers or booleans; convert the column, such as by "
            "`table[column].astype(str)`, or bytes by `.str.decode('utf-8')`.",
            received=value,
        )
    return plain


@dataclasses.dataclass(frozen=True)
class Schema:
    """The roles of the columns of an interaction table.

    Attributes:
        query: features known before any candidate is chosen, the user and the situation.
        candidate: features of the item, the same in every row of the item.
        context: features of the pair or of the moment that retrieval cannot use, such as the position on the page;
            only ranking tasks see them.
        labels: one `Label` per task.
        query_id: categorical feature that names the user; the first query feature by default, if it is `Categorical`.
            Without one, nothing can be grouped by user: histories, sequences and evaluation of retrieval need it.
        candidate_id: categorical feature that names the item; the first candidate feature by default.

    Raises:
        ValueError: if a name occurs twice, an id is not a `Categorical` feature, or a sequence refers to no feature.

    Example:
        >>> from tfmtl.data import Categorical
        >>> schema = Schema(
        ...     query=[Categorical("user_id")], candidate=[Categorical("movie_id")], labels=[Label("rating")]
        ... )
        >>> schema.query_id, schema.candidate_id, list(schema.features)
        ('user_id', 'movie_id', ['user_id', 'movie_id'])
    """

    query: tuple[Feature, ...]
    candidate: tuple[Feature, ...] = ()
    context: tuple[Feature, ...] = ()
    labels: tuple[Label, ...] = ()
    query_id: str = ""
    candidate_id: str = ""

    def __post_init__(self) -> None:
        for role, kind in (("query", Feature), ("candidate", Feature), ("context", Feature), ("labels", Label)):
            values = getattr(self, role)
            require_type(values, (tuple, list), role)
            object.__setattr__(self, role, tuple(values))
            for value in values:
                require_type(value, kind, f"{role}[...]")
        require(bool(self.query), "A schema needs at least one query feature.", query=self.query)
        self._check_names()
        for role in ("query", "candidate"):
            self._check_id(role)

    def _check_names(self) -> None:
        names = [feature.name for feature in (*self.query, *self.candidate, *self.context)]
        twice = sorted({name for name in names if names.count(name) > 1})
        require(not twice, "Every feature name may occur once in a schema.", twice=twice)
        tasks = [label.task for label in self.labels]
        twice = sorted({task for task in tasks if tasks.count(task) > 1})
        require(not twice, "Every task may have one label in a schema.", twice=twice)
        for feature in self.features.values():
            feature.check(self.features)

    def _check_id(self, role: str) -> None:
        roles: tuple[Feature, ...] = getattr(self, role)
        if not roles:
            return
        name = getattr(self, f"{role}_id") or roles[0].name
        if role == "query" and not self.query_id and not roles[0].is_id:
            return  # a model of texts and numbers alone needs no user
        require_known([name], [f.name for f in roles], f"{role} feature", f"`{role}_id`")
        feature = self.features[name]
        cure = " Candidates without an id have no corpus; list their features under `context`."
        rule = f"`{role}_id` must be a Categorical feature.{cure if role == 'candidate' else ''}"
        require(feature.is_id, rule, feature=feature)
        object.__setattr__(self, f"{role}_id", name)

    def user(self, purpose: str) -> str:
        """Return `query_id`.

        Args:
            purpose: the operation that needs it, for the error.

        Raises:
            ValueError: if the schema has none.
        """
        cure = "name a Categorical query feature by `query_id`"
        require(bool(self.query_id), f"{purpose} needs the user, and the schema has none; {cure}.")
        return self.query_id

    @property
    def features(self) -> dict[str, Feature]:
        """All features by name: query, candidate, then context."""
        return {feature.name: feature for feature in (*self.query, *self.candidate, *self.context)}

    def fitted(self, statistics: Statistics) -> Schema:
        """Return the schema in which numbers have the types that the training split needs; see `Numeric`."""
        roles: dict[str, Any] = {
            role: tuple(feature.fitted(statistics) for feature in getattr(self, role))
            for role in ("query", "candidate", "context")
        }
        return dataclasses.replace(self, **roles)

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """The columns of all features."""
        return tuple(dict.fromkeys(feature.column for feature in self.features.values()))

    @property
    def ids(self) -> dict[str, str]:
        """The names of the features that identify a row's user (`"query"`) and candidate (`"candidate"`)."""
        names = {"query": self.query_id, "candidate": self.candidate_id if self.candidate else ""}
        return {role: name for role, name in names.items() if name}

    @property
    def vocabularies(self) -> dict[str, Feature]:
        """The features that own a vocabulary, by name."""
        return {name: f for name, f in self.features.items() if f.vocabulary == name}

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the labelled tasks."""
        return tuple(label.task for label in self.labels)

    def with_labels_of(self, tasks: bool | Collection[str]) -> Schema:
        """Return the schema with the labels of some tasks, all of them (True) or none (False)."""
        require_several(tasks=tasks)
        if tasks is True:
            return self
        labels = tuple(label for label in self.labels if tasks and label.task in tasks)
        return dataclasses.replace(self, labels=labels)

    def label(self, task: str) -> Label:
        """Return the label of `task`."""
        require_known([task], self.tasks, "task", "the schema")
        return next(label for label in self.labels if label.task == task)

    def columns(self) -> Iterator[str]:
        """Yield every column a training table must have."""
        yield from self.feature_columns
        yield from self.label_columns

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of all labels and of their weights."""
        every = [column for label in self.labels for column in (label.column, label.sample_weight)]
        return tuple(column for column in every if column)

    def get_config(self) -> dict[str, Any]:
        """Return every field as plain values that `from_config` rebuilds the schema from."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schema:
        """Rebuild a schema from `get_config`; a schema is never rebuilt from a part of it."""
        return cls(**{name: _rebuilt(value) for name, value in config.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Feature):
        return to_plain(value)
    return dataclasses.asdict(value) if isinstance(value, Label) else value


def _rebuilt(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_rebuilt(part) for part in value]
    if not isinstance(value, Mapping):
        return value
    return from_plain(**value) if "kind" in value else Label(**value)
