"""GAUC: the AUC within groups, such as the rows of one user."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require
from tfmtl.tasks.label_metrics import observed, require_vector

_Floats = npt.NDArray[np.float64]


def grouped_auc(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float:
    r"""Return the GAUC: the mean AUC of the groups (users), weighted by their rows.

    Use it for ranking within a user's list. Unlike the AUC it does not depend on differences between users, which do
    not change the order of one user's list.

    GAUC = sum_g w_g AUC_g / sum_g w_g over the groups with both classes, with w_g the sum of the weights of the group's
    rows; NaN if no group has both classes.

    Args:
        labels: [n] 0, 1 or NaN.
        scores: [n], any increasing function of the probability.
        groups: [n] group of each row, of any sortable dtype.
        weights: [n] non-negative, 1 by default.

    Raises:
        ValueError: if a label is none of 0, 1 and NaN, a score is not finite, a weight is negative or lengths differ.

    Example:
        >>> grouped_auc([1, 0, 1, 0], [0.2, 0.1, 0.8, 0.9], ["ann", "ann", "bob", "bob"])
        0.5

    Reference: Zhu et al., "Optimized Cost per Click in Taobao Display Advertising", KDD 2017.

    Cost: one sort of the rows.
    """
    rows = observed(labels, scores, weights)
    require_vector(rows)
    require(bool(np.isin(rows.labels, (0, 1)).all()), "Binary labels must be 0, 1 or NaN.", labels=rows.labels)
    every = np.asarray(groups)
    require(every.shape == np.shape(labels), "`groups` must name one group for each row.", groups=every.shape)
    kept = ~np.isnan(np.asarray(labels, np.float64))
    kept &= True if weights is None else np.asarray(weights) > 0
    _, group = np.unique(every[kept], return_inverse=True)
    order = np.lexsort((rows.predictions, group))
    group, score, label, weight = group[order], rows.predictions[order], rows.labels[order], rows.weights[order]
    positives, negatives = (np.bincount(group, weights=weight * part) for part in (label, 1 - label))
    won = np.bincount(group, weights=weight * label * _negatives_below(group, score, weight * (1 - label)))
    # `_negatives_below` counts over the whole order; subtract the negatives of the preceding groups.
    won -= positives * (np.cumsum(negatives) - negatives)
    pairs = positives * negatives
    mixed = pairs > 0
    if not mixed.any():
        return np.nan
    return float(np.average((won[mixed] / pairs[mixed]), weights=(positives + negatives)[mixed]))


def _negatives_below(group: npt.NDArray[np.int64], score: _Floats, weight: _Floats) -> _Floats:
    """Return the weight [n] of the negatives below each row in the order (group, score), tied ones counted by half."""
    new = np.append(True, (group[1:] != group[:-1]) | (score[1:] != score[:-1]))[: len(score)]
    start = np.flatnonzero(new)
    tied = np.add.reduceat(weight, start) if len(start) else weight
    return np.repeat(np.cumsum(tied) - tied / 2, np.diff(np.append(start, len(score))))
