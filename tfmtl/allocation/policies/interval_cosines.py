"""The mean cosine of each task's gradient with those of the others since the last look."""

from __future__ import annotations

import numpy as np

from tfmtl.allocation.affinity import Floats
from tfmtl.balancing.step_gradients import At
from tfmtl.training import ConflictMonitor


class IntervalCosines(ConflictMonitor):
    """A `ConflictMonitor` that is read between steps instead of at the end of epochs, and logs nothing."""

    def __init__(self, every_n_steps: int, at: At = "representation") -> None:
        super().__init__(every_n_steps, at)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keep the sums: an interval may end in another epoch."""

    def take(self) -> Floats:
        """Return the mean cosine of each task with the others [K], NaN if none was measured, and start again."""
        _, cosine, _, count = self._sums.numpy()
        self._clear()
        off = ~np.eye(len(count), dtype=bool)
        with np.errstate(invalid="ignore"):
            means = np.where(off & (count > 0), cosine / count, np.nan)
        return np.array([_mean(row) for row in means])


def _mean(values: Floats) -> float:
    """Return the mean of the numbers that are not NaN, or NaN."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
