"""Regression of values that are 0 in many rows and lognormal in the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from tfmtl._keras import keras, register, tf
from tfmtl.tasks.number_metrics import normalized_gini
from tfmtl.tasks.number_task import LARGEST_LOG, AmountTask, clipped
from tfmtl.tasks.row_loss import RowLoss
from tfmtl.tasks.task import LabelSummaries, LabelSummary, summary_of

_LEAST_DEVIATION = 0.1  # added to softplus: an exact fit of one row has no infinite density
_SHARES = np.linspace(0.002, 1.0, 500)


@register
class ZeroInflatedLognormal(AmountTask):
    """ZILN, the zero-inflated lognormal: a value that is 0 in many rows and heavy-tailed in the others, such as LTV.

    Use it for customer lifetime value or spend, where it models the event and the amount in one head with one loss;
    `ChainedRegression` does so with a task of its own for the event, and `TweedieRegression` with one output.

    The outputs are a logit a, mu and s, with p = sigma(a) and sigma = softplus(s) + 0.1. The loss of a row is the
    negative log likelihood up to a constant, l = BCE([y > 0], p) + [y > 0] (log(sigma / 0.1) + (log y - mu)^2 /
    (2 sigma^2)), which is never below 0. The unit of the label only shifts mu. The served value is the mean
    p exp(mu + sigma^2 / 2).

    Metrics: `rmse` and `mae` of the served value. A report adds `r2`, `xauc`, the normalized `gini` of the value in the
    order of the predictions, and `calibration`, the predicted over the observed total.

    Args:
        name, units, scope: see `Regression`.
        clip: (lowest, highest) served value, or None. `from_statistics` sets the range of the labels: without it, a
            large sigma in a few rows can make their means enormous.

    Returns:
        Network output: [B, 3], a, mu and s. An ensemble averages them, as a distillation compares them.

    Example:
        >>> task = ZeroInflatedLognormal("spend")
        >>> raw = math.log(math.expm1(0.9))  # sigma = 1
        >>> round(float(task.predict(tf.constant([[0.0, 2.0, raw]]))[0]), 4)  # e^2.5 / 2
        6.0912

    Reference: Wang, Liu, Miao, "A Deep Probabilistic Model for Customer Lifetime Value Prediction", 2019,
    https://arxiv.org/abs/1912.07753. The paper's loss of a positive row is larger by log y + log(2 pi) / 2 - log 10,
    which no output changes, and its sigma has another lower bound.

    Cost: that of `Regression`, with three outputs.
    """

    @classmethod
    def from_statistics(cls, name: str, statistics: LabelSummaries | LabelSummary, **kwargs: Any) -> Self:
        """Build the task with served values inside the range of the training labels; arguments as in `Regression`."""
        statistics = summary_of(name, statistics)
        return cls(name, **{"clip": (0.0, statistics.maximum), **kwargs})

    @property
    def output_units(self) -> int:
        """The logit, mu and s."""
        return 3

    def initial_bias(self, labels: Mapping[str, LabelSummary]) -> Sequence[float] | None:
        """Return the outputs of the best constant distribution.

        It is exact if the shares of all label values are known; with too many values its share of positives, mu and
        sigma have the mean of the label and, approximately, the first two moments of log(1 + y).
        """
        own = labels.get(self.name)
        if own is None or not own.mean > 0:
            return None
        share, mean, deviation = _by_shares(own) if own.frequencies else _by_moments(own)
        share = float(np.clip(share, 0.5 / own.count, 1 - 0.5 / own.count))
        raw = max(deviation - _LEAST_DEVIATION, 0.05)
        return [math.log(share / (1 - share)), mean, raw + math.log(-math.expm1(-raw))]

    def keras_loss(self) -> keras.losses.Loss:
        """Return the negative log likelihood of the event and of the amount, up to a constant."""
        return RowLoss(self._row_losses)

    def _row_losses(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        logit, mean, raw = tf.unstack(outputs, axis=1)
        positive, deviation = targets > 0, tf.nn.softplus(raw) + _LEAST_DEVIATION
        event = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.cast(positive, tf.float32), logits=logit)
        error = (tf.math.log(tf.where(positive, targets, 1.0)) - mean) / deviation
        amount = tf.math.log(deviation / _LEAST_DEVIATION) + tf.square(error) / 2
        return event + tf.where(positive, amount, 0.0)

    def predict(self, outputs: Any) -> tf.Tensor:
        """Return the means [B]."""
        logit, mean, raw = (outputs[:, i] for i in range(3))
        deviation = tf.nn.softplus(raw) + _LEAST_DEVIATION
        logs = tf.math.log_sigmoid(logit) + mean + tf.square(deviation) / 2
        return clipped(tf.exp(tf.minimum(logs, LARGEST_LOG)), self.clip)

    def report(self, labels: np.ndarray, predictions: Any, weights: np.ndarray) -> dict[str, float]:
        """Return `regression_metrics`, the predicted over the observed total, and the normalized Gini."""
        found = super().report(labels, predictions, weights)
        return {**found, "gini": normalized_gini(labels, predictions, weights)}


def _by_shares(own: LabelSummary) -> tuple[float, float, float]:
    """Return the share of positives, and mean and deviation of their logarithms."""
    values, shares = (np.array(list(part), np.float64) for part in zip(*own.frequencies.items(), strict=True))
    logs, weights = np.log(values[values > 0]), shares[values > 0]
    mean = float(np.average(logs, weights=weights))
    return float(weights.sum()), mean, float(np.sqrt(np.average(np.square(logs - mean), weights=weights)))


def _by_moments(own: LabelSummary) -> tuple[float, float, float]:
    """Return them from three moments of all labels: E y = p exp(mu + sigma^2 / 2), and E and E^2 of log(1 + y).

    With p given, mu = E / p and sigma^2 = E^2 / p - mu^2, so that p solves one equation.
    """
    square = own.log_deviation**2 + own.log_mean**2
    shares = _SHARES[square * _SHARES >= own.log_mean**2 * (1 - 1e-9)]
    means = own.log_mean / shares
    variances = square / shares - np.square(means)
    best = int(np.argmin(np.abs(np.log(shares) + means + variances / 2 - math.log(own.mean))))
    return float(shares[best]), float(means[best]), float(np.sqrt(max(variances[best], 0.0)))
