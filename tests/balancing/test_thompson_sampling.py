from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tfmtl._keras import tf
from tfmtl.balancing.thompson_sampling import ThompsonSampling, beta_draws


def bound(*arguments: Any, tasks: int = 3, **named: Any) -> ThompsonSampling:
    balancer = ThompsonSampling(*arguments, **named)
    balancer.bind(tasks_named([f"t{k}" for k in range(tasks)]))
    return balancer


def train(balancer: ThompsonSampling, observed: Any = None) -> int:
    """Make the forward pass of a step and return its task."""
    losses = tf.ones([len(balancer.task_names)])
    balancer(losses, observed=None if observed is None else tf.constant(observed), training=True)
    return int(np.argmax(balancer.current_weights()))


def counts(balancer: ThompsonSampling) -> tuple[list[float], list[float]]:
    return balancer.alpha.numpy().tolist(), balancer.beta.numpy().tolist()


def state(balancer: ThompsonSampling) -> list[np.ndarray]:
    return [variable.numpy() for variable in balancer.weights]


def test_golden_counts_of_a_success_and_a_failure() -> None:
    # g = 1/4, alpha_0 = 2, beta_0 = 1: 3/4 * 2 + 1/4 * 2 (+ 1 for the round's task), and 1 for beta.
    balancer = bound(0, decay=0.25, successes=2.0, failures=1.0)
    balancer.observe([1.0, 1.0, 1.0])
    first = train(balancer)
    balancer.observe([0.9, 1.0, 1.0])
    alpha, beta = np.full(3, 2.0), np.ones(3)
    alpha[first] = 3
    assert counts(balancer) == (alpha.tolist(), beta.tolist())
    second = train(balancer)
    balancer.observe([0.95, 1.0, 1.0])
    alpha, beta = 0.75 * alpha + 0.5, 0.75 * beta + 0.25
    beta[second] += 1
    np.testing.assert_allclose(counts(balancer), [alpha, beta], rtol=1e-6)


def test_it_follows_a_plain_reimplementation() -> None:
    balancer, random = bound(4, ["t0", "t2"], 0.2, 1.5, 0.5), np.random.default_rng(0)
    alpha, beta, last = np.full(3, 1.5), np.full(3, 0.5), np.array([2.0, 1.0, -3.0])
    balancer.observe(last)
    for _ in range(12):
        trained = np.zeros(3)
        for _ in range(4):
            mask = random.random(3) < 0.7
            if mask.any():
                trained[train(balancer, mask)] += 1
        losses = last + random.normal(size=3)
        fell = sum((last[k] - losses[k]) / abs(last[k]) for k in (0, 2))
        reward, share = float(fell > 0), trained / trained.sum()
        alpha = 0.8 * alpha + 0.2 * 1.5 + reward * share
        beta = 0.8 * beta + 0.2 * 0.5 + (1 - reward) * share
        balancer.observe(losses)
        last = losses
        np.testing.assert_allclose(counts(balancer), [alpha, beta], rtol=1e-4)


def test_a_tie_is_no_success() -> None:
    balancer = bound(0, decay=0.0)
    balancer.observe([1.0, 2.0, 3.0])
    task = train(balancer)
    balancer.observe([1.0, 2.0, 3.0])
    alpha, beta = counts(balancer)
    assert alpha == [1, 1, 1]
    assert beta[task] == 2


def test_only_primary_tasks_judge_and_by_relative_change() -> None:
    for primary, success in ((["t0"], True), (["t1"], False), (None, True)):
        balancer = bound(0, primary, tasks=2)
        balancer.observe([1.0, 100.0])
        train(balancer)
        balancer.observe([0.9, 105.0])  # t0 fell by 10 %, t1 rose by 5 %
        assert (max(counts(balancer)[0]) > 1) == success


def play(balancer: ThompsonSampling, probabilities: Callable[[int], list[float]], rounds: int) -> np.ndarray:
    """Return the task of each round; the validation loss falls after a round of task k with probability p_k."""
    random, tasks, value = np.random.default_rng(0), [], 100.0
    balancer.observe([value] * 3)
    for number in range(rounds):
        tasks.append(train(balancer))
        value *= 0.99 if random.random() < probabilities(number)[tasks[-1]] else 1.01
        balancer.observe([value] * 3)
    return np.array(tasks)


def test_the_most_useful_task_is_trained_most_and_a_change_is_followed() -> None:
    change = lambda number: [0.1, 0.9, 0.1] if number < 120 else [0.9, 0.1, 0.1]  # noqa: E731
    for seed in (0, 1):
        tasks = play(bound(seed, decay=0.05), change, 300)
        assert (tasks[60:120] == 1).mean() > 0.6
        assert (tasks[-60:] == 0).mean() > 0.6
        assert len(set(tasks)) == 3


def test_unobserved_tasks_are_never_trained() -> None:
    balancer = bound(2)
    balancer.observe([1.0, 1.0, 1.0])
    found = set()
    for _ in range(30):
        found.add(train(balancer, [True, False, True]))
        balancer.observe([1.0, 1.0, 1.0])
    assert found == {0, 2}
    before = state(balancer)
    balancer(tf.zeros([3]), observed=tf.constant([False] * 3), training=True)
    assert balancer.current_weights().numpy().tolist() == [0, 0, 0]
    balancer.observe([1.0, 1.0, 1.0])
    for old, new, variable in zip(before, state(balancer), balancer.weights, strict=True):
        if "last_weights" not in variable.name:
            np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_losses_that_are_not_finite_change_nothing(bad: float) -> None:
    balancer = bound(0, primary=["t1"])
    balancer.observe([1.0, 1.0, 1.0])
    train(balancer)
    before = state(balancer)
    balancer.observe([bad, bad, bad])
    for old, new in zip(before, state(balancer), strict=True):
        np.testing.assert_array_equal(new, old)
    balancer.observe([bad, 0.5, bad])
    assert max(counts(balancer)[0]) > 1
    assert balancer._latest.numpy().tolist() == [1, 0.5, 1]


def test_a_round_trains_one_task_and_the_first_measurement_gives_no_credit() -> None:
    balancer = bound(3)
    for _ in range(5):
        train(balancer)
    balancer.observe([1.0, 1.0, 1.0])
    assert counts(balancer) == ([1, 1, 1], [1, 1, 1])
    assert len({train(balancer) for _ in range(5)}) == 1


def test_without_measurements_each_epoch_draws_again() -> None:
    balancer, tasks = bound(3), []
    for _ in range(20):
        tasks.append(train(balancer))
        balancer.end_epoch()
    assert set(tasks) == {0, 1, 2}
    balancer.observe([1.0, 1.0, 1.0])
    theta = balancer._theta.numpy()
    balancer.end_epoch()
    np.testing.assert_array_equal(balancer._theta, theta)


def test_draws_repeat_with_the_seed_and_resume() -> None:
    constant = lambda number: [0.2, 0.5, 0.8]  # noqa: E731
    whole = play(bound(5), constant, 30)
    np.testing.assert_array_equal(play(bound(5), constant, 30), whole)
    assert (play(bound(6), constant, 30) != whole).any()
    first, second = bound(5), bound(6)
    for balancer in (first, second):
        play(balancer, constant, 15)
    second.seed = 5
    second.set_weights(first.get_weights())
    tasks = [[], []]  # type: list[list[int]]
    for step in range(15):
        for found, balancer in zip(tasks, (first, second), strict=True):
            found.append(train(balancer))
            balancer.observe([1 + (step % 3) / 10] * 3)
    assert tasks[0] == tasks[1]


def test_draws_have_the_moments_of_the_beta_distribution() -> None:
    alpha, beta = tf.constant([1.0, 4.0, 0.5]), tf.constant([1.0, 2.0, 0.5])
    seeds = tf.stack([tf.zeros([3000], tf.int64), tf.range(3000, dtype=tf.int64)], axis=1)
    run = tf.function(lambda: tf.map_fn(lambda seed: beta_draws(seed, alpha, beta), seeds, tf.float32))
    found, a, b = np.asarray(run()), alpha.numpy(), beta.numpy()
    np.testing.assert_allclose(found.mean(axis=0), a / (a + b), atol=0.03)
    np.testing.assert_allclose(found.var(axis=0), a * b / (a + b) ** 2 / (a + b + 1), atol=0.01)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"primary": []}, "must name at least one task"),
        ({"primary": "t0"}, "must be a list"),
        ({"decay": 1.0}, "`decay` must be a number in"),
        ({"successes": 0.0}, "`successes` must be a number above 0"),
        ({"failures": float("nan")}, "`failures` must be a number above 0"),
    ],
)
def test_a_wrong_argument_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ThompsonSampling(**given)


def test_an_unknown_primary_task_is_named() -> None:
    with pytest.raises(ValueError, match=r"Unknown task \['t7'\]"):
        bound(primary=["t7"])
