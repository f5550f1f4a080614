"""EASE: the item-to-item regression with a closed form, as embeddings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse

from tfmtl._checks import require, require_positive_int
from tfmtl.baselines.interactions import Interactions, Ints, Weighting
from tfmtl.baselines.retrieval_baseline import RetrievalBaseline
from tfmtl.evaluation.counting import FloatArray

Floats = npt.NDArray[np.float64]

_OVERSAMPLES, _ITERATIONS = 32, 4
_SMALLEST = 1e-7
"""Singular values below this share of the largest one are noise of the squares that some are computed from."""
_MOST_EXACT = 3000
"""Largest number of candidates with a matrix [C, C]."""


class ItemFactors(NamedTuple):
    """Two embeddings of each candidate; the score of candidate i given candidate j is `query[j] @ candidate[i]`.

    Attributes:
        query: [C, r] embedding of a candidate in the history of a query.
        candidate: [C, r] embedding of a candidate that is scored.
    """

    query: Floats
    candidate: Floats


def ease_factors(
    interactions: scipy.sparse.spmatrix, rank: int = 256, regularization: float = 500.0, seed: int = 0
) -> ItemFactors:
    """EASE as embeddings: ridge regression of each item on all others, from a truncated singular value decomposition.

    Use it as the strongest simple retrieval without training: a query is the sum of the `query` embeddings of its
    history, and any index over dot products serves it.

    EASE scores x B with B_ji = -P_ji / P_ii for j != i and P = (X' X + lambda I)^-1. With X = U S V' the matrix is
    P = I / lambda - V G V' with G = S^2 / (lambda (S^2 + lambda)), so that B equals V G V' D, D_ii = 1 / P_ii,
    outside of its diagonal. `query` is V and `candidate` is D V G. Singular values far below sqrt(lambda) hardly count,
    so that a moderate rank suffices; with all of them the scores of unseen candidates equal EASE's. The diagonal is not
    0, as it is in EASE, but 1 / (lambda P_ii) - 1 >= 0: a candidate of the history has a score for coming again.

    Args:
        interactions: X, sparse [queries, C], usually 1 for each pair that occurs.
        rank: r, at most the smaller side of X less 1.
        regularization: lambda; above 0. Some hundreds are usual for entries of 1.
        seed: seed of the decomposition's first vector.

    Returns:
        Embeddings of width r, or less if X is smaller; 0 for candidates without an interaction.

    Raises:
        ValueError: if an argument is not positive, or X has a negative, an infinite or no entry above 0.

    Example:
        >>> history = scipy.sparse.csr_matrix([[1.0, 1, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]])
        >>> factors = ease_factors(history, rank=2, regularization=1.0)
        >>> scores = factors.query @ factors.candidate.T
        >>> bool(scores[0, 1] > scores[0, 2])
        True

    Reference:
        Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, https://arxiv.org/abs/1905.03375,
        equation 8. The truncation is ours; its decomposition is algorithm 4.4 of Halko, Martinsson and Tropp, "Finding
        structure with randomness", SIAM Review 2011, https://arxiv.org/abs/0909.4061.

    Cost: a randomized decomposition, O(r entries(X) + r^2 (queries + C)) for each of its few iterations; no matrix
    [C, C]. The smallest singular values are a few per cent too small.
    """
    return decompose(interactions, rank, seed).factors(regularization)


class Decomposition(NamedTuple):
    """The largest singular values of an interaction matrix X = U S V', from which EASE has a closed form.

    Attributes:
        right: V [C, r].
        values: S [r], above 0.
    """

    right: Floats
    values: Floats

    def factors(self, regularization: float) -> ItemFactors:
        """Return EASE's embeddings for one regularization; see `ease_factors`."""
        valid = bool(np.isfinite(regularization) and regularization > 0)
        require(valid, "`regularization` must be above 0.", regularization=regularization)
        gain = self.values**2 / (regularization * (self.values**2 + regularization))
        diagonal = 1 / regularization - np.square(self.right) @ gain
        candidate = self.right * gain
        candidate /= diagonal[:, None]
        return ItemFactors(self.right, candidate)


def decompose(
    interactions: scipy.sparse.spmatrix, rank: int = 256, seed: int = 0, start: Decomposition | None = None
) -> Decomposition:
    """Return the truncated singular value decomposition of an interaction matrix, once for several regularizations.

    Args:
        interactions, rank, seed: as in `ease_factors`.
        start: decomposition of a matrix that differs little, such as one without the newest rows, and has the same
            candidates; one step from it costs a fraction of a new decomposition.

    Raises and cost as in `ease_factors`.
    """
    require_positive_int(rank=rank)
    matrix = scipy.sparse.csr_matrix(interactions, dtype=np.float64)
    valid = bool(np.isfinite(matrix.data).all() and (matrix.data >= 0).all() and (matrix.data > 0).any())
    require(valid, "`interactions` must hold numbers of at least 0, one above 0.", shape=matrix.shape)
    if min(matrix.shape) <= max(rank, 32):  # all of them are computed
        _, values, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
    elif start is not None and start.right.shape == (matrix.shape[1], rank):
        values, right = _iterated(matrix, start.right, 1)
    else:
        width = min(rank + _OVERSAMPLES, *matrix.shape)
        drawn = np.random.default_rng(seed).normal(size=(matrix.shape[1], width))
        values, right = _iterated(matrix, drawn, _ITERATIONS)
    order = np.argsort(-values)[:rank]
    order = order[values[order] > _SMALLEST * values.max()]
    return Decomposition(np.ascontiguousarray(right[order].T), values[order])


def _iterated(matrix: scipy.sparse.csr_matrix, right: Floats, iterations: int) -> tuple[Floats, Floats]:
    """Return the singular values [r] and right vectors [r, C] of a matrix X in the span of (X'X)^iterations `right`.

    The products are orthonormalized on the shorter side of X alone.
    """
    wide = matrix.shape[0] < matrix.shape[1]
    short = matrix if wide else matrix.T.tocsr()  # [shorter side, longer side]
    long = short.T.tocsr()
    span = matrix @ right if wide else right
    for _ in range(iterations):
        span, _ = np.linalg.qr(short @ (long @ span))
    other = long @ span
    squares, rotation = np.linalg.eigh(other.T @ other)
    values = np.sqrt(np.maximum(squares, 0.0))
    right = other @ (rotation / np.maximum(values, _SMALLEST * values.max())) if wide else span @ rotation
    return values, right.T


def ease_weights(interactions: scipy.sparse.spmatrix, regularization: float) -> Floats:
    """Return the weights B [C, C] of EASE: B_ji = -P_ji / P_ii with P = (X' X + lambda I)^-1, and 0 for j = i.

    Use it for corpora of a few thousand candidates; `ease_factors` needs no matrix [C, C].

    Args:
        interactions: X, sparse [queries, C].
        regularization: lambda; above 0.

    Example:
        >>> ease_weights(scipy.sparse.csr_matrix([[1.0, 1.0], [1.0, 0.0]]), 1.0).round(3)
        array([[0.   , 0.333],
               [0.5  , 0.   ]])
    """
    require(np.isfinite(regularization) and regularization > 0, "`regularization` must be above 0.", got=regularization)
    gram = (interactions.T @ interactions).toarray()
    inverse = np.linalg.inv(gram + regularization * np.eye(len(gram)))
    weights: Floats = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


class EASE(RetrievalBaseline):
    """EASE, the embarrassingly shallow autoencoder: a linear regression of each item on all others.

    Use it as the strongest baseline without training where histories are long. It is exact up to 3000 candidates; for
    more, `ease_factors` approximates it. The score of a candidate ignores the user's own interactions with it.

    Args:
        regularization: lambda, the weight of the L2 penalty; above 0.
        rank: rank of the approximation for more than 3000 candidates.
        weighting: entries of X by the number n of interactions of a pair: `"count"`, `"log"` or `"binary"`.
        seed: seed of the approximation.

    Example:
        >>> bought = Interactions([7, 7, 9, 9], [0, 1, 0, 2], num_candidates=3)
        >>> EASE(regularization=1.0).fit(bought).scorer([7])(np.array([0])).round(2).tolist()
        [[0.5, 0.4, 0.2]]

    Cost: C^3 for the inverse, or that of `ease_factors`.

    Reference: as `ease_factors`.
    """

    def __init__(
        self, regularization: float = 200.0, rank: int = 256, weighting: Weighting = "binary", seed: int = 0
    ) -> None:
        require_positive_int(rank=rank)
        require(regularization > 0, "`regularization` must be above 0.", regularization=regularization)
        self.regularization = regularization
        self.rank = rank
        self.weighting = weighting
        self.seed = seed

    def _fit(self, interactions: Interactions) -> None:
        self._matrix = interactions.matrix(self.weighting)
        self._weights: Floats | None = None
        if interactions.num_candidates <= _MOST_EXACT:
            self._weights = ease_weights(self._matrix, self.regularization)
        elif self._matrix.nnz:
            key = "decomposition", self.weighting, self.rank, self.seed
            if key not in interactions.memo:
                interactions.memo[key] = decompose(self._matrix, self.rank, self.seed)
            self._factors = interactions.memo[key].factors(self.regularization)
            self._own = np.einsum("cr,cr->c", *self._factors)

    def _scores(self, rows: Ints) -> FloatArray:
        history = self._matrix[rows]
        if self._weights is not None:
            return np.asarray(history @ self._weights)
        scores: FloatArray = (history @ self._factors.query) @ self._factors.candidate.T
        row = np.repeat(np.arange(len(rows)), np.diff(history.indptr))
        scores[row, history.indices] -= history.data * self._own[history.indices]
        return scores
