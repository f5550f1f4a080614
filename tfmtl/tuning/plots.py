"""Pictures of the results of a search; imported by name, since matplotlib is optional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.figure import Figure

from tfmtl._checks import require
from tfmtl.tuning.pareto import Objectives, pareto_front, value_of


def pareto_plot(
    rows: Sequence[Mapping[str, Any]], objectives: Objectives, *, chosen: Mapping[str, Any] | None = None
) -> Figure:
    """Draw two objectives against each other: all rows, the front as steps, the chosen one as a star.

    Args:
        rows, objectives: as of `tfmtl.tuning.pareto_front`; exactly two objectives.
        chosen: a row, such as `tfmtl.tuning.select_from_front` returns.

    Returns:
        The figure; save it with `figure.savefig(path)`.

    Raises:
        ValueError: if there are not two objectives.
    """
    require(len(objectives) == 2, "A plot needs exactly two objectives.", objectives=dict(objectives))
    (x, along), (y, _) = objectives.items()
    front = sorted(pareto_front(rows, objectives), key=lambda row: value_of(row, x))
    figure = Figure(figsize=(5.0, 4.0), layout="constrained")
    axis = figure.subplots()
    axis.scatter([value_of(row, x) for row in rows], [value_of(row, y) for row in rows], color="0.7", label="all")
    # between two points of the front the worse value of both holds: that corner can be had by either
    where: Literal["post", "pre"] = "post" if along == "min" else "pre"
    xs, ys = ([value_of(row, name) for row in front] for name in (x, y))
    axis.step(xs, ys, where=where, color="C0", marker="o", label="front")
    if chosen is not None:
        axis.plot([value_of(chosen, x)], [value_of(chosen, y)], "*", color="C3", markersize=14, label="chosen")
    axis.set_xlabel(f"{x} ({along})")
    axis.set_ylabel(f"{y} ({objectives[y]})")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    return figure
