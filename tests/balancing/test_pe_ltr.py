from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.balancing.binding import tasks_named
from tfmtl._keras import keras, tf
from tfmtl.balancing.pe_ltr import PELTR, bounded_weights, shortest_weights


def weights_of(gramian: Any, observed: Any = None, bounds: Any = None) -> np.ndarray:
    tasks = len(gramian)
    balancer = PELTR(bounds)
    balancer.bind(tasks_named([f"t{i}" for i in range(tasks)]))
    seen = tf.constant([True] * tasks if observed is None else observed)
    return balancer.task_weights(tf.constant(gramian, tf.float32), tf.ones([tasks]), seen).numpy()


def random(tasks: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(tasks, tasks + 2))


def test_golden_weights_of_three_tasks() -> None:
    # M = diag(1, 2, 4): w* is proportional to (1, 1/2, 1/4), (4, 2, 1) / 7. With c_3 = 1/4 > 1/7 the third is raised by
    # 1/4 - 1/7 = 3/28, which the others give in equal parts of 3/56.
    gramian = np.diag([1.0, 2.0, 4.0])
    np.testing.assert_allclose(weights_of(gramian), [4 / 7, 2 / 7, 1 / 7], rtol=1e-5)
    bounded = weights_of(gramian, bounds={"t2": 0.25})
    np.testing.assert_allclose(bounded, [4 / 7 - 3 / 56, 2 / 7 - 3 / 56, 0.25], rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_two_tasks_without_bounds_have_the_closed_form_of_mgda(seed: int) -> None:
    one, other = gradients = random(2, seed)
    share = np.clip((other - one) @ other / ((one - other) @ (one - other)), 0, 1)
    np.testing.assert_allclose(weights_of(gradients @ gradients.T), [share, 1 - share], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_two_tasks_with_bounds_are_the_exact_minimum(seed: int) -> None:
    gradients = random(2, seed)
    grid = np.linspace(0.2, 0.7, 5001)
    lengths = np.linalg.norm(grid[:, np.newaxis] * gradients[0] + (1 - grid[:, np.newaxis]) * gradients[1], axis=1)
    weights = weights_of(gradients @ gradients.T, bounds={"t0": 0.2, "t1": 0.3})
    np.testing.assert_allclose(weights[0], grid[lengths.argmin()], atol=2e-4)


@pytest.mark.parametrize(("tasks", "seed"), [(2, 0), (3, 1), (5, 2), (8, 3)])
def test_both_steps_are_those_of_the_paper(tasks: int, seed: int) -> None:
    """With the pseudo-inverse of the KKT matrix, and the second step as a quadratic programme."""
    gradients = random(tasks, seed)
    gramian, lower = gradients @ gradients.T, np.full(tasks, 0.4 / tasks)
    system = np.block([[gramian, np.ones([tasks, 1])], [np.ones([1, tasks]), np.zeros([1, 1])]])
    right = np.append(-gramian @ lower, 1 - lower.sum())
    relaxed = (np.linalg.pinv(system.T @ system) @ system.T @ right)[:-1]
    seen = tf.constant([True] * tasks)
    np.testing.assert_allclose(
        shortest_weights(tf.constant(gramian, tf.float32), seen), relaxed + lower, atol=1e-4, rtol=1e-4
    )
    constraint = {"type": "eq", "fun": lambda w: w.sum() - 1 + lower.sum()}
    start = np.full(tasks, 0.6 / tasks)
    found = minimize(
        lambda w: np.sum((w - relaxed) ** 2), start, bounds=[(0, None)] * tasks, constraints=constraint, tol=1e-12
    )
    weights = weights_of(gramian, bounds={f"t{i}": lower[i] for i in range(tasks)})
    np.testing.assert_allclose(weights, found.x + lower, atol=1e-4)


def test_the_projection_meets_its_conditions() -> None:
    rng = np.random.default_rng(0)
    seen, some = tf.constant([True] * 5), tf.constant([True, False, True, True, False])
    for _ in range(20):
        target, lower = rng.normal(size=5), rng.dirichlet(np.ones(6))[:5]
        found = bounded_weights(tf.constant(target), tf.constant(lower), seen).numpy()
        moved, free = target - found, found > lower + 1e-9
        assert found.sum() == pytest.approx(1)
        assert (found >= lower).all()
        np.testing.assert_allclose(moved[free], moved[free][0])  # all free weights move by the same
        assert (moved[~free] <= moved[free][0] + 1e-9).all()
        masked = bounded_weights(tf.constant(target), tf.constant(lower), some).numpy()
        alone = bounded_weights(tf.constant(target[[0, 2, 3]]), tf.constant(lower[[0, 2, 3]]), seen[:3])
        np.testing.assert_allclose(masked[[0, 2, 3]], alone)


def test_order_units_and_unobserved_tasks_do_not_matter() -> None:
    gradients = random(4, 1)
    gramian, order = gradients @ gradients.T, [2, 0, 3, 1]
    bounds = {"t1": 0.5}
    weights = weights_of(gramian, bounds=bounds)
    assert weights[1] == pytest.approx(0.5)
    np.testing.assert_allclose(weights_of(gramian[order][:, order], bounds={"t3": 0.5}), weights[order], atol=1e-5)
    for scale in (1e-20, 1e28):
        np.testing.assert_allclose(weights_of(gramian * scale, bounds=bounds), weights, atol=1e-5)
    wider = np.zeros([6, 6])
    wider[np.ix_([0, 2, 3, 5], [0, 2, 3, 5])] = gramian
    seen = [True, False, True, True, False, True]
    masked = weights_of(wider, seen, {"t1": 0.2, "t2": 0.5})  # the bound of an unobserved task does not count
    np.testing.assert_allclose(masked, [weights[0], 0, *weights[1:3], 0, weights[3]], atol=1e-5)


@pytest.mark.parametrize(
    ("gramian", "bounds", "expected"),
    [
        ([[7.0]], None, [1]),
        ([[0.0]], {"t0": 0.2}, [1]),
        (np.zeros([3, 3]), None, [1 / 3] * 3),
        (np.ones([3, 3]), None, [1 / 3] * 3),  # singular: equal tasks share equally
        (np.ones([2, 2]), {"t0": 0.6, "t1": 0.2}, [0.6, 0.4]),
        ([[4, -2], [-2, 1]], None, [1 / 3, 2 / 3]),  # opposed, of lengths 2 and 1: the sum vanishes
        ([[1, 0, 0], [0, 0, 0], [0, 0, 1]], None, [0, 1, 0]),  # a vanished gradient is the shortest
        ([[1, 0, 0], [0, 0, 0], [0, 0, 1]], {"t0": 0.3, "t2": 0.1}, [0.3, 0.6, 0.1]),
        (np.diag([1e30, 1.0, 1e-20]), None, [0, 0.5, 0.5]),
        (np.diag([1.0, 2.0]), {"t0": 0.25, "t1": 0.75}, [0.25, 0.75]),
        ([[np.inf, 0], [0, 1]], None, [0.5, 0.5]),
        ([[np.nan, 0], [0, 1]], {"t0": 0.7}, [0.7, 0.3]),
    ],
)
def test_hostile_gramians(gramian: Any, bounds: Any, expected: list[float]) -> None:
    np.testing.assert_allclose(weights_of(gramian, bounds=bounds), expected, atol=2e-5)


def test_nothing_observed_is_finite_and_one_task_gets_all() -> None:
    np.testing.assert_array_equal(weights_of(np.zeros([3, 3]), [False] * 3), 0)
    np.testing.assert_allclose(weights_of(np.diag([0, 2.0, 0]), [False, True, False], {"t0": 0.9}), [0, 1, 0])


def test_it_compiles_with_xla_and_is_traced_once() -> None:
    balancer = PELTR({"a": 0.2})
    balancer.bind(tasks_named(["a", "b", "c"]))
    step = tf.function(balancer.task_weights, jit_compile=True)
    for seed in range(3):
        gramian = tf.constant(random(3, seed) @ random(3, seed).T, tf.float32)
        inputs = gramian, tf.ones([3]), tf.constant([True, True, seed != 1])
        np.testing.assert_allclose(step(*inputs), balancer.task_weights(*inputs), atol=1e-6)
    assert step.experimental_get_tracing_count() == 1


def test_bounds_are_checked() -> None:
    with pytest.raises(ValueError, match="The lower bound of task 'a' must be a number in \\[0, 1\\]"):
        PELTR({"a": -0.1})
    with pytest.raises(ValueError, match="must not sum to more than 1"):
        PELTR({"a": 0.7, "b": 0.4})
    with pytest.raises(ValueError, match="Unknown task \\['b'\\] in `lower_bounds` of PELTR"):
        weights_of(np.eye(2), bounds={"b": 0.1})


def test_config_keeps_the_bounds_and_the_place() -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(PELTR({"a": 0.5}, at="shared")))
    assert (again.lower_bounds, again.at) == ({"a": 0.5}, "shared")
