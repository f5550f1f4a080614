"""Permutation importance: how much worse each task is without the information of a feature."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from tfmtl._checks import require, require_fraction, require_known, require_positive_int
from tfmtl._keras import tf, traced
from tfmtl.data import Batch
from tfmtl.data.frames import rows_of, rows_of_pass
from tfmtl.models import MultiTaskModel
from tfmtl.models.explained import Floats, chosen_tasks, encoded_rows, rows_at
from tfmtl.tasks import Task
from tfmtl.tasks.label_metrics import SMALLER_IS_BETTER


@dataclasses.dataclass(frozen=True)
class Importance:
    """The importance of features or groups of features for each task.

    Attributes:
        names: names of the F features and groups.
        tasks: names of the K tasks.
        values: loss of quality without the information of each feature [F, K]; NaN for a task without labels.
        low, high: bounds of the interval of each value [F, K].
        base: mean loss, or metric, of each task with all features [K].
        groups: the features of each of `names`.

    Example:
        >>> found = Importance(["age", "country"], ["click"], *np.array([[[0.1], [0.3]]] * 3), np.array([0.5]),
        ...     {"age": ["age"], "country": ["country"]})
        >>> found.order("click"), found.select("click", 1)
        (['country', 'age'], ['country'])
    """

    names: list[str]
    tasks: list[str]
    values: Floats
    low: Floats
    high: Floats
    base: Floats
    groups: dict[str, list[str]]

    def order(self, task: str) -> list[str]:
        """Return the names in the order of their importance for a task, the most important one first."""
        require_known([task], self.tasks, "task", "the importance")
        values = np.nan_to_num(self.values[:, self.tasks.index(task)], nan=-np.inf)
        return [self.names[i] for i in np.argsort(-values, kind="stable")]

    def select(self, task: str, count: int) -> list[str]:
        """Return the most important features of a task.

        Args:
            task: name of the task.
            count: number of features, or of groups, which are never split.
        """
        require_positive_int(count=count)
        return [feature for name in self.order(task)[:count] for feature in self.groups[name]]

    def to_frame(self) -> Any:
        """Return a pandas table with the columns `value`, `low` and `high`, indexed by feature and task."""
        from tfmtl.interpretation.tables import long_table

        columns = {"value": self.values, "low": self.low, "high": self.high}
        return long_table({"feature": self.names, "task": self.tasks}, columns)


def permutation_importance(
    model: MultiTaskModel,
    table: Any,
    *,
    tasks: Sequence[str] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    metrics: Mapping[str, str] | None = None,
    repeats: int = 5,
    blocks: int = 10,
    level: float = 0.95,
    seed: int = 0,
) -> Importance:
    """Measure the importance of every feature for every task by permutations of its values.

    Use it to find the features that a task needs. I_f = mean over r of L(rows with f permuted by permutation r) -
    L(rows): the feature keeps its distribution, but no longer belongs to its row. Features that repeat each other have
    small importances one by one, because the model reads the other one; permute them together as a group, such as those
    of `correlated_features`. An interval is that of Student's t over random blocks of rows, so that it covers the
    chance of the permutations and of the choice of the rows.

    Args:
        model: a trained model.
        table: labelled rows that did not train the model: a table (pandas, PyArrow, Polars), or a `Batch`.
        tasks: names of the tasks, all by default.
        groups: features that are permuted together, by name of the group; every other feature is alone.
        metrics: by task, the metric of its report that measures quality, such as `"auc"`; by default the loss.
        repeats: permutations of each feature.
        blocks: blocks of rows, 2 or more; a metric needs rows of both classes in each.
        level: level of the intervals.
        seed: seed of the permutations and of the blocks.

    Returns:
        The importances, in the unit of the losses or metrics. In a retrieval task the features of candidates are
        permuted in the rows and not in the corpus.

    Raises:
        ValueError: if a task, feature, metric, column or label does not exist, or there are fewer rows than blocks.

    Example:
        >>> # found = permutation_importance(model, test, groups=correlated_features(model, test))
        >>> # found.to_frame().loc["country"]

    Cost: `repeats` forward passes over the rows for each feature or group.

    Reference: Breiman, "Random Forests", Machine Learning 2001, https://doi.org/10.1023/A:1010933404324, section 10;
    Fisher, Rudin and Dominici, "All Models are Wrong, but Many are Useful", JMLR 2019,
    https://arxiv.org/abs/1801.01489 (model reliance as a difference). The intervals are ours.
    """
    chosen = chosen_tasks(model, tasks)
    require_positive_int(repeats=repeats, blocks=blocks)
    require(blocks > 1, "`blocks` must be 2 or more, since an interval needs a spread.", blocks=blocks)
    require_fraction(level=level)
    batch = encoded_rows(model, table, [task.name for task in chosen])
    members = members_of(groups, list(model.network.input))
    rows, rng = rows_of(batch), np.random.default_rng(seed)
    require(rows >= blocks, f"`table` has {rows} rows for {blocks} blocks; give more rows or fewer blocks.")
    quality = Quality(model, chosen, metrics or {}, batch, np.array_split(rng.permutation(rows), blocks))
    base = quality(batch.features)
    lost = np.stack([quality.lost(base, features, repeats, rng) for features in members.values()])
    return Importance(list(members), [t.name for t in chosen], *intervals(lost, level), mean_of_known(base), members)


def members_of(groups: Mapping[str, Sequence[str]] | None, features: Sequence[str]) -> dict[str, list[str]]:
    """Return the features of each group, and of each feature that is in none, in the order of the features.

    Raises:
        ValueError: if a group names an unknown feature, a feature of another group, or has the name of a
            feature outside.

    Example:
        >>> members_of({"home": ["city", "country"]}, ["city", "age", "country"])
        {'home': ['city', 'country'], 'age': ['age']}
    """
    owner: dict[str, str] = {}
    for group, members in (groups or {}).items():
        require(bool(members), f"Group {group!r} has no features.", groups=groups)
        require_known(members, features, "feature", f"group {group!r}")
        for name in members:
            require(name not in owner, f"Feature {name!r} is in two groups, {owner.get(name)!r} and {group!r}.")
            owner[name] = group
    for group, members in (groups or {}).items():
        taken = group in features and group not in members
        require(not taken, f"Group {group!r} has the name of a feature that it does not hold; rename the group.")
    found: dict[str, list[str]] = {}
    for name in features:
        found.setdefault(owner.get(name, name), []).append(name)
    return found


def intervals(samples: Floats, level: float) -> tuple[Floats, Floats, Floats]:
    """Return the means and the bounds of their intervals of Student's t.

    Args:
        samples: [F, blocks, K], NaN where a block has no value.
        level: level of the intervals.

    Returns:
        Means, lower and upper bounds, each [F, K]; the bounds are NaN with fewer than two values.
    """
    count = np.isfinite(samples).sum(axis=1)
    mean = mean_of_known(samples.swapaxes(0, 1))
    squares = np.nansum((samples - mean[:, np.newaxis]) ** 2, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(squares / (count - 1) / count)
        width = student.ppf((1 + level) / 2, np.maximum(count - 1, 1)) * np.where(count > 1, error, np.nan)
    return mean, mean - width, mean + width


def mean_of_known(samples: Floats) -> Floats:
    """Return the mean over the first axis of the finite values."""
    count = np.isfinite(samples).sum(axis=0)
    total: Floats = np.nansum(samples, axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


class Quality:
    """The loss or the metric of each task in each block of rows [blocks, K]."""

    def __init__(
        self, model: MultiTaskModel, tasks: Sequence[Task], metrics: Mapping[str, str], batch: Batch, blocks: Any
    ) -> None:
        names = [task.name for task in tasks]
        require_known(metrics, names, "task", "`metrics`")
        for task in tasks:
            ranked = task.retrieves and task.name in metrics
            require(
                not ranked, f"Task {task.name!r} is a retrieval and is judged by its loss; leave it out of `metrics`."
            )
        self.tasks, self.metrics, self.batch = tasks, dict(metrics), batch
        size = rows_of_pass(batch.features)
        self.blocks = [[block[i : i + size] for i in range(0, len(block), size)] for block in blocks]
        self.signs = np.array([-1.0 if self._grows(name) else 1.0 for name in names])
        self._pass: Callable[[Batch], Any] = traced(lambda part: _pass(model, tasks, part), reduce_retracing=True)

    def _grows(self, task: str) -> bool:
        return task in self.metrics and self.metrics[task] not in SMALLER_IS_BETTER

    def __call__(self, features: Mapping[str, tf.Tensor]) -> Floats:
        batch = self.batch._replace(features=dict(features))
        return np.stack([self._of_block(batch, parts) for parts in self.blocks])

    def lost(self, base: Floats, names: Sequence[str], repeats: int, rng: np.random.Generator) -> Floats:
        """Return the mean loss of quality [blocks, K] over permutations of some features."""
        features, total = self.batch.features, np.zeros_like(base)
        for _ in range(repeats):
            order = rng.permutation(rows_of(self.batch))
            total += self({**features, **rows_at({name: features[name] for name in names}, order)}) - base
        return self.signs * total / repeats

    def _of_block(self, batch: Batch, parts: Sequence[Any]) -> Floats:
        sums: Any = 0.0
        found = []
        for rows in parts:
            losses, served = self._pass(Batch(*(rows_at(columns, rows) for columns in batch)))
            sums = sums + losses.numpy().astype(np.float64)
            found.append(served)
        with np.errstate(invalid="ignore", divide="ignore"):
            values: Floats = sums[0] / sums[1]
        for k, task in enumerate(self.tasks):
            if task.name in self.metrics:
                columns = zip(*(part[k] for part in found), strict=True)
                values[k] = self._metric(task, *map(np.concatenate, columns))
        return values

    def _metric(self, task: Task, labels: Any, served: Any, weights: Any) -> float:
        rows = weights > 0
        if not rows.any():
            return float("nan")
        report = task.report(labels[rows], served[rows], weights[rows])
        require_known([self.metrics[task.name]], report, "metric", f"the report of task {task.name!r}")
        return report[self.metrics[task.name]]


def _pass(model: MultiTaskModel, tasks: Sequence[Task], batch: Batch) -> tuple[tf.Tensor, list[Any]]:
    """Return the sums of weighted losses and of weights [2, K], and labels, served values and weights of each task."""
    outputs = model(batch.features, training=False)
    losses = model.losses_of(batch, outputs, training=False)
    sums = tf.stack([[losses[task.name][0] * losses[task.name][1] for task in tasks],
                     [losses[task.name][1] for task in tasks]])  # fmt: skip
    served, values = model.served(outputs, batch.features), []
    for task in tasks:
        labels, weights, inputs = model.loss_arguments(task, batch, training=False)
        values.append((labels, served[task.name], task.served_weight(weights, inputs.labels)))
    return sums, values
