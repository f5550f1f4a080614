from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

from tests.balancing import gramian_cases as cases
from tfmtl._keras import tf
from tfmtl.balancing.mgda import MGDA
from tfmtl.balancing.min_norm import directions, min_norm_weights, project_to_simplex

AT = ("dense", "other")
SOLVERS = {tasks: cases.solver(MGDA(), tasks) for tasks in (2, 3, 4, 8)}


def residual(gradients: np.ndarray, weights: np.ndarray) -> float:
    """Return how far the weights are from (M w)_i >= w^T M w, relative to the longest gradient squared."""
    gramian = gradients @ gradients.T
    products = gramian @ weights.astype(np.float64)
    return float((weights @ products - products.min()) / max(np.diag(gramian).max(), 1e-300))


def test_golden() -> None:
    # Published: [0, 1, 1]. |w (-4, 1, 1) + (1 - w) (6, 1, 1)| is smallest where 6 - 10 w = 0.
    weights = SOLVERS[2](cases.PUBLISHED)
    np.testing.assert_allclose(weights, [0.6, 0.4], atol=1e-5)
    np.testing.assert_allclose(weights @ cases.PUBLISHED, [0, 1, 1], atol=1e-4)


def test_two_tasks_in_closed_form() -> None:
    # d/dw |w g + (1 - w) h|^2 = 0: w = (h - g) . h / |g - h|^2, within [0, 1].
    for g, h in cases.random_gradients(2, 20):
        weight = np.clip((h - g) @ h / ((g - h) @ (g - h)), 0, 1)
        np.testing.assert_allclose(SOLVERS[2]([g, h]), [weight, 1 - weight], atol=1e-5)


def test_orthogonal_equal_gradients_give_the_mean() -> None:
    np.testing.assert_allclose(SOLVERS[4](3 * np.eye(4)), 0.25, atol=1e-6)


def test_orthogonal_gradients_weigh_by_inverse_squares() -> None:
    # Equal (M w)_i = |g_i|^2 w_i.
    np.testing.assert_allclose(SOLVERS[3](np.diag([1.0, 2.0, 4.0])), np.array([16, 4, 1]) / 21, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float64, (4, 5), elements=st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])),
    st.sampled_from([1e-10, 1.0, 1e15]),
)
def test_the_update_is_optimal_and_raises_no_loss(gradients: np.ndarray, scale: float) -> None:
    weights = SOLVERS[4](scale * gradients)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert residual(gradients, weights) <= 1e-5
    update = weights @ gradients
    assert (gradients @ update).min() >= -1e-5 * max((gradients**2).sum(axis=1).max(), 1)


def test_scipy_finds_nothing_shorter() -> None:
    for gradients in cases.random_gradients(8, 4, size=5) + cases.random_gradients(8, 3, seed=1):
        gramian = gradients @ gradients.T
        sums_to_one = {"type": "eq", "fun": lambda w: w.sum() - 1}
        found = minimize(
            lambda w, m: w @ m @ w, np.full(8, 1 / 8), (gramian,), bounds=[(0, 1)] * 8, constraints=sums_to_one
        )
        weights = SOLVERS[8](gradients).astype(np.float64)
        assert weights @ gramian @ weights <= found.fun + 1e-5 * np.diag(gramian).max()


def test_a_zero_gradient_takes_all_the_weight() -> None:
    np.testing.assert_allclose(SOLVERS[3]([[1.0, 0], [0, 0], [0, 2]]), [0, 1, 0], atol=1e-4)


def test_duplicates_share() -> None:
    np.testing.assert_allclose(SOLVERS[3]([[1.0, 0], [1, 0], [0, 1]]), [0.25, 0.25, 0.5], atol=1e-5)


def test_l2_compares_directions_and_still_raises_no_loss() -> None:
    solve = cases.solver(MGDA("l2"), 3)
    # Unit gradients would weigh 1/3 each; over the norms 1, 2, 4: (4, 2, 1) / 7.
    np.testing.assert_allclose(solve(np.diag([1.0, 2.0, 4.0])), np.array([4, 2, 1]) / 7, atol=1e-5)
    for gradients in cases.random_gradients(3, 5):
        gradients = gradients * [[1.0], [100.0], [0.01]]
        weights = solve(gradients)
        assert (gradients @ (weights @ gradients)).min() >= -1e-6
        units = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
        direction = SOLVERS[3](units) @ units
        np.testing.assert_allclose(
            weights @ gradients / np.linalg.norm(weights @ gradients), direction / np.linalg.norm(direction), atol=1e-4
        )


def test_loss_divides_by_the_losses() -> None:
    solve = cases.solver(MGDA("loss"), 2)
    # Gradients over losses are (1, 0) and (0, 1): 1/2 each; over the losses 2, 4 again: 2/3, 1/3.
    np.testing.assert_allclose(solve([[2.0, 0], [0, 4.0]], losses=[2.0, 4.0]), [2 / 3, 1 / 3], atol=1e-5)
    assert np.isfinite(solve([[2.0, 0], [0, 4.0]], losses=[0.0, 4.0])).all()
    np.testing.assert_allclose(solve([[2.0, 0], [0, 2.0]], losses=[0.0, 0.0]), 0.5, atol=1e-5)


@pytest.mark.parametrize("normalize", [None, "l2", "loss"])
def test_the_promises_of_all(normalize: Any) -> None:
    cases.check_hostile(MGDA(normalize), bound_on_update=1.01)
    cases.check_symmetries(lambda: MGDA(normalize))
    cases.check_config(MGDA(normalize, at=AT))


def test_compiles() -> None:
    np.testing.assert_allclose(cases.solver(MGDA(), 2, jit=True)(cases.PUBLISHED), [0.6, 0.4], atol=1e-5)


def test_unknown_normalizer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`normalize` of MGDA must be one of .* Received: normalize='l1'"):
        MGDA("l1")


def test_hundreds_of_hostile_gramians_are_solved() -> None:
    @tf.function
    def solve(gramian: tf.Tensor) -> tf.Tensor:
        every = tf.fill([6], True)
        return min_norm_weights(directions(gramian, every).matrix(), every)

    rng = np.random.default_rng(3)
    for count in range(300):
        gradients = rng.normal(size=(6, rng.integers(1, 9))) * 10 ** rng.uniform(-4 * (count % 2), 0, size=(6, 1))
        if count % 3 == 0:
            gradients[0] = -gradients[1]
        found = solve(tf.constant(gradients @ gradients.T, tf.float32)).numpy()
        assert residual(gradients, found) < 1e-6


def test_projection_onto_the_simplex() -> None:
    # By hand: (0.9, 0.5) loses 0.2 each; (2, 0) is cut; an unobserved task has no part, however large.
    three = [True, True, False]
    for point, expected in (([0.9, 0.5, 7.0], [0.7, 0.3, 0]), ([2.0, 0.0, np.nan], [1, 0, 0])):
        np.testing.assert_allclose(project_to_simplex(tf.constant(point), tf.constant(three)), expected, atol=1e-6)
    assert project_to_simplex(tf.constant([1.0, 2.0]), tf.constant([False, False])).numpy().tolist() == [0, 0]
    rng = np.random.default_rng(0)
    for _ in range(20):
        point = rng.normal(size=6) * 10 ** rng.uniform(-2, 1)
        thresholds = np.linspace(point.min() - 1, point.max(), 200_001)[:, np.newaxis]
        sums = np.maximum(point - thresholds, 0).sum(axis=1)
        expected = np.maximum(point - thresholds[np.argmin(np.abs(sums - 1))], 0)
        found = project_to_simplex(tf.constant(point), tf.fill([6], True)).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert found.sum() == pytest.approx(1)
