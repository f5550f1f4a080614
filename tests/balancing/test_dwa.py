from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tfmtl._keras import tf
from tfmtl.balancing.dwa import DWA, average_weights

ALL = [True, True]


def bound(temperature: float = 2.0) -> DWA:
    balancer = DWA(temperature)
    balancer.bind(tasks_named(["click", "rating"]))
    return balancer


def epoch(balancer: DWA, *batches: Any) -> list[float]:
    """Train one epoch of (losses, observed) and return the weights of its last step."""
    for losses, observed in batches:
        balancer(tf.constant(losses), observed=tf.constant(observed), training=True)
    weights: list[float] = balancer.current_weights().numpy().tolist()
    balancer.end_epoch()
    return weights


def test_golden_weights_from_the_third_epoch_on() -> None:
    # Means (2, 4), then (1, 5): r = (1/2, 5/4), w = 2 softmax(r / 2) = 2 sigmoid(-+ 3/8).
    balancer = bound()
    assert epoch(balancer, ([1.0, 4.0], ALL), ([3.0, 4.0], ALL)) == [1, 1]
    assert epoch(balancer, ([1.0, 4.0], ALL), ([1.0, 6.0], ALL)) == [1, 1]
    expected = [2 / (1 + np.exp(0.375)), 2 / (1 + np.exp(-0.375))]
    np.testing.assert_allclose(epoch(balancer, ([2.0, 5.0], ALL)), expected, rtol=1e-6)
    # Means (1, 5), then (2, 5): r = (2, 1).
    expected = [2 / (1 + np.exp(-0.5)), 2 / (1 + np.exp(0.5))]
    np.testing.assert_allclose(epoch(balancer, ([2.0, 5.0], ALL)), expected, rtol=1e-6)


def test_before_the_first_step_the_log_shows_the_weights_of_the_first_epoch() -> None:
    assert bound().current_weights().numpy().tolist() == [1, 1]


def test_the_objective_is_the_weighted_sum() -> None:
    balancer = bound()
    epoch(balancer, ([2.0, 4.0], ALL))
    epoch(balancer, ([1.0, 5.0], ALL))
    found = float(balancer(tf.constant([3.0, 7.0])))
    assert found == pytest.approx(3 * 2 / (1 + np.exp(0.375)) + 7 * 2 / (1 + np.exp(-0.375)))


def test_the_mean_is_over_the_batches_that_observe_the_task() -> None:
    one, other = bound(), bound()
    epoch(one, ([2.0, 4.0], ALL), ([0.0, 8.0], [False, True]))
    epoch(other, ([2.0, 6.0], ALL))
    for balancer in (one, other):
        epoch(balancer, ([1.0, 1.0], ALL))
    assert epoch(one, ([1.0, 1.0], ALL)) == epoch(other, ([1.0, 1.0], ALL))


def test_a_task_that_an_epoch_does_not_see_keeps_its_mean() -> None:
    balancer = bound()
    epoch(balancer, ([2.0, 4.0], ALL))
    epoch(balancer, ([1.0, 0.0], [True, False]))
    # r = (1/2, 4/4)
    expected = 2 / (1 + np.exp(0.25))
    assert epoch(balancer, ([1.0, 8.0], ALL))[0] == pytest.approx(expected)
    # It fell to 8 from 4, which it kept: r = (1, 2).
    assert epoch(balancer, ([1.0, 8.0], ALL))[0] == pytest.approx(2 / (1 + np.exp(0.5)))


def test_a_task_with_one_mean_or_a_loss_of_zero_counts_as_unchanged() -> None:
    balancer = bound()
    epoch(balancer, ([2.0, 0.0], [True, False]))
    epoch(balancer, ([2.0, 4.0], ALL))
    assert epoch(balancer, ([2.0, 4.0], ALL)) == [1, 1]
    zero = average_weights(tf.constant([3.0, 3.0]), tf.constant([0.0, 3.0]), tf.constant(ALL), 2.0)
    assert zero.numpy().tolist() == [1, 1]


def test_weights_of_a_batch_sum_to_its_observed_tasks() -> None:
    latest, earlier = tf.constant([1.0, 2.0, 3.0]), tf.constant([2.0, 2.0, 2.0])
    found = average_weights(latest, earlier, tf.constant([True, False, True]), 0.5).numpy()
    ratios = np.exp(np.array([0.5, 1.5]) / 0.5)
    np.testing.assert_allclose(found[[0, 2]], 2 * ratios / ratios.sum(), rtol=1e-6)
    assert found.sum() == pytest.approx(2)


def test_huge_ratios_stay_finite() -> None:
    found = average_weights(
        tf.constant([1e15, 1e15, 1.0]), tf.constant([1e-30, 1e-30, 1.0]), tf.ones([3], tf.bool), 2.0
    )
    np.testing.assert_allclose(found, [1.5, 1.5, 0])


def test_a_ratio_counts_as_at_most_a_million() -> None:
    # r = (1e6, 0) for the quotients (1e7, 0), T = 1e6: w = 2 softmax(1, 0) = 2 sigmoid(+- 1).
    found = average_weights(tf.constant([1e7, 0.0]), tf.constant([1.0, 1.0]), tf.constant(ALL), 1e6)
    np.testing.assert_allclose(found, [2 / (1 + np.exp(-1)), 2 / (1 + np.exp(1))], rtol=1e-5)


def test_a_running_mean_of_large_losses_does_not_overflow() -> None:
    balancer = bound()
    epoch(balancer, *[([1e38, 1.0], ALL)] * 8)
    epoch(balancer, *[([1e38, 1.0], ALL)] * 8)
    np.testing.assert_allclose(epoch(balancer, ([1e38, 1.0], ALL)), [1, 1], rtol=1e-5)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), "2"])
def test_a_bad_temperature_is_refused(temperature: Any) -> None:
    with pytest.raises(ValueError, match="`temperature` must be a number above 0"):
        DWA(temperature)
