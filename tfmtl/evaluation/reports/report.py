"""Reports: the metrics of all tasks of a model, or of its trivial baselines, as one pandas series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_known
from tfmtl._keras import tf
from tfmtl.data import Batch, Preprocessor, Schema, to_batch
from tfmtl.data.frames import gather_batches, rows_of_pass
from tfmtl.data.interchange import as_frame
from tfmtl.evaluation.corpus import Corpus, Outside, Seen, locate, positions, positives
from tfmtl.evaluation.ranks import BLOCK_BYTES, Progress
from tfmtl.models import MultiTaskModel
from tfmtl.models.label_checks import check_values
from tfmtl.tasks import Task

Metrics = dict[str, float]


def evaluate(
    model: MultiTaskModel,
    frame: pd.DataFrame,
    *,
    seen: pd.DataFrame | None = None,
    ks: Sequence[int] | int | None = None,
    tasks: Sequence[str] | None = None,
    outside: Outside = "miss",
    progress: Progress | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> pd.Series:
    """Measure every task of a model on a table.

    Use it for the final comparison of models; compare with `trivial_baseline`. A retrieval task is measured on the
    whole corpus, other tasks by their hook `Task.report`.

    Positives that no list can hold are counted: `corpus_coverage` is the share of positives inside the corpus, and the
    metrics that end with `_in_corpus` are those of these positives alone; both are there if the share is below 1.
    `seen_share` is the share of positives left out because they are in `seen`; it is there if above 0.

    Args:
        model: the model, with `candidates` if it has a retrieval task.
        frame: table with features and labels; rows with a missing label do not count for that task.
        seen: table of known interactions, usually the training split, to remove from the lists of their users; it needs
            only the two id columns. With None all candidates remain in the lists.
        ks: cut-offs of the retrieval metrics, or a single one; by default those of 10 and 100 that the corpus allows.
        tasks: names of the tasks to measure, all by default; the labels of other tasks may be absent.
        outside: whether positives outside the corpus are misses (`"miss"`), or do not count (`"ignore"`).
        progress: called with the number of ranked queries and of all queries, such as a `ProgressBar()`.
        block_bytes: bound of the memory for a block of scores of queries and all candidates.

    Returns:
        Values by (task, metric), without the tasks that have no observed label in the table.

    Raises:
        ValueError: if a column is missing, a task is unknown, or a cut-off is invalid.

    Cost: one forward pass; for retrieval one matrix product per block of distinct queries.
    """
    frame = as_frame(frame)
    require_known(tasks or (), [task.name for task in model.tasks], "task", "`tasks`")
    chosen = [task for task in model.tasks if tasks is None or task.name in tasks]
    require_known([outside], ("miss", "ignore"), "value", "`outside`")
    batch = to_batch(frame, model.preprocessor, labels=labels_of(model, frame, chosen))
    report: dict[tuple[str, str], float] = {}
    for task in chosen:
        if task.retrieves and len(positives(batch, task.name)):
            corpus = corpus_of(model, task.name, batch, seen)
            towers = (model.tower("query"), model.tower("candidate"))
            values = corpus.metrics(corpus.rank(*towers, task.name, progress, block_bytes), ks, outside)
            report |= {(task.name, metric): value for metric, value in values.items()}
    ranking = [task for task in chosen if not task.retrieves]
    predictions = predict(model, batch) if ranking else {}
    for task in ranking:
        labels, weights = judged(task, model.schema, batch)
        rows = np.flatnonzero(weights > 0)
        if len(rows):
            values = task.report(labels[rows], _rows_of(predictions[task.name], rows), weights[rows])
            report |= {(task.name, metric): value for metric, value in values.items()}
    return as_series(report)


def trivial_baseline(
    model: MultiTaskModel,
    train: pd.DataFrame,
    frame: pd.DataFrame,
    *,
    seen: pd.DataFrame | None = None,
    ks: Sequence[int] | int | None = None,
    outside: Outside = "miss",
) -> pd.Series:
    """Measure predictions without a model: popularity for retrieval, the best constant for every other task.

    Use it as the lower bound that a report of `evaluate` has to exceed. The constant is `Task.constant_prediction`.

    Args:
        model: model with the schema, the tasks and the corpus; its weights are not used.
        train: training table, which determines popularity and constants; it needs ids and labels only.
        frame: table to measure on; it needs ids and labels only. Query features that it has distinguish the situations
            of a user, as in `evaluate`.
        seen: as in `evaluate`.
        ks: as in `evaluate`.
        outside: as in `evaluate`.

    Returns:
        Values by (task, metric), as `evaluate` returns them.
    """
    batch, known = (ids_and_labels(table, model.preprocessor) for table in (frame, train))
    report: dict[tuple[str, str], float] = {}
    for task in model.tasks:
        if task.retrieves:
            some = len(positives(batch, task.name))
            values = _popularity(model, task.name, batch, known, seen, ks, outside) if some else {}
        else:
            values = _constant(task, model.schema, batch, known)
        report |= {(task.name, metric): value for metric, value in values.items()}
    return as_series(report)


def side_by_side(reports: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Join reports into one table with a column per model and a row per (task, metric).

    Example:
        >>> index = pd.MultiIndex.from_tuples([("rating", "rmse")], names=["task", "metric"])
        >>> reports = {"a": pd.Series([0.9], index), "b": pd.Series([1.0], index)}
        >>> side_by_side(reports).loc[("rating", "rmse"), "b"].item()
        1.0
    """
    require(bool(reports), "`reports` must hold at least one report.", reports=reports)
    return pd.DataFrame(dict(reports))


def retained_margin(
    report: pd.Series, reference: pd.Series, baseline: pd.Series, metrics: Mapping[str, str]
) -> pd.Series:
    """Return, by task, the share of a reference's margin over a baseline that a model retains.

    Use it for compressed models: 1 is the quality of the reference, 0 that of the baseline.

    share = (value - baseline) / (reference - baseline), for metrics to maximize and to minimize; NaN if reference and
    baseline are equal.

    Args:
        report: report of the model.
        reference: report of the reference, such as the teacher.
        baseline: report of the baseline, such as that of `trivial_baseline`.
        metrics: the metric of each task.
    """
    shares = {}
    for task, metric in metrics.items():
        value, best, least = (float(r.loc[(task, metric)]) for r in (report, reference, baseline))
        shares[task] = (value - least) / (best - least) if best != least else float("nan")
    return pd.Series(shares, name="retained_margin")


def labels_of(model: MultiTaskModel, frame: pd.DataFrame, chosen: Sequence[Task]) -> list[str]:
    """Return the tasks that need their labels, and those with a label column in the table."""
    needed = {task.name for task in chosen}
    return [label.task for label in model.schema.labels if label.task in needed or label.column in frame]


def ids_and_labels(frame: pd.DataFrame, preprocessor: Preprocessor, labels: bool | Sequence[str] = True) -> Batch:
    """Encode the ids, the labels of some tasks (all by default), and the query features that a table has."""
    schema, frame = preprocessor.schema, as_frame(frame)
    ids = schema.ids.values()
    present = [f for f in schema.query if f.name in frame]
    features = [*present, *(schema.features[name] for name in ids if schema.features[name] not in present)]
    return to_batch(frame, preprocessor, labels=labels, features=[feature.name for feature in features])


def corpus_of(model: MultiTaskModel, task: str, batch: Batch, seen: pd.DataFrame | None) -> Corpus:
    """Find the positives of a retrieval task in an encoded table, outside the known interactions `seen`."""
    return locate(model, task, batch, None if seen is None else Seen.from_frame(model, task, seen))


def _popularity(
    model: MultiTaskModel,
    task: str,
    batch: Batch,
    train: Batch,
    seen: pd.DataFrame | None,
    ks: Sequence[int] | int | None,
    outside: Outside,
) -> Metrics:
    corpus = corpus_of(model, task, batch, seen)
    chosen = positions(corpus.candidates, train.ids["candidate"].numpy()[positives(train, task)])
    return corpus.metrics(corpus.rank_by_popularity(chosen), ks, outside)


def _constant(task: Task, schema: Schema, batch: Batch, known: Batch) -> Metrics:
    labels, weights = judged(task, schema, batch)
    rows = np.flatnonzero(weights > 0)
    if not len(rows):
        return {}
    constant = task.constant_prediction(*judged(task, schema, known), len(rows))
    return task.report(labels[rows], constant, weights[rows])


def judged(task: Task, schema: Schema, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels [N] of a task and the weights [N] of the rows in the metrics of its served value."""
    ones = tf.ones([len(next(iter(batch.features.values())))])  # without a label in the schema, every row is a positive
    labels, weights = batch.labels.get(task.name, ones), batch.weights.get(task.name, ones)
    if task.name in batch.labels:
        check_values(task, schema, labels, weights)
    return labels.numpy(), task.served_weight(weights, batch.labels).numpy()


def predict(model: MultiTaskModel, batch: Batch, rows: np.ndarray | None = None) -> dict[str, Any]:
    """Return the served values of each task for an encoded table, or for some of its rows."""
    unlabelled = Batch(batch.features, {}, {}, batch.ids)
    predictions: dict[str, Any] = model.predict(gather_batches(unlabelled, rows_of_pass(batch.features)), verbose=0)
    return predictions if rows is None else {name: _rows_of(values, rows) for name, values in predictions.items()}


def _rows_of(predictions: Any, rows: np.ndarray) -> Any:
    """Return the rows of served values, which may be a structure of arrays."""
    return tf.nest.map_structure(lambda values: values[rows], predictions)


def as_series(report: Mapping[tuple[str, str], float]) -> pd.Series:
    """Return values by (task, metric) as a series."""
    index = pd.MultiIndex.from_tuples(list(report), names=["task", "metric"])
    return pd.Series(list(report.values()), index, dtype=float, name="value")
