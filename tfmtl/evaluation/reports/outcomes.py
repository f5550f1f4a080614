"""Outcomes: the metrics of one method on one task, and the interval of the difference of two methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfmtl.evaluation.corpus import Corpus, Outside
from tfmtl.evaluation.reports.bootstrap_comparison import Measure, bootstrap_comparison
from tfmtl.evaluation.reports.transfer import JUDGED_BY
from tfmtl.evaluation.retrieval_metrics import retrieval_values
from tfmtl.tasks import Task
from tfmtl.tasks.label_metrics import SMALLER_IS_BETTER

_MOST_ROWS = 20_000
_SAMPLES = 100
_JUDGED_BY = ("ndcg@", *JUDGED_BY)


class Outcome(NamedTuple):
    """The result of a method on one task.

    Attributes:
        values: metrics by name, as in `evaluate`.
        measure: function from weights of the rows to metrics; a row of a retrieval is a user.
        users: user of each row.
    """

    values: dict[str, float]
    measure: Measure
    users: npt.NDArray[Any]


class Gain(NamedTuple):
    """The difference of two methods on one task, above 0 where the first is better, and its interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`"better"`, `"worse"`, or `"level"` if the interval holds 0 or cannot be computed."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "level"


def of_rows(task: Task, labels: Any, predicted: Any, weights: Any, users: Any, seed: int) -> Outcome:
    """Return the outcome of predictions of rows, all with a label; the measure has at most 20,000 of them."""
    rows = np.arange(len(labels))
    if len(rows) > _MOST_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MOST_ROWS, replace=False))
    few = labels[rows], _take(predicted, rows), weights[rows]
    return Outcome(
        task.report(labels, predicted, weights),
        lambda drawn: task.report(few[0], few[1], few[2] * drawn),
        users[rows],
    )


def of_ranks(corpus: Corpus, ranks: Any, ks: Sequence[int] | int | None, outside: Outside) -> Outcome:
    """Return the outcome of the ranks of a corpus' positives."""
    inside = corpus.candidate_index >= 0
    rows = np.flatnonzero(inside) if outside == "ignore" and inside.any() else np.arange(len(ranks))
    size = len(corpus.candidates)
    options: Any = {"items": corpus.items[rows], "num_candidates": size}
    queries, values = retrieval_values(ranks[rows], corpus.query_index[rows], ks, **options)
    return Outcome(
        corpus.metrics(ranks, ks, outside),
        lambda drawn: {name: float(np.average(value, weights=drawn)) for name, value in values.items()},
        corpus.users[queries],
    )


def gain_of(own: Outcome, other: Outcome, metric: str, seed: int) -> Gain:
    """Return the gain of a method over another one in a metric, with the interval of 95 % of a bootstrap over users.

    The difference is that of all rows; where the measure has a sample of them, its interval is that of the sample and
    wider than the one of all rows.
    """
    sign = -1.0 if metric in SMALLER_IS_BETTER else 1.0
    value = sign * (own.values[metric] - other.values[metric])
    measures = {"own": own.measure, "other": other.measure}
    compared = bootstrap_comparison(measures, own.users, baseline="other", samples=_SAMPLES, seed=seed)
    row = compared.loc[("own", metric)]
    low, high = sorted(sign * (row[["difference_low", "difference_high"]].to_numpy(float) - row["difference"]))
    return Gain(value, value + low, value + high)


def judged_by(report: pd.Series, task: str) -> str | None:
    """Return the metric of a report by which baselines of a task are ordered; None if it has none of them."""
    metrics = [metric for name, metric in report.index if name == task and not metric.endswith("_in_corpus")]
    for prefix in _JUDGED_BY:
        named = [metric for metric in metrics if metric == prefix or (prefix[-1] == "@" and metric.startswith(prefix))]
        if named:
            return min(named, key=lambda metric: int(metric.partition("@")[2] or 0))
    return None


def _take(predicted: Any, rows: Any) -> Any:
    if isinstance(predicted, dict):
        return {name: values[rows] for name, values in predicted.items()}
    return predicted[rows]
