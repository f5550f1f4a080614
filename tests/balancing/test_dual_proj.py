from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.balancing.binding import tasks_named
from tfmtl._keras import keras, tf
from tfmtl.balancing.dual_proj import DualProj
from tfmtl.balancing.upgrad import UPGrad

PUBLISHED = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])


def weights_of(gramian: Any, observed: Any = None, preferences: Any = None, kind: type = DualProj) -> np.ndarray:
    tasks = len(gramian)
    balancer = kind(preferences)
    balancer.bind(tasks_named([f"t{i}" for i in range(tasks)]))
    seen = tf.constant([True] * tasks if observed is None else observed)
    return balancer.task_weights(tf.constant(gramian, tf.float32), tf.ones([tasks]), seen).numpy()


def conflicting(tasks: int, seed: int) -> np.ndarray:
    gradients = np.random.default_rng(seed).normal(size=(tasks, tasks + 2))
    return gradients - 0.9 * gradients.mean(axis=0)


def test_the_golden_update_is_the_projected_mean() -> None:
    # M = [[18, -22], [-22, 38]]: the mean opposes g_1 (9 - 11 < 0), so v = (1/2 22/18, 1/2) makes that product 0.
    # TorchJD publishes [0.5563, 1.1109, 1.1109] because it adds 1e-4 trace(M) to the diagonal; so do we below.
    gramian = PUBLISHED @ PUBLISHED.T
    weights = weights_of(gramian)
    np.testing.assert_allclose(weights, [11 / 18, 0.5], rtol=1e-5)
    np.testing.assert_allclose(weights @ PUBLISHED, [6 / 2 - 44 / 18, 10 / 9, 10 / 9], rtol=1e-4)
    regularized = weights_of(gramian + 1e-4 * np.trace(gramian) * np.eye(2))
    np.testing.assert_allclose(regularized @ PUBLISHED, [0.5563, 1.1109, 1.1109], atol=1e-4)


@pytest.mark.parametrize(("tasks", "seed"), [(2, 0), (3, 1), (5, 2), (8, 3)])
def test_the_update_is_the_closest_that_opposes_no_task(tasks: int, seed: int) -> None:
    gradients = conflicting(tasks, seed)
    mean = gradients.mean(axis=0)
    weights = weights_of(gradients @ gradients.T)
    update = weights @ gradients
    constraint = {"type": "ineq", "fun": lambda d: gradients @ d, "jac": lambda d: gradients}
    found = minimize(
        lambda d: 0.5 * np.sum((d - mean) ** 2), mean, jac=lambda d: d - mean, constraints=constraint, method="SLSQP"
    )
    assert (gradients @ mean).min() < 0
    assert (gradients @ update >= -1.1e-5 * weights * np.sum(gradients**2, axis=1)).all()
    np.testing.assert_allclose(update, found.x, atol=1e-4)


def test_gradients_without_conflict_are_averaged() -> None:
    gradients = np.abs(np.random.default_rng(0).normal(size=(5, 7)))
    np.testing.assert_allclose(weights_of(gradients @ gradients.T), 0.2, rtol=1e-6)


def test_with_one_preferred_task_it_is_upgrad() -> None:
    gramian = conflicting(3, 5) @ conflicting(3, 5).T
    only = {"t0": 1e-6, "t2": 1e-6}
    np.testing.assert_allclose(
        weights_of(gramian, preferences=only), weights_of(gramian, preferences=only, kind=UPGrad), atol=1e-5
    )
    assert np.abs(weights_of(gramian) - weights_of(gramian, kind=UPGrad)).max() > 0.01


def test_order_units_and_unobserved_tasks_do_not_matter() -> None:
    gradients = conflicting(4, 1) * [[1.0], [10.0], [0.1], [3.0]]
    gramian, order = gradients @ gradients.T, [2, 0, 3, 1]
    weights = weights_of(gramian)
    np.testing.assert_allclose(weights_of(gramian[order][:, order]), weights[order], rtol=1e-4)
    for scale in (1e-20, 1e28):
        np.testing.assert_allclose(weights_of(gramian * scale), weights, rtol=1e-4)
    wider = np.zeros([6, 6])
    wider[np.ix_([0, 2, 3, 5], [0, 2, 3, 5])] = gramian
    masked = weights_of(wider, [True, False, True, True, False, True])
    np.testing.assert_allclose(masked[[0, 2, 3, 5]], weights, rtol=1e-4)


@pytest.mark.parametrize(
    ("gramian", "expected"),
    [
        ([[7.0]], [1]),
        (np.zeros([3, 3]), [1 / 3] * 3),
        (np.ones([3, 3]), [1 / 3] * 3),
        ([[1, -1], [-1, 1]], [0.5, 0.5]),  # the mean is zero
        ([[4, -2], [-2, 1]], [0.5, 1]),  # opposed, of lengths 2 and 1: only 1/2 g_1 + g_2 opposes neither
        ([[4, 0, -2], [0, 0, 0], [-2, 0, 1]], [1 / 3, 1 / 3, 2 / 3]),
        # A gradient of zero has no length; it must not drown the conflict of the short ones.
        (1e-18 * np.array([[18, -22, 0], [-22, 38, 0], [0, 0, 0]]), [22 / 54, 1 / 3, 1 / 3]),
        ([[1e30, 0], [0, 1e-20]], [0.5, 0.5]),
        ([[np.inf, 0], [0, 1]], [0.5, 0.5]),
    ],
)
def test_hostile_gramians(gramian: Any, expected: list[float]) -> None:
    np.testing.assert_allclose(weights_of(gramian), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", [DualProj, UPGrad])
def test_config_keeps_the_preference_and_the_place(kind: type) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(kind({"a": 2}, at=["dense"])))
    assert type(again) is kind
    assert (again.preferences, again.at) == ({"a": 2.0}, ("dense",))
