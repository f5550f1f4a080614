from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from tests.balancing.binding import tasks_named
from tfmtl._keras import tf
from tfmtl.balancing.stch import STCH

NAMES = ["click", "rating", "age"]


def bound(*arguments: Any) -> STCH:
    balancer = STCH(*arguments)
    balancer.bind(tasks_named(NAMES))
    return balancer


def run(balancer: STCH, losses: Any, observed: list[bool] | None = None) -> tuple[float, np.ndarray]:
    value = float(balancer(tf.constant(losses, tf.float32), tf.constant(observed or [True] * 3), training=True))
    return value, balancer.current_weights().numpy()


def test_golden_value_and_weights() -> None:
    # v = 1/3, mu = 1: v L = 0, log 2, log 3, so log(1 + 2 + 3) and weights (1, 2, 3) / 6 / 3.
    value, weights = run(bound(), [0, 3 * np.log(2), 3 * np.log(3)])
    assert value == pytest.approx(np.log(6))
    np.testing.assert_allclose(weights, [1 / 18, 2 / 18, 3 / 18], rtol=1e-5)


def test_golden_value_with_every_argument() -> None:
    # v = (2, 1, 1) / 4; v (L - z) = (1, 1, 0), over mu = 1/2: (2, 2, 0). log(2 e^2 + 1) / 2.
    balancer = bound(0.5, {"click": 1.0, "age": 0.5}, {"click": 2.0})
    value, weights = run(balancer, [3.0, 4.0, 0.5])
    assert value == pytest.approx(np.log(2 * np.exp(2) + 1) / 2)
    share = np.exp(2) / (2 * np.exp(2) + 1)
    np.testing.assert_allclose(weights, [share / 2, share / 4, (1 - 2 * share) / 4], rtol=1e-5)


def test_against_scipy() -> None:
    random = np.random.default_rng(0)
    for mu in (0.01, 0.3, 2.0):
        balancer, scales = bound(mu, {}, {"click": 3.0}), np.array([0.6, 0.2, 0.2])
        for losses in random.exponential(size=(4, 3)):
            value, weights = run(balancer, losses)
            assert value == pytest.approx(mu * logsumexp(scales * losses / mu), rel=1e-5)
            np.testing.assert_allclose(weights, scales * softmax(scales * losses / mu), rtol=1e-3, atol=1e-6)


def test_a_small_mu_is_the_maximum_and_a_large_one_the_mean() -> None:
    losses = [1.0, 5.0, 2.0]
    value, weights = run(bound(1e-6), losses)
    assert value == pytest.approx(5 / 3)
    np.testing.assert_allclose(weights, [0, 1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(run(bound(1e6), losses)[1], 1 / 9, rtol=1e-4)


def test_the_value_lies_between_the_maximum_and_its_bound() -> None:
    for mu in (0.1, 1.0):
        value, _ = run(bound(mu), [1.0, 5.0, 2.0])
        assert 5 / 3 <= value <= 5 / 3 + mu * np.log(3)


def test_preferences_are_shares_of_the_observed_tasks() -> None:
    value, weights = run(bound(1.0, {}, {"click": 3.0}), [4.0, 100.0, 8.0], [True, False, True])
    # v = (3/4, 1/4): v L = (3, 2).
    assert value == pytest.approx(np.log(np.exp(3) + np.exp(2)), rel=1e-6)
    share = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(weights, [0.75 * share, 0, 0.25 * (1 - share)], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0,), "`mu` must be a number of at least 1e-6. Received: mu=0."),
        ((float("nan"),), "`mu` must be a number of at least 1e-6."),
        ((1.0, {"click": "0"}), "The ideal loss of task 'click' must be a finite number."),
        ((1.0, {}, {"click": 0.0}), "The preference of task 'click' must be a number above 0."),
        ((1.0, {"clck": 0.0}), "Unknown task ['clck'] in `ideal_point` of STCH"),
        ((1.0, {}, {"clck": 1.0}), "Unknown task ['clck'] in `preferences` of STCH"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        bound(*arguments)
