"""Watch time by weighted logistic regression."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.tasks.number_task import LARGEST_LOG, AmountTask, clipped
from tfmtl.tasks.ranking import Scope
from tfmtl.tasks.row_loss import RowLoss
from tfmtl.tasks.task import LabelSummaries, LabelSummary, summary_of


@register
class WatchTime(AmountTask):
    """Expected watch time by weighted logistic regression, in which the odds of a positive are the watch time.

    Use it for times or other amounts of 0 or more with a long tail, if the mean matters: a single row pulls less than
    in `PoissonRegression`, because the gradient of a prediction that is too large is at most 1.

    With t = y / scale, each row counts as a positive of weight t and a negative of weight 1:
    l = -t log sigma(z) - log(1 - sigma(z)). The odds e^z of least loss are the mean of t, and the served value is
    scale e^z.

    Metrics: `rmse` and `mae`; a report adds `r2`, `xauc`, the usual metric of watch times, and `calibration`, the
    predicted over the observed total.

    Args:
        name, units, scope: see `Regression`.
        scale: unit of t; above 0. `from_statistics` sets the mean label, with which the loss starts near 1.4. In half
            precision use it: the gradient of a prediction that is too small is up to t, which overflows if t is large.
        clip: (lowest, highest) served value, or None.

    Example:
        >>> import tensorflow as tf
        >>> WatchTime("seconds", scale=60.0).predict(tf.constant([[0.0], [0.6931472]])).numpy().round(3).tolist()
        [60.0, 120.0]

    Reference: Covington, Adams, Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016,
    https://doi.org/10.1145/2959100.2959190, section 4.2. There only impressions without a click are negatives, so that
    the odds are E[t] (1 + P) with the small rate P of clicks; here they are E[t].

    Cost: that of `Regression`.
    """

    def __init__(
        self,
        name: str,
        units: Sequence[int] = (),
        scope: Scope = "pair",
        scale: float = 1.0,
        clip: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, units, scope, clip, **kwargs)
        require(scale > 0, f"`scale` of task {name!r} must be above 0.", scale=scale)
        self.scale = float(scale)

    @classmethod
    def from_statistics(cls, name: str, statistics: LabelSummaries | LabelSummary, **kwargs: Any) -> Self:
        """Build the task with the mean training label as the scale, and clip served values to the range of the labels.

        Args:
            name: name of the task.
            statistics: `preprocessor.statistics`, or the statistics of the label of this task.
            kwargs: further arguments of the task.

        Raises:
            ValueError: if the statistics hold no label of the task, or all its labels are 0.
        """
        statistics = summary_of(name, statistics)
        require(statistics.mean > 0, f"The mean label of task {name!r} must be above 0.", mean=statistics.mean)
        return cls(name, **{"scale": statistics.mean, "clip": (statistics.minimum, statistics.maximum), **kwargs})

    def initial_bias(self, labels: Mapping[str, LabelSummary]) -> Sequence[float] | None:
        """Return the logarithm of the mean training label in units of the scale."""
        mean = labels[self.name].mean if self.name in labels else 0.0
        return [math.log(mean / self.scale)] if mean > 0 else None

    def targets(self, labels: tf.Tensor) -> tf.Tensor:
        """Return t."""
        return labels / self.scale

    def keras_loss(self) -> keras.losses.Loss:
        """Return the cross-entropy of a positive of weight t and a negative of weight 1."""
        return RowLoss(lambda t, z: t * tf.nn.softplus(-z[:, 0]) + tf.nn.softplus(z[:, 0]))

    def predict(self, outputs: Any) -> tf.Tensor:
        """Return the expected labels [B]."""
        return clipped(self.scale * tf.exp(tf.minimum(outputs[:, 0], LARGEST_LOG)), self.clip)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}
