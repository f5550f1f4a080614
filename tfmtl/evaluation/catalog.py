"""Metrics of recommended lists over the catalogue: coverage, novelty, concentration, popularity bias."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int


def catalog_metrics(
    lists: npt.ArrayLike, num_candidates: int, popularity: npt.ArrayLike | None = None
) -> dict[str, float]:
    r"""Measure recommended lists as a whole: coverage, Gini index, novelty and popularity bias.

    Use it beside accuracy metrics, to notice a recommender that shows the same few items to every user.

    With e_i the number of times candidate i is in the lists, and p_i its share of the training interactions:

    - `coverage` = #{i: e_i > 0} / C
    - `gini` = sum_i (2 i - C - 1) e_(i) / (C sum_i e_i) with e_(1) <= e_(2) <= ...: 0 if all candidates are shown
      equally often, near 1 if few candidates are shown
    - `novelty` = mean over the positions of the lists of -log2 p_i; a candidate without a training interaction has the
      novelty of one with a single interaction
    - `popularity_bias` = mean of p_i over the positions, divided by its mean over the training interactions, sum p_i^2;
      above 1 the lists are more popular than the training interactions

    Args:
        lists: [queries, k] candidates, -1 for an empty position.
        num_candidates: C.
        popularity: [C] number of training interactions, for `novelty` and `popularity_bias`; see
            `tfmtl.evaluation.popularity`.

    Raises:
        ValueError: if a candidate is outside the corpus, all positions are empty, or the popularity is invalid.

    Example:
        >>> found = catalog_metrics([[0, 1], [0, 2]], 4, [4, 2, 1, 1])
        >>> found["coverage"], found["gini"], found["novelty"]
        (0.75, 0.375, 1.75)

    Reference: Castells, Hurley, Vargas, "Novelty and Diversity in Recommender Systems", Recommender Systems Handbook,
    2nd edition 2015; Gini: Adamopoulos and Tuzhilin, "On Unexpectedness in Recommender Systems", ACM TIST 2014;
    popularity bias: Abdollahpouri et al., "The Unfairness of Popularity Bias in Recommendation", 2019,
    https://arxiv.org/abs/1907.13286 (here relative to the training interactions).
    """
    require_positive_int(num_candidates=num_candidates)
    rows = np.asarray(lists)
    require(rows.ndim == 2, "`lists` must have the shape [queries, k].", shape=rows.shape)
    shown = rows[rows >= 0]
    require(shown.size > 0, "`lists` must hold at least one candidate.", shape=rows.shape)
    require(bool((rows < num_candidates).all()), "`lists` must name rows of the corpus.", largest=rows.max())
    exposure = np.sort(np.bincount(shown, minlength=num_candidates))
    order = 2 * np.arange(1, num_candidates + 1) - num_candidates - 1
    metrics = {
        "coverage": float(np.mean(exposure > 0)),
        "gini": float(order @ exposure / (num_candidates * exposure.sum())),
    }
    if popularity is None:
        return metrics
    count = np.asarray(popularity, np.float64)
    require(count.shape == (num_candidates,), "`popularity` must have one entry per candidate.", shape=count.shape)
    require(bool((count >= 0).all()) and count.sum() > 0, "`popularity` must be 0 or more, and not all 0.")
    share = count / count.sum()
    least = 1 / count.sum()
    return {
        **metrics,
        "novelty": float(np.mean(-np.log2(np.maximum(share[shown], least)))),
        "popularity_bias": float(share[shown].mean() / (share @ share)),
    }
