"""PersonalFrequency: the candidates that the user chose most often."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from tfmtl.baselines.interactions import Interactions, Ints
from tfmtl.baselines.retrieval_baseline import RetrievalBaseline, dense_ranks, fill
from tfmtl.evaluation.counting import FloatArray


class PersonalFrequency(RetrievalBaseline):
    """Personal frequency ("buy again"): the user's own candidates by their number of interactions.

    Use it where users repeat candidates, such as groceries or music; few networks exceed it there. Ties are ordered by
    the time of the newest interaction, then by popularity. The candidates that the user never had come after all others
    and are ordered by popularity.

    Example:
        >>> from tfmtl.baselines import Interactions
        >>> bought = Interactions([7, 7, 9, 9, 9], [1, 1, 0, 2, 2], num_candidates=4)
        >>> np.argsort(-PersonalFrequency().fit(bought).scorer([7])(np.array([0]))[0]).tolist()
        [1, 2, 0, 3]

    Cost: a sort of the interactions.

    Reference: Hu et al., "Modeling Personalized Item Frequency Information for Next-basket Recommendation", SIGIR 2020,
    https://arxiv.org/abs/2006.00556, section 4: the baseline P-TopFreq.
    """

    def _fit(self, interactions: Interactions) -> None:
        counts = interactions.matrix()
        ranks = dense_ranks(counts.data, interactions.newest, interactions.popularity[counts.indices])
        # The ranks of popularity lie below the number of candidates.
        own = interactions.num_candidates + ranks
        self._own = sparse.csr_matrix((own, counts.indices, counts.indptr), counts.shape)

    def _scores(self, rows: Ints) -> FloatArray:
        return fill(np.tile(self._for_strangers(), (len(rows), 1)), self._own[rows])
