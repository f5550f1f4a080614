"""The base of regressions with a logarithmic link, and the deviance that they minimise."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras, tf
from tfmtl.tasks.number_metrics import mean_deviance
from tfmtl.tasks.number_task import LARGEST_LOG, AmountTask, clipped
from tfmtl.tasks.ranking import Scope
from tfmtl.tasks.row_loss import RowLoss
from tfmtl.tasks.task import LabelSummaries, LabelSummary, summary_of

_BEND = 25.0  # the exponential continues as a line from here, so that a label times e^25, squared, is a float32


class LogLinkRegression(AmountTask, abc.ABC):
    """The base of regressions of labels of 0 or more by the deviance of their mean m = e^z.

    l = d(y, m) / dispersion with the unit deviance d of the Tweedie family, of variance dispersion * m^power. The
    deviance is the log likelihood of the label less that of a perfect prediction, times -2: it is 0 if m = y, as a
    squared error is.

    Metrics: `rmse` and `mae` of the served mean. A report adds `r2`, `xauc`, the mean `deviance`, and `calibration`,
    the predicted over the observed total.

    Args:
        name: name of the task and of its label.
        units: widths of the head's hidden layers.
        scope: `"pair"` or `"query"`.
        dispersion: divisor of the deviance; above 0. It changes the weight of the task, not its minimum.
        clip: (lowest, highest) served value, or None.
    """

    kendall_factor = 0.5

    def __init__(
        self,
        name: str,
        units: Sequence[int] = (),
        scope: Scope = "pair",
        dispersion: float = 1.0,
        clip: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, units, scope, clip, **kwargs)
        require(dispersion > 0, f"`dispersion` of task {name!r} must be above 0.", dispersion=dispersion)
        self.dispersion = float(dispersion)

    @property
    @abc.abstractmethod
    def variance_power(self) -> float:
        """The power p of the variance dispersion * m^p."""

    @classmethod
    def from_statistics(cls, name: str, statistics: LabelSummaries | LabelSummary, **kwargs: Any) -> Self:
        """Build the task with the dispersion and the range of the training labels.

        With the dispersion variance / mean^p the loss starts near 1 for any unit of the label.

        Args:
            name: name of the task.
            statistics: `preprocessor.statistics`, or the statistics of the label of this task.
            kwargs: further arguments of the task.

        Raises:
            ValueError: if the statistics hold no label of the task, or all its labels are 0.
        """
        statistics = summary_of(name, statistics)
        require(statistics.mean > 0, f"The mean label of task {name!r} must be above 0.", mean=statistics.mean)
        task = cls(name, **{"clip": (statistics.minimum, statistics.maximum), **kwargs})
        if "dispersion" not in kwargs and statistics.deviation > 0:
            task.dispersion = float(statistics.deviation**2 / statistics.mean**task.variance_power)
        return task

    def initial_bias(self, labels: Mapping[str, LabelSummary]) -> Sequence[float] | None:
        """Return the logarithm of the mean training label."""
        mean = labels[self.name].mean if self.name in labels else 0.0
        return [math.log(mean)] if mean > 0 else None

    def keras_loss(self) -> keras.losses.Loss:
        """Return the deviance divided by the dispersion."""
        return RowLoss(lambda y, z: unit_deviance(y, z[:, 0], self.variance_power) / self.dispersion)

    def predict(self, outputs: Any) -> tf.Tensor:
        """Return the means [B]."""
        return clipped(tf.exp(tf.minimum(outputs[:, 0], LARGEST_LOG)), self.clip)

    def report(self, labels: np.ndarray, predictions: Any, weights: np.ndarray) -> dict[str, float]:
        """Return `regression_metrics`, the predicted over the observed total, and the mean deviance.

        It is infinite if a label above 0 has a prediction of 0 or below, as that of a baseline may be.
        """
        deviance = mean_deviance(labels, np.maximum(predictions, 0), weights, power=self.variance_power)
        return {**super().report(labels, predictions, weights), "deviance": deviance}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dispersion": self.dispersion}


def unit_deviance(labels: tf.Tensor, log_means: tf.Tensor, power: float) -> tf.Tensor:
    """Return the unit deviances d(y, m) [B] of the Tweedie family from the logarithms z of the means m.

    With r = z - log y, d = 2 y^(2-p) ((e^((2-p) r) - 1) / (2-p) - (e^((1-p) r) - 1) / (1-p)), and
    d = 2 m^(2-p) / (2-p) where y = 0. For p = 1 the second quotient is r. In this form, no large terms cancel near
    m = y. Exponents above 25 continue as lines, so that value and gradient are finite.

    Args:
        labels: y [B], 0 or more.
        log_means: z [B].
        power: p in [1, 2).

    Example:
        >>> unit_deviance(tf.constant([0.0, 1.0]), tf.zeros([2]), 1.0).numpy().tolist()
        [2.0, 0.0]
    """
    positive, rest = labels > 0, 2.0 - power
    known = tf.where(positive, labels, 1.0)
    gap = tf.where(positive, log_means - tf.math.log(known), 0.0)
    second = gap if power == 1 else _expm1((1 - power) * gap) / (1 - power)
    above = known**rest * (_expm1(rest * gap) / rest - second)
    at_zero = (_expm1(rest * tf.where(positive, 0.0, log_means)) + 1) / rest
    return 2 * tf.where(positive, above, at_zero)


def _expm1(x: tf.Tensor) -> tf.Tensor:
    return tf.math.expm1(tf.minimum(x, _BEND)) + math.exp(_BEND) * tf.nn.relu(x - _BEND)
