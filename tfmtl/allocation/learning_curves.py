"""The loss of each task by its number of training steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl.allocation.affinity import Floats

_SCALES = np.geomspace(0.02, 50.0, 200)
"""Grid of tau in units of the steps of the probe."""


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """The loss of a task after n steps: L(n) = end + gain tau / (n + tau), which falls by ever smaller amounts.

    Attributes:
        end: the loss after infinitely many steps.
        gain: the loss before training minus `end`, at least 0.
        tau: steps after which half of the gain is reached, above 0.
    """

    end: float
    gain: float
    tau: float

    def loss(self, steps: float) -> float:
        """Return the loss after some steps."""
        return self.end + self.gain * self.tau / (steps + self.tau)

    def share(self, steps: float, whole: float) -> float:
        """Return the gain of some steps relative to that of `whole` steps, 0 for no step; 1 if the task gains nothing.

        Example:
            >>> round(LearningCurve(0.2, 0.6, tau=100.0).share(100, whole=900), 3)  # 0.5 / 0.9
            0.556
        """
        return 1.0 if self.gain == 0 else steps / (steps + self.tau) * (whole + self.tau) / whole


def fit_learning_curves(
    history: Mapping[str, Sequence[float]], steps_per_epoch: int, tasks: Sequence[str]
) -> dict[str, LearningCurve]:
    """Return the curves of the tasks by the validation losses of a short training of all tasks.

    For each tau of a grid, `end` and `gain` >= 0 by least squares; the tau with the smallest error. A task with a loss
    that does not fall has a gain of 0.

    Use it with short epochs, six or more, such as `fit(table, epochs=8, steps_per_epoch=50, validation_data=held_out)`.

    Args:
        history: `history` of the result of `fit`, with `val_<task>_loss` of each epoch.
        steps_per_epoch: steps of an epoch.
        tasks: names of the tasks.

    Raises:
        ValueError: if a task has no validation losses, fewer than three, or one that is not finite.

    Example:
        >>> losses = [1 / (n + 100) * 100 for n in (50, 100, 150, 200)]  # end 0, gain 1, tau 100
        >>> curve = fit_learning_curves({"val_click_loss": losses}, steps_per_epoch=50, tasks=["click"])["click"]
        >>> round(curve.gain, 2), round(curve.tau)
        (1.0, 101)

    Measure on a fresh model, since steps are counted from its first one, and train another one by the schedule.

    A curve sees the loss only, which may stand still where ranks improve later. All tasks train together in the probe,
    so that a task's curve has the help of the others in it.
    """
    require_positive_int(steps_per_epoch=steps_per_epoch)
    known = [
        name[len("val_") : -len("_loss")] for name in history if name.startswith("val_") and name.endswith("_loss")
    ]
    require_known(tasks, known, "task", "the validation losses of `history`; give `fit` validation data")
    curves, epochs = {}, len(history.get("loss", ()))
    for name in tasks:
        losses = np.array(history[f"val_{name}_loss"], np.float64)
        rule = f"The curve of task {name!r} needs three validation losses or more, all finite."
        require(len(losses) >= 3 and bool(np.isfinite(losses).all()), rule, losses=losses.tolist())
        rule = f"Task {name!r} has no validation loss for each epoch; train with `validation_freq=1`."
        require(epochs in (0, len(losses)), rule, epochs=epochs, losses=len(losses))
        curves[name] = _fitted(steps_per_epoch * np.arange(1.0, len(losses) + 1), losses)
    return curves


def _fitted(steps: Floats, losses: Floats) -> LearningCurve:
    """Return the curve with the least squared error."""
    best, found = np.inf, LearningCurve(float(losses.mean()), 0.0, float(steps[-1]))
    for tau in steps[-1] * _SCALES:
        falls = tau / (steps + tau)
        centred = falls - falls.mean()
        gain = max(float(centred @ losses / (centred @ centred)), 0.0)
        end = float(losses.mean() - gain * falls.mean())
        error = float(np.square(end + gain * falls - losses).sum())
        if error < best:
            best, found = error, LearningCurve(end, gain, float(tau))
    return found
