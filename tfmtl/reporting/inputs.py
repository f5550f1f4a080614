"""The inputs of a report, read once and shared by its sections."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._keras import tf
from tfmtl.baselines.comparison import MODEL, Outcomes, of_baselines, of_model, run
from tfmtl.data import Batch, keys_of, to_batch, to_columns
from tfmtl.evaluation.reports.outcomes import Outcome
from tfmtl.evaluation.reports.report import labels_of, predict
from tfmtl.models import MultiTaskModel


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs of a report.

    Attributes:
        model: the model.
        test: table (pandas) to measure on.
        train: training table, or None.
        seen: table of known interactions, or None.
        history: logged values by epoch, or None.
        conflicts: history of a `ConflictMonitor`, or None.
        slices: columns of `test` by which tasks are measured.
        k: length of a list of recommendations.
        examples: number of users with a list.
        rows: largest number of rows of an importance.
        seed: seed of draws.
    """

    model: MultiTaskModel
    test: Any
    train: Any
    seen: Any
    history: Mapping[str, Sequence[float]] | None
    conflicts: Any
    slices: tuple[str, ...]
    k: int
    examples: int
    rows: int
    seed: int

    @property
    def lead(self) -> str:
        """The sentence under the title."""
        return f"{len(self.model.tasks)} tasks, measured on {len(self.test):,} rows that did not train the model."

    @property
    def id_columns(self) -> list[str]:
        """The columns of the user and of the candidate, of those that the schema has."""
        schema = self.model.schema
        return [schema.features[name].column for name in schema.ids.values()]

    @functools.cached_property
    def batch(self) -> Batch:
        """The encoded test rows, with the labels that they have."""
        return to_batch(self.test, self.model.preprocessor, labels=labels_of(self.model, self.test, []))

    @functools.cached_property
    def predictions(self) -> dict[str, Any]:
        """The served value of each task on the test rows."""
        return predict(self.model, self.batch)

    @functools.cached_property
    def judged(self) -> list[str]:
        """The tasks that the test rows can measure: retrievals, and those with a label column."""
        schema = self.model.schema
        return [
            task.name
            for task in self.model.tasks
            if task.name not in schema.tasks or schema.label(task.name).column in self.test
        ]

    @functools.cached_property
    def outcomes(self) -> Outcomes:
        """Outcomes by method and task: of the model, and with training rows of the simple baselines."""
        options: dict[str, Any] = {"ks": None, "seen": self.seen, "outside": "miss", "seed": self.seed}
        read = any(not task.retrieves and task.name in self.judged for task in self.model.tasks)
        given: dict[str, Any] = {"batch": self.batch, "predictions": self.predictions if read else {}}
        planned = list(of_model(self.model, self.test, self.judged, **options, **given))
        if self.train is not None:
            options |= {"time": None, "max_rows": 50_000, "tune": False}
            planned += of_baselines(self.model, self.train, self.test, self.judged, **options)
        return run(planned)

    @property
    def own(self) -> dict[str, Outcome]:
        """Outcomes of the model by task, of those with a label in the test rows."""
        return self.outcomes.get(MODEL, {})

    def keys_of_users(self, table: Any) -> npt.NDArray[np.int64]:
        """Return the keys of the users of a table, which are equal for equal ids."""
        name = self.model.schema.query_id
        column = to_columns(table, [self.model.schema.features[name]])[name]
        keys: npt.NDArray[np.int64] = keys_of(tf.constant(column)).numpy()
        return keys

    def sample(self) -> Any:
        """Return at most `rows` of the test rows, drawn without replacement."""
        chosen = np.random.default_rng(self.seed).permutation(len(self.test))[: self.rows]
        return self.test.iloc[np.sort(chosen)]


def plain(value: Any) -> Any:
    """Return an id as a Python value that compares with those of a table."""
    return value.decode() if isinstance(value, bytes) else value.item() if isinstance(value, np.generic) else value
