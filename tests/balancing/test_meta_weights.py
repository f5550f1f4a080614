"""AutoLambda, MultiDDS and their base."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.balancing.binding import tasks_named
from tfmtl._keras import tf
from tfmtl.balancing import AutoLambda, MetaWeights, MultiDDS

MAKES: dict[str, Callable[..., MetaWeights]] = {"auto_lambda": AutoLambda, "multi_dds": MultiDDS}


@pytest.fixture(params=sorted(MAKES))
def make(request: pytest.FixtureRequest) -> Any:
    return MAKES[request.param]


def bound(balancer: MetaWeights, tasks: int = 3) -> Any:
    balancer.bind(tasks_named([f"t{k}" for k in range(tasks)]))
    return balancer


def gradients(tasks: int = 3, seed: int = 0) -> np.ndarray:
    """Return gradients on a training batch and on a meta batch [2K, 5]."""
    return np.random.default_rng(seed).normal(size=(2 * tasks, 5))


def learn(balancer: Any, both: np.ndarray, observed: Any = None) -> np.ndarray:
    mask = [True] * (len(both) // 2) if observed is None else observed
    balancer.learn(tf.constant(both @ both.T, tf.float32), tf.constant(mask))
    logits: np.ndarray = balancer.logits.numpy()
    return logits.copy()


def softmax(x: np.ndarray) -> np.ndarray:
    values: np.ndarray = np.exp(x) / np.exp(x).sum()
    return values


def test_auto_lambda_follows_a_plain_reimplementation() -> None:
    q, x = np.array([2.0, 0.0, 1.0]), np.zeros(3)
    balancer = bound(AutoLambda({"t0": 2.0, "t1": 0.0}, learning_rate=0.5))
    for seed in range(5):
        both = gradients(seed=seed)
        v = q @ both[3:]
        x = x + 0.5 * both[:3] @ v / np.linalg.norm(v) / np.linalg.norm(both[:3], axis=1).max()
        np.testing.assert_allclose(softmax(learn(balancer, both)), softmax(x), rtol=1e-4)


def test_multi_dds_follows_a_plain_reimplementation() -> None:
    x, balancer = np.zeros(3), bound(MultiDDS(learning_rate=0.5))
    for seed in range(5):
        both = gradients(seed=seed)
        unit = both / np.linalg.norm(both, axis=1, keepdims=True)
        rewards = (unit[:3] @ unit[3:].T).mean(axis=1)
        of_log = np.eye(3) - softmax(x)  # d log p_i / d x_k
        x = x + 0.5 * rewards @ of_log
        np.testing.assert_allclose(softmax(learn(balancer, both)), softmax(x), rtol=1e-4)


def test_golden_weights_with_the_minimum() -> None:
    # p = softmax([log 3, 0]) = [3/4, 1/4], m = 1/2: w = 2 (p / 2 + 1/4) = p + 1/2.
    balancer = bound(AutoLambda(minimum=0.5), 2)
    balancer.logits.assign([np.log(3), 0])
    value = float(balancer(tf.constant([4.0, 8.0]), training=True))
    np.testing.assert_allclose(balancer.current_weights(), [1.25, 0.75], rtol=1e-6)
    assert value == pytest.approx(11)


def test_equal_weights_are_the_plain_sum(make: Any) -> None:
    assert float(bound(make())(tf.constant([1.0, 2.0, 4.0]))) == pytest.approx(7)


def test_the_task_against_the_meta_gradient_loses_weight(make: Any) -> None:
    base = np.array([1.0, 0.5, 0.0, 0.0, 0.0])
    both = np.stack([base, -base, base, base, base, base])
    balancer = bound(make(minimum=0.25))
    for _ in range(200):
        learn(balancer, both)
    balancer(tf.ones([3]), training=True)
    weights = balancer.current_weights().numpy()
    assert weights[1] < 0.26 < 1 < weights[0]
    assert weights[0] == pytest.approx(weights[2])


def test_only_important_tasks_count_for_auto_lambda() -> None:
    both = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    one = learn(bound(AutoLambda({"t0": 1.0, "t1": 0.0, "t2": 0.0})), both)
    assert one[0] > one[1] == one[2]
    assert np.ptp(learn(bound(AutoLambda()), both)) == pytest.approx(0, abs=1e-6)
    assert (learn(bound(AutoLambda({"t0": 0.0, "t1": 0.0, "t2": 0.0})), both) == 0).all()


def test_the_scale_of_gradients_does_not_matter(make: Any) -> None:
    both = gradients()
    expected = learn(bound(make()), both)
    for scale in (1e-6, 1e6):
        np.testing.assert_allclose(learn(bound(make()), scale * both), expected, rtol=1e-3, atol=1e-6)


def test_the_sum_of_exponentials_stays(make: Any) -> None:
    balancer = bound(make(learning_rate=1.0))
    for seed in range(5):
        assert np.exp(learn(balancer, gradients(seed=seed))).sum() == pytest.approx(3, rel=1e-4)


def test_unobserved_tasks_keep_their_state_and_the_others_learn_as_without_them(make: Any) -> None:
    wide, narrow, mask = bound(make(learning_rate=0.5)), bound(make(learning_rate=0.5), 2), [True, False, True]
    for seed in range(3):
        both = gradients(seed=seed)
        both[[1, 4]] = 7.0
        found = learn(wide, both, mask)
        expected = learn(narrow, both[[0, 2, 3, 5]])
        np.testing.assert_allclose(found[[0, 2]], expected, rtol=1e-4, atol=1e-6)
        assert found[1] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_that_are_not_finite_change_nothing(make: Any, bad: float) -> None:
    balancer, both = bound(make()), gradients()
    expected = learn(balancer, both)
    both[0, 0] = bad
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(learn(balancer, both), expected)
        learn(balancer, both, [False, True, True])
    assert np.isfinite(balancer.logits.numpy()).all()


def test_vanishing_gradients_and_no_task_change_nothing(make: Any) -> None:
    balancer = bound(make())
    np.testing.assert_allclose(learn(balancer, np.zeros((6, 5))), 0, atol=1e-6)
    np.testing.assert_array_equal(learn(balancer, gradients(), [False] * 3), balancer.logits)


def test_it_learns_when_compiled(make: Any) -> None:
    eager, compiled, both = bound(make()), bound(make()), gradients()
    step = tf.function(compiled.learn, jit_compile=True)
    step(tf.constant(both @ both.T, tf.float32), tf.constant([True, True, False]))
    np.testing.assert_allclose(compiled.logits, learn(eager, both, [True, True, False]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": 0.0}, "`learning_rate` must be a number above 0"),
        ({"minimum": 1.0}, "`minimum` must be a number in"),
        ({"importance": {"t0": -1.0}}, "importance of task 't0' must be"),
    ],
)
def test_a_wrong_argument_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoLambda(**given)
