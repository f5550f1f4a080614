from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.balancing import gramian_cases as cases
from tfmtl._keras import tf
from tfmtl.balancing.gradvac import GradVac, vaccinated
from tfmtl.balancing.pcgrad import PCGrad, projected_weights

TRACED = tf.function(vaccinated)
CYCLIC = np.array([[1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2], [0, 1, 2, 3]])


def run(gradients: Any, targets: Any, orders: Any, beta: float = 0.1, observed: Any = None) -> tuple[np.ndarray, Any]:
    gradients = np.asarray(gradients, np.float64)
    seen = np.ones(len(gradients), bool) if observed is None else np.asarray(observed)
    gramian = tf.constant(gradients @ gradients.T * np.outer(seen, seen), tf.float32)
    arguments = (tf.constant(seen), tf.constant(orders, tf.int32), tf.constant(targets, tf.float32), tf.constant(beta))
    weights, after = TRACED(gramian, *arguments)
    return weights.numpy(), after.numpy()


def reference(gradients: np.ndarray, targets: np.ndarray, orders: np.ndarray, beta: float) -> tuple[Any, Any]:
    """Return the update and the new targets, on the gradients themselves."""
    targets, update = targets.copy(), np.zeros(gradients.shape[1])
    norm = np.linalg.norm
    for i, order in enumerate(orders):
        p = gradients[i].copy()
        for j in order:
            if j == i:
                continue
            g, t = gradients[j], targets[i, j]
            c = p @ g / norm(p) / norm(g)
            if c < t:
                p = p + norm(p) * (t * (1 - c * c) ** 0.5 - c * (1 - t * t) ** 0.5) / (norm(g) * (1 - t * t) ** 0.5) * g
                assert p @ g / norm(p) / norm(g) == pytest.approx(t)
            targets[i, j] += beta * (c - t)
        update += p
    return update, targets


def test_golden_with_targets_of_zero_is_pcgrad() -> None:
    # Published for PCGrad: [0.5848, 3.8012, 3.8012]. The average moves by beta times the cosine, -22 / sqrt(18 * 38).
    solve = cases.solver(balancer := GradVac(beta=0.1), 2)
    weights = solve(cases.PUBLISHED)
    np.testing.assert_allclose(weights @ cases.PUBLISHED, [0.5848, 3.8012, 3.8012], atol=1e-4)
    cosine = -22 / (18 * 38) ** 0.5
    np.testing.assert_allclose(balancer._targets, [[0, 0.1 * cosine], [0.1 * cosine, 0]], rtol=1e-5)


def test_a_target_is_at_most_the_steepest() -> None:
    # Of cosine 1 no finite multiple of h would make g: both aim at 0.99 and take 0.99 / sqrt(1 - 0.99^2) of the other.
    weights, _ = run([[1.0, 0], [0, 1]], [[0, 1.0], [1.0, 0]], [[0, 1], [0, 1]])
    np.testing.assert_allclose(weights, [1 + 0.99 / 0.0199**0.5] * 2, rtol=1e-4)


def test_golden_with_a_target() -> None:
    # g = (1, 0), h = (0, 2), target 0.6: p_1 = g + 0.6 / (2 * 0.8) h has cosine 0.6 with h; p_2 = h + 2 * 0.75 g.
    targets = [[0, 0.6], [0.6, 0]]
    weights, after = run([[1.0, 0], [0, 2]], targets, [[0, 1], [0, 1]])
    np.testing.assert_allclose(weights, [1 + 1.5, 1 + 0.375], rtol=1e-5)
    np.testing.assert_allclose(after, np.array(targets) * 0.9, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e15])
def test_reference(scale: float) -> None:
    rng = np.random.default_rng(2)
    for gradients in cases.random_gradients(4, 10, size=4):
        targets = rng.uniform(-0.9, 0.9, [4, 4])
        update, after = reference(gradients, targets, CYCLIC, 0.1)
        weights, found = run(scale * gradients, targets, CYCLIC)
        np.testing.assert_allclose(weights @ gradients, update, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(found, after, atol=1e-4)


def test_targets_of_zero_are_pcgrad() -> None:
    for gradients in cases.random_gradients(4, 5, size=4):
        weights, _ = run(gradients, np.zeros([4, 4]), CYCLIC, beta=0.0)
        gramian = tf.constant(gradients @ gradients.T, tf.float32)
        expected = projected_weights(gramian, tf.fill([4], True), tf.constant(CYCLIC, tf.int32))
        np.testing.assert_allclose(weights, expected, rtol=1e-3)


def test_without_memory_it_is_pcgrad_with_the_same_orders() -> None:
    vaccine, projection = cases.solver(GradVac(beta=0.0, seed=3), 4), cases.solver(PCGrad(seed=3), 4)
    for gradients in cases.random_gradients(4, 4, size=4):
        np.testing.assert_allclose(vaccine(gradients), projection(gradients), rtol=1e-3)


def test_agreement_above_the_target_changes_nothing() -> None:
    weights, _ = run([[1.0, 0], [1, 1]], np.full([2, 2], 0.5), [[0, 1], [1, 0]])
    np.testing.assert_allclose(weights, 1, rtol=1e-6)


def test_order_of_the_tasks_does_not_matter() -> None:
    rng, order = np.random.default_rng(4), np.array([2, 0, 3, 1])
    place = np.argsort(order)
    for gradients in cases.random_gradients(4, 5, size=4):
        targets = rng.uniform(-0.5, 0.5, [4, 4])
        weights, after = run(gradients, targets, CYCLIC)
        moved, moved_after = run(gradients[order], targets[np.ix_(order, order)], place[CYCLIC[order]])
        np.testing.assert_allclose(moved, weights[order], rtol=1e-3)
        np.testing.assert_allclose(moved_after, after[np.ix_(order, order)], atol=1e-5)


def test_unobserved_tasks_leave_the_others_and_their_memory_alone() -> None:
    seen, place = np.array([True, False, True, True]), np.array([0, 0, 1, 2])
    kept = np.array([[place[j] for j in row if j != 1] for row in CYCLIC[seen]])
    rng = np.random.default_rng(6)
    for gradients in cases.random_gradients(4, 5, size=4):
        targets = rng.uniform(-0.5, 0.5, [4, 4]).astype(np.float32)
        weights, after = run(gradients, targets, CYCLIC, observed=seen)
        expected, expected_after = run(gradients[seen], targets[np.ix_(seen, seen)], kept)
        np.testing.assert_allclose(weights[seen], expected, rtol=1e-3)
        np.testing.assert_allclose(after[np.ix_(seen, seen)], expected_after, atol=1e-5)
        np.testing.assert_array_equal(after[1], targets[1])
        np.testing.assert_array_equal(after[:, 1], targets[:, 1])


@pytest.mark.parametrize("name", cases.hostile())
def test_hostile_gradients_leave_the_memory_within_its_bounds(name: str) -> None:
    with np.errstate(invalid="ignore"):
        weights, after = run(cases.hostile()[name], np.full([3, 3], 1.0), [[0, 1, 2], [2, 1, 0], [1, 0, 2]], beta=0.5)
    assert np.isfinite(weights).all()
    assert weights.min() >= 0
    assert np.abs(after).max() <= 1


def test_a_step_that_overflows_changes_no_target() -> None:
    targets = np.full([2, 2], 0.3)
    with np.errstate(invalid="ignore"):
        weights, after = run([[1.0, np.inf], [1, 1]], targets, [[0, 1], [0, 1]])
    np.testing.assert_array_equal(weights, 1)
    np.testing.assert_allclose(after, targets)


def test_the_steepest_target_bounds_the_update() -> None:
    # tan(arccos(0.99)) = 0.1425: at right angles, |added| = 0.99 / 0.1411 = 7.02 times the gradient.
    weights, _ = run(np.eye(2), np.ones([2, 2]), [[0, 1], [0, 1]])
    np.testing.assert_allclose(weights, 1 + 0.99 / (1 - 0.99**2) ** 0.5, rtol=1e-4)


def test_targets_follow_the_cosines() -> None:
    solve = cases.solver(balancer := GradVac(beta=0.5), 2)
    for _ in range(20):
        solve([[1.0, 0], [0.6, 0.8]])
    np.testing.assert_allclose(balancer._targets, [[0, 0.6], [0.6, 0]], atol=1e-4)
    # Now at right angles: each gets 0.6 / 0.8 of the other to restore the angle.
    np.testing.assert_allclose(solve(np.eye(2)), 1.75, rtol=1e-3)


def test_orders_depend_on_the_seed_and_the_step() -> None:
    gradients = cases.random_gradients(4, 1, seed=8, size=5)[0]
    gradients -= gradients.mean(axis=0)
    one, same, other = (cases.solver(GradVac(beta=0.0, seed=seed), 4) for seed in (0, 0, 1))
    first, second, third = ([solve(gradients).tolist() for _ in range(6)] for solve in (one, same, other))
    assert first == second
    assert first != third
    assert len({tuple(weights) for weights in first}) > 1


def test_the_promises_of_all() -> None:
    cases.check_hostile(GradVac(beta=0.5))
    cases.check_config(GradVac(0.3, seed=4, at=("dense", "other")))


def test_compiles() -> None:
    update = cases.solver(GradVac(), 2, jit=True)(cases.PUBLISHED) @ cases.PUBLISHED
    np.testing.assert_allclose(update, [0.5848, 3.8012, 3.8012], atol=1e-3)


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan"), "1"])
def test_beta_outside_its_range_is_refused(beta: Any) -> None:
    with pytest.raises(ValueError, match=r"`beta` of GradVac must be a number in \[0, 1\]"):
        GradVac(beta)
