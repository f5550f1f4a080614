"""The outcomes of a model's tasks on a table, and on the same rows with other features."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfmtl._keras import tf, traced
from tfmtl.data import Batch, to_batch
from tfmtl.data.frames import rows_of_pass
from tfmtl.evaluation.corpus import Corpus, Embedder, positives
from tfmtl.evaluation.reports.attack import attacker
from tfmtl.evaluation.reports.outcomes import Outcome, of_ranks, of_rows
from tfmtl.evaluation.reports.report import corpus_of, judged, labels_of
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import Task


class Line(NamedTuple):
    """The outcome of one task.

    Attributes:
        outcome: metrics, and their values for weights of the rows.
        rows: number of rows, of a retrieval of positives, that the metrics read.
        paired: whether the rows of the measure are those of the plain table.
    """

    outcome: Outcome
    rows: int
    paired: bool = True


Lines = dict[str, Line]
"""Outcomes by task."""


class MeasuredTable:
    """A table that is encoded once.

    The queries of retrieval tasks, their users, positives and `seen` are those of the table in every measurement; a
    query has the features of its first row.

    Args:
        model: the model.
        frame: table with features and labels.
        tasks: the tasks to measure; those without a label in the table are left out.
        seen, ks: as in `evaluate`.
        seed: chooses rows for the measures of large tables.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        frame: pd.DataFrame,
        tasks: Sequence[Task],
        seen: pd.DataFrame | None = None,
        ks: Sequence[int] | int | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.frame, self.seen, self.ks, self.seed = model, frame, seen, ks, seed
        self.batch = to_batch(frame, model.preprocessor, labels=labels_of(model, frame, tasks))
        self.corpora: dict[str, Corpus] = {}
        self.known: dict[str, tuple[Any, Any]] = {}
        for task in tasks:
            if task.retrieves and len(positives(self.batch, task.name)):
                self.corpora[task.name] = corpus_of(model, task.name, self.batch, seen)
            elif not task.retrieves:
                labels, weights = judged(task, model.schema, self.batch)
                if (weights > 0).any():
                    self.known[task.name] = labels, weights
        self.tasks = [task for task in tasks if task.name in self.corpora or task.name in self.known]
        self._attackers: dict[tuple[str, int], Callable[[Batch, float], Any]] = {}

    @property
    def ranking(self) -> list[Task]:
        """The measured tasks that do not retrieve."""
        return [task for task in self.tasks if not task.retrieves]

    @functools.cached_property
    def predictions(self) -> Mapping[str, Any]:
        """The served values of the table."""
        return self._predict(self.batch.features)

    @functools.cached_property
    def clean(self) -> Lines:
        """The outcomes of the table as it is."""
        return self._lines(self.corpora, self.predictions)

    @functools.cached_property
    def _towers(self) -> tuple[Embedder, Embedder]:
        return Embedder(self.model.tower("query")), Embedder(self.model.tower("candidate"))

    def changed(self, features: Mapping[str, tf.Tensor]) -> Lines:
        """Return the outcomes with other encodings [N, ...] of some features; of retrievals if queries have them."""
        corpora = {}
        for name, corpus in self.corpora.items():
            own = {key: value.numpy()[corpus.first] for key, value in features.items() if key in corpus.queries}
            if own:
                corpora[name] = dataclasses.replace(corpus, queries={**corpus.queries, **own})
        return self._lines(corpora, self._predict({**self.batch.features, **features}))

    def attacked(self, strength: float, steps: int) -> Lines:
        """Return the outcomes of ranking tasks under an attack on each of them; see `attack`."""
        found = {}
        for task in self.ranking:
            key = (task.name, steps)
            if key not in self._attackers:
                self._attackers[key] = attacker(self.model, task, steps)
            found[task.name] = self._of_rows(task, self._attackers[key](self.batch, strength))
        return found

    def part(self, rows: npt.NDArray[np.bool_]) -> Lines:
        """Return the outcomes of some rows [N] of the table, without those of tasks that have no label in them."""
        found, positions = {}, np.flatnonzero(rows)
        some = tf.nest.map_structure(lambda column: tf.gather(column, positions), self.batch)
        for task in self.tasks:
            if not task.retrieves:
                if (self.known[task.name][1] * rows > 0).any():
                    found[task.name] = self._of_rows(task, self.predictions[task.name], rows)
            elif len(positives(some, task.name)):
                with_seen = self.seen is not None
                try:
                    corpus = corpus_of(self.model, task.name, some, self.seen)
                except ValueError:
                    if not with_seen:
                        raise
                    continue  # all positives of the part are in `seen`
                found[task.name] = self._of_corpus(task.name, corpus)._replace(paired=False)
        return found

    @functools.cached_property
    def _serve(self) -> Callable[[Mapping[str, tf.Tensor]], Any]:
        """Return the served values of a pass; `predict` of Keras would build a data set for each condition."""
        model, names = self.model, [task.name for task in self.ranking]

        def serve(features: Mapping[str, tf.Tensor]) -> Any:
            served = model.served(model(features, training=False), features)
            return {name: served[name] for name in names}

        function: Callable[[Mapping[str, tf.Tensor]], Any] = traced(serve, reduce_retracing=True)
        return function

    def _predict(self, features: Mapping[str, tf.Tensor]) -> Mapping[str, Any]:
        if not self.known:
            return {}
        step = rows_of_pass(features)
        starts = range(0, len(self.frame), step)
        parts = [self._serve({name: column[i : i + step] for name, column in features.items()}) for i in starts]
        served: Mapping[str, Any] = tf.nest.map_structure(
            lambda *arrays: np.concatenate([array.numpy() for array in arrays]), *parts
        )
        return served

    def _lines(self, corpora: Mapping[str, Corpus], predictions: Mapping[str, Any]) -> Lines:
        found = {}
        for task in self.tasks:
            if task.name in corpora:
                found[task.name] = self._of_corpus(task.name, corpora[task.name])
            elif not task.retrieves:
                found[task.name] = self._of_rows(task, predictions[task.name])
        return found

    def _of_corpus(self, name: str, corpus: Corpus) -> Line:
        ranks = corpus.rank(*self._towers, name)
        return Line(of_ranks(corpus, ranks, self.ks, "miss"), len(corpus.query_index))

    def _of_rows(self, task: Task, served: Any, part: Any = 1.0) -> Line:
        labels, weights = self.known[task.name]
        rows = np.flatnonzero(weights > 0)
        users = self.batch.ids["query"].numpy() if "query" in self.batch.ids else np.arange(len(labels))
        chosen = tf.nest.map_structure(lambda values: values[rows], served)
        inside = (weights * part)[rows]
        return Line(of_rows(task, labels[rows], chosen, inside, users[rows], self.seed), int((inside > 0).sum()))
