"""RecentPopularity: the number of recent interactions of each candidate."""

from __future__ import annotations

import math

import numpy as np

from tfmtl._checks import require
from tfmtl.baselines.interactions import Floats, Interactions, Ints
from tfmtl.baselines.retrieval_baseline import RetrievalBaseline, dense_ranks
from tfmtl.evaluation.counting import FloatArray


class RecentPopularity(RetrievalBaseline):
    """Recent popularity: the same list for every user, ordered by the number of recent interactions.

    Use it where the interest in items fades, such as news, fashion or seasons. Ties are ordered by popularity.

    Args:
        share: share of the newest interactions that count, in (0, 1]; those of the oldest moment among them all count.
        half_life: if given, every interaction counts 2^(-age / half_life) instead. The age is the distance from the
            newest interaction, in the unit of the times (seconds for datetimes).

    Raises:
        ValueError: if `share` or `half_life` is out of range; in `fit` if the interactions have no times.

    Example:
        >>> from tfmtl.baselines import Interactions
        >>> bought = Interactions([7, 7, 9], [1, 1, 0], num_candidates=3, times=[1.0, 2.0, 8.0])
        >>> RecentPopularity(share=0.3).fit(bought).scorer([7])(np.array([0])).tolist()
        [[2.0, 1.0, 0.0]]

    Cost: a sort of the interactions.
    """

    def __init__(self, share: float = 0.1, half_life: float | None = None) -> None:
        require(0 < share <= 1, "`share` must be a number in (0, 1].", share=share)
        require(half_life is None or half_life > 0, "`half_life` must be above 0.", half_life=half_life)
        self.share = share
        self.half_life = half_life

    def _fit(self, interactions: Interactions) -> None:
        require(interactions.times is not None, "RecentPopularity needs the times of the interactions; give `times`.")
        times = np.asarray(interactions.times, np.float64)
        if self.half_life is None:
            count = math.ceil(self.share * len(times))
            weights = (times >= np.partition(times, len(times) - count)[len(times) - count]).astype(np.float64)
        else:
            weights = 2.0 ** ((times - times.max()) / self.half_life)
        recent = np.bincount(np.asarray(interactions.candidate_index), weights, minlength=interactions.num_candidates)
        self._recent = dense_ranks(recent, interactions.popularity)

    def _for_strangers(self) -> Floats:
        return self._recent

    def _scores(self, rows: Ints) -> FloatArray:
        return np.tile(self._recent, (len(rows), 1))
