"""Pictures of affinities and schedules; they need matplotlib, the extra `tfmtl[plots]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfmtl._checks import require, require_type
from tfmtl.allocation.affinity import Affinity
from tfmtl.allocation.schedule import Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def affinity_heat_map(affinity: Affinity) -> Figure:
    """Draw one cell for each ordered pair of tasks: blue where a step on the row's task helps the column's task.

    Args:
        affinity: such as `affinity` of a `TaskAffinity`.

    Returns:
        The figure; save it with `figure.savefig(path)`.

    Example:
        >>> figure = affinity_heat_map(Affinity(["click", "buy"], [[0.0, 0.2], [-0.1, 0.0]]))
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['+0.2', '-0.1']
    """
    from matplotlib.figure import Figure  # pyplot would keep every figure alive, and the extra may be absent

    require_type(affinity, Affinity, "affinity", "Pass `monitor.affinity`.")
    size = len(affinity.tasks)
    cells = np.ma.masked_where(np.eye(size, dtype=bool), affinity.values)
    most = float(np.abs(cells).max()) if size > 1 else 1.0
    figure = Figure(figsize=(2.6 + 0.8 * size, 1.8 + 0.6 * size), layout="constrained")
    axis = figure.add_subplot()
    image = axis.imshow(cells, cmap="RdBu", vmin=-(most or 1.0), vmax=most or 1.0)
    for i in range(size):
        for j in range(size):
            if i != j:
                dark = abs(affinity.values[i, j]) > 0.6 * most
                text = f"{affinity.values[i, j]:+.2g}"
                axis.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontsize="small")
    axis.set_xticks(range(size), affinity.tasks, rotation=30, ha="right")
    axis.set_yticks(range(size), affinity.tasks)
    axis.set_ylabel("a step on")
    axis.set_title("helps", fontsize="medium")
    axis.spines[:].set_visible(False)
    figure.colorbar(image, ax=axis)
    return figure


def schedule_chart(schedule: Schedule, seconds: Sequence[float] = ()) -> Figure:
    """Draw the phases of each task as bars over the steps, or over the time.

    Args:
        schedule: the schedule.
        seconds: seconds of each phase, such as `schedule.seconds` or `seconds` of a `ScheduledTraining`; the axis is
            then the time instead of the steps.

    Returns:
        The figure; save it with `figure.savefig(path)`.

    Raises:
        ValueError: if there is not one finite number for each phase.

    Example:
        >>> from tfmtl.allocation import Phase
        >>> phases = [Phase(100, ("buy",)), Phase(50, ("click", "buy"))]
        >>> figure = schedule_chart(Schedule(["click", "buy"], phases))
        >>> [(round(bar.get_x()), round(bar.get_width())) for bar in figure.axes[0].patches]
        [(100, 50), (0, 100), (100, 50)]
    """
    from matplotlib.figure import Figure

    require_type(schedule, Schedule, "schedule", "Pass a `Schedule`, such as that of `plan_schedule`.")
    lengths = np.array(seconds if len(seconds) else [phase.steps for phase in schedule.phases], np.float64)
    valid = len(lengths) == len(schedule.phases) and bool(np.isfinite(lengths).all())
    require(valid, "`seconds` must hold a finite number for each phase.", seconds=list(seconds))
    starts = np.cumsum(lengths) - lengths
    figure = Figure(figsize=(7.0, 1.2 + 0.35 * len(schedule.tasks)), layout="constrained")
    axis = figure.add_subplot()
    for row, name in enumerate(schedule.tasks):
        bars = [i for i, phase in enumerate(schedule.phases) if name in phase.tasks]
        axis.barh([row] * len(bars), lengths[bars], left=starts[bars], height=0.7, color=f"C{row % 10}")
    axis.set_yticks(range(len(schedule.tasks)), schedule.tasks)
    axis.invert_yaxis()
    axis.set_xlim(0, float(lengths.sum()))
    axis.set_xlabel("seconds" if len(seconds) else "steps")
    axis.spines[["top", "right"]].set_visible(False)
    return figure
