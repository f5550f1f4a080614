from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tfmtl._keras import tf
from tfmtl.balancing.gradcraft import GradCraft, crafted_weights
from tfmtl.balancing.pcgrad import projected_weights

CONFLICT = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])


def weights(matrix: Any, factors: Any = None, epsilon: float = 0.0, observed: Any = None) -> np.ndarray:
    rows = np.asarray(matrix, np.float64)
    count = len(rows)
    gramian = tf.constant(rows @ rows.T, tf.float32)
    factors = tf.ones([count]) if factors is None else tf.constant(factors, tf.float32)
    observed = tf.constant([True] * count if observed is None else observed)
    return np.asarray(crafted_weights(gramian, observed, factors, epsilon))


def crafted(matrix: np.ndarray, epsilon: float) -> np.ndarray:
    """Return the p_i of the formula, one row a task."""
    rows = []
    for own in matrix:
        others = matrix[matrix @ own < 0]
        norms = np.linalg.norm(own) * np.linalg.norm(others, axis=1)
        push = np.linalg.solve(others @ others.T, epsilon * norms - others @ own) if len(others) else np.zeros(0)
        rows.append(own + others.T @ push)
    return np.stack(rows)


def random_matrix(seed: int, tasks: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(tasks, 2 * tasks)) * 10.0 ** rng.uniform(-1, 1, size=(tasks, 1))


def balancer_of(tasks: int, **arguments: Any) -> GradCraft:
    balancer = GradCraft(**arguments)
    balancer.bind(tasks_named([str(i) for i in range(tasks)]))
    return balancer


def test_two_tasks_without_scaling_are_pcgrad() -> None:
    # M = [[18, -22], [-22, 38]]: w = 1 + 22 / 18 and 1 + 22 / 38; w^T J is TorchJD's documented value of PCGrad.
    np.testing.assert_allclose(weights(CONFLICT), [1 + 22 / 18, 1 + 22 / 38], rtol=1e-5)
    np.testing.assert_allclose(weights(CONFLICT) @ CONFLICT, [0.5848, 3.8012, 3.8012], atol=1e-4)
    orders = tf.constant([[1, 0], [0, 1]])
    gramian = tf.constant(CONFLICT @ CONFLICT.T, tf.float32)
    np.testing.assert_allclose(
        weights(CONFLICT), projected_weights(gramian, tf.constant([True, True]), orders), rtol=1e-5
    )


def test_golden_with_epsilon() -> None:
    # g = (1, 0), (-1, 1): |g| = 1, sqrt 2. p_1 = g_1 + (e sqrt 2 + 1) / 2 g_2, p_2 = g_2 + (e sqrt 2 + 1) g_1.
    push = 0.5 * np.sqrt(2) + 1
    np.testing.assert_allclose(weights([[1, 0], [-1, 1]], epsilon=0.5), [1 + push, 1 + push / 2], rtol=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
@pytest.mark.parametrize(("seed", "tasks"), [(0, 2), (1, 3), (2, 5), (3, 8), (4, 8)])
def test_reference(seed: int, tasks: int, epsilon: float) -> None:
    matrix = random_matrix(seed, tasks)
    factors = np.random.default_rng(seed).uniform(0.5, 3, size=tasks)
    expected = crafted(factors[:, np.newaxis] * matrix, epsilon).sum(0)
    found = weights(matrix, factors, epsilon) @ matrix
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_no_crafted_gradient_conflicts_with_one_it_was_turned_for() -> None:
    """By the weights of one task alone as observed, which are the coefficients of its p_i."""
    matrix = random_matrix(5, 6)
    norms = np.linalg.norm(matrix, axis=1)
    turned = 0
    for task in range(6):
        alone = weights(matrix, epsilon=0.1, observed=np.arange(6) == task)
        alone = alone - (np.arange(6) != task)  # the unobserved ones' own factor, which the base ignores
        cosines = (alone @ matrix) @ matrix.T / norms / norms[task]
        conflict = matrix @ matrix[task] < 0
        np.testing.assert_allclose(cosines[conflict], 0.1, atol=1e-3)
        turned += conflict.sum()
    assert turned > 5


def test_the_order_of_the_tasks_does_not_matter() -> None:
    matrix, order = random_matrix(6, 4), [2, 0, 3, 1]
    np.testing.assert_allclose(weights(matrix[order]), weights(matrix)[order], rtol=1e-4)


def test_without_conflict_it_is_the_sum_at_the_largest_size() -> None:
    balancer = balancer_of(2, relax=1.0)
    gramian = tf.constant([[4.0, 0.5], [0.5, 1.0]])  # sizes 2 and 1
    found = balancer.task_weights(gramian, tf.ones([2]), tf.constant([True, True]))
    np.testing.assert_allclose(found, [1, 2], rtol=1e-6)


@pytest.mark.parametrize("hidden", [[set()], [set(), {1}, {0, 2}, {2}]])
def test_averages_by_steps_with_a_label(hidden: list[set[int]]) -> None:
    balancer, relax, beta = balancer_of(3, relax=0.4, beta=0.8, epsilon=0.1), 0.4, 0.8
    traced = tf.function(balancer.task_weights)
    averages, steps = np.zeros(3), np.zeros(3)
    for step in range(6):
        observed = np.array([task not in hidden[step % len(hidden)] for task in range(3)])
        matrix = random_matrix(step, 3) * observed[:, np.newaxis]
        found = traced(tf.constant(matrix @ matrix.T, tf.float32), tf.ones([3]), tf.constant(observed))
        steps += observed
        averages = np.where(observed, beta * averages + (1 - beta) * np.linalg.norm(matrix, axis=1), averages)
        sizes = (averages / (1 - beta ** np.maximum(steps, 1)))[observed]
        kept = (relax * sizes.max() / sizes + 1 - relax)[:, np.newaxis] * matrix[observed]
        expected = crafted(kept, 0.1).sum(0)
        mixed = found.numpy()[observed] @ matrix[observed]
        np.testing.assert_allclose(mixed, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
        smaller = weights(matrix[observed], (kept / matrix[observed])[:, 0], 0.1)
        np.testing.assert_allclose(found.numpy()[observed], smaller, rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-10, 1e-5, 1e5, 1e15])
def test_scaling_all_gradients_changes_no_weight(scale: float) -> None:
    matrix, found = random_matrix(7, 4), []
    for size in (1.0, scale):
        gramian = tf.constant((size * matrix) @ (size * matrix).T, tf.float32)
        found.append(balancer_of(4, epsilon=0.1).task_weights(gramian, tf.ones([4]), tf.fill([4], True)))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


HOSTILE = {
    "zero": [[0.0, 0.0], [1.0, -1.0], [-1.0, 0.5]],
    "all zero": [[0.0, 0.0], [0.0, 0.0]],
    "duplicates": [[1.0, 0.0], [-1.0, 0.1], [-1.0, 0.1], [-1.0, 0.1]],
    "opposite": [[1.0, 0.0], [-1.0, 0.0]],
    "more tasks than dimensions": [[1.0, 0.0], [-1.0, 0.1], [-2.0, 0.5], [-1.0, -0.3]],
    "sizes": [[1e15, 1.0], [-1e-10, 1e-10], [-1.0, 2.0]],
    "one": [[3.0, 4.0]],
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_hostile_gradients_give_finite_weights(name: str, epsilon: float) -> None:
    matrix = np.array(HOSTILE[name])
    count = len(matrix)
    for relax in (0.0, 1.0):
        balancer = balancer_of(count, relax=relax, epsilon=epsilon)
        gramian = tf.constant(matrix @ matrix.T, tf.float32)
        for observed in (np.arange(count) >= 0, np.arange(count) == 0, np.arange(count) < 0):
            pairs = np.outer(observed, observed)
            found = balancer.task_weights(tf.where(pairs, gramian, 0.0), tf.ones([count]), tf.constant(observed))
            assert np.isfinite(found).all()
            assert count > 1 or not observed.any() or found.numpy()[0] > 0


def test_a_step_that_overflows_reaches_the_optimizer_but_not_the_state() -> None:
    balancer = balancer_of(2)
    balancer.task_weights(tf.constant([[2.0, -1.0], [-1.0, 1.0]]), tf.ones([2]), tf.fill([2], True))
    before = balancer.get_weights()
    gramian = tf.constant([[np.inf, np.nan], [np.nan, 1.0]], tf.float32)
    assert not np.isfinite(balancer.task_weights(gramian, tf.ones([2]), tf.fill([2], True))).all()
    for old, new in zip(before, balancer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_dependent_conflicting_gradients_keep_weights_small() -> None:
    found = weights(HOSTILE["duplicates"])
    assert np.abs(found).max() < 10
    mixed = found @ np.array(HOSTILE["duplicates"])
    first = np.array([1.0, 0.0])
    others = np.array([-1.0, 0.1])
    # p_1 is g_1 without its part along the others; each of the others loses its part along g_1.
    expected = first - first @ others / (others @ others) * others + 3 * np.array([0.0, 0.1])
    np.testing.assert_allclose(mixed, expected, atol=1e-3)


@pytest.mark.parametrize("arguments", [{"relax": 1.5}, {"epsilon": 1.0}, {"epsilon": -0.1}, {"beta": 1.0}])
def test_shares_outside_their_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must be a number in"):
        GradCraft(**arguments)
