from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.balancing.binding import tasks_named
from tests.balancing.mixing import SHAPES, TABLE, Mixer, check, combine, generate
from tfmtl._keras import tf
from tfmtl.balancing.gramian import TaskGradients
from tfmtl.balancing.moco import MoCo, moved_weights

DENSE = [0, 2]


def nearest_on_simplex(point: np.ndarray) -> np.ndarray:
    start = np.full(len(point), 1 / len(point))
    constraint = {"type": "eq", "fun": lambda w: w.sum() - 1}
    bounds = [(0, 1)] * len(point)
    options = {"ftol": 1e-14, "maxiter": 500}
    found = minimize(lambda w: ((w - point) ** 2).sum(), start, bounds=bounds, constraints=constraint, options=options)
    return np.asarray(found.x)


def mix(balancer: MoCo, matrix: list[list[float]], observed: tuple[bool, bool] = (True, True)) -> np.ndarray:
    gradients = TaskGradients(tf.constant(matrix, tf.float32), None, None)
    return np.asarray(balancer.mix([gradients], tf.ones([2]), tf.constant(observed))[0])


def bound(**arguments: float) -> MoCo:
    balancer = MoCo(**arguments)
    balancer.bind(tasks_named(["a", "b"]))
    balancer.prepare([tf.Variable([0.0, 0.0])])
    return balancer


def test_golden_over_two_steps() -> None:
    balancer = bound(tracking_rate=0.5, step_size=0.125)
    # Y = (2, 0), (0, 1). Y Y^T w = (4, 1) / 2, w - that / 8 = (1/4, 7/16), to the simplex + 5/32 = (13, 19) / 32.
    np.testing.assert_allclose(mix(balancer, [[2, 0], [0, 1]]), [26 / 32, 19 / 32], rtol=1e-6)
    # Y = (1, 0), (1, 1). Y Y^T w = (13 + 19, 13 + 38) / 32; w - / 8: (13 - 4, 19 - 51/8) / 32, + (83/8) / 64.
    expected = np.array([9 + 83 / 16, 19 - 51 / 8 + 83 / 16]) / 32
    np.testing.assert_allclose(mix(balancer, [[0, 0], [2, 1]]), [1, expected[1]], rtol=1e-6)
    np.testing.assert_allclose(balancer.current_weights(), expected, rtol=1e-6)


def test_rho_draws_the_weights_together() -> None:
    gramian, both = tf.zeros([2, 2]), tf.constant([True, True])
    used, kept = moved_weights(tf.constant([0.8, 0.2]), gramian, both, 0.5, 1.0)
    # w - 0.5 w = (0.4, 0.1); to the simplex both + 0.25.
    np.testing.assert_allclose(used, [0.65, 0.35], rtol=1e-6)
    np.testing.assert_allclose(kept, used)


@pytest.mark.parametrize("hidden", [[], [set(), {1}, {0, 2}, {0}, {2}]])
def test_reference(hidden: list[set[int]]) -> None:
    """Algorithm 1 in numpy with scipy's projection, on the observed tasks and their share of the weights."""
    rate, step_size, rho, mixer = 0.3, 0.05, 0.2, Mixer(MoCo(0.3, 0.05, 0.2))
    tracked, weights = np.zeros([3, 9]), np.full(3, 1 / 3)
    seen = np.zeros(3, bool)
    for given in generate(8, hidden=hidden):
        here, batch = given.observed, given.flat(DENSE)
        fresh = (here & ~seen)[:, np.newaxis]
        tracked = np.where(fresh, batch, tracked - rate * here[:, np.newaxis] * (tracked - batch))
        seen |= here
        share = weights[here].sum()
        own = weights[here] / share
        gramian = tracked[here] @ tracked[here].T
        own = nearest_on_simplex(own - step_size * (gramian + rho * np.eye(here.sum())) @ own)
        weights[here] = share * own
        used = np.zeros(3)
        used[here] = own
        flat = used @ tracked
        expected = [flat[:6].reshape(SHAPES[0]), combine(used, given.gradients[TABLE]), flat[6:]]
        check(mixer(given), expected, rtol=1e-3)
        np.testing.assert_allclose(mixer.weights(), used, atol=1e-5)
    assert weights.sum() == pytest.approx(1)


def test_tracking_at_once_finds_the_smallest_combination() -> None:
    """With b = 1 on gradients that do not change, w goes to the minimiser of w^T M w: (1, 4) / 5 for (2, 0), (0, 1)."""
    balancer = bound(tracking_rate=1.0, step_size=0.2)
    for _ in range(60):
        mixed = mix(balancer, [[2, 0], [0, 1]])
    np.testing.assert_allclose(balancer.current_weights(), [0.2, 0.8], atol=1e-4)
    np.testing.assert_allclose(mixed, [0.4, 0.8], atol=1e-3)


def test_a_task_seen_for_the_first_time_starts_at_its_gradient() -> None:
    balancer = bound(tracking_rate=0.1, step_size=1e-6)
    np.testing.assert_allclose(mix(balancer, [[2, 0], [0, 0]], (True, False)), [2, 0], rtol=1e-5)
    np.testing.assert_allclose(mix(balancer, [[2, 0], [0, 6]]), [1, 3], rtol=1e-4)


def test_observed_tasks_of_weight_zero_share_equally() -> None:
    observed = tf.constant([True, True, False])
    used, kept = moved_weights(tf.constant([0.0, 0.0, 1.0]), tf.zeros([3, 3]), observed, 0.1, 0.0)
    np.testing.assert_allclose(used, [0.5, 0.5, 0])
    np.testing.assert_allclose(kept, [0, 0, 1])


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15, 1e30])
def test_weights_stay_on_the_simplex(scale: float) -> None:
    matrix = np.random.default_rng(2).normal(size=(5, 3))
    gramian = tf.constant(scale * matrix @ matrix.T, tf.float32)
    weights = tf.fill([5], 0.2)
    for _ in range(5):
        used, weights = moved_weights(weights, gramian, tf.fill([5], True), 0.1, 0.1)
        assert (used.numpy() >= 0).all()
        assert float(tf.reduce_sum(used)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("arguments", [{"tracking_rate": 0.0}, {"tracking_rate": 1.1}, {"step_size": 0}, {"rho": -1}])
def test_arguments_outside_their_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must be a number"):
        MoCo(**arguments)
