"""Plots of training histories, of comparisons of models and of calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tfmtl._checks import require, require_positive_int, require_several


def learning_curves(histories: Mapping[str, Any], metrics: Sequence[str] | None = None) -> Figure:
    """Plot training histories: one panel per metric, per model a solid line for training and a dashed for validation.

    Args:
        histories: by name of the model, the return value of `fit` or its `history` dict.
        metrics: names in the log without `val_`; by default `loss` and every `<task>_loss`.

    Returns:
        The figure; save it with `figure.savefig(path)`.

    Raises:
        ValueError: if there is no history, or no history has any of the metrics.
    """
    logs = {name: getattr(history, "history", history) for name, history in histories.items()}
    require(bool(logs), "`histories` must hold at least one history.", histories=histories)
    require_several(metrics=metrics)
    logged = list(dict.fromkeys(key.removeprefix("val_") for log in logs.values() for key in log))
    chosen = list(metrics or [key for key in logged if key == "loss" or key.endswith("_loss")])
    chosen = [key for key in chosen if key in logged and key not in ("regularization_loss",)]
    require(bool(chosen), f"None of the metrics was logged; there are {logged}.", metrics=metrics)
    columns = min(3, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, metric in zip(axes.flat, chosen, strict=False):
        _panel(axis, metric, logs)
    for axis in list(axes.flat)[len(chosen) :]:
        axis.remove()
    axes.flat[0].legend(fontsize="small")
    return figure


def intervals(compared: Any, metrics: Sequence[str] | None = None) -> Figure:
    """Plot a comparison of models: one panel per metric, with a value and its interval for each model.

    Args:
        compared: the result of `tfmtl.evaluation.bootstrap_comparison`.
        metrics: names of the metrics to plot, all by default.

    Returns:
        The figure.

    Raises:
        ValueError: if the comparison has none of the metrics.
    """
    models = list(compared.index.unique("model"))
    require_several(metrics=metrics)
    names = [name for name in compared.index.unique("metric") if metrics is None or name in metrics]
    require(bool(names), "The comparison has none of the metrics.", metrics=metrics)
    size = (3.2 * len(names), 0.4 * len(models) + 1)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)
    for axis, name in zip(axes.flat, names, strict=True):
        rows = compared.xs(name, level="metric").reindex(models)
        errors = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
        axis.errorbar(rows["value"], range(len(models)), xerr=errors, fmt="o", capsize=3)
        axis.set_title(name, fontsize="medium")
        axis.grid(axis="x", alpha=0.3)
    axes.flat[0].set_yticks(range(len(models)), models)
    axes.flat[0].invert_yaxis()
    return figure


def reliability(curves: Mapping[str, Any]) -> Figure:
    """Plot reliability curves in one panel, with the expected calibration error (ECE) of each in the legend.

    Args:
        curves: by name, such as "before" and "after", the result of `tfmtl.evaluation.reliability_curve`.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no curve.
    """
    require(bool(curves), "`curves` must hold at least one curve.", curves=curves)
    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axis = figure.subplots()
    axis.axline((0, 0), slope=1, color="grey", linewidth=1, linestyle="--")
    for name, curve in curves.items():
        error = float((curve["share"] * (curve["predicted"] - curve["observed"]).abs()).sum())
        axis.plot(curve["predicted"], curve["observed"], marker=".", label=f"{name} (ECE {error:.4f})")
    axis.set_xlabel("predicted")
    axis.set_ylabel("observed")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    return figure


def robustness(found: Any, *, lines: int = 6) -> Figure:
    """Plot a robustness report: a row per task, a column per kind, and a curve of the metric for each column.

    Args:
        found: the result of `tfmtl.evaluation.robustness`.
        lines: largest number of curves in a panel; those that change the metric most are drawn.

    Returns:
        The figure; a dashed line is the value without a perturbation.

    Raises:
        ValueError: if the report has nothing except the plain values.
    """
    require_positive_int(lines=lines)
    main = found.main
    clean, rest = main[main["kind"] == "clean"].set_index("task")["value"], main[main["kind"] != "clean"]
    tasks = [task for task in clean.index if (rest["task"] == task).any()]
    require(bool(tasks), "The report holds no value under a perturbation.")
    kinds = list(dict.fromkeys(rest["kind"]))
    size = (2.8 * len(kinds) + 0.6, 2.5 * len(tasks) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(tasks), len(kinds), squeeze=False, sharey="row", sharex="col")
    for i, task in enumerate(tasks):
        own = rest[rest["task"] == task]
        for j, kind in enumerate(kinds):
            axis = axes[i, j]
            axis.axhline(clean[task], color="grey", linewidth=1, linestyle="--")
            _curves(axis, own[own["kind"] == kind], clean[task], lines)
            axis.grid(alpha=0.3)
            if i == 0:
                axis.set_title(kind.replace("_", " "), fontsize="medium")
        if i == len(tasks) - 1:
            for axis, kind in zip(axes[i], kinds, strict=True):
                axis.set_xlabel(_STRENGTHS.get(kind, ""), fontsize="small")
        metric = main.loc[main["task"] == task, "metric"].iloc[0]
        axes[i, 0].set_ylabel(f"{task}: {metric}", fontsize="small")
    return figure


_LONGEST = 20  # characters of a name in a panel
_STRENGTHS = {
    **dict.fromkeys(("fgsm", "pgd"), "radius by length of encodings"),
    **dict.fromkeys(("missing", "missing_group"), "share of the rows"),
    "noise": "standard deviations",
    "unknown": "share of the ids",
}


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def _curves(axis: Any, rows: Any, clean: float, lines: int) -> None:
    """Draw the curve of each column of one kind, and of a part of the rows a point."""
    sizes = rows["change"].abs().groupby(rows["column"]).max().sort_values(ascending=False, kind="stable")
    for name in sizes.index[:lines]:
        own = rows[rows["column"] == name]
        if (own["part"] != "").all():
            axis.plot(own["part"], own["value"], marker="o", linestyle="", label=_short(name) or None)
        else:
            own = own.sort_values("strength")
            axis.plot([0.0, *own["strength"]], [clean, *own["value"]], marker=".", label=_short(name) or None)
    if len(sizes) and sizes.index[0]:
        legend = axis.legend(fontsize="x-small")
        legend.set_in_layout(False)  # long names would leave no space for the axes


def _panel(axis: Any, metric: str, logs: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    for i, (name, log) in enumerate(logs.items()):
        for key, style, label in ((metric, "-", name), (f"val_{metric}", "--", f"{name} (validation)")):
            if key in log:
                axis.plot(range(1, len(log[key]) + 1), log[key], style, color=f"C{i}", label=label, marker=".")
    axis.set_title(metric, fontsize="medium")
    axis.set_xlabel("epoch")
    axis.grid(alpha=0.3)
