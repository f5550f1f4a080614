"""The popularity baseline of retrieval; `tfmtl.tasks` has the constant baselines of the other tasks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int
from tfmtl.evaluation.counting import FloatArray, IntArray
from tfmtl.evaluation.ranks import Scorer, candidate_columns


def popularity(
    candidate_index: npt.ArrayLike, num_candidates: int, weights: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    """Count how often each candidate occurs among the training interactions.

    Args:
        candidate_index: [n] candidate of each training interaction; -1, outside the corpus, does not count.
        num_candidates: C.
        weights: [n] weight of each interaction, such as its quantity or recency; 1 by default.

    Returns:
        Weighted counts [C], float64.

    Raises:
        ValueError: if an index is outside the corpus, or weights have another length or are negative or NaN.

    Example:
        >>> popularity([0, 2, 2, -1], 3)
        array([1., 0., 2.])
    """
    require_positive_int(num_candidates=num_candidates)
    index = candidate_columns(candidate_index, num_candidates, "`candidate_index`")
    weight = np.ones(len(index)) if weights is None else np.asarray(weights, np.float64)
    require(weight.shape == index.shape, "`weights` must have one entry for each interaction.", weights=weight.shape)
    require(bool((weight >= 0).all()), "`weights` must not be negative or NaN.", weights=weight)
    inside = index >= 0
    # Without an interaction bincount returns integers.
    return np.asarray(np.bincount(index[inside], weight[inside], minlength=num_candidates), np.float64)


def popularity_scorer(scores: npt.ArrayLike) -> Scorer:
    """Return a scorer with the same scores [C] for every query, for the argument `scores` of `rank_by_scores`.

    Example:
        >>> popularity_scorer([1.0, 0.0, 2.0])(np.array([4, 9]))
        array([[1., 0., 2.],
               [1., 0., 2.]])
    """
    row = np.asarray(scores, np.float64)

    def score(queries: IntArray) -> FloatArray:
        return np.broadcast_to(row, (len(queries), len(row)))

    return score
