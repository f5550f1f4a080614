"""Comparison: a model beside the baselines of each of its tasks, as one table and one sentence."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from tfmtl._checks import require_known
from tfmtl.baselines.als import ALS
from tfmtl.baselines.ease import EASE
from tfmtl.baselines.gradient_boosting import GradientBoosting
from tfmtl.baselines.interactions import Interactions
from tfmtl.baselines.item_knn import ItemKNN
from tfmtl.baselines.personal_frequency import PersonalFrequency
from tfmtl.baselines.popularity import Popularity
from tfmtl.baselines.ranking_baseline import KINDS, RankingBaseline
from tfmtl.baselines.recent_popularity import RecentPopularity
from tfmtl.baselines.retrieval_baseline import RetrievalBaseline
from tfmtl.baselines.tfidf_linear import TfidfLinear
from tfmtl.data import Batch
from tfmtl.data.interchange import as_frame
from tfmtl.evaluation.corpus import Outside, positives
from tfmtl.evaluation.ranks import Progress, rank_by_scores
from tfmtl.evaluation.reports import evaluate, side_by_side
from tfmtl.evaluation.reports.report import as_series, corpus_of, ids_and_labels, judged, labels_of
from tfmtl.evaluation.reports.transfer import JUDGED_BY, SMALLER_IS_BETTER
from tfmtl.models import MultiTaskModel
from tfmtl.tasks import Task

MODEL = "model"
LEVEL = 0.01
"""The share of a value below which a difference is called level."""
_JUDGED_BY = ("ndcg@", *JUDGED_BY)

Measured: TypeAlias = tuple[str, str, Callable[[], dict[str, float]]]
"""A task, the name of a baseline, and the function that fits and measures it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """The result of `compare`; it prints as a table and a sentence.

    Attributes:
        table: values by (task, metric); the column `model`, and one column for each baseline, NaN where a baseline does
            not apply.
        sentence: for each task whether the model is better than its best baseline.
        best: name of the best baseline of each task, by its first metric among NDCG@k, AUC, macro AUC and RMSE.
    """

    table: pd.DataFrame
    sentence: str
    best: Mapping[str, str]

    def __str__(self) -> str:
        table = self.table.to_string(float_format="{:,.4g}".format, na_rep="-")
        return f"{table}\n\n{self.sentence}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"{self.table.to_html(float_format='{:,.4g}'.format, na_rep='-')}<p>{self.sentence}</p>"


def compare(
    model: MultiTaskModel,
    train: pd.DataFrame,
    test: pd.DataFrame,
    *,
    tasks: Sequence[str] | None = None,
    ks: Sequence[int] | int | None = None,
    seen: pd.DataFrame | None = None,
    time: str | None = None,
    outside: Outside = "miss",
    max_rows: int = 200_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Measure a model and the simple baselines of its tasks on the same rows, with the same metrics.

    Use it before every claim that a network is worth its cost. The baselines are fitted here, with their default
    arguments, to `train`:

    - retrieval: `Popularity`, `ItemKNN` and `EASE`; `ALS` if `implicit` is installed; `RecentPopularity` with `time`;
      `PersonalFrequency` if `seen` is None or users repeat candidates in `train`
    - binary, multi-class and regression tasks: the constant, `GradientBoosting`, and `TfidfLinear` with a text
    - other tasks: the constant

    The sentence calls differences below 1 % of the value level; `evaluation.bootstrap_comparison` has intervals.

    Args:
        model: the trained model, with `candidates` if it has a retrieval task.
        train: training table with features and labels.
        test: table to measure on.
        tasks: names of the tasks, all by default.
        ks: as in `evaluate`.
        seen: as in `evaluate`: known interactions to remove from the lists of the model and of the baselines.
        time: column of `train` with the time of each row, which baselines of retrieval use.
        outside: as in `evaluate`.
        max_rows: largest number of rows to which `GradientBoosting` and `TfidfLinear` are fitted.
        seed: seed of the baselines.
        progress: called after each baseline with the number of finished and of all baselines.

    Raises:
        ValueError: as `evaluate`; also if `train` has no positive inside the corpus or no label of a task.

    Cost: that of `evaluate`, and for each retrieval task a few passes over the interactions, C^3 for EASE with up to
    3000 candidates and one ranking per baseline; for each other task a fit to at most `max_rows` rows.
    """
    options: dict[str, Any] = {"ks": ks, "seen": seen, "outside": outside}
    own = evaluate(model, test, tasks=tasks, **options)
    names = list(own.index.unique("task"))
    options |= {"time": time, "max_rows": max_rows, "seed": seed, "progress": progress}
    found = measure(model, train, test, tasks=names, **options)
    table = side_by_side({MODEL: own, **found}).loc[own.index]
    best = {task: strongest(found, task) for task in names}
    known = {task: name for task, name in best.items() if name is not None}
    return Comparison(table, "; ".join(_clause(table, task, best[task]) for task in best) + ".", known)


def measure(
    model: MultiTaskModel,
    train: pd.DataFrame,
    test: pd.DataFrame,
    *,
    tasks: Sequence[str] | None = None,
    ks: Sequence[int] | int | None = None,
    seen: pd.DataFrame | None = None,
    time: str | None = None,
    outside: Outside = "miss",
    max_rows: int = 200_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, pd.Series]:
    """Return the report of each baseline by its name, in the form of `evaluate`; see `compare`.

    Use it to show baselines beside reports that already exist. The weights of the model are not used.
    """
    train, test = as_frame(train), as_frame(test)
    require_known(tasks or (), [task.name for task in model.tasks], "task", "`tasks`")
    chosen = [task for task in model.tasks if tasks is None or task.name in tasks]
    batch = ids_and_labels(test, model.preprocessor, labels_of(model, test, chosen))
    planned: list[Measured] = []
    for task in chosen:
        if task.retrieves:
            planned += _of_retrieval(model, task, train, batch, time, ks, seen, outside, seed)
        else:
            planned += _of_ranking(model, task, train, test, batch, {"max_rows": max_rows, "seed": seed})
    reports: dict[str, dict[tuple[str, str], float]] = {}
    for i, (name, baseline, values) in enumerate(planned):
        reports.setdefault(baseline, {}).update({(name, metric): value for metric, value in values().items()})
        if progress is not None:
            progress(i + 1, len(planned))
    return {name: as_series(report) for name, report in reports.items()}


def strongest(reports: Mapping[str, pd.Series], task: str) -> str | None:
    """Return the name of the report with the best value of a task's first metric; None if no report has one.

    The metric is the first of NDCG@k with the least k, AUC, macro AUC and RMSE.

    Example:
        >>> index = pd.MultiIndex.from_tuples([("stars", "rmse")], names=["task", "metric"])
        >>> strongest({"a": pd.Series([0.9], index), "b": pd.Series([0.8], index)}, "stars")
        'b'
    """
    values: dict[str, float] = {}
    for name, report in reports.items():
        metric = judged_by(report, task)
        if metric is not None and not np.isnan(report[task, metric]):
            values[name] = report[task, metric] * (-1 if metric in SMALLER_IS_BETTER else 1)
    return max(values, key=values.__getitem__) if values else None


def judged_by(report: pd.Series, task: str) -> str | None:
    """Return the metric of a report by which baselines of a task are ordered; None if it has none of them."""
    metrics = [metric for name, metric in report.index if name == task and not metric.endswith("_in_corpus")]
    for prefix in _JUDGED_BY:
        named = [metric for metric in metrics if metric == prefix or (prefix[-1] == "@" and metric.startswith(prefix))]
        if named:
            return min(named, key=lambda metric: int(metric.partition("@")[2] or 0))
    return None


def _clause(table: pd.DataFrame, task: str, best: str | None) -> str:
    """Return the judgement of one task."""
    metric = judged_by(table[MODEL], task)
    if metric is None or best is None or np.isnan(table[MODEL][task, metric]):
        return f"{task}: there is nothing to compare with"
    value, other = float(table[MODEL][task, metric]), float(table[best][task, metric])
    count = int(table.loc[(task, metric)].drop(MODEL).notna().sum())
    gain = (value - other) * (-1 if metric in SMALLER_IS_BETTER else 1)
    how = (
        "level with"
        if abs(gain) <= LEVEL * max(abs(value), abs(other))
        else "better than"
        if gain > 0
        else "worse than"
    )
    verdict = "" if how == "better than" else ": the network is not worth it yet"
    ranked = f"the best of {count} baselines" if count > 1 else "the only baseline"
    return f"{task}: the model's {metric} {value:.4g} is {how} {best} {other:.4g}, {ranked}{verdict}"


def _of_retrieval(
    model: MultiTaskModel,
    task: Task,
    train: pd.DataFrame,
    batch: Batch,
    time: str | None,
    ks: Sequence[int] | int | None,
    seen: pd.DataFrame | None,
    outside: Outside,
    seed: int,
) -> Iterator[Measured]:
    if not len(positives(batch, task.name)):
        return
    corpus = corpus_of(model, task.name, batch, seen)
    interactions = Interactions.from_frame(model, task.name, train, time)

    def measured(baseline: RetrievalBaseline) -> dict[str, float]:
        scorer = baseline.fit(interactions).scorer(corpus.users)
        ranks = rank_by_scores(
            scorer, len(corpus.candidates), corpus.query_index, corpus.candidate_index, seen=corpus.seen
        )
        return corpus.metrics(ranks, ks, outside)

    for baseline in _retrieval_baselines(interactions, seen is None, seed):
        yield task.name, type(baseline).__name__, functools.partial(measured, baseline)


def _retrieval_baselines(interactions: Interactions, keep_seen: bool, seed: int) -> list[RetrievalBaseline]:
    """Return the baselines that the data allow."""
    found: list[RetrievalBaseline] = [Popularity()]
    if interactions.times is not None:
        found.append(RecentPopularity())
    if keep_seen or bool((interactions.matrix().data > 1).any()):
        found.append(PersonalFrequency())
    found += [ItemKNN(), EASE(seed=seed)]
    return [*found, ALS(seed=seed)] if ALS.installed() else found


def _of_ranking(
    model: MultiTaskModel, task: Task, train: pd.DataFrame, test: pd.DataFrame, batch: Batch, arguments: dict[str, int]
) -> Iterator[Measured]:
    labels, weights = judged(task, model.schema, batch)
    rows = np.flatnonzero(weights > 0)
    if not len(rows):
        return

    def constant() -> dict[str, float]:
        known = judged(task, model.schema, ids_and_labels(train, model.preprocessor, labels_of(model, train, [task])))
        return task.report(labels[rows], task.constant_prediction(*known, len(rows)), weights[rows])

    def measured(baseline: RankingBaseline) -> dict[str, float]:
        predicted = baseline.fit(model.schema, task, train).predict(test.iloc[rows])
        return task.report(labels[rows], predicted, weights[rows])

    yield task.name, "Constant", constant
    methods: tuple[Any, ...] = (GradientBoosting, TfidfLinear) if isinstance(task, KINDS) else ()
    for method in methods:
        if method.features(model.schema, task):
            yield task.name, method.__name__, functools.partial(measured, method(**arguments))
