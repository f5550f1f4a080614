"""Inputs of ranking tasks that are read from the training table: bins of numbers, counts and rates of categories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, tf
from tfmtl.data import Batch, Numeric, Preprocessor, to_batch
from tfmtl.data.interchange import as_frame
from tfmtl.layers import CategoryRates, Interaction, PiecewiseLinear
from tfmtl.tasks import BinaryClassification, MultiClassClassification, NumberTask, Task

Floats = npt.NDArray[np.float64]

_KINDS = (BinaryClassification, MultiClassClassification, NumberTask)
_MOST_CLASSES = 10
"""A task with more classes has no rates: their tables would be larger than the embeddings."""
_ELSEWHERE = 0.25
"""Least share of the rows of a category that lie in other folds, as a mean over the rows."""
_SMALLEST = 1e-6


class _Target(NamedTuple):
    """A number of each row to average: a label, or an indicator of a class.

    Attributes:
        name: of the column.
        values: [n], 0 where the label is missing.
        weights: [n].
        scale: deviation of the label; None for an event, with rates as log-odds.
    """

    name: str
    values: Floats
    weights: Floats
    scale: float | None


def ranking_inputs(
    preprocessor: Preprocessor, tasks: Sequence[Task], train: Any, *, bins: int = 16, folds: int = 5
) -> list[Interaction]:
    """Return the interactions that give ranking tasks bins of numbers, and counts and rates of categories.

    Use them where gradient boosting exceeds a network: give them to `build_network` and fill the rates with
    `fill_rates`. `fit` does both by default.

    Args:
        preprocessor, tasks, train: as in `fit`.
        bins: largest number of bins of a number; the edges are quantiles of `train`. A number with two or fewer
            distinct values has none.
        folds: as in `CategoryRates`.

    Returns:
        A `PiecewiseLinear` if the schema has numbers, and a `CategoryRates` if it has categories and a task has rates:
        an event, a regression, or up to ten classes. None if no task reads the trunk.
    """
    require_positive_int(bins=bins, folds=folds)
    if not any(task.uses_trunk for task in tasks):
        return []
    found: list[Interaction] = []
    edges = dict(_edges(preprocessor, train, bins))
    if edges:
        found.append(PiecewiseLinear(edges, name="bins"))
    schema = preprocessor.schema
    sizes = {f.name: preprocessor.statistics.size(f.name) for f in schema.features.values() if _has_rates(f)}
    columns = [name for task in tasks if _rated(task) for name in _names(task)]
    if sizes and columns:
        found.append(CategoryRates(sizes, [*columns, "count"], folds, name="rates"))
    return found


def fill_rates(
    network: keras.Model, preprocessor: Preprocessor, tasks: Sequence[Task], train: Any, *, smoothing: float = 10.0
) -> None:
    """Compute the tables of the `CategoryRates` of a network from a training table; nothing without one.

    A rate is r = (sum w y + m p) / (sum w + m) over the rows of a category, with the mean p of all rows. An event or a
    class has log r / (1 - r) - log p / (1 - p), a number (r - p) / deviation, in the scale of its loss. The count is
    log(1 + rows), standardized; a row does not count itself. A feature is left out, with zeros, if less than a quarter
    of the rows of a category lie in other folds: its numbers in training would not be like those that are served.

    Args:
        network: from `build_network` with the interactions of `ranking_inputs`.
        preprocessor, tasks: those of the network.
        train: rows to learn from. Leave out the rows that choose or judge the model.
        smoothing: m, the weight of the mean.
    """
    require(smoothing > 0, "`smoothing` must be above 0.", smoothing=smoothing)
    for layer in network.layers:
        if isinstance(layer, CategoryRates):
            rated = [task for task in tasks if _rated(task)]
            batch = to_batch(as_frame(train), preprocessor, labels=[task.name for task in rated])
            targets = [target for task in rated for target in _targets(task, batch)]
            layer.fill(_tables(layer, batch, targets, smoothing))


def _has_rates(feature: Any) -> bool:
    return feature.is_id and feature.vocabulary == feature.name


def _rated(task: Task) -> bool:
    few = not isinstance(task, MultiClassClassification) or task.num_classes <= _MOST_CLASSES
    return isinstance(task, _KINDS) and task.uses_trunk and few


def _names(task: Task) -> list[str]:
    if isinstance(task, MultiClassClassification):
        return [f"rate of {task.name} {i}" for i in range(task.num_classes)]
    return [f"{'mean' if isinstance(task, NumberTask) else 'rate'} of {task.name}"]


def _targets(task: Task, batch: Batch) -> Iterator[_Target]:
    labels = batch.labels[task.name].numpy().astype(np.float64)
    observed = ~np.isnan(labels)
    weights = np.where(observed, batch.weights[task.name].numpy(), 0.0).astype(np.float64)
    labels = np.where(observed, labels, 0.0)
    names = _names(task)
    if isinstance(task, MultiClassClassification):
        for i, name in enumerate(names):
            yield _Target(name, (observed & (labels == i)).astype(np.float64), weights, None)
    elif isinstance(task, NumberTask):
        values = np.where(observed, task.targets(tf.constant(labels, tf.float32)).numpy(), 0.0).astype(np.float64)
        mean = np.average(values, weights=weights)
        deviation = float(np.sqrt(np.average(np.square(values - mean), weights=weights)))
        yield _Target(names[0], values, weights, max(deviation, _SMALLEST))
    else:
        yield _Target(names[0], labels, weights, None)


def _tables(
    layer: CategoryRates, batch: Batch, targets: Sequence[_Target], smoothing: float
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the numbers [size, folds + 1, columns] of each feature."""
    indices = [batch.features[name].numpy().astype(np.int64) for name in layer.sizes]
    fold = layer.fold_of([tf.constant(index) for index in indices]).numpy()
    found = {}
    for (name, size), index in zip(layer.sizes.items(), indices, strict=True):
        cell = index * layer.folds + fold

        def summed(weights: Any, cell: Any = cell, size: int = size) -> Floats:
            flat = np.bincount(cell, weights, size * layer.folds)
            sums = np.asarray(flat, np.float64).reshape(size, layer.folds)
            total = sums.sum(axis=1, keepdims=True)
            return np.concatenate([total - sums, total], axis=1)  # [size, folds + 1]

        rows = summed(None)
        columns = [_rates(target, summed, smoothing) for target in targets]
        table = np.stack([*columns, _counts(rows[:, -1], index, layer.folds)], axis=2)
        elsewhere = (rows[index, fold] / rows[index, -1]).mean()
        found[name] = (table if elsewhere >= _ELSEWHERE else np.zeros_like(table)).astype(np.float32)
    return found


def _rates(target: _Target, summed: Any, smoothing: float) -> Floats:
    """Return the rates [size, folds + 1] of a target, relative to its mean."""
    mean = np.average(target.values, weights=target.weights)
    sums, weights = summed(target.weights * target.values), summed(target.weights)
    rates = (sums + smoothing * mean) / (weights + smoothing)
    if target.scale is not None:
        found: Floats = (rates - mean) / target.scale
        return found
    return _log_odds(rates) - _log_odds(mean)


def _log_odds(rate: Any) -> Any:
    rate = np.clip(rate, _SMALLEST, 1 - _SMALLEST)
    return np.log(rate / (1 - rate))


def _counts(rows: Floats, index: Any, folds: int) -> Floats:
    """Return the standardized logarithms [size, folds + 1] of the numbers of rows; of other rows in the folds."""
    own, others = np.log1p(rows), np.log1p(np.maximum(rows - 1, 0))
    logs = np.stack([*[others] * folds, own], axis=1)
    read = others[index]
    found: Floats = (logs - read.mean()) / max(read.std(), _SMALLEST) if read.std() > _SMALLEST else 0 * logs
    return found


def _edges(preprocessor: Preprocessor, train: Any, bins: int) -> Iterator[tuple[str, list[float]]]:
    """Yield the edges of the bins of each number."""
    names = [f.name for f in preprocessor.schema.features.values() if isinstance(f, Numeric)]
    if not names:
        return
    features = to_batch(as_frame(train), preprocessor, labels=[]).features
    for name in names:
        encoded = features[name].numpy()
        values = encoded[encoded[:, 1] == 0, 0]
        if not len(values):
            continue
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) <= 2:
            continue
        most = distinct[counts.argmax()]
        # A number that is mostly one value, such as 0, has its quantiles among the others.
        rest = values if counts.max() < len(values) / bins * 2 else values[values != most]
        edges = np.unique([most, *np.quantile(rest, np.linspace(0, 1, bins + 1), method="nearest")])
        yield name, [float(edge) for edge in edges]
