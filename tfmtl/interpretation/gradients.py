"""Attributions by gradients: integrated gradients, and gradient x input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import tf, traced
from tfmtl.data.frames import rows_of, rows_of_pass
from tfmtl.interpretation.attributions import Attributions
from tfmtl.models import MultiTaskModel
from tfmtl.models.encodings import Encodings
from tfmtl.models.explained import Floats, Values, chosen_tasks, encoded_rows, rows_at
from tfmtl.models.path_gradients import PathGradients


def integrated_gradients(
    model: MultiTaskModel,
    table: Any,
    baseline: Any,
    *,
    steps: int = 64,
    sample: int | None = None,
    tasks: Sequence[str] | None = None,
    classes: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Attributions:
    """Attribute the values of tasks to features by integrated gradients (IG), from a baseline to each row.

    Use it to explain single predictions: which features and which items of a history moved a value away from that of
    an average row. With e the encodings of a row, e' those of the baseline, and F the explained value,

    A_f = sum over the coordinates c of f of (e_c - e'_c) integral_0^1 dF(e' + a (e - e')) / de_c da,

    where the mean slope of each of `steps` parts of the path is that mean of the slopes at its ends which gives the
    change of F, exact where the part has one kink. The attributions add up to F(e) - F(e') except for `gap`. The
    baseline is the mean encoding of the features over the rows of `baseline`, of lists over their entries; with
    `sample` the attributions are the mean over as many rows of it. Ids are never interpolated. Masks of lists, matches
    of candidates, bins and trees compare ids or numbers: they keep the values of the row, so that their effect
    is in `base`. `permutation_importance` and `shapley_values` include it.

    Args:
        model: a trained model.
        table: the rows to explain, without need of labels: a table (pandas, PyArrow, Polars), or a `Batch`.
        baseline: usually rows of the training table, with the same columns.
        steps: parts of each path.
        sample: number of baseline rows to average over, drawn without replacement; None for their mean encoding.
        tasks: names of the tasks, all by default.
        classes: for tasks with several served values, the one to explain; by default the largest one in each row.
        seed: seed of the sample.

    Returns:
        The parts by row, feature and task, those of the positions of lists, and the completeness gap.

    Raises:
        ValueError: if a task or column does not exist, a class is unknown, or a table lacks columns.

    Example:
        >>> # found = integrated_gradients(model, test.head(100), baseline=train)
        >>> # found.to_frame(), found.gap

    Cost: `steps` gradients per row and task, times `sample`.

    Reference: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017,
    https://arxiv.org/abs/1703.01365, equations 1 and 3; Erion et al., "Improving performance of deep learning models
    with axiomatic attribution priors and expected gradients", Nature Machine Intelligence 2021,
    https://arxiv.org/abs/1906.10670, equation 4 (`sample`). The rule for the sum is ours; the papers take the slopes at
    equal distances.
    """
    require_positive_int(steps=steps, **({} if sample is None else {"sample": sample}))
    paths = _Paths(model, table, tasks, classes)
    return paths.attributions(_starts(paths.encodings, model, baseline, sample, seed), np.linspace(0, 1, steps + 1))


def _starts(encodings: Encodings, model: MultiTaskModel, baseline: Any, sample: int | None, seed: int) -> Any:
    """Return the encodings at which paths start: the mean of the baseline, or those of a sample of its rows."""
    batch = encoded_rows(model, baseline, name="baseline")
    if sample is None:
        return [encodings.means(batch)]
    rows = rows_of(batch)
    require(sample <= rows, f"`baseline` has {rows} rows; draw no more than them.", sample=sample)
    drawn = np.random.default_rng(seed).permutation(rows)[:sample]
    tensors = encodings.of(rows_at(batch.features, drawn))[0]
    return [[tensor[i].numpy() for tensor in tensors] for i in range(sample)]


def gradient_times_input(
    model: MultiTaskModel,
    table: Any,
    *,
    tasks: Sequence[str] | None = None,
    classes: Mapping[str, int] | None = None,
) -> Attributions:
    """Attribute the values of tasks to features by the product of gradient and encoding.

    Use it for a first look at many rows: one gradient instead of those of a whole path. A_f = sum over the coordinates
    c of f of e_c dF(e) / de_c, in the notation of `integrated_gradients`; `base` is 0, and the gap is often large.

    Args:
        model, table, tasks, classes: as in `integrated_gradients`.

    Returns:
        As `integrated_gradients`.

    Raises:
        ValueError: as `integrated_gradients`.

    Example:
        >>> # gradient_times_input(model, test).order("click")

    Cost: one gradient per row and task.

    Reference: Shrikumar, Greenside and Kundaje, "Learning Important Features Through Propagating Activation
    Differences", ICML 2017, https://arxiv.org/abs/1704.02685, section 2.2.
    """
    paths = _Paths(model, table, tasks, classes)
    zeros = [np.zeros(shape) for shape in paths.shapes]
    return paths.attributions([zeros], np.ones(1), at_zero=True)


class _Paths:
    """Straight paths from baselines to the encodings of rows, and the gradients along them."""

    def __init__(self, model: MultiTaskModel, table: Any, tasks: Any, classes: Any) -> None:
        chosen = chosen_tasks(model, tasks)
        self.batch = encoded_rows(model, table)
        self.values = Values(model, chosen)
        self.columns = self.values.columns(self.batch.features, classes)
        self.encodings = Encodings(model.network, [task.name for task in chosen])
        self.tasks = [task.name for task in chosen]
        first = self.encodings.of(rows_at(self.batch.features, [0]))[0]
        self.shapes = [tuple(tensor.shape[1:]) for tensor in first]
        paths = PathGradients(self.encodings, self.values)
        self._along = traced(paths.along)  # one trace for each number of points
        self._value = traced(paths.value, reduce_retracing=True)

    def attributions(self, starts: Sequence[Sequence[Any]], points: Floats, at_zero: bool = False) -> Attributions:
        """Return the mean attributions over paths that start at some encodings [d] or [length, d]."""
        features, rows = self.batch.features, rows_of(self.batch)
        size = rows_of_pass(features)
        parts = [
            self._chunk(
                rows_at(features, np.arange(i, min(i + size, rows))), self.columns[i : i + size], starts, points
            )
            for i in range(0, rows, size)
        ]
        values, positions, base = (list(column) for column in zip(*parts, strict=True))
        attributed: Floats = np.concatenate(values)
        output = self.values(features, self.columns)
        at_start = np.zeros_like(output) if at_zero else np.concatenate(base)
        lists = {name: np.concatenate([part[name] for part in positions]) for name in positions[0]}
        gap = output - at_start - attributed.sum(axis=1)
        return Attributions(self.encodings.features, self.tasks, attributed, output, at_start, gap, lists)

    def _chunk(self, features: Any, columns: Any, starts: Any, points: Floats) -> tuple[Floats, dict[str, Floats], Any]:
        """Return the parts of features [B, F, K], of positions, and the values at the start [B, K]."""
        tensors, kept = self.encodings.of(features)
        rows = len(columns)
        at_once = max(1, rows_of_pass(features) // rows)
        total: Any = None
        base = np.zeros([rows, len(self.tasks)])
        for start in starts:
            origin = [tf.broadcast_to(tf.cast(s, t.dtype), tf.shape(t)) for s, t in zip(start, tensors, strict=True)]
            base += self._value(origin, kept, features, columns).numpy() / len(starts)
            for first in range(0, max(len(points) - 1, 1), at_once):
                shares = tf.constant(points[first : first + at_once + 1], tf.float32)
                found = self._along(origin, tensors, kept, features, shares, columns).parts
                weighted = [[g.numpy() / len(starts) for g in task] for task in found]
                total = weighted if total is None else _added(total, weighted)
        return *self._by_feature(total), base

    def _by_feature(self, total: Any) -> tuple[Floats, dict[str, Floats]]:
        """Return sums over the coordinates of each feature, and of each position of a list of ids."""
        names = self.encodings.features
        rows = len(total[0][0])
        values = np.zeros([rows, len(names), len(self.tasks)])
        positions: dict[str, Floats] = {}
        for part in self.encodings.parts:
            for k, task in enumerate(total):
                summed = task[part.tensor][..., part.start : part.end].sum(axis=-1).astype(np.float64)
                values[:, names.index(part.feature), k] += summed.reshape(rows, -1).sum(axis=1)
                if part.feature in self.encodings.lists and summed.ndim == 2:
                    own = positions.setdefault(part.feature, np.zeros([*summed.shape, len(total)]))
                    own[..., k] += summed
        return values, positions


def _added(total: Any, more: Any) -> Any:
    return [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(total, more, strict=True)]
