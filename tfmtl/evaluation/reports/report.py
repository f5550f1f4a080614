"""One pandas report a model: every task's metrics, beside the trivial baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._checks import require, require_known
from tfmtl._keras import tf
from tfmtl.data import Batch, to_batch
from tfmtl.data.frames import gather_batches
from tfmtl.evaluation.corpus import Seen, locate, positions, positives
from tfmtl.evaluation.ranks import BLOCK_BYTES, Progress
from tfmtl.evaluation.retrieval_metrics import retrieval_metrics
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import Task

Metrics = dict[str, float]


def evaluate(
    model: MultiTaskModel,
    frame: pd.DataFrame,
    *,
    seen: pd.DataFrame | None = None,
    ks: Sequence[int] = (10, 100),
    tasks: Sequence[str] | None = None,
    progress: Progress | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> pd.Series:
    """Measure every task of a model on a table.

    Args:
        model: the model; retrieval is measured against its whole corpus.
        frame: table with features and labels; rows with a missing label do not count for that task.
        seen: table of known interactions, usually the training split, whose items are taken out of their users' lists;
            the two id columns are enough. None leaves them in.
        ks: cut-offs of the retrieval metrics.
        tasks: names of the tasks to measure, all by default.
        progress: called with (queries ranked, queries in all), such as a `ProgressBar()`.
        block_bytes: bound of the memory in which scores of queries with all candidates are held at a time.

    Returns:
        Values by (task, metric); a task without an observed label in the table has no rows.

    Raises:
        ValueError: naming the column, task or cut-off at fault.

    Cost: one forward pass; retrieval costs one matrix product a block of distinct queries.
    """
    require_known(tasks or (), [task.name for task in model.tasks], "task", "`tasks`")
    chosen = [task for task in model.tasks if tasks is None or task.name in tasks]
    batch = to_batch(frame, model.preprocessor)
    report: dict[tuple[str, str], float] = {}
    for task in chosen:
        if task.retrieves and len(positives(batch, task.name)):
            values = _retrieval(model, task.name, frame, batch, seen, ks, progress, block_bytes)
            report |= {(task.name, metric): value for metric, value in values.items()}
    ranking = [task for task in chosen if not task.retrieves]
    predictions = _predict(model, batch) if ranking else {}
    for task in ranking:
        labels, weights = _judged(task, batch)
        rows = np.flatnonzero(weights > 0)
        if len(rows):
            values = task.report(labels[rows], _rows_of(predictions[task.name], rows), weights[rows])
            report |= {(task.name, metric): value for metric, value in values.items()}
    return _series(report)


def trivial_baseline(
    model: MultiTaskModel,
    train: pd.DataFrame,
    frame: pd.DataFrame,
    *,
    seen: pd.DataFrame | None = None,
    ks: Sequence[int] = (10, 100),
) -> pd.Series:
    """Measure what needs no model: popularity for retrieval, the best constant for each ranking task.

    Args:
        model: gives schema, tasks and corpus; its weights are not used.
        train: table the baselines learn from.
        frame: table to measure on.
        seen: as in `evaluate`.
        ks: cut-offs of the retrieval metrics.

    Returns:
        Values by (task, metric), as `evaluate` returns them.
    """
    batch, known = to_batch(frame, model.preprocessor), to_batch(train, model.preprocessor)
    report: dict[tuple[str, str], float] = {}
    for task in model.tasks:
        if task.retrieves:
            values = (
                _popularity(model, task.name, frame, batch, known, seen, ks) if len(positives(batch, task.name)) else {}
            )
        else:
            values = _constant(task, batch, known)
        report |= {(task.name, metric): value for metric, value in values.items()}
    return _series(report)


def side_by_side(reports: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Put reports side by side: one column a model, rows by (task, metric).

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
    """Return the share of a reference's margin over a baseline that a model keeps, by task.

    share = (value - baseline) / (reference - baseline), whichever direction is better; NaN where the reference does not
    differ from the baseline.

    Args:
        report: the model's report.
        reference: for example its teacher's.
        baseline: for example from `trivial_baseline`.
        metrics: metric to judge each task by, by task.
    """
    shares = {}
    for task, metric in metrics.items():
        value, best, least = (float(r.loc[(task, metric)]) for r in (report, reference, baseline))
        shares[task] = (value - least) / (best - least) if best != least else float("nan")
    return pd.Series(shares, name="retained_margin")


def _retrieval(
    model: MultiTaskModel,
    task: str,
    frame: pd.DataFrame,
    batch: Batch,
    seen: pd.DataFrame | None,
    ks: Sequence[int],
    progress: Progress | None,
    block_bytes: int,
) -> Metrics:
    known = None if seen is None else Seen.from_frame(model, task, seen)
    corpus = locate(model, task, frame, batch, known)
    ranks = corpus.rank(model.tower("query"), model.tower("candidate"), task, progress, block_bytes)
    return retrieval_metrics(
        ranks, corpus.query_index, ks, items=corpus.candidate_index, num_candidates=len(corpus.candidates)
    )


def _popularity(
    model: MultiTaskModel,
    task: str,
    frame: pd.DataFrame,
    batch: Batch,
    train: Batch,
    seen: pd.DataFrame | None,
    ks: Sequence[int],
) -> Metrics:
    known = None if seen is None else Seen.from_frame(model, task, seen)
    corpus = locate(model, task, frame, batch, known)
    item = model.schema.candidate_id
    chosen = positions(corpus.candidates, item, train.features[item].numpy()[positives(train, task)])
    ranks = corpus.rank_by_popularity(chosen)
    return retrieval_metrics(
        ranks, corpus.query_index, ks, items=corpus.candidate_index, num_candidates=len(corpus.candidates)
    )


def _constant(task: Task, batch: Batch, known: Batch) -> Metrics:
    labels, weights = _judged(task, batch)
    rows = np.flatnonzero(weights > 0)
    if not len(rows):
        return {}
    constant = task.constant_prediction(*_judged(task, known), len(rows))
    return task.report(labels[rows], constant, weights[rows])


def _judged(task: Task, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Return a task's labels [N] and the weights [N] of the rows on which its served values are judged."""
    ones = tf.ones([len(next(iter(batch.features.values())))])  # a task without a label has a positive in every row
    weights = task.served_weight(batch.weights.get(task.name, ones), batch.labels)
    return batch.labels.get(task.name, ones).numpy(), weights.numpy()


def _predict(model: MultiTaskModel, batch: Batch) -> dict[str, Any]:
    unlabelled = Batch(batch.features, {}, {})
    predictions: dict[str, Any] = model.predict(gather_batches(unlabelled, 8192), verbose=0)
    return predictions


def _rows_of(predictions: Any, rows: np.ndarray) -> Any:
    """Return the rows of served values, which may be a structure of arrays."""
    return tf.nest.map_structure(lambda values: values[rows], predictions)


def _series(report: Mapping[tuple[str, str], float]) -> pd.Series:
    index = pd.MultiIndex.from_tuples(list(report), names=["task", "metric"])
    return pd.Series(list(report.values()), index, dtype=float, name="value")
