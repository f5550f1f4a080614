"""ItemKNN: neighbours of the user's items by cosine similarity."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tfmtl._checks import require, require_positive_int
from tfmtl.baselines.interactions import Floats, Interactions, Ints, Weighting
from tfmtl.baselines.retrieval_baseline import RetrievalBaseline
from tfmtl.evaluation.counting import FloatArray, blocks

_BLOCK_BYTES = 64 * 2**20
_BYTES_PER_ENTRY = 40  # of a sparse product: the value, the index, and the copies of both


class ItemKNN(RetrievalBaseline):
    r"""Item-based nearest neighbours (item-kNN) with shrunk cosine similarity.

    Use it as a strong baseline without training: it needs one pass and reacts to every new interaction of a user.

    s_ij = x_i . x_j / (|x_i| |x_j| + shrinkage), where x_i is the column of item i in the interaction matrix X. Each
    item keeps itself and its `neighbors` most similar other items, and the score of item j is sum_i x_ui s_ij over the
    user's items i. Candidates without a similar item of the user come last, by popularity.

    The similarity of an item with itself only matters where seen candidates remain in the lists.

    Args:
        neighbors: number of similar items that an item keeps.
        shrinkage: constant that lowers the similarity of items with few common users.
        weighting: entries of X by the number n of interactions of a pair: `"count"`, `"log"` or `"binary"`.

    Example:
        >>> from tfmtl.baselines import Interactions
        >>> bought = Interactions([7, 7, 9, 9], [0, 1, 0, 2], num_candidates=3)
        >>> ItemKNN(shrinkage=0.0).fit(bought).scorer([7])(np.array([0])).round(2).tolist()
        [[1.71, 1.71, 0.71]]

    Cost: the sparse product of the matrix with itself, sum_u n_u^2 for n_u items of a user, in blocks of at most 64
    MiB; C (neighbors + 1) numbers are kept.

    Reference: Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001,
    https://doi.org/10.1145/371920.372071, section 3.1.1; the shrinkage is that of Ferrari Dacrema et al., "Are We
    Really Making Much Progress?", RecSys 2019, https://arxiv.org/abs/1907.06902.
    """

    def __init__(self, neighbors: int = 100, shrinkage: float = 10.0, weighting: Weighting = "log") -> None:
        require_positive_int(neighbors=neighbors)
        require(shrinkage >= 0, "`shrinkage` must be 0 or more.", shrinkage=shrinkage)
        self.neighbors = neighbors
        self.shrinkage = shrinkage
        self.weighting = weighting

    def _fit(self, interactions: Interactions) -> None:
        self._matrix = interactions.matrix(self.weighting)
        columns = self._matrix.T.tocsr()
        norms = np.sqrt(np.asarray(columns.multiply(columns).sum(axis=1))[:, 0])
        count = interactions.num_candidates
        rows = max(1, _BLOCK_BYTES // (_BYTES_PER_ENTRY * count))
        parts = [self._similar(columns, norms, first, last) for first, last in blocks(count, rows)]
        self._similarity = sparse.vstack(parts, format="csr")
        # Below every similarity, which is above 0.
        self._by_popularity = self._for_strangers() / count - 1

    def _similar(self, columns: Any, norms: Any, first: int, last: int) -> Any:
        """Return the similarities [last - first, C] of some items with themselves and with their neighbours."""
        product = (columns[first:last] @ self._matrix).tocsr()
        product.sort_indices()
        row = np.repeat(np.arange(last - first), np.diff(product.indptr))
        product.data /= norms[first + row] * norms[product.indices] + self.shrinkage
        own = product.indices == first + row
        kept = own | _largest(np.where(own, 0, product.data), product.indptr, self.neighbors)
        return sparse.csr_matrix((product.data[kept], (row[kept], product.indices[kept])), product.shape)

    def _scores(self, rows: Ints) -> FloatArray:
        scores = (self._matrix[rows] @ self._similarity).toarray()
        return np.where(scores > 0, scores, self._by_popularity)


def _largest(values: Floats, bounds: Any, count: int) -> npt.NDArray[np.bool_]:
    """Return whether each value is one of the `count` largest of its row; of equal ones the first are chosen.

    Args:
        values: values of all rows [n], one row after another.
        bounds: bounds of the rows [rows + 1].
        count: number of values to choose.
    """
    chosen = np.ones(len(values), bool)
    for first, last in itertools.pairwise(bounds):
        if last - first > count:
            row = values[first:last]
            least = np.partition(row, len(row) - count)[len(row) - count]
            above = row > least
            above[np.flatnonzero(row == least)[: count - int(above.sum())]] = True
            chosen[first:last] = above
    return chosen
