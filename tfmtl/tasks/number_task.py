"""The base of tasks with a label that is a number."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras, tf
from tfmtl.tasks.number_metrics import ratio_of_sums
from tfmtl.tasks.ranking import Ranking, Scope, known
from tfmtl.tasks.task import LabelSummary, LossInputs

LARGEST_LOG = 80.0  # e^80 is near the largest float32


class NumberTask(Ranking, abc.ABC):
    """The base of tasks with a label that is a number and a served value in the same unit.

    Derive from it for another distribution of a number: baselines and the rates of categories in `recipes.fit` then
    treat the label as a number. Subclasses implement `keras_loss`, for example by a `RowLoss`, and `predict`.

    Metrics: `rmse` and `mae` of the served value; a report adds `r2` and `xauc`.

    Args:
        name: name of the task and of its label.
        units: widths of the head's hidden layers.
        scope: `"pair"` or `"query"`.
    """

    serves_numbers: ClassVar[bool] = True
    """Whether a served matrix [B, n] holds numbers, such as quantiles, instead of class probabilities."""

    def __init__(self, name: str, units: Sequence[int] = (), scope: Scope = "pair", **kwargs: Any) -> None:
        super().__init__(name, units, scope, **kwargs)
        self._metrics_by_name = {
            "rmse": keras.metrics.RootMeanSquaredError(name=f"{name}_rmse"),
            "mae": keras.metrics.MeanAbsoluteError(name=f"{name}_mae"),
        }

    def check_labels(self, statistics: LabelSummary) -> None:
        """Raise if all training labels are equal or too close together for float32."""
        lowest, highest = statistics.minimum, statistics.maximum
        for loss in self.group_losses:
            loss.check_labels(self.name, statistics)
        require(lowest < highest, f"Every training label of regression task {self.name!r} is the same.", label=lowest)
        rounding = float(np.spacing(np.float32(max(abs(lowest), abs(highest))))) / 2
        require(
            rounding <= 0.03 * statistics.deviation,
            f"The labels of task {self.name!r} are float32, which rounds them by up to {rounding:.3g}, while their "
            f"deviation is {statistics.deviation:.3g}; subtract a constant such as {lowest:.12g} from the column.",
        )

    @property
    def output_units(self) -> int:
        """One number."""
        return 1

    def update_metrics(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs | None = None
    ) -> None:
        """Update RMSE and MAE in the unit of the label."""
        labels, values = known(labels)[:, tf.newaxis], self.central_value(outputs)[:, tf.newaxis]
        for metric in self._metrics_by_name.values():
            metric.update_state(labels, values, sample_weight=sample_weight)

    def central_value(self, outputs: Any) -> tf.Tensor:
        """Return the number [B] that RMSE and MAE compare with the label: by default the served value."""
        return self.predict(outputs)


class AmountTask(NumberTask, abc.ABC):
    """The base of tasks with labels of 0 or more, such as counts, times and spend.

    Args:
        name, units, scope: see `NumberTask`.
        clip: (lowest, highest) served value, or None.
    """

    label_rule = "0 or more"

    def __init__(
        self,
        name: str,
        units: Sequence[int] = (),
        scope: Scope = "pair",
        clip: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, units, scope, **kwargs)
        self.clip = as_range(clip)

    def check_labels(self, statistics: LabelSummary) -> None:
        """Raise if a training label is below 0, or all are equal."""
        rule = f"Task {self.name!r} needs labels of 0 or more; `Regression` takes others."
        require(statistics.minimum >= 0, rule, minimum=statistics.minimum)
        super().check_labels(statistics)

    def usable_labels(self, labels: tf.Tensor) -> tf.Tensor:
        """Return whether each label is 0 or more."""
        return labels >= 0

    def report(self, labels: np.ndarray, predictions: Any, weights: np.ndarray) -> dict[str, float]:
        """Return `regression_metrics`, and the predicted over the observed total."""
        found = super().report(labels, predictions, weights)
        return {**found, "calibration": ratio_of_sums(labels, predictions, weights)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "clip": self.clip}


def as_range(clip: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the bounds of served values as two floats.

    Example:
        >>> as_range([0, 5]), as_range(None)
        ((0.0, 5.0), None)
    """
    return None if clip is None else (float(clip[0]), float(clip[1]))


def clipped(values: tf.Tensor, clip: tuple[float, float] | None) -> tf.Tensor:
    """Return values inside the bounds, if there are any."""
    return values if clip is None else tf.clip_by_value(values, *clip)
