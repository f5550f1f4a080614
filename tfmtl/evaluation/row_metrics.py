"""Streaming Keras metrics of rows: exact, weighted, blind to missing labels."""

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
    """A metric that needs all rows at once and keeps them until it is asked.

    Rows whose label is NaN or whose weight is 0 are left out. Any split of the rows into batches gives the same result.

    Args:
        name: of the metric.
        group: feature that holds the group of each row, for `groups` of `update_state`, or None.

    Cost: 32 bytes a row. A metric of Keras with thresholds needs a fixed memory, but is an approximation.
    """

    def __init__(self, name: str, group: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.group = group
        self._rows = tf.Variable(tf.zeros([0, 4], tf.float64), shape=[None, 4], trainable=False, name="rows")

    @abc.abstractmethod
    def of_rows(self, labels: _Floats, predictions: _Floats, weights: _Floats, groups: _Floats) -> float:
        """Return the value of the kept rows, each [n]; never called without a row."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None, groups: Any = None) -> None:
        """Keep rows.

        Args:
            y_true: labels [B] or [B, 1], NaN where missing.
            y_pred: predictions, as many.
            sample_weight: [B] non-negative, 1 by default.
            groups: numbers of the rows' groups [B], such as encoded ids.
        """
        labels, predictions = (tf.reshape(tf.cast(x, tf.float64), [-1]) for x in (y_true, y_pred))
        ones = tf.ones_like(labels)
        weights = ones if sample_weight is None else tf.reshape(tf.cast(sample_weight, tf.float64), [-1]) * ones
        group = tf.zeros_like(labels) if groups is None else tf.reshape(tf.cast(groups, tf.float64), [-1])
        rows = tf.stack([labels, predictions, weights, group], axis=1)
        kept = tf.boolean_mask(rows, ~tf.math.is_nan(labels) & (weights != 0))
        self._rows.assign(tf.concat([self._rows, kept], axis=0))

    def result(self) -> tf.Tensor:
        """Return the value; NaN where the rows do not define it."""
        value = tf.numpy_function(self._value, [self._rows.read_value()], tf.float64)
        return tf.cast(tf.ensure_shape(value, []), self.dtype)

    def _value(self, rows: _Floats) -> np.float64:
        return np.float64(self.of_rows(*rows.T) if len(rows) else np.nan)

    def reset_state(self) -> None:
        """Forget all rows."""
        self._rows.assign(tf.zeros([0, 4], tf.float64))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **({} if self.group is None else {"group": self.group})}


@register
class AUC(KeptRows):
    """Probability that a positive is scored above a negative, ties one half; NaN with one class.

    Example:
        >>> metric = AUC()
        >>> metric.update_state([1.0, 0.0], [0.8, 0.3]), metric.update_state([1.0, float("nan")], [0.2, 0.9])
        (None, None)
        >>> float(metric.result())
        0.5

    Reference: Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 2006. Keras' `AUC` adds up
    trapezoids between 200 thresholds; this one is exact.
    """

    def __init__(self, name: str = "auc", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)

    def of_rows(self, labels: _Floats, predictions: _Floats, weights: _Floats, groups: _Floats) -> float:
        """Return the AUC."""
        return binary_metrics(labels, _between(predictions), weights)["auc"]


@register
class AveragePrecision(KeptRows):
    """Sum over thresholds of (recall gained) x precision; NaN without a positive.

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
    """AUC within groups such as users, weighted by their rows; see `grouped_auc`.

    Args:
        group: feature whose encoded values are the groups, for tasks that call this metric; in calls of your own pass
            `groups` to `update_state`.
        name: of the metric.

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
    """Largest F1 over all thresholds; `threshold()` is the one that gives it. See `best_f1`.

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
        """Return the least score that is taken for a positive."""
        return best_f1(*self._rows.numpy().T[:3])[1]


@register
class CalibrationError(KeptRows):
    """Mean distance between predicted and observed share of positives in bins of the prediction.

    Args:
        bins: number of bins.
        equal_mass: whether bins hold equally many rows, instead of being equally wide.
        name: of the metric.

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
    """1 - sum w (f - y)^2 / sum w (y - mean y)^2 over the rows with a label; NaN where the labels do not vary.

    Keras' `R2Score` knows no missing label, and no weight of a row.

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
        """Add rows; labels and predictions [B] or [B, 1], NaN labels are missing."""
        labels, predictions = (tf.reshape(tf.cast(x, tf.float64), [-1]) for x in (y_true, y_pred))
        weights = tf.ones_like(labels)
        if sample_weight is not None:
            weights *= tf.reshape(tf.cast(sample_weight, tf.float64), [-1])
        kept = ~tf.math.is_nan(labels) & (weights != 0)
        y, f, w = (tf.boolean_mask(x, kept) for x in (labels, predictions, weights))
        self._sums.assign_add(tf.stack([tf.reduce_sum(w * x) for x in (tf.ones_like(y), y, y * y, (f - y) ** 2)]))

    def result(self) -> tf.Tensor:
        """Return the share of the labels' variance that the predictions explain."""
        weight, first, second, error = tf.unstack(self._sums)
        spread = second - first**2 / weight
        value = tf.where(spread > 1e-12 * second, 1 - error / spread, np.nan)
        return tf.cast(value, self.dtype)

    def reset_state(self) -> None:
        """Forget all rows."""
        self._sums.assign(tf.zeros([4], tf.float64))


def _between(scores: _Floats) -> _Floats:
    """Return scores as they are ordered, in [0, 1]: order metrics take logits, too."""
    require(bool(np.isfinite(scores).all()), "Scores of rows that count must be finite.", scores=scores)
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        distinct, place = np.unique(scores, return_inverse=True)
        return np.asarray(place / max(len(distinct) - 1, 1), np.float64)
    return scores
