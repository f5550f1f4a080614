"""Pictures of conflicts, importances and embeddings; they need matplotlib, the extra `tfmtl[plots]`."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tfmtl.interpretation.embeddings import EmbeddingMap
    from tfmtl.interpretation.importance import Importance

History = Sequence[Mapping[str, Any]]
"""What `ConflictMonitor` keeps: a dict of arrays [K, K] an epoch."""

_TITLES = {
    "conflict": "Share of steps with conflicting gradients",
    "cosine": "Cosine between gradients",
    "magnitude": "Magnitude similarity of gradients",
}
_SCALES = {"conflict": ("Reds", 0.0, 1.0), "cosine": ("RdBu", -1.0, 1.0), "magnitude": ("Blues", 0.0, 1.0)}
_NO_DATA = "0.9"  # grey


def conflict_heat_map(
    measured: History | np.ndarray, task_names: Sequence[str], measure: str = "conflict", epoch: int | None = None
) -> Figure:
    """Draw one cell a pair of tasks, with its value written in.

    Args:
        measured: `history` of a `ConflictMonitor`, or a symmetric matrix [K, K] of one measure.
        task_names: names of the K tasks, `task_names` of the monitor.
        measure: `"conflict"`, `"cosine"` or `"magnitude"`.
        epoch: index of an epoch of the history; by default the mean over all measurements of all epochs.

    Returns:
        The figure; save it with `figure.savefig(path)`. Pairs without a measurement are grey.

    Raises:
        ValueError: if the measure is unknown, the history is empty, there are fewer than two tasks or their number is
            not that of the matrix.

    Example:
        >>> figure = conflict_heat_map(np.array([[1.0, -0.5], [-0.5, 1.0]]), ["click", "rating"], measure="cosine")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['-0.50']
    """
    from matplotlib.figure import Figure  # pyplot would keep every figure alive, and the extra may be absent

    matrix = _matrix(measured, task_names, measure, epoch)
    rows, columns = task_names[1:], task_names[:-1]
    size = len(rows)
    cells = np.ma.masked_invalid(np.where(np.tri(size, dtype=bool), matrix[1:, :-1], np.nan))
    figure = Figure(figsize=(2.6 + 0.8 * size, 1.8 + 0.6 * size), layout="constrained")
    axis = figure.add_subplot()
    colors, low, high = _SCALES[measure]
    image = axis.imshow(cells, cmap=colors, vmin=low, vmax=high)
    for row in range(size):
        for column in range(row + 1):
            _write(axis, image, row, column, matrix[row + 1, column])
    axis.set_xticks(range(size), columns, rotation=30, ha="right")
    axis.set_yticks(range(size), rows)
    axis.spines[:].set_visible(False)
    axis.set_title(_TITLES[measure], fontsize="medium")
    figure.colorbar(image, ax=axis)
    return figure


def conflict_curves(history: History, task_names: Sequence[str], measure: str = "conflict") -> Figure:
    """Draw one line a pair of tasks over the epochs; an epoch without a measurement leaves a gap.

    Args:
        history: `history` of a `ConflictMonitor`.
        task_names: names of the K tasks, `task_names` of the monitor.
        measure: `"conflict"`, `"cosine"` or `"magnitude"`.

    Returns:
        The figure; save it with `figure.savefig(path)`.

    Raises:
        ValueError: as `conflict_heat_map`.

    Example:
        >>> epochs = [{"cosine": np.array([[1.0, c], [c, 1.0]])} for c in (0.5, -0.25)]
        >>> figure = conflict_curves(epochs, ["click", "rating"], measure="cosine")
        >>> [(line.get_label(), line.get_ydata().tolist()) for line in figure.axes[0].get_lines()[1:]]
        [('click ~ rating', [0.5, -0.25])]
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    _check(history, task_names, measure)
    matrices = np.stack([_square(epoch[measure], task_names) for epoch in history])
    pairs = list(itertools.combinations(range(len(task_names)), 2))
    figure = Figure(figsize=(6.4, max(3.6, 0.2 * len(pairs))), layout="constrained")  # the legend has a line a pair
    axis = figure.add_subplot()
    axis.axhline(0.0, color="0.7", linewidth=1.0)
    for position, (i, j) in enumerate(pairs):
        style = ("-", "--", ":", "-.")[position // 10 % 4]  # there are ten colours
        label = f"{task_names[i]} ~ {task_names[j]}"
        axis.plot(
            range(1, len(matrices) + 1), matrices[:, i, j], style, color=f"C{position % 10}", label=label, marker="."
        )
    axis.set_ylim(_SCALES[measure][1] - 0.05, 1.05)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title(_TITLES[measure], fontsize="medium")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def importance_bars(importance: Importance, count: int = 20) -> Figure:
    """Draw the most important features of each task as bars with intervals, one panel per task.

    Args:
        importance: from `permutation_importance`.
        count: most features in a panel.

    Returns:
        The figure; save it with `figure.savefig(path)`.

    Raises:
        ValueError: if `count` is not a positive integer.

    Example:
        >>> from tfmtl.interpretation import Importance
        >>> values = np.array([[0.1], [0.3]])
        >>> found = Importance(["age", "country"], ["click"], values, values, values, np.ones(1), {})
        >>> [label.get_text() for label in importance_bars(found).axes[0].get_yticklabels()]
        ['country', 'age']
    """
    from matplotlib.figure import Figure

    require_positive_int(count=count)
    shown, tasks = min(count, len(importance.names)), importance.tasks
    figure = Figure(figsize=(4.0 * len(tasks), 1.2 + 0.25 * shown), layout="constrained")
    for k, (axis, task) in enumerate(zip(figure.subplots(1, len(tasks), squeeze=False).flat, tasks, strict=True)):
        names = importance.order(task)[:shown]
        rows = [importance.names.index(name) for name in names]
        values, low, high = (part[rows, k] for part in (importance.values, importance.low, importance.high))
        axis.barh(range(shown), values, xerr=[values - low, high - values], color="C0", ecolor="0.3", capsize=2)
        axis.set_yticks(range(shown), names)
        axis.invert_yaxis()
        axis.axvline(0.0, color="0.7", linewidth=1.0)
        axis.set_title(task, fontsize="medium")
        axis.grid(axis="x", alpha=0.3)
    return figure


def embedding_scatter(found: EmbeddingMap, most: int = 9) -> Figure:
    """Draw the ids of a feature as points, with one colour per label and the share of variance of each axis.

    Args:
        found: from `embedding_map`.
        most: labels with a colour, the most frequent ones; all other points are grey.

    Returns:
        The figure; save it with `figure.savefig(path)`.

    Raises:
        ValueError: if `most` is not a positive integer.

    Example:
        >>> from tfmtl.interpretation import EmbeddingMap
        >>> points = np.array([[1.0, 0.0], [-1.0, 0.0]])
        >>> found = EmbeddingMap("film", ["a", "b"], points, np.array([0.75, 0.125]), ["drama", "crime"])
        >>> embedding_scatter(found).axes[0].get_xlabel()
        'axis 1 (75 % of the variance)'
    """
    from matplotlib.figure import Figure

    require_positive_int(most=most)
    counts = collections.Counter(str(label) for label in found.labels if label is not None)
    shown = [label for label, _ in counts.most_common(most)]
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axis = figure.add_subplot()
    named = [None if label is None else str(label) for label in found.labels]
    rest = np.array([label not in shown for label in named], bool)
    x, y = found.points.T
    if rest.any():
        axis.scatter(x[rest], y[rest], s=12, color="0.7", label="others" if shown else None)
    for i, label in enumerate(shown):
        own = np.array([name == label for name in named])
        axis.scatter(x[own], y[own], s=12, color=f"C{i % 10}", label=label)
    first, second = (f"axis {k + 1} ({100 * found.shares[k]:.0f} % of the variance)" for k in range(2))
    axis.set_xlabel(first)
    axis.set_ylabel(second)
    axis.set_title(f"Embeddings of {found.feature}", fontsize="medium")
    axis.grid(alpha=0.3)
    if shown:
        figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _write(axis: Any, image: Any, row: int, column: int, value: float) -> None:
    """Write a value into its cell, white on dark."""
    if not np.isfinite(value):
        axis.add_patch(_patch(row, column))
        return
    red, green, blue, _ = image.cmap(image.norm(value))
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
    axis.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if dark else "black")


def _patch(row: int, column: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1.0, 1.0, color=_NO_DATA)


def _matrix(measured: Any, task_names: Sequence[str], measure: str, epoch: int | None) -> np.ndarray:
    """Return the values to draw [K, K], NaN where nothing was measured."""
    if isinstance(measured, np.ndarray):
        _check([measured], task_names, measure)
        return _square(measured, task_names)
    _check(measured, task_names, measure)
    if epoch is not None:
        inside = -len(measured) <= epoch < len(measured)
        require(inside, f"`epoch` must be the index of one of {len(measured)} epochs.", epoch=epoch)
        return _square(measured[epoch][measure], task_names)
    values = np.stack([_square(one[measure], task_names) for one in measured])
    counts = np.stack([one["count"] for one in measured])
    total = counts.sum(axis=0)
    sums = np.where(counts > 0, values * counts, 0.0).sum(axis=0)
    return np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0)


def _check(history: Sequence[Any], task_names: Sequence[str], measure: str) -> None:
    require_known([measure], _TITLES, "measure", "`measure`")
    require(len(task_names) > 1, "Conflicts need two tasks or more.", task_names=task_names)
    require(len(history) > 0, "The history is empty; give one of a monitor that took part in `fit`.", history=history)


def _square(matrix: Any, task_names: Sequence[str]) -> np.ndarray:
    values = np.asarray(matrix, float)
    tasks = len(task_names)
    rule = f"There must be one row and one column for each of {tasks} tasks."
    require(values.shape == (tasks, tasks), rule, shape=values.shape, task_names=list(task_names))
    return values
