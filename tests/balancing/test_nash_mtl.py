from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize, root

from tests.balancing import gramian_cases as cases
from tfmtl._keras import tf
from tfmtl.balancing.nash_mtl import NashMTL

EQUATION = {tasks: cases.solver(NashMTL(normalize=False), tasks) for tasks in range(1, 9)}


def test_golden() -> None:
    # M = [[18, -22], [-22, 38]] and M w = 1 / w. Published, for an update cut to length 1: [0.0542, 0.7061, 0.7061];
    # ours has the length of the equation, sqrt(2), unless it is cut too.
    weights = EQUATION[2](cases.PUBLISHED)
    np.testing.assert_allclose(cases.PUBLISHED @ (weights @ cases.PUBLISHED), 1 / weights, rtol=1e-4)
    np.testing.assert_allclose(weights @ cases.PUBLISHED / 2**0.5, [0.0542, 0.7061, 0.7061], atol=1e-4)
    for normalize in (True, False):
        cut = cases.solver(NashMTL(normalize, max_norm=1.0), 2)(cases.PUBLISHED)
        np.testing.assert_allclose(cut @ cases.PUBLISHED, [0.0542, 0.7061, 0.7061], atol=1e-4)


@pytest.mark.parametrize("tasks", range(2, 9))
def test_scipy_finds_the_same_root(tasks: int) -> None:
    for gradients in cases.random_gradients(tasks, 3, seed=tasks):
        gramian = gradients @ gradients.T
        # The convex problem 1/2 w^T M w - sum log w first: from further away the root finder gets lost.
        start: Any = minimize(
            lambda y, m: np.exp(y) @ m @ np.exp(y) / 2 - y.sum(), -0.5 * np.log(np.diag(gramian)), (gramian,)
        )
        found: Any = root(lambda y, m: np.exp(y) * (m @ np.exp(y)) - 1, start.x, (gramian,), tol=1e-12)
        expected = np.exp(found.x)
        np.testing.assert_allclose(gramian @ expected, 1 / expected, rtol=1e-6)
        for scale in (1e-10, 1e-4, 1.0, 1e6, 1e15):
            np.testing.assert_allclose(EQUATION[tasks](scale * gradients) * scale, expected, rtol=1e-4)


def test_the_update_is_as_long_as_the_equation_says() -> None:
    # w^T M w = sum_i w_i / w_i = K; normalised, K times the mean of |g_i|^2.
    normalized = cases.solver(NashMTL(), 5)
    for gradients in cases.random_gradients(5, 5):
        assert np.linalg.norm(EQUATION[5](gradients) @ gradients) == pytest.approx(5**0.5, rel=1e-4)
        assert np.linalg.norm(normalized(gradients) @ gradients) == pytest.approx((gradients**2).sum() ** 0.5, rel=1e-4)


def test_a_tasks_own_scale_does_not_matter() -> None:
    lengths = np.geomspace(1e-6, 1e3, 5)[:, np.newaxis]
    for gradients in cases.random_gradients(5, 5):
        update = EQUATION[5](gradients) @ gradients
        np.testing.assert_allclose(
            EQUATION[5](lengths * gradients) @ (lengths * gradients), update, rtol=1e-3, atol=1e-4
        )


def test_every_task_benefits() -> None:
    for gradients in cases.random_gradients(8, 5, size=10):
        assert (gradients @ (EQUATION[8](gradients) @ gradients)).min() > 0


def test_special_cases() -> None:
    normalized = cases.solver(NashMTL(), 3)
    np.testing.assert_allclose(normalized(5 * np.eye(3)), 1, rtol=1e-5)  # the plain sum
    np.testing.assert_allclose(EQUATION[3](np.ones([3, 1])), 3**-0.5, rtol=1e-4)  # 3 w = 1 / w
    np.testing.assert_allclose(normalized([[2.0, 0], [0, 0], [0, 2]]), 1, rtol=1e-5)
    np.testing.assert_allclose(EQUATION[1]([[3.0, 4.0]]), [0.2], rtol=1e-5)
    np.testing.assert_allclose(cases.solver(NashMTL(), 1)([[3.0, 4.0]]), [1], rtol=1e-5)


def test_only_long_updates_are_cut() -> None:
    gradients = np.diag([0.3, 0.4])
    free, loose, cut = (cases.solver(NashMTL(max_norm=bound), 2)(gradients) for bound in (None, 1.0, 0.25))
    np.testing.assert_array_equal(loose, free)
    np.testing.assert_allclose(cut, free * 0.5, rtol=1e-5)  # sqrt(0.3^2 + 0.4^2) = 0.5


def test_weights_hold_between_solutions() -> None:
    balancer = NashMTL(normalize=False, update_every=3)
    solve = cases.solver(balancer, 2)
    first, second = np.diag([1.0, 2.0]), np.diag([4.0, 5.0])
    given = [first, second, second, second, first]
    found = [solve(gradients) for gradients in given]
    expected = [[1, 0.5], [1, 0.5], [1, 0.5], [0.25, 0.2], [0.25, 0.2]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert {v.name.split("/")[-1].split(":")[0] for v in balancer.weights} == {"last_weights", "held", "steps"}


def test_the_weight_of_an_unobserved_task_holds() -> None:
    balancer = NashMTL(normalize=False, update_every=2)
    solve, gradients = cases.solver(balancer, 2), np.diag([2.0, 4.0])
    assert solve(gradients, [True, False])[0] == pytest.approx(0.5)
    np.testing.assert_allclose(solve(gradients), [0.5, 1], rtol=1e-5)  # never solved for: 1
    np.testing.assert_allclose(solve(gradients, [False, True]), [0.5, 0.25], rtol=1e-5)  # 0.5 stays
    assert balancer.weights


@pytest.mark.parametrize("arguments", [{}, {"max_norm": 1.0}, {"update_every": 2}])
def test_the_promises_of_all(arguments: dict[str, Any]) -> None:
    cases.check_hostile(NashMTL(**arguments))
    cases.check_config(NashMTL(False, at=("dense", "other"), **arguments))


def test_the_symmetries_of_all() -> None:
    cases.check_symmetries(NashMTL)
    cases.check_symmetries(lambda: NashMTL(normalize=False), power=-1)


def test_compiles() -> None:
    compiled = cases.solver(NashMTL(normalize=False, update_every=2), 2, jit=True)(cases.PUBLISHED)
    np.testing.assert_allclose(compiled, EQUATION[2](cases.PUBLISHED), rtol=1e-4)


def test_state_is_made_only_where_it_is_needed() -> None:
    plain = cases.bound(NashMTL(), 2)
    assert [tf.convert_to_tensor(v).shape for v in plain.weights] == [(2,)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"max_norm": 0}, "`max_norm` of NashMTL must be a number above 0, or None. Received: max_norm=0"),
        ({"update_every": 0}, "`update_every` must be a positive integer. Received: update_every=0"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        NashMTL(**arguments)
