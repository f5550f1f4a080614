from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.balancing import BalancedTask, Uncertainty

LOG_2 = np.log(2)


def bound(initial: float = 0.0) -> Uncertainty:
    balancer = Uncertainty(initial)
    balancer.bind([BalancedTask("click"), BalancedTask("rating", kendall_factor=0.5)])
    return balancer


def test_golden_objective_and_gradients() -> None:
    # s = log 2, so exp(-s) = 1/2. click: 1/2 3 + s/2, rating: 1/2 1/2 8 + s/2.
    balancer, losses = bound(LOG_2), tf.constant([3.0, 8.0])
    with tf.GradientTape() as tape:
        tape.watch(losses)
        objective = balancer(losses)
    by_loss, by_variance = tape.gradient(objective, [losses, balancer.log_variances])
    assert float(objective) == pytest.approx(1.5 + 2 + LOG_2)
    np.testing.assert_allclose(by_loss, [0.5, 0.25])
    np.testing.assert_allclose(by_variance, [0.5 - 1.5, 0.5 - 2], rtol=1e-6)  # 1/2 - c exp(-s) L
    np.testing.assert_allclose(balancer.current_weights(), [0.5, 0.25])


def test_at_the_optimum_every_task_contributes_one_half() -> None:
    # d/ds = 0 at s = log(2 c L); there c exp(-s) L = 1/2.
    balancer, losses = bound(), tf.constant([3.0, 0.01])
    balancer.log_variances.assign([np.log(2 * 3), np.log(2 * 0.5 * 0.01)])
    with tf.GradientTape() as tape:
        objective = balancer(losses)
    np.testing.assert_allclose(tape.gradient(objective, balancer.log_variances), 0, atol=1e-6)
    np.testing.assert_allclose(balancer.current_weights() * losses, 0.5, rtol=1e-5)


def test_a_task_without_labels_gives_its_variance_no_gradient() -> None:
    balancer = bound(LOG_2)
    with tf.GradientTape() as tape:
        objective = balancer(tf.constant([3.0, 0.0]), observed=tf.constant([True, False]))
    assert float(objective) == pytest.approx(1.5 + LOG_2 / 2)
    gradient = tape.gradient(objective, balancer.log_variances).numpy()
    assert gradient[0] == pytest.approx(-1)
    assert gradient[1] == 0


def test_log_variances_are_trained() -> None:
    balancer = bound(0.25)
    assert [variable is balancer.log_variances for variable in balancer.trainable_weights] == [True]
    np.testing.assert_array_equal(balancer.log_variances, [0.25, 0.25])
