"""The state of a training for a policy: a few numbers for each task, alike on all data sets."""

from __future__ import annotations

import numpy as np

from tfmtl._checks import require
from tfmtl.allocation.affinity import Floats

FEATURES = ("fallen", "progress", "above_best", "cosine", "left")
STATE_VERSION = 1
"""Raised when `FEATURES` change, so that a policy of another state is refused."""

_LARGEST = 5.0


class TaskState:
    """Turns the validation losses of a training into the state [K, 5] of a policy, without a unit.

    With L the losses of the moment and L_0 those before training, for each task: fallen = (L_0 - L) / |L_0|, progress =
    the change of fallen since the last state, above_best = (L - smallest L) / |L_0|, cosine = the mean cosine of its
    gradient with those of the others, 0 if unknown, and left = the share of the budget that is left. All are limited to
    -5 ... 5.

    Args:
        first: L_0 [K], finite and not 0.

    Raises:
        ValueError: if a loss is not finite, or 0 before training.

    Example:
        >>> state = TaskState(np.array([2.0, 0.5]))
        >>> state.observe(np.array([1.0, 0.5]), left=0.75).tolist()
        [[0.5, 0.5, 0.0, 0.0, 0.75], [0.0, 0.0, 0.0, 0.0, 0.75]]
        >>> state.objective
        0.25
    """

    def __init__(self, first: Floats) -> None:
        self.first = np.array(first, np.float64)
        valid = bool(np.isfinite(self.first).all() and (self.first != 0).all())
        require(valid, "The losses before training must be finite and not 0.", losses=self.first.tolist())
        self._best = self.first.copy()
        self._fallen = np.zeros(len(self.first))

    @property
    def largest(self) -> Floats:
        """Losses [K] that count as much worse as a state can show."""
        return self.first + _LARGEST * np.abs(self.first)

    @property
    def objective(self) -> float:
        """The mean over the tasks of the share by which their losses have fallen."""
        return float(self._fallen.mean())

    def observe(self, losses: Floats, left: float, cosines: Floats | None = None) -> Floats:
        """Return the state [K, 5], and keep the losses for the next one.

        Args:
            losses: L [K].
            left: share of the budget that is left, 0 to 1.
            cosines: mean cosine of each task with the others [K].
        """
        losses = np.array(losses, np.float64)
        require(bool(np.isfinite(losses).all()), "The validation losses must be finite.", losses=losses.tolist())
        self._best = np.minimum(self._best, losses)
        unit = np.abs(self.first)
        fallen = (self.first - losses) / unit
        before, self._fallen = self._fallen, fallen
        known = np.zeros(len(losses)) if cosines is None else np.nan_to_num(cosines)
        columns = [fallen, fallen - before, (losses - self._best) / unit, known, np.full(len(losses), left)]
        return np.clip(np.stack(columns, axis=1), -_LARGEST, _LARGEST)
