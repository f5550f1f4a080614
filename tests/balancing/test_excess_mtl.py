from __future__ import annotations

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tests.balancing.mixing import Mixer, check, combine, generate
from tfmtl._keras import tf
from tfmtl.balancing.excess_mtl import ExcessMTL, raised_weights
from tfmtl.balancing.gramian import TaskGradients

DENSE = [0, 2]


def bound(step_size: float = 1.0) -> ExcessMTL:
    balancer = ExcessMTL(step_size)
    balancer.bind(tasks_named(["a", "b"]))
    balancer.prepare([tf.Variable([0.0, 0.0])])
    return balancer


def mix(balancer: ExcessMTL, matrix: list[list[float]], observed: tuple[bool, bool] = (True, True)) -> np.ndarray:
    gradients = TaskGradients(tf.constant(matrix, tf.float32), None, None)
    return np.asarray(balancer.mix([gradients], tf.ones([2]), tf.constant(observed))[0])


def test_golden_over_two_steps() -> None:
    balancer = bound(step_size=2.0)
    # S = g^2, so E = sum |g|: 7 and 4. All ratios are 1, and the weights stay 1.
    np.testing.assert_allclose(mix(balancer, [[3, -4], [4, 0]]), [7, -4], rtol=1e-6)
    # S_1 = (25, 16): E_1 = 16 / 5, ratio 16 / 35. S_2 = (25, 0): E_2 = 9 / 5, ratio 9 / 20. Twice that is added.
    raised = np.exp([2 * 16 / 35, 2 * 9 / 20])
    weights = 2 * raised / raised.sum()
    np.testing.assert_allclose(mix(balancer, [[4, 0], [3, 0]]), [4 * weights[0] + 3 * weights[1], 0], rtol=1e-6)
    np.testing.assert_allclose(balancer.current_weights(), weights, rtol=1e-6)


@pytest.mark.parametrize("hidden", [[], [set(), {1}, {0, 2}, {0}, {2}]])
def test_reference(hidden: list[set[int]]) -> None:
    """Algorithm 1 in numpy; the observed tasks move within their share of the weights."""
    mixer, step_size = Mixer(ExcessMTL(0.5)), 0.5
    squares, initial, weights = np.zeros([3, 9]), np.zeros(3), np.full(3, 1 / 3)
    for given in generate(8, hidden=hidden, scale=(10.0, 1.0, 0.1)):
        here, batch = given.observed, given.flat(DENSE)
        squares += batch**2
        excess = np.divide(batch**2, np.sqrt(squares), out=np.zeros_like(batch), where=squares > 0).sum(1)
        initial = np.where(here & (initial == 0), excess, initial)
        share = weights[here].sum()
        raised = weights[here] * np.exp(step_size * excess[here] / initial[here])
        weights[here] = share * raised / raised.sum()
        used = np.where(here, here.sum() * weights / share, 0)
        check(mixer(given), [combine(used, gradient) for gradient in given.gradients])
        np.testing.assert_allclose(mixer.weights(), used, rtol=1e-4)
    assert weights.std() > 0.05


def test_the_weights_sum_to_the_number_of_observed_tasks() -> None:
    mixer = Mixer(ExcessMTL(3.0))
    for given in generate(6, hidden=[set(), {1}, {0, 2}]):
        mixer(given)
        assert mixer.weights().sum() == pytest.approx(given.observed.sum(), rel=1e-5)


def test_the_first_excess_is_that_of_the_first_gradient() -> None:
    balancer = bound()
    mix(balancer, [[2, 0], [0, 0]])
    np.testing.assert_allclose(balancer._initial, [2, 0])
    mix(balancer, [[0, 0], [0, 3]], (False, True))
    np.testing.assert_allclose(balancer._initial, [2, 3])
    mix(balancer, [[4, 0], [0, 4]])
    np.testing.assert_allclose(balancer._initial, [2, 3])


def test_a_task_that_stops_learning_loses_weight() -> None:
    balancer = bound(step_size=0.1)
    for step in range(30):
        mix(balancer, [[1, 1], [0.5**step, 0]])
    weights = balancer.current_weights().numpy()
    assert weights[0] > 1 > weights[1]


def test_weights_that_vanished_in_float32_can_come_back() -> None:
    both = tf.constant([True, True])
    used, logits = raised_weights(tf.constant([0.0, 0.0]), tf.constant([0.0, 500.0]), both)
    assert used.numpy().tolist() == [0, 2]
    used, _ = raised_weights(logits, tf.constant([500.0, 0.0]), both)
    np.testing.assert_allclose(used, [1, 1], rtol=1e-4)


def test_the_share_of_the_others_stays() -> None:
    logits = tf.math.log(tf.constant([0.2, 0.3, 0.5]))
    used, moved = raised_weights(logits, tf.constant([0.0, 1.0, 7.0]), tf.constant([True, True, False]))
    # Of the 0.5 they have, the first two get (0.2, 0.3 e) / (0.2 + 0.3 e).
    own = np.array([0.2, 0.3 * np.e]) / (0.2 + 0.3 * np.e)
    np.testing.assert_allclose(used, [*(2 * own), 0], rtol=1e-5)
    np.testing.assert_allclose(tf.exp(moved), [*(0.5 * own), 0.5], rtol=1e-5)


@pytest.mark.parametrize("step_size", [0.0, -1.0])
def test_a_step_size_of_zero_is_refused(step_size: float) -> None:
    with pytest.raises(ValueError, match="`step_size` must be a number above 0"):
        ExcessMTL(step_size)
