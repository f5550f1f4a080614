"""Popularity: counts by hand, and the ranks of its order."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl.evaluation.baselines import popularity, popularity_scorer
from tfmtl.evaluation.ranks import rank_by_scores

NAN = float("nan")


def test_popularity_counts() -> None:
    np.testing.assert_array_equal(popularity([3, 1, 3, -1], 5), [0, 1, 0, 2, 0])
    np.testing.assert_array_equal(popularity([3, 1, 3, -1], 4, weights=[0.5, 2, 1, 9]), [0, 2, 0, 1.5])
    np.testing.assert_array_equal(popularity([], 2), [0, 0])
    assert popularity([], 2).dtype == np.float64


def test_popularity_ranks_alike_for_every_query_but_for_seen_items() -> None:
    scorer = popularity_scorer(popularity([3, 1, 3], 5))
    found = rank_by_scores(scorer, 5, [0, 8, 8, 9], [3, 1, 0, 1], seen=([9], [3]))
    # The order is 3, 1, then 0, 2 and 4 tied at the ranks 2, 3 and 4; for query 9 candidate 3 is seen.
    np.testing.assert_array_equal(found, [0, 1, 3, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: popularity([5], 5), "between -1 .none. and 4.*largest=5"),
        (lambda: popularity([-2], 5), "between -1 .none. and 4.*smallest=-2"),
        (lambda: popularity([0.5], 5), "integer arrays in `candidate_index`"),
        (lambda: popularity([0], 5, weights=[1, 2]), "one entry for each interaction"),
        (lambda: popularity([0], 5, weights=[NAN]), "must not be negative or NaN"),
    ],
)
def test_refuses(call, message: str) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=message):
        call()
