"""RetrievalBaseline: the base of the baselines that rank the corpus."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from tfmtl._checks import require
from tfmtl.baselines.interactions import Floats, Interactions, Ints
from tfmtl.evaluation.counting import FloatArray, IntArray
from tfmtl.evaluation.ranks import Scorer


class RetrievalBaseline(abc.ABC):
    """The base of the baselines that rank the corpus by past interactions alone.

    A subclass implements `_fit` and `_scores`. Users without an interaction are given popular candidates.
    """

    _popular: Floats | None = None

    @property
    def name(self) -> str:
        """The name of the baseline in tables."""
        return type(self).__name__

    def fit(self, interactions: Interactions) -> Self:
        """Fit the baseline to the interactions of a training table and return it."""
        self._interactions = interactions
        self._popular = dense_ranks(interactions.popularity)
        self._fit(interactions)
        return self

    def scorer(self, users: npt.ArrayLike) -> Scorer:
        """Return the scores of users for `tfmtl.evaluation.ranks.rank_by_scores`.

        Args:
            users: key of the user of each query [Q]; see `tfmtl.data.keys_of`.

        Returns:
            A function from queries [b], indices of `users`, to scores [b, C]; larger is better.

        Raises:
            ValueError: if the baseline is not fitted.
        """
        require(self._popular is not None, f"Call `fit` of {type(self).__name__} before `scorer`.")
        rows = self._interactions.rows_of(users)

        def score(queries: IntArray) -> FloatArray:
            chosen = rows[queries]
            block = np.tile(self._for_strangers(), (len(chosen), 1))
            known = chosen >= 0
            if known.any():
                block[known] = self._scores(chosen[known])
            return block

        return score

    @abc.abstractmethod
    def _fit(self, interactions: Interactions) -> None:
        """Compute the state of the baseline."""

    @abc.abstractmethod
    def _scores(self, rows: Ints) -> FloatArray:
        """Return the scores [b, C] of rows [b] of the interaction matrix."""

    def _for_strangers(self) -> Floats:
        """Return the scores [C] of users without an interaction."""
        assert self._popular is not None
        return self._popular


def dense_ranks(*keys: npt.ArrayLike) -> Floats:
    """Return the rank of each value from 0 upwards, equal for equal values; later keys decide between equal ones.

    Args:
        keys: arrays [n], the most important first.

    Returns:
        Ranks [n], float64.

    Example:
        >>> dense_ranks([5, 2, 5, 5], [1, 9, 3, 1])
        array([1., 0., 2., 1.])
    """
    columns = [np.asarray(key) for key in keys]
    order = np.lexsort(columns[::-1])
    changes = np.zeros(len(order), bool)
    for column in columns:
        changes[1:] |= column[order][1:] != column[order][:-1]
    ranks = np.empty(len(order))
    ranks[order] = np.cumsum(changes)
    return ranks


def fill(block: FloatArray, matrix: Any) -> FloatArray:
    """Overwrite the positions of a block [b, C] that a CSR matrix [b, C] stores, and return the block."""
    row = np.repeat(np.arange(len(block)), np.diff(matrix.indptr))
    block[row, matrix.indices] = matrix.data
    return block
