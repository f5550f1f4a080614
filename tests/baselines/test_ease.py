"""EASE by its truncated decomposition against the inverse of the Gram matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from tfmtl.baselines import decompose, ease_factors


def _closed_form(matrix: np.ndarray, regularization: float) -> np.ndarray:
    precision = np.linalg.inv(matrix.T @ matrix + regularization * np.eye(matrix.shape[1]))
    weights = -precision / np.diag(precision)
    np.fill_diagonal(weights, 0.0)
    return weights


def _scores(matrix: np.ndarray, rank: int, regularization: float) -> np.ndarray:
    factors = ease_factors(scipy.sparse.csr_matrix(matrix), rank, regularization)
    return factors.query @ factors.candidate.T


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(2, 50), st.sampled_from([0.5, 20.0, 500.0]))
def test_full_rank_equals_the_inverse_outside_of_the_diagonal(
    seed: int, queries: int, candidates: int, regularization: float
) -> None:
    matrix = (np.random.default_rng(seed).random((queries, candidates)) < 0.3).astype(float)
    matrix[0, 0] = 1.0
    found = _scores(matrix, 100, regularization)
    wanted = _closed_form(matrix, regularization)
    np.fill_diagonal(wanted, np.diag(found))
    assert_allclose(found, wanted, atol=1e-9)


def test_the_diagonal_is_the_score_for_coming_again() -> None:
    matrix = (np.random.default_rng(0).random((40, 6)) < 0.4).astype(float)
    precision = np.linalg.inv(matrix.T @ matrix + 3.0 * np.eye(6))
    assert_allclose(np.diag(_scores(matrix, 6, 3.0)), 1 / (3.0 * np.diag(precision)) - 1, atol=1e-9)


def test_values_by_hand() -> None:
    # X'X + I = [[2, 1], [1, 3]], P = [[3, -1], [-1, 2]] / 5: B_01 = 1 / 2, B_10 = 1 / 3.
    scores = _scores(np.array([[1.0, 1.0], [0.0, 1.0]]), 2, 1.0)
    assert_allclose([scores[0, 1], scores[1, 0]], [1 / 2, 1 / 3])


def _decaying(queries: int = 200, candidates: int = 150) -> np.ndarray:
    """Return a matrix >= 0 with singular values that fall fast after the tenth."""
    rng = np.random.default_rng(1)
    tastes = rng.random((queries, 10)) @ rng.random((10, candidates))
    return np.maximum(tastes + 1e-3 * rng.normal(size=tastes.shape), 0.0)


def test_the_randomized_solver_equals_the_dense_one() -> None:
    matrix = _decaying()
    sparse = _scores(matrix, 40, 10.0)
    _, values, right = np.linalg.svd(matrix, full_matrices=False)
    gain = values[:40] ** 2 / (10.0 * (values[:40] ** 2 + 10.0))
    wanted = (right[:40].T * gain) @ right[:40] / (0.1 - (right[:40].T ** 2) @ gain)
    assert_allclose(sparse, wanted, atol=1e-6)
    assert_allclose(sparse, _scores(matrix, 40, 10.0), atol=0)


def test_one_step_from_a_similar_matrix_decomposes_the_next_one() -> None:
    matrix = scipy.sparse.csr_matrix(_decaying())
    before = decompose(matrix[:180], rank=40)
    after, again = decompose(matrix, rank=40, start=before), decompose(matrix, rank=40)
    assert_allclose(after.values[:10], again.values[:10], rtol=1e-6)
    assert_allclose(after.right.T @ after.right, np.eye(40), atol=1e-6)
    found, wanted = (each.query @ each.candidate.T for each in (after.factors(10.0), again.factors(10.0)))
    assert_allclose(found, wanted, atol=1e-5)
    start = before.factors(10.0)
    assert np.abs(start.query @ start.candidate.T - wanted).max() > 1e-4  # the start alone does not have these scores


def test_a_start_of_other_candidates_is_not_used() -> None:
    matrix = scipy.sparse.csr_matrix(_decaying())
    other = decompose(matrix[:, :140], rank=40)
    assert_allclose(decompose(matrix, rank=40, start=other).values, decompose(matrix, rank=40).values)


def test_a_candidate_without_an_interaction_scores_0() -> None:
    scores = _scores(np.array([[1.0, 1, 0], [1, 0, 0], [0, 1, 0]]), 3, 1.0)
    assert_allclose(scores[2], 0, atol=1e-12)
    assert_allclose(scores[:, 2], 0, atol=1e-12)


@pytest.mark.parametrize(
    ("matrix", "arguments", "named"),
    [
        ([[0.0, 0.0]], {}, "interactions"),
        ([[1.0, -1.0]], {}, "interactions"),
        ([[1.0, np.nan]], {}, "interactions"),
        ([[1.0, 1.0]], {"rank": 0}, "rank"),
        ([[1.0, 1.0]], {"regularization": 0.0}, "regularization"),
        ([[1.0, 1.0]], {"regularization": np.inf}, "regularization"),
    ],
)
def test_wrong_arguments_are_named(matrix: list[list[float]], arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}`"):
        ease_factors(scipy.sparse.csr_matrix(matrix), **arguments)
