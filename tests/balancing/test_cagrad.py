from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.balancing import gramian_cases as cases
from tfmtl.balancing.cagrad import CAGrad
from tfmtl.balancing.mgda import MGDA

SOLVERS = {(tasks, c): cases.solver(CAGrad(c), tasks) for tasks in (1, 2, 5, 8) for c in (0.0, 0.1, 0.5, 0.9)}


def test_golden() -> None:
    # Published: [0.1835, 1.2041, 1.2041]; w* = (1, 0) as the mean (1, 1, 1) harms the first task the most:
    # d = (1, 1, 1) + 0.5 sqrt(3) (-4, 1, 1) / sqrt(18).
    update = SOLVERS[2, 0.5](cases.PUBLISHED) @ cases.PUBLISHED
    np.testing.assert_allclose(update, [0.1835, 1.2041, 1.2041], atol=1e-4)
    np.testing.assert_allclose(update, 1 + 0.5 * 3**0.5 * np.array([-4, 1, 1]) / 18**0.5, atol=1e-5)


def test_without_a_neighborhood_it_is_the_mean() -> None:
    for gradients in cases.random_gradients(5, 3):
        np.testing.assert_allclose(SOLVERS[5, 0.0](gradients), 0.2, rtol=1e-6)


def test_rescaling_divides_by_one_plus_c_squared() -> None:
    rescaled = cases.solver(CAGrad(0.5, rescale=True), 2)(cases.PUBLISHED)
    np.testing.assert_allclose(rescaled * 1.25, SOLVERS[2, 0.5](cases.PUBLISHED), rtol=1e-5)


def test_one_task_goes_c_further() -> None:
    np.testing.assert_allclose(SOLVERS[1, 0.5]([[2.0, 1.0]]), [1.5], rtol=1e-4)


def dual(weights: np.ndarray, gramian: np.ndarray, c: float) -> float:
    """Return g_w . g_0 + c |g_0| |g_w|."""
    products = gramian @ weights
    return float(products.mean() + c * gramian.mean() ** 0.5 * max(weights @ products, 0) ** 0.5)


@pytest.mark.parametrize("tasks", [2, 5, 8])
@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
def test_the_update_is_optimal(tasks: int, c: float) -> None:
    """The worst task's benefit reaches the dual's least value, which SciPy finds, without leaving the ball."""
    conflicting = [g - 0.8 * g.mean(axis=0) for g in cases.random_gradients(tasks, 2, seed=1)]
    for gradients in cases.random_gradients(tasks, 2) + cases.random_gradients(tasks, 2, size=3) + conflicting:
        gramian, mean = gradients @ gradients.T, gradients.mean(axis=0)
        sums_to_one = {"type": "eq", "fun": lambda w: w.sum() - 1}
        start, bounds = np.full(tasks, 1 / tasks), [(0, 1)] * tasks
        found: Any = minimize(
            dual, start, (gramian, c), bounds=bounds, constraints=sums_to_one, options={"ftol": 1e-12}
        )
        update = SOLVERS[tasks, c](gradients).astype(np.float64) @ gradients
        unit = np.linalg.norm(mean)
        assert np.linalg.norm(update - mean) <= c * unit * (1 + 1e-4)
        scale = unit * np.linalg.norm(gradients, axis=1).max()
        assert (gradients @ update).min() >= found.fun - 1e-4 * scale


def test_a_large_neighborhood_comes_close_to_mgda() -> None:
    # d = g_0 + c |g_0| u: the longer c, the closer to the direction that is best for the worst task.
    gradients = np.array([[1.0, 0.0], [0.5, 2.0]])
    far, shortest = (cases.solver(balancer, 2)(gradients) @ gradients for balancer in (CAGrad(100.0), MGDA()))
    np.testing.assert_allclose(far / np.linalg.norm(far), shortest / np.linalg.norm(shortest), atol=0.02)


def test_opposite_gradients_stand_still() -> None:
    np.testing.assert_allclose(SOLVERS[2, 0.5]([[1.0, 2.0], [-1.0, -2.0]]), 0.5, atol=1e-6)


def test_a_zero_gradient_puts_no_condition() -> None:
    gradients = np.array([[1.0, 0], [0, 0], [0, 1]])
    # The mean is (1, 1) / 3; both other tasks benefit the same, so that d is half as long again.
    np.testing.assert_allclose(cases.solver(CAGrad(0.5), 3)(gradients), [0.5, 1 / 3, 0.5], atol=1e-4)


@pytest.mark.parametrize("c", [0.0, 0.5, 1.0, 3.0])
def test_the_promises_of_all(c: float) -> None:
    cases.check_hostile(CAGrad(c), bound_on_update=(1 + c) * 1.001)
    if c == 0.5:
        cases.check_symmetries(lambda: CAGrad(c))
    cases.check_config(CAGrad(c, rescale=True, at=("dense", "other")))


def test_hundreds_of_hostile_gramians_are_solved() -> None:
    rng = np.random.default_rng(7)
    for count in range(200):
        gradients = rng.normal(size=(5, rng.integers(1, 8))) * 10 ** rng.uniform(-4 * (count % 2), 0, size=(5, 1))
        if count % 3 == 0:
            gradients[0] = -gradients[1]
        for c in (0.1, 0.9):
            update = SOLVERS[5, c](gradients).astype(np.float64) @ gradients
            mean = gradients.mean(axis=0)
            longest, unit = np.linalg.norm(gradients, axis=1).max(), np.linalg.norm(mean)
            assert np.linalg.norm(update - mean) <= c * unit + 1e-3 * longest
            # No worse for the worst task than the mean, nor than the step towards it.
            assert (gradients @ update).min() >= (gradients @ mean).min() - 1e-3 * longest**2


def test_compiles() -> None:
    compiled = cases.solver(CAGrad(0.5), 2, jit=True)(cases.PUBLISHED)
    np.testing.assert_allclose(compiled, SOLVERS[2, 0.5](cases.PUBLISHED), rtol=1e-4)


@pytest.mark.parametrize("c", [-0.1, float("inf"), float("nan"), "1"])
def test_a_neighborhood_below_zero_is_refused(c: Any) -> None:
    with pytest.raises(ValueError, match="`c` of CAGrad must be a number of at least 0"):
        CAGrad(c)
