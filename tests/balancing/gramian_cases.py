"""What the tests of every method on the Gramian share: golden gradients, hostile ones, and the promises of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.balancing.binding import tasks_named
from tfmtl._keras import tf
from tfmtl.balancing.gramian_balancer import GramianBalancer

PUBLISHED = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
"""The gradients of the golden values in TorchJD's documentation, published to four digits."""

Solve = Callable[..., np.ndarray]


def bound(balancer: GramianBalancer, tasks: int) -> Any:
    balancer.bind(tasks_named([f"task_{i}" for i in range(tasks)]))
    return balancer


def solver(balancer: GramianBalancer, tasks: int, jit: bool = False) -> Solve:
    """Return a function of gradients [tasks, size] that gives the weights, traced once."""
    bound(balancer, tasks)
    traced = tf.function(balancer.task_weights, jit_compile=jit)

    def solve(gradients: Any, observed: Any = None, losses: Any = None) -> np.ndarray:
        gradients = np.asarray(gradients, np.float64)
        seen = np.ones(tasks, bool) if observed is None else np.asarray(observed)
        gramian = (gradients @ gradients.T) * np.outer(seen, seen)
        given = np.ones(tasks) if losses is None else losses
        return traced(tf.constant(gramian, tf.float32), tf.constant(given, tf.float32), tf.constant(seen)).numpy()

    return solve


def random_gradients(tasks: int, count: int, seed: int = 0, size: int = 12) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(tasks, size)) for _ in range(count)]


def hostile() -> dict[str, np.ndarray]:
    """Return hostile gradients of three tasks by their fault."""
    rows = np.random.default_rng(5).normal(size=(3, 6))
    return {
        "tiny": 1e-10 * rows,
        "huge": 1e15 * rows,
        "of all lengths": rows * [[1e-10], [1.0], [1e8]],
        "one zero": rows * [[1.0], [0.0], [1.0]],
        "one not zero": rows * [[0.0], [0.0], [1.0]],
        "all zero": 0 * rows,
        "duplicates": rows[[0, 0, 1]],
        "all the same": rows[[0, 0, 0]],
        "opposite": rows[[0, 0, 1]] * [[1.0], [-1.0], [1.0]],
        "balanced": rows - rows.mean(axis=0),
        "of one dimension": rows[:, :1],
        "not finite": rows * np.array([[1.0], [np.inf], [1.0]]),
        "not a number": rows * np.nan,
    }


def check_hostile(balancer: GramianBalancer, bound_on_update: float | None = None) -> None:
    """Assert finite weights, and an update of at most so many times the longest gradient."""
    solve = solver(balancer, 3)
    for name, gradients in hostile().items():
        with np.errstate(invalid="ignore"):
            weights = solve(gradients).astype(np.float64)
        assert np.isfinite(weights).all(), (name, weights)
        if bound_on_update and np.isfinite(gradients).all():
            longest = np.linalg.norm(gradients, axis=1).max()
            assert np.linalg.norm(weights @ gradients) <= bound_on_update * longest, name
    assert np.isfinite(solve(np.ones([3, 2]), [False, False, False])).all()
    for position in range(3):
        for length in (0.0, 1e-10, 1.0, 1e15):
            alone = solve(np.full([3, 2], length), np.arange(3) == position)[position]
            assert alone > 0, (position, length)


def check_symmetries(make: Callable[[], GramianBalancer], power: float = 0.0, rtol: float = 1e-3) -> None:
    """Assert that order and unobserved tasks do not matter, and that weights go with `power` of the common scale."""
    four, three = solver(make(), 4), solver(make(), 3)
    order, seen = [2, 0, 3, 1], np.array([True, False, True, True])
    for gradients in random_gradients(4, 5):
        weights = four(gradients)
        close = {"rtol": rtol, "atol": 1e-4 * np.abs(weights).max()}
        np.testing.assert_allclose(four(gradients[order]), weights[order], **close)
        np.testing.assert_allclose(four(gradients, seen)[seen], three(gradients[seen]), **close)
        for scale in (1e-10, 1e-3, 1e15):
            np.testing.assert_allclose(four(scale * gradients) / scale**power, weights, **close)


def check_config(balancer: GramianBalancer) -> None:
    """Assert that a balancer made of another's configuration has the same arguments."""
    config = balancer.get_config()
    again = type(balancer).from_config(config)
    assert again.get_config() == config
    assert again.at == balancer.at == ("dense", "other")
