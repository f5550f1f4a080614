from __future__ import annotations

import numpy as np

from tests.balancing.binding import tasks_named
from tfmtl._keras import tf
from tfmtl.balancing.equal import EqualWeights


def bound() -> EqualWeights:
    balancer = EqualWeights()
    balancer.bind(tasks_named(["click", "rating", "age"]))
    return balancer


def test_the_mean_is_over_the_observed_tasks() -> None:
    balancer = bound()
    np.testing.assert_allclose(balancer.current_weights(), 1 / 3)
    assert float(balancer(tf.constant([1.0, 2.0, 6.0]), training=True)) == 3
    np.testing.assert_allclose(balancer.current_weights(), 1 / 3)
    assert float(balancer(tf.constant([1.0, 0.0, 6.0]), tf.constant([True, False, True]), training=True)) == 3.5
    assert balancer.current_weights().numpy().tolist() == [0.5, 0, 0.5]
