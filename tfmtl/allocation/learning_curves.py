"""The loss, or another measure, of each task by its number of training steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from tfmtl._checks import require, require_known, require_positive_int
from tfmtl.allocation.affinity import Floats

_SCALES = np.geomspace(0.02, 50.0, 200)
"""Grid of tau in units of the steps of the probe."""


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """The loss of a task after n steps: L(n) = end + gain tau / (n + tau), which falls by ever smaller amounts.

    Attributes:
        end: the loss after infinitely many steps; minus the measure if that rises.
        gain: the loss before training minus `end`, at least 0.
        tau: steps after which half of the gain is reached, above 0.
        upper_tau: the largest tau that the measurements allow, infinite if they do not show that the gain slows; None
            stands for `tau`.
    """

    end: float
    gain: float
    tau: float
    upper_tau: float | None = None

    @property
    def slows(self) -> bool:
        """Whether the measurements show that the task gains ever less."""
        return self.upper_tau is None or bool(np.isfinite(self.upper_tau))

    def loss(self, steps: float) -> float:
        """Return the loss after some steps."""
        return self.end + self.gain * self.tau / (steps + self.tau)

    def share(self, steps: float, whole: float) -> float:
        """Return the gain of some steps relative to that of `whole` steps, 0 for no step; 1 if the task gains nothing.

        Example:
            >>> round(LearningCurve(0.2, 0.6, tau=100.0).share(100, whole=900), 3)  # 0.5 / 0.9
            0.556
        """
        return 1.0 if self.gain == 0 else _share(steps, whole, self.tau)

    def least_share(self, steps: float, whole: float) -> float:
        """Return the share by `upper_tau`; steps / whole, a straight line, if that is infinite.

        A larger tau has a smaller share, so that no tau which the measurements allow has less.

        Example:
            >>> LearningCurve(0.2, 0.6, tau=100.0, upper_tau=float("inf")).least_share(100, whole=400)
            0.25
        """
        if not self.slows:
            return steps / whole
        return dataclasses.replace(self, tau=self.upper_tau or self.tau).share(steps, whole)


def fit_learning_curves(
    history: Mapping[str, Sequence[float]], steps_per_epoch: int, tasks: Sequence[str],
    measures: Mapping[str, tuple[str, str]] | None = None, trivial: Mapping[str, float] | None = None,
) -> dict[str, LearningCurve]:  # fmt: skip
    """Return the curves of the tasks by the validation losses, or other measures, of a short training of all tasks.

    For each tau of a grid, `end` and `gain` >= 0 by least squares; the tau with the smallest error. `upper_tau` is the
    largest tau with at most 1 + F / (E - 3) times this error, with F the 95 % quantile of the F distribution with 1 and
    E - 3 degrees of freedom, for E epochs. It is infinite if that is the end of the grid, 50 times the training, where
    the curve is a straight line; so it is for a task that does not gain, which may have ended or not begun.

    Use it with short epochs, six or more, such as `fit(table, epochs=8, steps_per_epoch=50, validation_data=held_out)`.
    The softmax loss of a retrieval task stops falling before its ranks are best: give it a measure of ranks, by
    `evaluation.RetrievalEvaluation(held_out, seen=train)` in the callbacks of `fit`.

    Args:
        history: `history` of the result of `fit`, with the measures of each epoch.
        steps_per_epoch: steps of an epoch.
        tasks: names of the tasks.
        measures: by task, a key of `history` and "max" or "min", such as `{"seen": ("val_seen_ndcg@10", "max")}`;
            ("val_<task>_loss", "min") for others. The curve of a "max" is that of minus the measure.
        trivial: by task, the measure of its trivial predictions, such as of `evaluation.trivial_baseline`, by which
            worse values are replaced. Retrieval learns popularity first, and its ranks stand still before they rise
            above it: without this value, the task seems to have ended.

    Raises:
        ValueError: if `history` does not have a measure, or fewer than three values of it, or one is not finite.

    Example:
        >>> losses = [1 / (n + 100) * 100 for n in (50, 100, 150, 200)]  # end 0, gain 1, tau 100
        >>> curve = fit_learning_curves({"val_click_loss": losses}, steps_per_epoch=50, tasks=["click"])["click"]
        >>> round(curve.gain, 2), round(curve.tau)
        (1.0, 101)

    Measure on a fresh model, since steps are counted from its first one, and train another one by the schedule. All
    tasks train together in the probe, so that a task's curve has the help of the others in it.
    """
    require_positive_int(steps_per_epoch=steps_per_epoch)
    measures, trivial = measures or {}, trivial or {}
    require_known(measures, tasks, "task", "`measures`")
    require_known(trivial, tasks, "task", "`trivial`")
    _require_losses(history, [name for name in tasks if name not in measures])
    curves = {}
    for name in tasks:
        losses = _losses(history, name, *measures.get(name, (f"val_{name}_loss", "min")), trivial.get(name))
        curves[name] = _fitted(steps_per_epoch * np.arange(1.0, len(losses) + 1), losses)
    return curves


def _require_losses(history: Mapping[str, Sequence[float]], tasks: Sequence[str]) -> None:
    known = [
        name[len("val_") : -len("_loss")] for name in history if name.startswith("val_") and name.endswith("_loss")
    ]
    require_known(tasks, known, "task", "the validation losses of `history`; give `fit` validation data")


def _losses(history: Mapping[str, Sequence[float]], task: str, key: str, better: str, trivial: float | None) -> Floats:
    """Return the values [E] of a measure, with the sign turned if more is better."""
    require_known([key], history, "measure", f"`history`, for task {task!r}")
    require(better in ("max", "min"), f"The measure of task {task!r} needs 'max' or 'min'.", measure=(key, better))
    values = np.array(history[key], np.float64)
    rule = f"The curve of task {task!r} needs three values of {key!r} or more, all finite."
    require(len(values) >= 3 and bool(np.isfinite(values).all()), rule, values=values.tolist())
    epochs = len(history.get("loss", ()))
    rule = f"The history does not have {key!r} of task {task!r} for each epoch; train with `validation_freq=1`."
    require(epochs in (0, len(values)), rule, epochs=epochs, values=len(values))
    sign = 1.0 if better == "min" else -1.0
    if trivial is None:
        return sign * values
    require(bool(np.isfinite(trivial)), f"`trivial` of task {task!r} must be finite.", trivial=trivial)
    return np.minimum(sign * values, sign * trivial)


def _share(steps: float, whole: float, tau: float) -> float:
    return steps / (steps + tau) * (whole + tau) / whole


def _fitted(steps: Floats, losses: Floats) -> LearningCurve:
    """Return the curve with the least squared error and the largest tau of its interval."""
    taus = steps[-1] * _SCALES
    falls = taus[:, np.newaxis] / (steps + taus[:, np.newaxis])  # [taus, E]
    centred = falls - falls.mean(axis=1, keepdims=True)
    gains = np.maximum(centred @ losses / np.square(centred).sum(axis=1), 0.0)
    ends = losses.mean() - gains * falls.mean(axis=1)
    errors = np.square(ends[:, np.newaxis] + gains[:, np.newaxis] * falls - losses).sum(axis=1)
    best, free = int(errors.argmin()), len(steps) - 3
    if gains[best] == 0 or np.ptp(losses) == 0:
        return LearningCurve(float(losses.mean()), 0.0, float(steps[-1]), np.inf)
    factor = 1 + stats.f.ppf(0.95, 1, free) / free if free else np.inf
    allowed = (errors <= errors[best] * factor) | (free == 0)
    upper = np.inf if allowed[-1] else float(taus[allowed].max())
    return LearningCurve(float(ends[best]), float(gains[best]), float(taus[best]), upper)
