"""The rows of labels, predictions and weights that count in a metric."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require

_Floats = npt.NDArray[np.float64]


class Observed(NamedTuple):
    """The rows that count: labels [m], predictions [m] or [m, classes], and weights [m]."""

    labels: _Floats
    predictions: _Floats
    weights: _Floats


def observed(
    labels: npt.ArrayLike, predictions: npt.ArrayLike | None = None, weights: npt.ArrayLike | None = None
) -> Observed:
    """Return the rows with a label and a weight above 0.

    Args:
        labels: [n], NaN where missing.
        predictions: [n] or [n, classes]; the labels themselves by default.
        weights: [n] non-negative, 1 by default.

    Raises:
        ValueError: if lengths differ, a weight is negative or NaN, or a row that counts has an infinite label, or a
            prediction that is NaN or infinite.

    Example:
        >>> observed([1.0, np.nan, 0.0], [0.9, 0.5, 0.2], [1.0, 1.0, 0.0]).predictions
        array([0.9])
    """
    label = np.asarray(labels, np.float64)
    prediction = label if predictions is None else np.asarray(predictions, np.float64)
    weight = np.ones(len(label)) if weights is None else np.asarray(weights, np.float64)
    require(
        label.ndim == 1 and weight.shape == label.shape and prediction.shape[:1] == label.shape,
        "Labels [n], predictions and weights [n] must have one entry for each row.",
        labels=label.shape,
        predictions=prediction.shape,
        weights=weight.shape,
    )
    require(bool((weight >= 0).all()), "Weights must not be negative or NaN.", weights=weight)
    kept = ~np.isnan(label) & (weight > 0)
    rows = Observed(label[kept], prediction[kept], weight[kept])
    for name, values in rows._asdict().items():
        require(bool(np.isfinite(values).all()), f"The {name} of rows that count must be finite.", received=values)
    return rows


def require_vector(rows: Observed) -> None:
    """Raise if predictions have several columns."""
    require(rows.predictions.ndim == 1, "Predictions must have the shape [n].", shape=rows.predictions.shape)
