"""Regression by squared error."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.tasks.number_task import LARGEST_LOG, NumberTask, as_range, clipped
from tfmtl.tasks.ranking import Scope, known
from tfmtl.tasks.stackers import Stacker, least_squares
from tfmtl.tasks.task import LabelSummaries, LabelSummary, LossInputs, mean_over_observed, summary_of

_LOWEST = -1 + 1e-6  # a served value without `clip` may round to -1, which has no logarithm
_SMALLEST_LOSS, _LARGEST_LOSS = 1e-4, 1e2  # of the first step; beyond them the task or the others are drowned


@register
class Regression(NumberTask):
    """Regression by squared error: a number, such as a rating, a spend or a watch time.

    Use it for the mean of a number; `from_statistics` sets offset and scale. For a number that is 0 in most rows see
    `ChainedRegression`.

    l = (z - t(y))^2 with t(y) = (y - offset) / scale, or t(y) = (log(1 + y) - offset) / scale; the served value is
    t^-1(z). With offset and scale of the training labels the loss starts near 1 for any unit of the label, about as
    large as a cross-entropy.

    Metrics: `rmse` and `mae` in the unit of the label, which the largest labels decide, and with `transform="log1p"`
    also `log_rmse` and `log_mae`, the errors of log(1 + y). A report adds `r2`, `xauc` and those of the logarithms.

    Args:
        name: name of the task and of its label.
        units: widths of the head's hidden layers.
        scope: `"pair"` or `"query"`.
        offset: subtracted from the (transformed) label.
        scale: divisor of the (transformed) label minus `offset`; above 0.
        transform: `"none"`, or `"log1p"` for labels above -1 with a long tail. With `"log1p"` the served value
            estimates the median, not the mean.
        clip: (lowest, highest) served value, or None.

    Example:
        >>> task = Regression("rating", offset=3.5, scale=1.1)
        >>> round(float(task.predict(tf.constant([[1.0]]))[0]), 3)
        4.6
    """

    kendall_factor = 0.5

    def __init__(
        self,
        name: str,
        units: Sequence[int] = (),
        scope: Scope = "pair",
        offset: float = 0.0,
        scale: float = 1.0,
        transform: Literal["none", "log1p"] = "none",
        clip: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, units, scope, **kwargs)
        require(scale > 0, f"`scale` of task {name!r} must be above 0.", scale=scale)
        require(
            transform in ("none", "log1p"),
            f"`transform` of task {name!r} must be 'none' or 'log1p'.",
            transform=transform,
        )
        self.offset = float(offset)
        self.scale = float(scale)
        self.transform = transform
        self.clip = as_range(clip)
        self._log_metrics_by_name = (
            {
                "log_rmse": keras.metrics.RootMeanSquaredError(name=f"{name}_log_rmse"),
                "log_mae": keras.metrics.MeanAbsoluteError(name=f"{name}_log_mae"),
            }
            if transform == "log1p"
            else {}
        )

    @classmethod
    def from_statistics(cls, name: str, statistics: LabelSummaries | LabelSummary, **kwargs: Any) -> Regression:
        """Build the task with offset and scale of the training labels, and clip served values to their range.

        Args:
            name: name of the task.
            statistics: `preprocessor.statistics`, or the statistics of the label of this task.
            kwargs: further arguments of the task.

        Raises:
            ValueError: if the statistics hold no label of the task.
        """
        statistics = summary_of(name, statistics)
        log = kwargs.get("transform") == "log1p"
        return cls(
            name,
            offset=statistics.log_mean if log else statistics.mean,
            scale=statistics.log_deviation if log else statistics.deviation,
            clip=kwargs.pop("clip", (statistics.minimum, statistics.maximum)),
            **kwargs,
        )

    def check_labels(self, statistics: LabelSummary) -> None:
        """Raise if all training labels are equal, too close together for float32, or too small for the logarithm."""
        super().check_labels(statistics)
        require(
            self.transform != "log1p" or statistics.minimum > -1,
            f"Task {self.name!r} with transform='log1p' needs labels above -1.",
            minimum=statistics.minimum,
        )

    @property
    def label_rule(self) -> str:  # type: ignore[override]
        """The numbers that have a logarithm, with `transform="log1p"`."""
        return "above -1, because of transform='log1p'" if self.transform == "log1p" else "numbers"

    def usable_labels(self, labels: tf.Tensor) -> tf.Tensor:
        """Return whether each label is above -1; with `transform="none"` all labels are usable."""
        return labels > -1 if self.transform == "log1p" else super().usable_labels(labels)

    def initial_bias(self, labels: Mapping[str, LabelSummary]) -> Sequence[float] | None:
        """Return t of the mean training label; warn if the scale makes the first loss huge or tiny."""
        own = labels.get(self.name)
        if own is None:
            return None
        log = self.transform == "log1p"
        mean, deviation = (own.log_mean, own.log_deviation) if log else (own.mean, own.deviation)
        first = (deviation / self.scale) ** 2
        if not _SMALLEST_LOSS <= first <= _LARGEST_LOSS:
            warnings.warn(
                f"The loss of task {self.name!r} starts near {first:.1e}, losses of other tasks near 1; use "
                f"`{type(self).__name__}.from_statistics({self.name!r}, preprocessor.statistics, ...)`, which scales "
                "the labels.",
                stacklevel=2,
            )
        return [(self._typical(mean, labels) - self.offset) / self.scale]

    def _typical(self, mean: float, labels: Mapping[str, LabelSummary]) -> float:
        """Return the mean of the (transformed) labels in the rows of the loss."""
        return mean

    def keras_loss(self) -> keras.losses.Loss:
        """Return the squared error."""
        return keras.losses.MeanSquaredError(reduction=keras.losses.Reduction.SUM)

    def targets(self, labels: tf.Tensor) -> tf.Tensor:
        """Return t(y)."""
        values = tf.math.log1p(labels) if self.transform == "log1p" else labels
        return (values - self.offset) / self.scale

    def predict(self, outputs: Any) -> tf.Tensor:
        """Return the served values [B] in the unit of the label."""
        return self.served_numbers(outputs[:, 0])

    def served_numbers(self, values: Any) -> tf.Tensor:
        """Return t^-1 of values of any shape, inside `clip`."""
        values = values * self.scale + self.offset
        values = tf.math.expm1(tf.minimum(values, LARGEST_LOG)) if self.transform == "log1p" else values
        return clipped(values, self.clip)

    def update_metrics(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs | None = None
    ) -> None:
        """Update RMSE and MAE in the unit of the label and, with `transform="log1p"`, those of the logarithms."""
        super().update_metrics(labels, outputs, sample_weight, inputs)
        labels, values = known(labels)[:, tf.newaxis], self.central_value(outputs)[:, tf.newaxis]
        for metric in self._log_metrics_by_name.values():
            logs = (tf.math.log1p(tf.maximum(x, _LOWEST)) for x in (labels, values))
            metric.update_state(*logs, sample_weight=sample_weight)

    def report(self, labels: np.ndarray, predictions: Any, weights: np.ndarray) -> dict[str, float]:
        """Return `regression_metrics` and, with `transform="log1p"`, RMSE, MAE and R2 of the logarithms."""
        found = super().report(labels, predictions, weights)
        if self.transform == "log1p":
            values, served = (np.log1p(np.maximum(x, _LOWEST)) for x in (labels, predictions))
            logs = super().report(values, served, weights)
            found |= {f"log_{name}": value for name, value in logs.items() if name != "xauc"}  # the order is the same
        return found

    def stacker(self, strength: float) -> Stacker | None:
        """Return least squares with coefficients of at least 0 on the scale of the loss; `strength` is not used."""
        return least_squares(self.targets)

    def distillation_loss(
        self, outputs: Any, teacher_outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs, temperature: float
    ) -> tf.Tensor:
        """Return the mean squared difference of the outputs; `temperature` is not used."""
        return mean_over_observed(tf.square(outputs[:, 0] - teacher_outputs[:, 0]), sample_weight)[0]

    def get_config(self) -> dict[str, Any]:
        own = {"offset": self.offset, "scale": self.scale, "transform": self.transform, "clip": self.clip}
        return {**super().get_config(), **own}
