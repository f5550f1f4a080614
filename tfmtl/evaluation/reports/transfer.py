"""Negative transfer: each task of a joint model against a model of this task alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from tfmtl._checks import require
from tfmtl.data import Batch, to_batch
from tfmtl.data.interchange import as_frame
from tfmtl.evaluation.corpus import positives
from tfmtl.evaluation.reports.bootstrap_comparison import Measure, bootstrap_comparison, delta_m
from tfmtl.evaluation.reports.report import corpus_of, judged, labels_of, predict
from tfmtl.evaluation.retrieval_metrics import retrieval_values
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import Task
from tfmtl.tasks.label_metrics import SMALLER_IS_BETTER

JUDGED_BY = ("auc", "macro_auc", "rmse", "pinball")
"""Metrics by which a task that is not a retrieval is judged, the first that it reports."""
_CURES = {
    "retrieval": "isolate it in `build_network`, or lower the weights of the other tasks in `FixedWeights`",
    "ranking": "isolate it in `build_network`, raise its weight in `FixedWeights`, or give each task tables by `STEM`",
}


def transfer_report(
    joint: MultiTaskModel,
    alone: Mapping[str, MultiTaskModel] | Callable[[str], MultiTaskModel],
    test: Any,
    *,
    seen: Any = None,
    k: int = 10,
    samples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare each task of a joint model with a model that was trained on this task alone.

    Use it to find tasks that lose by being trained with others. Give both the same budget: the same network, optimizer
    and number of epochs, chosen in the same way.

    A retrieval task is judged by NDCG@k of users, another task by its AUC, macro AUC, RMSE or pinball
    loss. The interval is that of a bootstrap over users, on the same draws for both models; see `bootstrap_comparison`.

    Args:
        joint: the model of all tasks.
        alone: model of each task by its name, or a function that trains one and is called for each task.
        test: table with features and labels, outside the training and validation rows of all models.
        seen: as in `evaluate`.
        k: cut-off of the NDCG.
        samples, level, seed: as in `bootstrap_comparison`.

    Returns:
        A table with one row for each task that has a label in `test` and the columns `metric`, `joint`, `alone`,
        `gain`, `gain_low`, `gain_high` (above 0 where the joint model is better), `verdict` (`"better"`, `"worse"` or
        `"level"`, if the interval holds 0) and `cure`. `attrs["delta_m"]` is the mean relative gain; see `delta_m`.

    Raises:
        ValueError: if a task has no model of its own, or a model lacks the task.

    Cost: `samples` metrics of each task on the test rows, and the trainings.
    """
    test = as_frame(test)
    rows, pairs = {}, {}
    for task in joint.tasks:
        if not _has_labels(task, joint, _encoded(joint, task, test)):
            continue
        models = {"joint": joint, "alone": _single(alone, task.name)}
        metric, measures, users = (_of_retrieval if task.retrieves else _of_rows)(models, task, test, seen, k)
        options: Any = {"samples": samples, "level": level, "seed": seed}
        compared = bootstrap_comparison(measures, users, baseline="alone", **options).xs(metric, level="metric")
        sign = -1.0 if metric in SMALLER_IS_BETTER else 1.0
        gain = sign * compared.loc["joint", ["difference", "difference_low", "difference_high"]].to_numpy(float)
        gain[1:] = np.sort(gain[1:])
        verdict = "better" if gain[1] > 0 else "worse" if gain[2] < 0 else "level"
        cure = _CURES["retrieval" if task.retrieves else "ranking"] if verdict == "worse" else ""
        pairs[task.name] = compared["value"]
        rows[task.name] = [metric, compared["value"]["joint"], compared["value"]["alone"], *gain, verdict, cure]
    columns = ["metric", "joint", "alone", "gain", "gain_low", "gain_high", "verdict", "cure"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("task")
    table.attrs["delta_m"] = _mean_gain(table)
    return table


def _mean_gain(table: pd.DataFrame) -> float:
    """Return Delta_m over the tasks with a value other than 0 alone; NaN without one."""
    known = table[table["alone"] != 0]
    if not len(known):
        return float("nan")
    better: Any = {task: "min" if metric in SMALLER_IS_BETTER else "max" for task, metric in known["metric"].items()}
    return delta_m(known["joint"].to_dict(), known["alone"].to_dict(), better)


def _single(alone: Any, task: str) -> MultiTaskModel:
    """Return the model of one task."""
    require(callable(alone) or task in alone, f"`alone` has no model of task {task!r}; add one, or give a function.")
    model: MultiTaskModel = alone(task) if callable(alone) else alone[task]
    names = [other.name for other in model.tasks]
    require(task in names, f"The model of task {task!r} in `alone` lacks it.", tasks=names)
    return model


def _encoded(model: MultiTaskModel, task: Task, test: pd.DataFrame) -> Batch:
    """Return the table as a model encodes it."""
    return to_batch(test, model.preprocessor, labels=labels_of(model, test, [task]))


def _has_labels(task: Task, model: MultiTaskModel, batch: Batch) -> bool:
    if task.retrieves:
        return bool(len(positives(batch, task.name)))
    return bool((judged(task, model.schema, batch)[1] > 0).any())


def _of_retrieval(
    models: Mapping[str, MultiTaskModel], task: Task, test: pd.DataFrame, seen: Any, k: int
) -> tuple[str, dict[str, Measure], Any]:
    """Return the metric, by model its mean over users by their weights, and the users."""
    measures: dict[str, Measure] = {}
    users: Any = None
    for name, model in models.items():
        corpus = corpus_of(model, task.name, _encoded(model, task, test), seen)
        ranks = corpus.rank(model.tower("query"), model.tower("candidate"), task.name)
        k = min(k, len(corpus.candidates))
        queries, values = retrieval_values(
            ranks, corpus.query_index, k, items=corpus.items, num_candidates=len(corpus.candidates)
        )
        users = corpus.users[queries]
        measures[name] = _mean(f"ndcg@{k}", values[f"ndcg@{k}"])
    return f"ndcg@{k}", measures, users


def _mean(metric: str, values: Any) -> Measure:
    return lambda weights: {metric: float(np.average(values, weights=weights))}


def _of_rows(
    models: Mapping[str, MultiTaskModel], task: Task, test: pd.DataFrame, seen: Any, k: int
) -> tuple[str, dict[str, Measure], Any]:
    """Return the metric, by model its value for weights of the rows, and the users."""
    del seen, k
    measures: dict[str, Measure] = {}
    batch = _encoded(models["joint"], task, test)
    labels, weights = judged(task, models["joint"].schema, batch)
    rows = np.flatnonzero(weights > 0)
    for name, model in models.items():
        served = predict(model, _encoded(model, task, test), rows)[task.name]
        measures[name] = _report(task, labels[rows], served, weights[rows])
    reported = measures["joint"](np.ones(len(rows)))
    metric = next((name for name in JUDGED_BY if name in reported), next(iter(reported)))
    users = batch.ids["query"].numpy()[rows] if "query" in batch.ids else np.arange(len(rows))
    return metric, measures, users


def _report(task: Task, labels: Any, served: Any, weights: Any) -> Measure:
    return lambda drawn: task.report(labels, served, weights * drawn)
