"""Streaming Keras metrics that are exact, weighted, and leave out rows without a label."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.evaluation.grouped_auc import grouped_auc
from tfmtl.evaluation.thresholds import best_f1, calibration_error
from tfmtl.tasks.label_metrics import binary_metrics

_Floats = npt.NDArray[np.float64]


class KeptRows(keras.metrics.Metric, abc.ABC):
    """The base of metrics that need all rows at once: `update_state` stores the rows, `result` computes the value.

    Derive from it for a metric that is not a mean over rows; subclasses implement `of_rows`. Rows with the label NaN or
    the weight 0 are left out. The result does not depend on the split of the rows into batches.

    Args:
        name: name of the metric.
        group: name of the feature with the group of each row, or None. A task passes its encoded values to
            `update_state`.

    Cost: 40 bytes per row. The metrics of Keras with thresholds need a constant memory, but are approximations.
    """

    def __init__(self, name: str, group: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.group = group
        self._rows = tf.Variable(tf.zeros([0, 5], tf.float64), shape=[None, 5], trainable=False, name="rows")

    @abc.abstractmethod
    def of_rows(self, labels: _Floats, predictions: _Floats, weights: _Floats, groups: _Floats) -> float:
        """Return the value of the stored rows, each argument [n] with n > 0; groups are numbered from 0."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None, groups: Any = None) -> None:
        """Store the rows of a batch.

        Args:
            y_true: labels [B] or [B, 1], NaN where missing.
            y_pred: predictions [B] or [B, 1].
            sample_weight: [B] non-negative, 1 by default.
            groups: group of each row as a number [B], such as a key or an encoded id.
        """
        labels, predictions = (tf.reshape(tf.cast(x, tf.float64), [-1]) for x in (y_true, y_pred))
        ones = tf.ones_like(labels)
        weights = ones if sample_weight is None else tf.reshape(tf.cast(sample_weight, tf.float64), [-1]) * ones
        group = [tf.zeros_like(labels)] * 2 if groups is None else _halves(tf.reshape(groups, [-1]))
        rows = tf.stack([labels, predictions, weights, *group], axis=1)
        kept = tf.boolean_mask(rows, ~tf.math.is_nan(labels) & (weights != 0))
        self._rows.assign(tf.concat([self._rows, kept], axis=0))

    def result(self) -> tf.Tensor:
        """Return the value; NaN without a row or if the rows do not define it."""
        value = tf.numpy_function(self._value, [self._rows.read_value()], tf.float64)
        return tf.cast(tf.ensure_shape(value, []), self.dtype)

    def _value(self, rows: _Floats) -> np.float64:
        if not len(rows):
            return np.float64(np.nan)
        _, groups = np.unique(rows[:, 3] + 1j * rows[:, 4], return_inverse=True)
        labels, predictions, weights, *_ = rows.T
        return np.float64(self.of_rows(labels, predictions, weights, groups.astype(np.float64)))

    def reset_state(self) -> None:
        """Remove all rows."""
        self._rows.assign(tf.zeros([0, 5], tf.float64))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **({} if self.group is None else {"group": self.group})}


def _halves(groups: tf.Tensor) -> list[tf.Tensor]:
    """Return two float64 numbers [B] for each group, because a float64 has too few digits for a key."""
    if not groups.dtype.is_integer:
        return [tf.zeros_like(groups, tf.float64), tf.cast(groups, tf.float64)]
    whole = tf.cast(groups, tf.int64)
    return [tf.cast(half, tf.float64) for half in (whole // 2**32, whole % 2**32)]


@register
class AUC(KeptRows):
    """AUC: the probability that a positive has a higher score than a negative, ties counted as one half.

    Use it instead of the binned AUC of Keras to compare models with small differences. NaN with one class.

    Example:
        >>> metric = AUC()
        >>> metric.update_state([1.0, 0.0], [0.8, 0.3]), metric.update_state([1.0, float("nan")], [0.2, 0.9])
        (None, None)
        >>> float(metric.result())
        0.5

    Reference: Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 2006. The `AUC` of Keras
    sums trapezoids between 200 thresholds; this one is exact.
    """

    def __init__(self, name: str = "auc", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)

    def of_rows(self, labels: _Floats, predictions: _Floats, weights: _Floats, groups: _Floats) -> float:
        """Return the AUC."""
        return binary_metrics(labels, _between(predictions), weights)["auc"]


@register
class AveragePrecision(KeptRows):
    """Average precision (AP): the sum over thresholds of the increase of recall times the precision.

    Use it for rare positives. NaN without a positive.

    Example:
        >>> metric = AveragePrecision()
        >>> metric.update_state([1.0, 0.0, 1.0], [0.9, 0.5, 0.1])
        >>> round(float(metric.result()), 3)
        0.833
    """

    def __init__(self, name: str = "average_precision", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)

    def of_rows(self, labels: _Floats, predictions: _Floats, weights: _Floats, groups: _Floats) -> float:
        """Return the average precision."""
        return binary_metrics(labels, _between(predictions), weights)["average_precision"]


@register
class GroupedAUC(KeptRows):
    """GAUC: the AUC within groups such as users, weighted by their rows; see `grouped_auc`.

    Use it for ranking within the list of one user.

    Args:
        group: name of the feature with the group of each row, for tasks with this metric; in other uses pass `groups`
            to `update_state`.
        name: name of the metric.

    Example:
        >>> metric = GroupedAUC("user_id")
        >>> metric.update_state([1.0, 0.0, 1.0, 0.0], [0.2, 0.1, 0.8, 0.9], groups=[7, 7, 8, 8])
        >>> float(metric.result())
        0.5

    Reference: Zhu et al., "Optimized Cost per Click in Taobao Display Advertising", KDD 2017.
    """

    def __init__(self, group: str, name: str = "gauc", **kwargs: Any) -> None:
        super().__init__(name, group, **kwargs)

    def of_rows(self, labels: _Floats, predictions: _Floats, weights: _Floats, groups: _Floats) -> float:
        """Return the mean AUC."""
        return grouped_auc(labels, predictions, groups, weights)


@register
class F1(KeptRows):
    """F1 at the best threshold, which `threshold()` returns; see `best_f1`.

    Use it to choose the threshold of a decision on validation rows.

    Example:
        >>> metric = F1()
        >>> metric.update_state([1.0, 0.0, 1.0], [0.9, 0.5, 0.6])
        >>> float(metric.result()), round(metric.threshold(), 2)
        (1.0, 0.6)
    """

    def __init__(self, name: str = "f1", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)

    def of_rows(self, labels: _Floats, predictions: _Floats, weights: _Floats, groups: _Floats) -> float:
        """Return the best F1."""
        return best_f1(labels, predictions, weights)[0]

    def threshold(self) -> float:
        """Return the threshold of the best F1: the least score of a predicted positive."""
        return best_f1(*self._rows.numpy().T[:3])[1]


@register
class CalibrationError(KeptRows):
    """Expected calibration error (ECE): mean distance of predicted and observed shares of positives in bins.

    Use it if probabilities are used as numbers, such as in bids.

    Args:
        bins: number of bins.
        equal_mass: whether bins hold equally many rows; otherwise bins have equal widths.
        name: name of the metric.

    Example:
        >>> metric = CalibrationError(bins=2)
        >>> metric.update_state([0.0, 1.0, 1.0, 1.0], [0.25, 0.25, 0.75, 0.75])
        >>> float(metric.result())  # |0.25 - 0.5| / 2 + |0.75 - 1| / 2
        0.25

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599,
    equation 3.
    """

    def __init__(
        self, bins: int = 10, equal_mass: bool = False, name: str = "calibration_error", **kwargs: Any
    ) -> None:
        super().__init__(name, **kwargs)
        require_positive_int(bins=bins)
        self.bins = bins
        self.equal_mass = equal_mass

    def of_rows(self, labels: _Floats, predictions: _Floats, weights: _Floats, groups: _Floats) -> float:
        """Return the expected calibration error."""
        return calibration_error(labels, predictions, weights, bins=self.bins, equal_mass=self.equal_mass)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bins": self.bins, "equal_mass": self.equal_mass}


@register
class R2(keras.metrics.Metric):
    """R2: 1 - sum w (f - y)^2 / sum w (y - mean y)^2 over the rows with a label; NaN if all labels are equal.

    Use it instead of `R2Score` of Keras, which supports neither missing labels nor weights of single rows.

    Example:
        >>> metric = R2()
        >>> metric.update_state([1.0, 2.0, 6.0], [1.0, 4.0, 5.0])
        >>> round(float(metric.result()), 4)  # 1 - 5 / 14
        0.6429
    """

    def __init__(self, name: str = "r2", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self._sums = self.add_weight("sums", [4], initializer="zeros", dtype=tf.float64)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the rows of a batch; labels and predictions [B] or [B, 1]. Rows with the label NaN are left out."""
        labels, predictions = (tf.reshape(tf.cast(x, tf.float64), [-1]) for x in (y_true, y_pred))
        weights = tf.ones_like(labels)
        if sample_weight is not None:
            weights *= tf.reshape(tf.cast(sample_weight, tf.float64), [-1])
        kept = ~tf.math.is_nan(labels) & (weights != 0)
        y, f, w = (tf.boolean_mask(x, kept) for x in (labels, predictions, weights))
        self._sums.assign_add(tf.stack([tf.reduce_sum(w * x) for x in (tf.ones_like(y), y, y * y, (f - y) ** 2)]))

    def result(self) -> tf.Tensor:
        """Return R2."""
        weight, first, second, error = tf.unstack(self._sums)
        spread = second - first**2 / weight
        value = tf.where(spread > 1e-12 * second, 1 - error / spread, np.nan)
        return tf.cast(value, self.dtype)

    def reset_state(self) -> None:
        """Remove all rows."""
        self._sums.assign(tf.zeros([4], tf.float64))


def _between(scores: _Floats) -> _Floats:
    """Map scores outside [0, 1], such as logits, to their ranks in [0, 1], which keeps their order."""
    require(bool(np.isfinite(scores).all()), "Scores of rows that count must be finite.", scores=scores)
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        distinct, place = np.unique(scores, return_inverse=True)
        return np.asarray(place / max(len(distinct) - 1, 1), np.float64)
    return scores
