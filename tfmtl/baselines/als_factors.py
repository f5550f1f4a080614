"""Alternating least squares as embeddings, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse

from tfmtl._checks import require, require_positive_int

Floats = npt.NDArray[np.float32]

_STEPS = 3
"""Steps of conjugate gradients for each side and iteration, as in `implicit`."""
_DEVIATION = 0.01
_SMALLEST = 1e-20


class PairFactors(NamedTuple):
    """Embeddings of queries and candidates; the score of a pair is `query[q] @ candidate[i]`.

    Attributes:
        query: [Q, r], 0 for a query without an interaction.
        candidate: [C, r], 0 for a candidate without an interaction.
    """

    query: Floats
    candidate: Floats


def als_factors(
    interactions: scipy.sparse.spmatrix,
    rank: int = 64,
    regularization: float = 0.05,
    alpha: float = 10.0,
    iterations: int = 10,
    seed: int = 0,
    start: PairFactors | None = None,
) -> PairFactors:
    """Implicit-feedback matrix factorization by alternating least squares (ALS).

    Use it beside `ease_factors` for large and sparse catalogues: both serve from any index over dot products. The class
    `ALS` is the baseline by the package `implicit`, which is faster; this function needs NumPy and SciPy alone.

    The sum of (1 + alpha x_qi) (p_qi - <u_q, v_i>)^2 over all pairs, with p = 1 where x > 0, plus
    regularization (|u|^2 + |v|^2), is minimized for u and v in turns, by three steps of conjugate gradients from the
    values before.

    Args:
        interactions: X, sparse [Q, C] of numbers of at least 0.
        rank: r.
        regularization: weight of the L2 penalty; above 0.
        alpha: further weight of an observed pair; above 0.
        iterations: number of passes over both sides.
        seed: seed of the initial factors.
        start: factors to continue from, of a matrix with the same candidates.

    Raises:
        ValueError: if an argument is not positive, or X has a negative, an infinite or no entry above 0.

    Example:
        >>> history = scipy.sparse.csr_matrix([[1.0, 1, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]])
        >>> query, candidate = als_factors(history, rank=2)
        >>> (query @ candidate.T > 0.5)[[0, 3]].tolist()
        [[True, True, False], [False, False, True]]

    Reference:
        Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008,
        https://doi.org/10.1109/ICDM.2008.22, equations 3 to 5; Takács, Pilászy, Tikk, "Applications of the Conjugate
        Gradient Method for Implicit Feedback Collaborative Filtering", RecSys 2011,
        https://doi.org/10.1145/2043932.2043987.

    Cost: 8 passes over the entries of X and r numbers each per iteration; half a second for 230,000 entries and 64.
    """
    require_positive_int(rank=rank, iterations=iterations)
    for name, value in (("regularization", regularization), ("alpha", alpha)):
        require(bool(np.isfinite(value) and value > 0), f"`{name}` must be above 0.", **{name: value})
    matrix = _entries(interactions)
    sides = [_Side.of(matrix, alpha), _Side.of(matrix.T.tocsr(), alpha)]
    query, candidate = _first(sides, rank, seed, start)
    for _ in range(iterations):
        query = sides[0].solved(query, candidate, regularization)
        candidate = sides[1].solved(candidate, query, regularization)
    return PairFactors(query, candidate)


def _first(sides: Sequence[_Side], rank: int, seed: int, start: PairFactors | None) -> tuple[Floats, Floats]:
    """Return the factors before the first pass: drawn ones, or the given ones of the candidates."""
    rng = np.random.default_rng(seed)
    query, candidate = (
        side.empty_at_zero((rng.normal(size=(side.matrix.shape[0], rank)) * _DEVIATION).astype(np.float32))
        for side in sides
    )
    if start is None:
        return query, candidate
    given, wanted = start.candidate.shape, candidate.shape
    require(given == wanted, f"`start` must hold candidates of the shape {wanted}.", start=given)
    return query, sides[1].empty_at_zero(start.candidate)


def _entries(interactions: scipy.sparse.spmatrix) -> scipy.sparse.csr_matrix:
    """Return the entries above 0; the argument stays as it is."""
    matrix = scipy.sparse.csr_matrix(interactions, dtype=np.float32)
    valid = bool(np.isfinite(matrix.data).all() and (matrix.data >= 0).all() and (matrix.data > 0).any())
    require(valid, "`interactions` must hold numbers of at least 0, one above 0.", shape=matrix.shape)
    if not (matrix.data > 0).all():
        matrix = matrix.copy()
        matrix.eliminate_zeros()
    return matrix


class _Side(NamedTuple):
    """One side of the problem: the entries of its rows.

    Attributes:
        matrix: [n, m].
        rows: row of each entry.
        extra: alpha x of each entry.
    """

    matrix: scipy.sparse.csr_matrix
    rows: npt.NDArray[np.int64]
    extra: Floats

    @classmethod
    def of(cls, matrix: scipy.sparse.csr_matrix, alpha: float) -> _Side:
        """Return the side of the rows of a matrix."""
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        return cls(matrix.copy(), rows, np.asarray(alpha * matrix.data, np.float32))

    def empty_at_zero(self, values: Floats) -> Floats:
        """Return values [n, r] with zeros in the rows without an entry."""
        return np.where(np.diff(self.matrix.indptr)[:, np.newaxis] > 0, values, np.float32(0))

    def solved(self, values: Floats, other: Floats, regularization: float) -> Floats:
        """Return better values [n, r] for fixed ones of the other side [m, r]."""
        gram = other.T @ other + np.float32(regularization) * np.eye(other.shape[1], dtype=np.float32)
        listed = other[self.matrix.indices]

        def summed(weights: Floats) -> Floats:
            self.matrix.data = weights
            return np.asarray(self.matrix @ other, np.float32)

        def product(vectors: Floats) -> Floats:
            return vectors @ gram + summed(self.extra * np.einsum("nr,nr->n", listed, vectors[self.rows]))

        residual = self.empty_at_zero(summed(1 + self.extra) - product(values))
        direction, size = residual, _squares(residual)
        for _ in range(_STEPS):
            turned = product(direction)
            step = size / np.maximum(np.einsum("nr,nr->n", direction, turned), _SMALLEST)
            values = values + step[:, np.newaxis] * direction
            residual = residual - step[:, np.newaxis] * turned
            size, before = _squares(residual), size
            direction = residual + (size / np.maximum(before, _SMALLEST))[:, np.newaxis] * direction
        return values


def _squares(rows: Floats) -> Floats:
    return np.asarray(np.einsum("nr,nr->n", rows, rows), np.float32)
