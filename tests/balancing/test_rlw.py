from __future__ import annotations

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tfmtl._keras import tf
from tfmtl.balancing.rlw import RLW, random_weights

DRAWS = 4000


def bound(seed: int = 0, distribution: str = "normal", tasks: int = 3) -> RLW:
    balancer = RLW(seed, distribution)
    balancer.bind(tasks_named([f"t{k}" for k in range(tasks)]))
    return balancer


def drawn(balancer: RLW, steps: int) -> np.ndarray:
    step = tf.function(lambda losses: balancer(losses, training=True))
    rows = []
    for _ in range(steps):
        step(tf.ones([3]))
        rows.append(balancer.current_weights().numpy())
    return np.stack(rows)


def sample(distribution: str, observed: list[bool]) -> np.ndarray:
    seeds = tf.stack([tf.zeros([DRAWS], tf.int64), tf.range(DRAWS, dtype=tf.int64)], axis=1)
    mask = tf.constant(observed)
    draw = tf.function(lambda: tf.map_fn(lambda seed: random_weights(seed, mask, distribution), seeds, tf.float32))
    return np.asarray(draw())


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_draws_change_with_the_step_and_repeat_with_the_seed(distribution: str) -> None:
    first, again = (drawn(bound(5, distribution), 4) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first.round(6), axis=0)) == 4
    assert (first != drawn(bound(6, distribution), 4)).all()


def test_a_normal_draw_is_the_softmax_of_normals() -> None:
    normals = tf.random.stateless_normal([3], [5, 1]).numpy()
    found = drawn(bound(5), 2)[1]
    np.testing.assert_allclose(found, np.exp(normals) / np.exp(normals).sum(), rtol=1e-5)


def test_resuming_goes_on_with_the_draws() -> None:
    whole, second = drawn(bound(5), 4), bound(5)
    first = bound(5)
    drawn(first, 2)
    second.set_weights(first.get_weights())
    np.testing.assert_array_equal(drawn(second, 2), whole[2:])


def test_log_ratios_of_normal_draws_are_normal() -> None:
    found = sample("normal", [True, True])
    logs = np.log(found[:, 0] / found[:, 1])  # n_0 - n_1 has variance 2
    assert logs.mean() == pytest.approx(0, abs=0.1)
    assert logs.var() == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("observed", [[True, True], [True, False, True]])
def test_a_dirichlet_draw_of_two_tasks_is_uniform(observed: list[bool]) -> None:
    first = sample("dirichlet", observed)[:, 0]
    np.testing.assert_allclose(np.quantile(first, [0.1, 0.25, 0.5, 0.75, 0.9]), [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.04)


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_weights_are_positive_and_sum_to_one(distribution: str) -> None:
    found = sample(distribution, [True, False, True, True])
    assert (found[:, 1] == 0).all()
    assert (found[:, [0, 2, 3]] > 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.mean(axis=0), [1 / 3, 0, 1 / 3, 1 / 3], atol=0.02)


def test_the_objective_is_the_weighted_sum_and_outside_training_the_mean() -> None:
    balancer, losses = bound(), tf.constant([2.0, 4.0, 9.0])
    value = float(balancer(losses, training=True))
    assert value == pytest.approx(float(tf.tensordot(balancer.current_weights(), losses, 1)))
    assert float(balancer(losses)) == pytest.approx(5)
    assert float(balancer(losses, observed=tf.constant([True, False, True]))) == pytest.approx(5.5)


def test_an_unknown_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="`distribution` must be one of"):
        RLW(distribution="cauchy")
