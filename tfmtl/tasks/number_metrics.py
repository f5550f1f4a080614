"""Metrics of numbers beyond the squared error: order, value, deviance, quantiles and levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require
from tfmtl.tasks.observed import observed, require_vector

_BITS = 3  # of a digit of a rank in `xauc`: the pass over one digit keeps 2^3 sums per row
_NO_LABEL = 1e-300  # a predicted mean of 0, which has no logarithm; it is there for labels of 0 only
_Floats = npt.NDArray[np.float64]


def xauc(labels: npt.ArrayLike, predictions: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """Return XAUC: the share of pairs of rows with different labels that the predictions order correctly.

    Use it where the order of numbers matters, such as watch times in a feed; the AUC is its case of labels 0 and 1. A
    pair with equal predictions counts one half, and the weight of a pair is the product of its rows' weights.

    Args:
        labels: [n], NaN where missing.
        predictions: [n] in any unit.
        weights: [n] non-negative, 1 by default.

    Returns:
        A number in [0, 1], 1/2 without any relation; NaN if all labels are equal.

    Raises:
        ValueError: if a weight is negative, a prediction is not finite or lengths differ.

    Example:
        >>> round(xauc([1.0, 2.0, 3.0], [0.1, 0.5, 0.2]), 4)  # the last pair is in the wrong order
        0.6667

    Reference: Zhan et al., "Deconfounding Duration Bias in Watch-time Prediction for Video Recommendation", KDD 2022,
    https://arxiv.org/abs/2206.06003.

    Cost: O(n log n) time, O(n) if labels or predictions have few values, and 64 n bytes.
    """
    label, prediction, weight = rows = observed(labels, predictions, weights)
    require_vector(rows)
    first, second = (np.unique(part, return_inverse=True)[1] for part in (label, prediction))
    pairs = _squares(weight, np.zeros_like(first)) - _squares(weight, first)
    if not pairs > 0:
        return float("nan")
    tied = _squares(weight, second) - _squares(weight, np.unique(second * len(second) + first, return_inverse=True)[1])
    if second.max() < first.max():  # the cost grows with the number of distinct ranks
        first, second = second, first
    order = np.lexsort((-first, second))  # within equal values of `second` no later row has a larger `first`
    return float((2 * _ascending_pairs(first[order], weight[order]) + tied / 2) / pairs)


def _squares(weight: _Floats, groups: npt.NDArray[Any]) -> float:
    """Return the sum over groups of the square of the group's weight."""
    return float(np.square(np.bincount(groups, weight)).sum())


def _ascending_pairs(rank: npt.NDArray[Any], weight: _Floats) -> float:
    """Return the sum of w_i w_j over pairs i < j with rank_i < rank_j.

    Two ranks differ first in one digit, counted from the highest. For each digit the rows are grouped by the higher
    digits, and the rows of a group are compared by this digit.
    """
    total, shift = 0.0, _BITS * ((max(int(rank.max()).bit_length(), 1) - 1) // _BITS)
    while shift >= 0:
        group = rank >> (shift + _BITS)
        order = np.argsort(group, kind="stable")
        group, digit, own = group[order], (rank[order] >> shift) % 2**_BITS, weight[order]
        sums = np.zeros((len(own) + 1, 2**_BITS))
        sums[np.arange(len(own)) + 1, digit] = own
        np.cumsum(sums, axis=0, out=sums)
        np.cumsum(sums, axis=1, out=sums)
        first = np.searchsorted(group, group)
        before = np.where(digit > 0, sums[np.arange(len(own)), digit - 1] - sums[first, digit - 1], 0.0)
        total += float(own @ before)
        shift -= _BITS
    return total


def normalized_gini(labels: npt.ArrayLike, predictions: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """Return the normalized Gini coefficient: the Gini of the labels in the order of the predictions over the best one.

    Use it for values such as spend, where a few rows have most of the sum. With rows in descending order of the
    predictions, weights w and labels y, let F be the cumulated share of w and L that of w y. The Gini is
    2 * area(L over F) - 1, with the order of tied predictions averaged; the best order is that of the labels.

    Args:
        labels: [n] values of 0 or more, NaN where missing.
        predictions: [n] in any unit.
        weights: [n] non-negative, 1 by default.

    Returns:
        A number in [-1, 1]: 1 for the order of the labels, 0 without any relation; NaN if all labels are equal.

    Raises:
        ValueError: if a label or a weight is negative, a prediction is not finite or lengths differ.

    Example:
        >>> normalized_gini([0.0, 0.0, 9.0], [0.1, 0.2, 0.3]), normalized_gini([0.0, 0.0, 9.0], [1.0, 1.0, 1.0])
        (1.0, 0.0)

    Reference: Wang, Liu, Miao, "A Deep Probabilistic Model for Customer Lifetime Value Prediction", 2019,
    https://arxiv.org/abs/1912.07753.

    Cost: O(n log n).
    """
    label, prediction, weight = rows = observed(labels, predictions, weights)
    require_vector(rows)
    require(bool((label >= 0).all()), "Labels of the Gini coefficient must be 0 or more.", labels=label)
    best = _gini(label, label, weight)
    return _gini(label, prediction, weight) / best if best > 0 else float("nan")


def _gini(label: _Floats, score: _Floats, weight: _Floats) -> float:
    if not len(label) or np.ptp(label) == 0:
        return 0.0
    _, group = np.unique(-score, return_inverse=True)
    mass, value = np.bincount(group, weight), np.bincount(group, weight * label)
    share = np.concatenate([[0.0], np.cumsum(value) / value.sum()])
    return float(mass @ (share[1:] + share[:-1]) / mass.sum() - 1)  # trapezoids: ties in any order on average


def mean_deviance(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, weights: npt.ArrayLike | None = None, *, power: float = 1.0
) -> float:
    """Return the mean Tweedie deviance of predicted means m from labels y of 0 or more; power 1 is Poisson.

    d = 2 (y log(y / m) - y + m) for power 1, and for a power p in (1, 2)
    d = 2 (y^(2-p) / ((1-p)(2-p)) - y m^(1-p) / (1-p) + m^(2-p) / (2-p)). A mean of 0 has no probability of a label
    above 0: the deviance is then infinite, such as that of a baseline that predicts 0 for some of these rows. For a
    label of 0 it is 0.

    Args:
        labels: [n] of 0 or more, NaN where missing.
        predictions: [n] of 0 or more.
        weights: [n] non-negative, 1 by default.
        power: p in [1, 2).

    Returns:
        sum w d / sum w: 0 for perfect predictions, infinity with a prediction of 0 for a label above 0; NaN without a
        row.

    Raises:
        ValueError: if a label, a prediction or a weight is negative, the power is outside [1, 2) or lengths differ.

    Example:
        >>> round(mean_deviance([0.0, 1.0], [1.0, 1.0]), 4)  # 2 and 0
        1.0
        >>> mean_deviance([0.0, 1.0], [0.0, 0.0], power=1.5)
        inf

    Reference: Jorgensen, "Exponential Dispersion Models", Journal of the Royal Statistical Society B, 1987.
    """
    require(1 <= power < 2, "`power` must lie in [1, 2).", power=power)
    label, prediction, weight = rows = observed(labels, predictions, weights)
    require_vector(rows)
    require(bool((label >= 0).all()), "Labels of the deviance must be 0 or more.", labels=label)
    require(bool((prediction >= 0).all()), "Predictions of the deviance must be 0 or more.", predictions=prediction)
    if not len(label):
        return float("nan")
    if bool(((prediction == 0) & (label > 0)).any()):
        return float("inf")
    mean, p = np.where(prediction > 0, prediction, _NO_LABEL), power
    if power == 1:
        half = label * np.log(np.where(label > 0, label, mean) / mean) - label + mean
    else:
        half = label ** (2 - p) / ((1 - p) * (2 - p)) - label * mean ** (1 - p) / (1 - p) + mean ** (2 - p) / (2 - p)
    half = np.where(prediction > 0, half, 0.0)  # near a power of 2 the deviance of the smallest mean is far above 0
    return float(weight @ (2 * half) / weight.sum())


def ratio_of_sums(labels: npt.ArrayLike, predictions: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """Return the calibration of numbers, sum w f / sum w y: the predicted over the observed total; NaN if that is 0.

    Example:
        >>> ratio_of_sums([1.0, 3.0], [2.0, 4.0])
        1.5
    """
    label, prediction, weight = observed(labels, predictions, weights)
    total = float(weight @ label)
    return float(weight @ prediction) / total if total else float("nan")


def weighted_quantiles(
    values: npt.ArrayLike, weights: npt.ArrayLike, quantiles: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Return for each quantile tau the smallest value up to which the share of the weight is at least tau.

    Args:
        values: [n]; those with the weight 0 do not count.
        weights: [n] non-negative, not all 0.
        quantiles: [q] in (0, 1).

    Example:
        >>> weighted_quantiles([3.0, 1.0, 2.0], [1.0, 1.0, 2.0], [0.25, 0.5, 0.9]).tolist()
        [1.0, 2.0, 3.0]
    """
    value, _, weight = observed(values, weights=weights)
    require(len(value) > 0, "Quantiles need at least one value with a weight above 0.")
    order = np.argsort(value, kind="stable")
    cumulated = np.cumsum(weight[order])
    found = np.searchsorted(cumulated, np.asarray(quantiles) * cumulated[-1] * (1 - 1e-12))
    return np.asarray(value[order][np.minimum(found, len(value) - 1)], np.float64)


def quantile_metrics(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, weights: npt.ArrayLike | None, quantiles: Sequence[float]
) -> dict[str, float]:
    """Measure predicted quantiles against labels: see `QuantileRegression` for the names.

    Args:
        labels: [n], NaN where missing.
        predictions: [n, q], one column per quantile.
        weights: [n] non-negative, 1 by default.
        quantiles: [q] ascending, in (0, 1).

    Returns:
        The metrics by name; NaN without a row.

    Raises:
        ValueError: if a weight is negative, a prediction is not finite, or shapes differ.

    Example:
        >>> found = quantile_metrics([1.0, 5.0], [[0.0, 4.0], [0.0, 4.0]], None, [0.5, 0.75])
        >>> found["pinball"], found["coverage_0.75"], found["interval_coverage"]
        (1.125, 0.5, 0.5)

    Reference: Koenker, Bassett, "Regression Quantiles", Econometrica 1978, https://doi.org/10.2307/1913643.
    """
    label, prediction, weight = observed(labels, predictions, weights)
    require(
        prediction.ndim == 2 and prediction.shape[1] == len(quantiles),
        "Predicted quantiles must have the shape [n, quantiles].",
        shape=prediction.shape,
        quantiles=quantiles,
    )

    def mean(values: npt.NDArray[Any]) -> float:
        return float(weight @ values / weight.sum()) if len(label) else float("nan")

    tau, error = np.asarray(quantiles), label[:, np.newaxis] - prediction
    losses = np.maximum(tau * error, (tau - 1) * error)
    found = {"pinball": mean(losses.mean(axis=1))}
    for i, quantile in enumerate(quantiles):
        found[f"pinball_{quantile:g}"] = mean(losses[:, i])
        found[f"coverage_{quantile:g}"] = mean(error[:, i] <= 0)
    if len(quantiles) > 1:
        found["interval_coverage"] = mean((error[:, 0] >= 0) & (error[:, -1] <= 0))
        found["interval_width"] = mean(prediction[:, -1] - prediction[:, 0])
    return {**found, "mae": mean(np.abs(error[:, int(np.argmin(np.abs(tau - 0.5)))]))}


def level_metrics(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, weights: npt.ArrayLike | None, levels: Sequence[float]
) -> dict[str, float]:
    """Return accuracy and quadratic weighted kappa of the levels nearest to predicted numbers.

    kappa = 1 - mean (i - j)^2 / mean (i - j')^2 with the numbers i and j of the levels of label and prediction in one
    row, and j' of any other row: 1 for equal levels, 0 for predictions without relation to the labels.

    Args:
        labels: [n] levels, NaN where missing.
        predictions: [n] in the labels' unit; a number between two levels counts as the lower one.
        weights: [n] non-negative, 1 by default.
        levels: [K] ascending.

    Returns:
        `accuracy` and `kappa`; NaN without a row, and kappa is NaN if all labels and predictions have one level.

    Raises:
        ValueError: if a label is no level, a weight is negative, a prediction is not finite or lengths differ.

    Example:
        >>> level_metrics([1.0, 2.0, 4.0], [1.2, 3.5, 3.9], None, [1.0, 2.0, 4.0])["kappa"]
        0.8

    Reference: Cohen, "Weighted kappa", Psychological Bulletin 1968, https://doi.org/10.1037/h0026256.
    """
    label, prediction, weight = rows = observed(labels, predictions, weights)
    require_vector(rows)
    known = np.asarray(levels, np.float64)
    own = np.searchsorted((known[1:] + known[:-1]) / 2, label)
    near = np.isclose(known[own], label, rtol=1e-6, atol=0.0)  # labels were float32
    require(bool(near.all()), f"Labels must be NaN or one of {list(levels)}.", labels=label[~near])
    if not len(label):
        return {"accuracy": float("nan"), "kappa": float("nan")}
    found = np.searchsorted((known[1:] + known[:-1]) / 2, prediction)
    weight = weight / weight.sum()
    left, right = weight @ own, weight @ found
    chance = float(weight @ np.square(own) + weight @ np.square(found) - 2 * left * right)
    kappa = 1 - float(weight @ np.square(own - found)) / chance if chance > 1e-12 else float("nan")
    return {"accuracy": float(weight @ (own == found)), "kappa": kappa}
