"""Popularity: the number of interactions of each candidate."""

from __future__ import annotations

import numpy as np

from tfmtl.baselines.interactions import Interactions, Ints
from tfmtl.baselines.retrieval_baseline import RetrievalBaseline
from tfmtl.evaluation.counting import FloatArray


class Popularity(RetrievalBaseline):
    """Popularity: the same list for every user, ordered by the number of interactions.

    Use it as the lower bound of any recommender.

    Example:
        >>> from tfmtl.baselines import Interactions
        >>> bought = Interactions([7, 7, 9], [1, 1, 0], num_candidates=3)
        >>> Popularity().fit(bought).scorer([7])(np.array([0])).tolist()
        [[1.0, 2.0, 0.0]]

    Cost: one pass over the interactions.
    """

    def _fit(self, interactions: Interactions) -> None:
        pass

    def _scores(self, rows: Ints) -> FloatArray:
        return np.tile(self._for_strangers(), (len(rows), 1))
