"""ALS as embeddings: the least squares of each side, with zeros for rows without an entry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

from tfmtl.baselines import PairFactors, als_factors

ALPHA, PENALTY = 4.0, 0.1


def _matrix() -> np.ndarray:
    rng = np.random.default_rng(1)
    matrix = np.where(rng.random([30, 20]) < 0.2, rng.integers(1, 4, [30, 20]), 0).astype(float)
    matrix[7] = 0.0
    matrix[:, 3] = 0.0
    return matrix


def _least_squares(row: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the minimum of sum_i (1 + alpha x_i) (p_i - <u, v_i>)^2 + penalty |u|^2 by the normal equations."""
    weights = 1 + ALPHA * row
    gram = other.T @ (weights[:, None] * other) + PENALTY * np.eye(other.shape[1])
    return np.linalg.solve(gram, other.T @ (weights * (row > 0)))


def test_each_side_is_the_least_squares_of_the_other() -> None:
    matrix = _matrix()
    query, candidate = als_factors(scipy.sparse.csr_matrix(matrix), 5, PENALTY, ALPHA, iterations=300)
    for rows, own, other in ((matrix, query, candidate), (matrix.T, candidate, query)):
        wanted = np.stack([_least_squares(row, other.astype(float)) for row in rows])
        np.testing.assert_allclose(own, wanted, atol=3e-3)
        assert np.abs(own).max() > 0.3


def test_rows_without_an_entry_are_0() -> None:
    query, candidate = als_factors(scipy.sparse.csr_matrix(_matrix()), 5, PENALTY, ALPHA, iterations=2)
    assert not query[7].any()
    assert not candidate[3].any()
    assert query[6].any()


def test_a_stored_zero_is_no_interaction() -> None:
    dense = _matrix()
    stored = scipy.sparse.csr_matrix(dense)
    stored.data[:20] = 0.0
    dense = stored.toarray()
    found = als_factors(stored, 5, PENALTY, ALPHA, iterations=2)
    wanted = als_factors(scipy.sparse.csr_matrix(dense), 5, PENALTY, ALPHA, iterations=2)
    np.testing.assert_allclose(found.query, wanted.query, atol=1e-5)
    assert stored.nnz > np.count_nonzero(dense)  # the argument keeps its entries


def test_a_start_continues_and_a_seed_repeats() -> None:
    matrix = scipy.sparse.csr_matrix(_matrix())
    options: dict[str, Any] = {"rank": 4, "regularization": PENALTY, "alpha": ALPHA}
    five = als_factors(matrix, iterations=5, **options)
    np.testing.assert_array_equal(five.candidate, als_factors(matrix, iterations=5, **options).candidate)
    assert not np.allclose(five.candidate, als_factors(matrix, iterations=5, seed=1, **options).candidate)
    long = als_factors(matrix, iterations=400, **options)
    near = als_factors(matrix, iterations=3, start=long, **options)
    far = als_factors(matrix, iterations=3, **options)
    wanted = long.query @ long.candidate.T
    assert np.abs(near.query @ near.candidate.T - wanted).max() < 0.02
    assert np.abs(far.query @ far.candidate.T - wanted).max() > 0.05
    assert isinstance(near, PairFactors)


def test_a_start_fits_the_candidates_and_gives_none_of_them_a_factor_without_an_entry() -> None:
    matrix = _matrix()
    whole = als_factors(scipy.sparse.csr_matrix(np.ones_like(matrix)), 4)
    assert whole.candidate[3].any()
    assert not als_factors(scipy.sparse.csr_matrix(matrix), 4, iterations=2, start=whole).candidate[3].any()
    with pytest.raises(ValueError, match=r"`start` must hold candidates of the shape \(20, 5\)"):
        als_factors(scipy.sparse.csr_matrix(matrix), 5, start=whole)


@pytest.mark.parametrize(
    ("entry", "arguments", "message"),
    [
        (1.0, {"rank": 0}, "`rank` must be a positive integer"),
        (1.0, {"regularization": 0.0}, "`regularization` must be above 0"),
        (1.0, {"alpha": float("nan")}, "`alpha` must be above 0"),
        (-1.0, {}, "`interactions` must hold numbers of at least 0, one above 0"),
        (0.0, {}, "`interactions` must hold numbers of at least 0, one above 0"),
        (float("inf"), {}, "`interactions` must hold numbers of at least 0, one above 0"),
    ],
)
def test_bad_arguments_have_one_sentence(entry: float, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        als_factors(scipy.sparse.csr_matrix([[entry, 0.0], [0.0, 0.0]]), **arguments)
