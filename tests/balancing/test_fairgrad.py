from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import least_squares

from tests.balancing import gramian_cases as cases
from tfmtl.balancing.fairgrad import FairGrad
from tfmtl.balancing.nash_mtl import NashMTL

ALPHAS = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0]
PAPERS = {(tasks, alpha): cases.solver(FairGrad(alpha, normalize=False), tasks) for tasks in (2, 6) for alpha in ALPHAS}


@pytest.mark.parametrize("alpha", ALPHAS)
def test_two_orthogonal_tasks_in_closed_form(alpha: float) -> None:
    # |g|^2 w = w^(-1 / alpha): w = |g|^(-2 alpha / (1 + alpha)).
    weights = PAPERS[2, alpha](np.diag([3.0, 0.01]))
    np.testing.assert_allclose(weights, np.array([3.0, 0.01]) ** (-2 * alpha / (1 + alpha)), rtol=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_equation_holds(alpha: float) -> None:
    for gradients in cases.random_gradients(6, 10):
        for lengths in (np.ones([6, 1]), np.geomspace(1e-3, 1e1, 6)[:, np.newaxis]):
            scaled = gradients * lengths
            weights = PAPERS[6, alpha](scaled).astype(np.float64)
            assert weights.min() > 0
            benefits = scaled @ (weights @ scaled)
            rounding = 1e-6 * np.linalg.norm(scaled, axis=1).max() * np.linalg.norm(weights @ scaled)
            np.testing.assert_allclose(benefits, weights ** (-1 / alpha), rtol=5e-3, atol=rounding)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_scipy_finds_the_same(alpha: float) -> None:
    for gradients in cases.random_gradients(6, 3):
        gramian = gradients @ gradients.T
        found = least_squares(
            lambda w, m: m @ w - w ** (-1 / alpha), np.full(6, 0.3), bounds=(1e-9, np.inf), args=(gramian,), xtol=1e-14
        )
        np.testing.assert_allclose(PAPERS[6, alpha](gradients), found.x, rtol=1e-3)


def test_alpha_one_is_nash() -> None:
    for normalize in (True, False):
        fair, nash = (cases.solver(kind(normalize=normalize), 6) for kind in (FairGrad, NashMTL))
        for gradients in cases.random_gradients(6, 3):
            np.testing.assert_array_equal(fair(gradients), nash(gradients))


def test_the_fairer_the_more_even_are_the_benefits() -> None:
    gradients = np.array([[1.0, 0, 0], [0.5, 2, 0], [0, 0, 5]])
    spreads = []
    for alpha in (0.5, 1.0, 2.0, 5.0):
        benefits = gradients @ (cases.solver(FairGrad(alpha), 3)(gradients) @ gradients)
        spreads.append(benefits.max() / benefits.min())
    assert spreads == sorted(spreads, reverse=True)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 5.0])
def test_normalizing_divides_by_the_mean_square(alpha: float) -> None:
    solve = cases.solver(FairGrad(alpha), 6)
    for gradients in cases.random_gradients(6, 2):
        mean = (gradients**2).sum() / 6
        np.testing.assert_allclose(solve(gradients), PAPERS[6, alpha](gradients / mean**0.5), rtol=1e-4)
    np.testing.assert_allclose(solve(3 * np.eye(6)), 1, rtol=1e-5)  # the plain sum


def test_zero_gradients_keep_weight_one() -> None:
    solve = cases.solver(FairGrad(2.0), 3)
    np.testing.assert_allclose(solve([[2.0, 0], [0, 0], [0, 2]]), 1, rtol=1e-5)
    np.testing.assert_allclose(solve(np.zeros([3, 2])), 1, rtol=1e-5)


def test_opposite_tasks_cancel() -> None:
    gradients = np.array([[1.0, 0], [-1, 0], [0, 1]])
    weights = cases.solver(FairGrad(), 3)(gradients)
    assert weights[0] == pytest.approx(weights[1], rel=1e-3)
    assert weights[0] < 2000
    np.testing.assert_allclose(weights @ gradients, [0, 1], atol=1e-2)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_the_promises_of_all(alpha: float) -> None:
    cases.check_hostile(FairGrad(alpha))
    cases.check_hostile(FairGrad(alpha, normalize=False))
    cases.check_symmetries(lambda: FairGrad(alpha))
    cases.check_symmetries(lambda: FairGrad(alpha, normalize=False), power=-2 * alpha / (1 + alpha))
    cases.check_config(FairGrad(alpha, normalize=False, at=("dense", "other")))


def test_compiles() -> None:
    compiled = cases.solver(FairGrad(2.0, normalize=False), 2, jit=True)(cases.PUBLISHED)
    np.testing.assert_allclose(compiled, PAPERS[2, 2.0](cases.PUBLISHED), rtol=1e-4)


@pytest.mark.parametrize("alpha", [0, -1, 11, float("nan"), "1"])
def test_alpha_outside_its_range_is_refused(alpha: Any) -> None:
    with pytest.raises(ValueError, match=r"`alpha` of FairGrad must be a number from 0.1 to 10. Received: alpha="):
        FairGrad(alpha)
