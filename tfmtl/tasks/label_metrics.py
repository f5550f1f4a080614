"""Metrics of served values on observed labels: binary, regression and multi-class.

Rows with the label NaN or the weight 0 do not count. A metric that is undefined for the other rows, such as the AUC of
labels of one class, is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require
from tfmtl.tasks.number_metrics import xauc
from tfmtl.tasks.observed import Observed as Observed
from tfmtl.tasks.observed import observed as observed
from tfmtl.tasks.observed import require_vector as require_vector

_Floats = npt.NDArray[np.float64]

SMALLER_IS_BETTER = ("rmse", "mae", "log_loss", "pinball", "deviance")
"""Metrics of reports that fall as a model becomes better; all others rise."""


def binary_metrics(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> dict[str, float]:
    r"""Measure the probabilities p of a binary task against its labels y in {0, 1}, with weights w.

    - `auc`: probability that a positive has a higher score than a negative, ties counted as one half; NaN with one
      class
    - `log_loss` = -sum w (y log p + (1 - y) log(1 - p)) / sum w, with p clipped to [1e-7, 1 - 1e-7] as in Keras
    - `average_precision` = sum over thresholds of the increase of recall times the precision; NaN without a positive
    - `calibration` = sum w p / sum w y, the expected over the observed number of positives; NaN without a positive
    - `normalized_entropy` (NE) = log loss / entropy of the share of positives, which is the log loss of the best
      constant: below 1 the probabilities carry information, and rates of different sizes compare; NaN with one class

    Args:
        labels: [n] 0, 1 or NaN.
        probabilities: [n] in [0, 1].
        weights: [n] non-negative, 1 by default.

    Raises:
        ValueError: if a label is none of 0, 1 and NaN, a probability is outside [0, 1], a weight is negative or lengths
            differ.

    Example:
        >>> metrics = binary_metrics([0, 1, 1, float("nan")], [0.2, 0.8, 0.6, 0.5])
        >>> {name: round(value, 3) for name, value in metrics.items()}
        {'auc': 1.0, 'log_loss': 0.319, 'average_precision': 1.0, 'calibration': 0.8, 'normalized_entropy': 0.501}

    Reference: Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 2006; He et al., "Practical
    Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014 (calibration and NE).
    """
    label, probability, weight = rows = observed(labels, probabilities, weights)
    require_vector(rows)
    require(bool(np.isin(label, (0, 1)).all()), "Binary labels must be 0, 1 or NaN.", labels=np.unique(label))
    require_probabilities(probability)
    from sklearn import metrics as sklearn_metrics  # imported here: it takes half a second

    positives = float(weight @ label)
    precision = (
        float(sklearn_metrics.average_precision_score(label, probability, sample_weight=weight))
        if positives
        else np.nan
    )
    log_loss = _mean_log_loss(np.where(label == 1, probability, 1 - probability), weight)
    return {
        "auc": _auc(label == 1, probability, weight),
        "log_loss": log_loss,
        "average_precision": precision,
        "calibration": float(weight @ probability) / positives if positives else np.nan,
        "normalized_entropy": log_loss / _entropy(positives / weight.sum()) if 0 < positives < weight.sum() else np.nan,
    }


def regression_metrics(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> dict[str, float]:
    r"""Measure predictions f of a regression task against its labels y, with weights w.

    - `rmse` = sqrt(sum w (f - y)^2 / sum w)
    - `mae` = sum w |f - y| / sum w
    - `r2` = 1 - sum w (f - y)^2 / sum w (y - mean y)^2; NaN if all labels are equal
    - `xauc`: share of pairs of rows with different labels in the right order, see `xauc`; NaN if all labels are equal

    Args:
        labels: [n], NaN where missing.
        predictions: [n] in the labels' unit.
        weights: [n] non-negative, 1 by default.

    Raises:
        ValueError: if a weight is negative, a prediction is not finite or lengths differ.

    Example:
        >>> regression_metrics([1.0, 3.0, float("nan")], [1.0, 2.0, 9.0])["mae"]
        0.5
    """
    label, prediction, weight = rows = observed(labels, predictions, weights)
    require_vector(rows)
    if not len(label):
        return dict.fromkeys(("rmse", "mae", "r2", "xauc"), np.nan)
    total, error = weight.sum(), prediction - label
    squared = float(weight @ error**2)
    varies = len(label) > 1 and bool(np.ptp(label) > 0)
    spread = float(weight @ (label - weight @ label / total) ** 2)
    return {
        "rmse": float(np.sqrt(squared / total)),
        "mae": float(weight @ np.abs(error) / total),
        "r2": 1 - squared / spread if varies else np.nan,
        "xauc": xauc(label, prediction, weight),
    }


def multiclass_metrics(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> dict[str, float]:
    r"""Measure class probabilities p [n, C] against class numbers y in {0, .., C - 1}, with weights w.

    - `accuracy` = sum w [argmax p = y] / sum w; of tied classes the first is the prediction
    - `log_loss` = -sum w log p_y / sum w, with p_y at least 1e-7
    - `macro_auc`: mean over the classes c that occur of the AUC of p_c for "y = c" against the rest; NaN with one class

    Args:
        labels: [n] class numbers or NaN.
        probabilities: [n, C], rows sum to 1.
        weights: [n] non-negative, 1 by default.

    Raises:
        ValueError: if a label is not a class number, a row of probabilities does not sum to 1, a weight is negative or
            lengths differ.

    Example:
        >>> multiclass_metrics([0, 2], [[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]])["accuracy"]
        0.5

    Reference: Hand and Till, "A Simple Generalisation of the Area Under the ROC Curve for Multiple Class
    Classification Problems", Machine Learning 2001 (the paper averages pairs of classes).
    """
    label, probability, weight = observed(labels, probabilities, weights)
    require(probability.ndim == 2, "Class probabilities must have the shape [n, classes].", shape=probability.shape)
    require_probabilities(probability)
    sums = probability.sum(axis=1)
    require(bool((np.abs(sums - 1) < 1e-3).all()), "Each row of class probabilities must sum to 1.", sums=sums)
    classes = label.astype(np.int64)
    valid = (classes == label) & (classes >= 0) & (classes < probability.shape[1])
    require(
        bool(valid.all()), f"Labels must be NaN or classes from 0 to {probability.shape[1] - 1}.", labels=label[~valid]
    )
    if not len(classes):
        return dict.fromkeys(("accuracy", "log_loss", "macro_auc"), np.nan)
    right = probability.argmax(axis=1) == classes
    aucs = [_auc(classes == c, probability[:, c], weight) for c in np.unique(classes)]
    return {
        "accuracy": float(weight @ right / weight.sum()),
        "log_loss": _mean_log_loss(probability[np.arange(len(classes)), classes], weight),
        "macro_auc": float(np.mean(aucs)),
    }


def _auc(positive: npt.NDArray[np.bool_], score: _Floats, weight: _Floats) -> float:
    if positive.all() or not positive.any():
        return np.nan
    from sklearn import metrics as sklearn_metrics  # imported here: it takes half a second

    return float(sklearn_metrics.roc_auc_score(positive, score, sample_weight=weight))


def _entropy(share: float) -> float:
    return float(-share * np.log(share) - (1 - share) * np.log1p(-share))


def _mean_log_loss(probability_of_label: _Floats, weight: _Floats) -> float:
    if not len(weight):
        return np.nan
    return float(-weight @ np.log(np.clip(probability_of_label, 1e-7, 1 - 1e-7)) / weight.sum())


def require_probabilities(values: npt.NDArray[Any]) -> None:
    """Raise if a value is outside [0, 1]."""
    require(bool(((values >= 0) & (values <= 1)).all()), "Probabilities must lie in [0, 1].", probabilities=values)
