"""Metrics of probabilities: the best F1 over all thresholds, and the expected calibration error (ECE)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int
from tfmtl.tasks.label_metrics import Observed, observed, require_probabilities, require_vector


def best_f1(labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> tuple[float, float]:
    r"""Return the largest F1 over all thresholds, and the threshold.

    F1 = 2 TP / (2 TP + FP + FN), where the predicted positives are the rows with a score of at least the threshold. Of
    equally good thresholds the highest is returned. NaN without a positive.

    Args:
        labels: [n] 0, 1 or NaN.
        scores: [n], any increasing function of the probability.
        weights: [n] non-negative, 1 by default.

    Raises:
        ValueError: if a label is none of 0, 1 and NaN, a score is not finite, a weight is negative or lengths differ.

    Example:
        >>> best_f1([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])
        (0.8, 0.7)

    Reference: van Rijsbergen, "Information Retrieval", 1979, chapter 7. The F1 on the rows that determined the
    threshold is optimistic: choose the threshold on validation rows.

    Cost: one sort of the rows.
    """
    label, score, weight = _binary(labels, scores, weights)
    if not (weight @ label):
        return np.nan, np.nan
    order = np.argsort(-score, kind="stable")
    score, positive, taken = score[order], np.cumsum((weight * label)[order]), np.cumsum(weight[order])
    last = np.append(score[1:] != score[:-1], True)  # tied rows are predicted alike
    f1 = 2 * positive[last] / (taken[last] + positive[-1])
    best = int(f1.argmax())
    return float(f1[best]), float(score[last][best])


def calibration_error(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    bins: int = 10,
    equal_mass: bool = False,
) -> float:
    r"""Return the expected calibration error (ECE), sum_b W_b |mean p - mean y| / W over bins b of the probability.

    Args:
        labels: [n] 0, 1 or NaN.
        probabilities: [n] in [0, 1].
        weights: [n] non-negative, 1 by default.
        bins: number of bins.
        equal_mass: whether bins hold equally many rows, except that equal probabilities share a bin; otherwise bins
            have equal widths: bin b holds the probabilities above (b - 1) / bins and up to b / bins, and the first
            bin also 0.

    Raises:
        ValueError: if a label is none of 0, 1 and NaN, a probability is outside [0, 1], a weight is negative or lengths
            differ.

    Example:
        >>> calibration_error([0, 1, 1, 1], [0.25, 0.25, 0.75, 0.75], bins=2)
        0.25

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599,
    equation 3; bins of equal mass: Nixon et al., "Measuring Calibration in Deep Learning", 2019,
    https://arxiv.org/abs/1904.01685.
    """
    rows = binned(labels, probabilities, weights, bins, equal_mass)
    if not len(rows.labels):
        return np.nan
    gaps = np.bincount(rows.bins, weights=rows.weights * (rows.probabilities - rows.labels))
    return float(np.abs(gaps).sum() / rows.weights.sum())


class Binned(NamedTuple):
    """The rows that count, each with the number of its bin; all fields are [m]."""

    labels: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    bins: npt.NDArray[np.int64]


def binned(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, weights: npt.ArrayLike | None, bins: int, equal_mass: bool
) -> Binned:
    """Return the rows that count with their bins; arguments as in `calibration_error`."""
    require_positive_int(bins=bins)
    label, probability, weight = _binary(labels, probabilities, weights)
    require_probabilities(probability)
    edges = np.arange(1, bins) / bins
    if equal_mass and len(label):
        edges = np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf")
    return Binned(label, probability, weight, np.searchsorted(edges, probability, side="left"))


def _binary(labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None) -> Observed:
    rows = observed(labels, scores, weights)
    require_vector(rows)
    require(bool(np.isin(rows.labels, (0, 1)).all()), "Binary labels must be 0, 1 or NaN.", labels=rows.labels)
    return rows
