"""UPGrad, and the solver of bounded least squares below it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from scipy.optimize import nnls

from tests.balancing.binding import tasks_named
from tfmtl._keras import tf
from tfmtl.balancing.nonnegative import FLOOR, cosines_of, least_weights
from tfmtl.balancing.upgrad import UPGrad

PUBLISHED = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
SIZES = [1, 2, 3, 8]
solve = functools.cache(lambda rows, tasks: tf.function(least_weights).get_concrete_function(*specs(rows, tasks)))


def specs(rows: int, tasks: int) -> list[tf.TensorSpec]:
    return [tf.TensorSpec([size, tasks], tf.float32) for size in (tasks, rows)]


def solved(gramian: Any, lower: Any) -> np.ndarray:
    lower = np.atleast_2d(lower)
    return solve(*lower.shape)(tf.constant(gramian, tf.float32), tf.constant(lower, tf.float32)).numpy()


def weights_of(gramian: Any, observed: Any = None, preferences: Any = None) -> np.ndarray:
    tasks = len(gramian)
    balancer = UPGrad(preferences)
    balancer.bind(tasks_named([f"t{i}" for i in range(tasks)]))
    seen = tf.constant([True] * tasks if observed is None else observed)
    return balancer.task_weights(tf.constant(gramian, tf.float32), tf.ones([tasks]), seen).numpy()


def families(tasks: int, count: int) -> list[np.ndarray]:
    """Return gradients [tasks, dimensions]: of full and low rank, nearly opposed, nearly balanced, of all lengths."""
    rng, found = np.random.default_rng(tasks), []
    for _ in range(count):
        full, half = rng.normal(size=(tasks, 3 * tasks)), rng.normal(size=(tasks + 1) // 2 * tasks).reshape(-1, tasks)
        opposed = np.concatenate([half, -half])[:tasks] + 1e-4 * rng.normal(size=(tasks, tasks))
        found += [full, rng.normal(size=(tasks, (tasks + 1) // 2)), opposed, full - 0.999 * full.mean(axis=0)]
        found.append(full * 10.0 ** rng.uniform(-8, 8, size=(tasks, 1)))
    return found


def reference(gradients: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Solve min_{y >= 0} |R (l + y)|^2 as non-negative least squares, R^T R the cosines with the floor."""
    lengths = np.linalg.norm(gradients, axis=1)
    units = gradients / lengths[:, np.newaxis]
    values, vectors = np.linalg.eigh(units @ units.T)
    root = np.sqrt(np.maximum(values, FLOOR))[:, np.newaxis] * vectors.T
    return (lower * lengths + nnls(root, -root @ (lower * lengths))[0]) / lengths


@pytest.mark.parametrize("tasks", SIZES)
def test_the_solver_finds_what_scipy_finds(tasks: int) -> None:
    lower = np.random.default_rng(1).uniform(0, 1, [2, tasks]) * [[1.0], [0.0]] + np.eye(tasks)[[0, 0]]
    for gradients in families(tasks, 4):
        lengths = np.linalg.norm(gradients, axis=1)
        found = solved(gradients @ gradients.T, lower) * lengths
        for row, bound in zip(found, lower, strict=True):
            updates = (row / lengths) @ gradients, reference(gradients, bound) @ gradients
            # Weights are ill-conditioned where gradients nearly cancel, their sum is not.
            np.testing.assert_allclose(*updates, atol=2e-4 * np.linalg.norm(bound * lengths))


@pytest.mark.parametrize("tasks", [*SIZES, 16])
def test_the_solver_meets_the_conditions_of_optimality(tasks: int) -> None:
    for gradients in families(tasks, 6):
        gramian = tf.constant(gradients @ gradients.T, tf.float32)
        cosines, lengths = (part.numpy() for part in cosines_of(gramian))
        lower = np.diag(np.random.default_rng(2).uniform(0.1, 1, tasks).astype(np.float32))
        found, bounds = solved(gramian, lower).astype(float) * lengths, lower * lengths
        scale = found.max(axis=1, keepdims=True)
        slack, slopes = (found - bounds) / scale, found @ cosines / scale
        assert slack.min() >= -1e-6  # float32 rounds the weights
        assert slopes.min() > -1e-5
        assert np.abs(slack * slopes).max() < 1e-5


def test_the_golden_weights_are_those_of_two_projections() -> None:
    # M = [[18, -22], [-22, 38]]. g_1 / 2 opposes g_2, so v_1 = (1/2, 1/2 22/38); v_2 = (1/2 22/18, 1/2) by the same.
    # TorchJD publishes [0.2929, 1.9004, 1.9004] because it adds 1e-4 trace(M) to the diagonal; so do we below.
    gramian = PUBLISHED @ PUBLISHED.T
    weights = weights_of(gramian)
    np.testing.assert_allclose(weights, [0.5 + 11 / 18, 11 / 38 + 0.5], rtol=1e-5)
    regularized = weights_of(gramian + 1e-4 * np.trace(gramian) * np.eye(2))
    np.testing.assert_allclose(regularized, [1.1109, 0.7894], atol=1e-4)
    np.testing.assert_allclose(regularized @ PUBLISHED, [0.2929, 1.9004, 1.9004], atol=1e-4)


@pytest.mark.parametrize("tasks", SIZES)
def test_the_update_opposes_no_task(tasks: int) -> None:
    for gradients in families(tasks, 4):
        weights = weights_of(gradients @ gradients.T).astype(float)
        lengths = np.linalg.norm(gradients, axis=1)
        assert (weights > 0).all()
        assert ((gradients @ gradients.T @ weights) / lengths >= -1e-5 * (weights * lengths).max()).all()


def test_gradients_without_conflict_are_averaged() -> None:
    gradients = np.abs(np.random.default_rng(0).normal(size=(5, 7)))
    np.testing.assert_allclose(weights_of(gradients @ gradients.T), 0.2, rtol=1e-6)


def test_weights_are_the_sum_over_the_tasks_projections() -> None:
    gradients = families(3, 1)[0]
    projections = solved(gradients @ gradients.T, np.eye(3))  # row i: the coefficients of g_i's
    np.testing.assert_allclose(weights_of(gradients @ gradients.T), projections.mean(axis=0), rtol=1e-5)
    preferred = weights_of(gradients @ gradients.T, preferences={"t1": 2})
    np.testing.assert_allclose(preferred, [0.25, 0.5, 0.25] @ projections, rtol=1e-5)


def test_preferences_are_relative_and_by_name() -> None:
    np.testing.assert_allclose(weights_of(np.eye(3), preferences={"t2": 2}), [0.25, 0.25, 0.5])
    np.testing.assert_allclose(weights_of(np.eye(3), [True, False, True], {"t2": 3}), [0.25, 0, 0.75])


def test_order_units_and_unobserved_tasks_do_not_matter() -> None:
    gradients = families(4, 1)[3]
    gramian, order = gradients @ gradients.T, [2, 0, 3, 1]
    weights = weights_of(gramian)
    np.testing.assert_allclose(weights_of(gramian[order][:, order]), weights[order], rtol=1e-4)
    for scale in (1e-20, 1e30):
        np.testing.assert_allclose(weights_of(gramian * scale), weights, rtol=1e-4)
    wider = np.zeros([6, 6])
    wider[np.ix_([0, 2, 3, 5], [0, 2, 3, 5])] = gramian
    masked = weights_of(wider, [True, False, True, True, False, True])
    np.testing.assert_allclose(masked, [weights[0], 0, weights[1], weights[2], 0, weights[3]], rtol=1e-4)


@pytest.mark.parametrize(
    ("gramian", "expected"),
    [
        ([[7.0]], [1]),
        ([[0.0]], [1]),
        (np.zeros([3, 3]), [1 / 3] * 3),
        (np.ones([3, 3]), [1 / 3] * 3),  # one task three times
        ([[1, -1], [-1, 1]], [1, 1]),  # opposed: both projections vanish
        ([[4, 0, -2], [0, 0, 0], [-2, 0, 1]], [1 / 2, 1 / 3, 1]),  # opposed: v_1 = (1, 0, 2) / 3, v_3 = (1, 0, 2) / 6
        ([[1e30, 0], [0, 1e-20]], [0.5, 0.5]),
        ([[np.inf, 0], [0, 1]], [0.5, 0.5]),
        ([[np.nan, 0], [0, 1]], [0.5, 0.5]),
    ],
)
def test_hostile_gramians(gramian: Any, expected: list[float]) -> None:
    np.testing.assert_allclose(weights_of(gramian), expected, rtol=1e-4)


def test_nothing_observed_is_finite() -> None:
    np.testing.assert_array_equal(weights_of(np.zeros([3, 3]), [False] * 3), 0)


def test_it_compiles_with_xla_and_is_traced_once() -> None:
    balancer, traces = UPGrad(), []
    balancer.bind(tasks_named(["a", "b", "c"]))

    @tf.function(jit_compile=True)
    def step(gramian: tf.Tensor) -> tf.Tensor:
        traces.append(1)
        return balancer.task_weights(gramian, tf.ones([3]), tf.constant([True] * 3))

    for gradients in families(3, 1):
        gramian = gradients @ gradients.T
        found = step(tf.constant(gramian, tf.float32)).numpy()
        np.testing.assert_allclose(found, weights_of(gramian), rtol=1e-3)
    assert len(traces) == 1


@pytest.mark.parametrize("value", [-1, 0, float("nan"), "1"])
def test_a_bad_preference_names_its_task(value: Any) -> None:
    with pytest.raises(ValueError, match="The preference of task 't0' must be a number above 0"):
        UPGrad({"t0": value})


def test_unknown_preferences_are_refused() -> None:
    with pytest.raises(ValueError, match="Unknown task \\['t9'\\] in `preferences` of UPGrad"):
        weights_of(np.eye(2), preferences={"t9": 1})
