"""The lists of users' neighbors: item-kNN beside a dot product, chosen by ranks on validation rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse

from tfmtl.evaluation.counting import blocks
from tfmtl.tasks import UserNeighbors

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

EXPONENTS = (0.25, 0.5)
"""Exponents a of the similarity c_ij / (n_i n_j)^a; 1/2 is the cosine."""
WIDTH = 100
_USERS = 256
"""Number of users in a block of scores, which can hold a number for each candidate."""
_MOST_USERS = 500_000
"""Number of users beyond which there are no lists: they would take more than 400 MB."""
_MOST_PAIRS = 200_000_000
"""Pairs of candidates of one user, over all users, beyond which the similarities are not computed."""


class Lists(NamedTuple):
    """The best candidates of some users.

    Attributes:
        ids: encoded ids [n, M]; 0 for none.
        parts: their scores [n, M], above 0; 0 for none.
    """

    ids: Ints
    parts: Floats


class Similarities:
    """Similarities of candidates that the same users chose, and the lists that follow from them.

    The score of candidate i for user u is the sum over the candidates j of the user of c_ij / (n_i n_j)^a, with the
    number c_ij of users who chose both, and n of those who chose one. A list has no candidate of its user.

    Args:
        matrix: interactions, CSR [V, C] with the encoded ids as columns.
    """

    def __init__(self, matrix: Any) -> None:
        self._chosen = scipy.sparse.csr_matrix(matrix > 0, dtype=np.float32)
        self._counts = np.maximum(np.asarray(self._chosen.sum(axis=0)).ravel(), 1.0)
        self._both = (self._chosen.T @ self._chosen).tocsr()
        self._both.setdiag(0)
        self._both.eliminate_zeros()

    @staticmethod
    def cheap(matrix: Any) -> bool:
        """Return whether the users, and the pairs of candidates of the same user, are few enough."""
        pairs = float(np.square(np.diff(matrix.indptr).astype(np.float64)).sum())
        return matrix.shape[0] <= _MOST_USERS and pairs <= _MOST_PAIRS

    def lists(self, users: Any, exponent: float, width: int = WIDTH) -> Lists:
        """Return the lists of some encoded users [n] by the exponent a."""
        users, scale = np.asarray(users), (self._counts**-exponent).astype(np.float32)
        found = Lists(np.zeros([len(users), width], np.int32), np.zeros([len(users), width], np.float32))
        for first, last in blocks(len(users), _USERS):
            own = self._chosen[users[first:last]]
            scores = (own.multiply(scale).tocsr() @ self._both).multiply(scale).tocsr()
            scores = (scores - scores.multiply(own > 0)).tocsr()
            scores.eliminate_zeros()
            for row in range(last - first):
                entries = slice(scores.indptr[row], scores.indptr[row + 1])
                values, columns = scores.data[entries], scores.indices[entries]
                if len(values) > width:
                    best = np.argpartition(values, -width)[-width:]
                    values, columns = values[best], columns[best]
                found.ids[first + row, : len(values)] = columns
                found.parts[first + row, : len(values)] = values
        return found

    def part(self, user: str, exponent: float, scale: float) -> UserNeighbors:
        """Return the part of the scores with the lists of all users.

        Args:
            user: name of the query feature with the user's id.
            exponent: a.
            scale: factor of the scores.
        """
        rows = self._chosen.shape[0]
        lists, part = self.lists(np.arange(rows), exponent), UserNeighbors(user, rows, WIDTH)
        part.fill(lists.ids, np.float32(scale) * lists.parts)
        return part
