"""The best constant prediction of each kind of label: the baseline that a model has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int
from tfmtl.tasks.label_metrics import Observed, observed


def weighted_mean(labels: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """Return the weighted mean of the observed labels: the constant with the least squared error.

    Args:
        labels: [n], NaN where missing.
        weights: [n] non-negative, 1 by default.

    Raises:
        ValueError: if no label is observed.

    Example:
        >>> weighted_mean([1.0, 4.0, float("nan")], [2.0, 1.0, 5.0])
        2.0
    """
    label, _, weight = _some(observed(labels, weights=weights))
    return float(np.average(label, weights=weight))


def prior_probability(labels: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """Return the share of positives among the observed labels: the constant with the least log loss.

    Args:
        labels: [n] 0, 1 or NaN.
        weights: [n] non-negative, 1 by default.

    Raises:
        ValueError: if no label is observed or a label is neither 0 nor 1.

    Example:
        >>> prior_probability([1, 0, 0, 0, float("nan")])
        0.25
    """
    label, _, weight = _some(observed(labels, weights=weights))
    require(bool(np.isin(label, (0, 1)).all()), "Binary labels must be 0, 1 or NaN.", labels=np.unique(label))
    return float(np.average(label, weights=weight))


def class_frequencies(
    labels: npt.ArrayLike, num_classes: int, weights: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    """Return the share of each class among the observed labels: the constant distribution with the least log loss.

    Args:
        labels: [n] class numbers or NaN.
        num_classes: C.
        weights: [n] non-negative, 1 by default.

    Returns:
        [C] float64, sums to 1.

    Raises:
        ValueError: if no label is observed or a label is not a class number.

    Example:
        >>> class_frequencies([0, 2, 2, 2], 3)
        array([0.25, 0.  , 0.75])
    """
    require_positive_int(num_classes=num_classes)
    label, _, weight = _some(observed(labels, weights=weights))
    classes = label.astype(np.int64)
    valid: npt.NDArray[Any] = (classes == label) & (classes >= 0) & (classes < num_classes)
    require(bool(valid.all()), f"Labels must be NaN or classes from 0 to {num_classes - 1}.", labels=label[~valid])
    return np.asarray(np.bincount(classes, weight / weight.sum(), minlength=num_classes), np.float64)


def _some(rows: Observed) -> Observed:
    require(len(rows.labels) > 0, "A constant predictor needs at least one observed label with a weight above 0.")
    return rows
