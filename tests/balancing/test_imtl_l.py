from __future__ import annotations

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tfmtl._keras import tf
from tfmtl.balancing import Uncertainty
from tfmtl.balancing.imtl_l import IMTLL

LOG_2 = np.log(2)


def bound(initial: float = 0.0) -> IMTLL:
    balancer = IMTLL(initial)
    balancer.bind(tasks_named(["click", "rating"]))
    return balancer


def by_scale(balancer: IMTLL, losses: list[float], observed: list[bool] | None = None) -> tuple[float, np.ndarray]:
    with tf.GradientTape() as tape:
        objective = balancer(tf.constant(losses), observed=None if observed is None else tf.constant(observed))
    return float(objective), tape.gradient(objective, balancer.log_scales).numpy()


def test_golden_objective_and_gradients() -> None:
    # s = log 2: 2 * 3 - s + 2 * 8 - s; d/ds = exp(s) L - 1.
    objective, gradient = by_scale(bound(LOG_2), [3.0, 8.0])
    assert objective == pytest.approx(22 - 2 * LOG_2)
    np.testing.assert_allclose(gradient, [5, 15], rtol=1e-6)
    np.testing.assert_allclose(bound(LOG_2).current_weights(), [2, 2], rtol=1e-6)


def test_at_the_optimum_every_scaled_loss_is_one() -> None:
    balancer = bound()
    balancer.log_scales.assign([-np.log(3), -np.log(0.01)])
    _, gradient = by_scale(balancer, [3.0, 0.01])
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    np.testing.assert_allclose(balancer.current_weights() * [3.0, 0.01], 1, rtol=1e-5)


def test_a_task_without_labels_gives_its_scale_no_gradient() -> None:
    objective, gradient = by_scale(bound(LOG_2), [3.0, 0.0], [True, False])
    assert objective == pytest.approx(6 - LOG_2)
    np.testing.assert_allclose(gradient, [5, 0], rtol=1e-6)


def test_it_is_uncertainty_weighting_with_half_the_price() -> None:
    # exp(-t) L + t / 2 for a classification, at t = -s: exp(s) L - s / 2.
    uncertainty, balancer = Uncertainty(-LOG_2), bound(LOG_2)
    uncertainty.bind(tasks_named(["click", "rating"]))
    losses = tf.constant([3.0, 8.0])
    assert float(uncertainty(losses)) == pytest.approx(float(balancer(losses)) + LOG_2)
    np.testing.assert_allclose(uncertainty.current_weights(), balancer.current_weights(), rtol=1e-6)


def test_scales_are_trained() -> None:
    balancer = bound(0.25)
    assert [variable is balancer.log_scales for variable in balancer.trainable_weights] == [True]
    np.testing.assert_array_equal(balancer.log_scales, [0.25, 0.25])


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_beyond_the_limit_the_weight_is_finite_and_the_scale_comes_back(scale: float) -> None:
    balancer = bound(scale)
    objective, gradient = by_scale(balancer, [1e15, 0.0])
    assert np.isfinite(objective)
    limited = np.exp(np.clip(scale, -50, 50))
    np.testing.assert_allclose(balancer.current_weights(), limited, rtol=1e-4)
    np.testing.assert_allclose(gradient, [limited * 1e15 - 1, -1], rtol=1e-4)
