"""Policies of the tasks' weights: their state, their form, learners on a known optimum, and their use in `fit`."""

from __future__ import annotations

import copy
import pathlib
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import tf
from tfmtl.allocation import (
    LearnedWeights,
    TaskState,
    WeightEnvironment,
    WeightPolicy,
    meta_train_weight_policy,
    train_weight_policy,
)
from tfmtl.allocation.policies.environment import weights_of
from tfmtl.allocation.policies.interval_cosines import IntervalCosines
from tfmtl.allocation.policies.reinforce import Reinforce
from tfmtl.allocation.policies.td3 import TD3
from tfmtl.allocation.policies.weight_policy import Critic
from tfmtl.balancing import AssignedWeights, BalancedTask, FixedWeights
from tfmtl.models import MultiTaskModel

NAMES = ["seen", "rating", "liked", "mood"]


def model(seed: int = 0, **arguments: Any) -> MultiTaskModel:
    return small.model(seed=seed, **{"balancer": AssignedWeights(), **arguments})


def environment(**arguments: Any) -> WeightEnvironment:
    options = {"steps_per_action": 3, "num_actions": 4, "batch_size": 10, **arguments}
    return WeightEnvironment(model, small.table(), small.table(), **options)


def random_states(*shape: int) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(*shape, 5)).astype(np.float32)


def changed(policy: WeightPolicy, seed: int = 1) -> WeightPolicy:
    """Return a policy that differs from the plain sum."""
    rng, other = np.random.default_rng(seed), policy.copy()
    other.network.set_weights([value + rng.normal(size=value.shape) for value in other.network.get_weights()])
    return other


def test_golden_states() -> None:
    """Losses 2, 1 then 1.5, -1: fallen 0.75 / 1 of 4, and 3 of |2|; the first task is 0.5 / 4 above its best."""
    state = TaskState(np.array([4.0, 2.0]))
    first = state.observe(np.array([1.0, 1.0]), 0.5)
    np.testing.assert_allclose(first, [[0.75, 0.75, 0, 0, 0.5], [0.5, 0.5, 0, 0, 0.5]])
    second = state.observe(np.array([1.5, -1.0]), 0.25, np.array([0.3, np.nan]))
    np.testing.assert_allclose(second, [[0.625, -0.125, 0.125, 0.3, 0.25], [1.5, 1.0, 0, 0, 0.25]])
    assert state.objective == pytest.approx((0.625 + 1.5) / 2)


def test_states_have_no_unit_and_are_limited() -> None:
    losses = [np.array([3.0, 0.2]), np.array([2.0, 0.3]), np.array([2.5, 1e9])]
    one, other = TaskState(losses[0]), TaskState(losses[0] * [1000, 1e-3])
    for found in losses:
        np.testing.assert_allclose(one.observe(found, 0.1), other.observe(found * [1000, 1e-3], 0.1))
    assert one.observe(losses[2], 0.0).min() >= -5
    negative = TaskState(np.array([-2.0, 1.0])).observe(np.array([-3.0, 1.0]), 0.0)
    assert negative[0, 0] == 0.5  # a loss below 0 that falls


def test_a_policy_is_the_plain_sum_at_first_and_has_the_mean_1() -> None:
    policy = WeightPolicy(seed=3)
    np.testing.assert_array_equal(policy.weights(random_states(4)), np.ones(4))
    for number in (1, 2, 7):
        weights = changed(policy).weights(random_states(number))
        assert weights.mean() == pytest.approx(1.0)
        assert weights.min() > 0


def test_the_order_of_the_tasks_does_not_matter() -> None:
    policy, critic, order = changed(WeightPolicy()), Critic(seed=2), [2, 0, 3, 1]
    states, actions = random_states(6, 4), np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    found, again = policy.actions(states).numpy(), policy.actions(states[:, order]).numpy()
    np.testing.assert_allclose(again, found[:, order], rtol=1e-5, atol=1e-6)
    assert np.ptp(found) > 0.1
    assert np.abs(found).max() <= 2
    values = [critic.values(tf.constant(states[:, o]), tf.constant(actions[:, o])) for o in ([0, 1, 2, 3], order)]
    np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6)
    assert values[0].shape == (6,)
    assert float(tf.math.reduce_std(values[0])) > 0


def test_weights_of_actions_are_a_softmax() -> None:
    np.testing.assert_allclose(weights_of([0.0, np.log(3.0)]), [0.5, 1.5])
    np.testing.assert_allclose(weights_of([700.0, 700.0]), [1.0, 1.0])


def test_a_policy_is_saved_and_loaded(tmp_path: pathlib.Path) -> None:
    policy = changed(WeightPolicy(units=5, seed=2))
    policy.save(tmp_path / "policy.npz")
    np.testing.assert_array_equal(
        WeightPolicy.load(tmp_path / "policy.npz").weights(random_states(3)), policy.weights(random_states(3))
    )
    with np.load(tmp_path / "policy.npz") as file:
        values = {**file, "state_version": 0}
    np.savez(tmp_path / "old.npz", **values)
    with pytest.raises(ValueError, match="reads another version of the state; train it again"):
        WeightPolicy.load(tmp_path / "old.npz")
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="holds no policy"):
        WeightPolicy.load(tmp_path / "bad.npz")


def test_rewards_add_up_to_the_objective_and_an_episode_is_reproduced() -> None:
    one = environment()
    runs = []
    for _ in range(2):
        state, _ = one.reset(seed=5)
        np.testing.assert_array_equal(state, [[0, 0, 0, 0, 1]] * 4)
        rewards, ended = [], False
        while not ended:
            state, reward, ended, truncated, details = one.step(np.array([0.5, -0.5, 1.0, 0.0]))
            assert not truncated
            rewards.append(reward)
        assert len(rewards) == 4
        assert sum(rewards) == pytest.approx(details["objective"])
        assert state[:, 4].tolist() == [0, 0, 0, 0]
        assert np.abs(state[:, 3]).max() > 0  # cosines were measured
        np.testing.assert_allclose(details["weights"], weights_of([0.5, -0.5, 1.0, 0.0]))
        runs.append(rewards)
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-3, atol=1e-5)
    assert int(one.model.optimizer.iterations) == 12


def test_an_episode_is_a_training_with_its_weights() -> None:
    """Four actions that are all the same train as fixed weights do."""
    one, action = environment(cosines=False), np.array([0.0, np.log(2.0), 0.0, 0.0])
    one.reset(seed=1)
    for _ in range(4):
        one.step(action)
    weights = dict(zip(NAMES, weights_of(action), strict=True))
    plain = small.model(seed=1, balancer=FixedWeights(weights))
    for _ in range(4):
        plain.fit(small.table(), batch_size=10, steps_per_epoch=3, verbose=0)
    for ours, theirs in zip(one.model.network.variables, plain.network.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-4)


def test_a_loss_that_is_not_finite_ends_the_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    one = environment(cosines=False)
    one.reset()
    monkeypatch.setattr(one, "_losses", lambda: np.array([np.nan, 1.0, 1.0, 1.0]), raising=True)
    monkeypatch.setattr(one.model.balancer, "assign", lambda weights: None)
    one._losses.assign = lambda weights: None  # type: ignore[attr-defined]
    state, reward, ended, _, _ = one.step(np.zeros(4))
    assert ended
    assert state[0, 0] == -5
    assert np.isfinite(reward)


class Known:
    """An environment without a training: the reward is highest if the task with the largest state has most weight."""

    num_actions = 5

    def __init__(self, tasks: int = 3) -> None:
        self.tasks = tasks

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self._rng, self._done, self._sum = np.random.default_rng(seed), 0, 0.0
        return self._draw(), {}

    def _draw(self) -> np.ndarray:
        self._state = np.zeros([self.tasks, 5])
        self._state[int(self._rng.integers(self.tasks)), 0] = 1.0
        return self._state

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = float(np.mean(action * (2 * self._state[:, 0] - 1)))
        self._done, self._sum = self._done + 1, self._sum + reward
        return self._draw(), reward, self._done == 5, False, {"objective": self._sum}


@pytest.mark.parametrize("learner", [TD3, Reinforce])
def test_a_learner_finds_the_known_optimum(learner: Any) -> None:
    """The best policy has 5 * 2 = 10 with actions of 2 and -2; the plain sum has 0."""
    learns, known = learner(WeightPolicy(seed=0), seed=0), Known()
    for episode in range(60 if learner is TD3 else 400):
        learns.run_episode(known, episode)
    state = np.zeros([4, 5])  # one task more than in the training
    state[2, 0] = 1.0
    actions = learns.policy.actions(state.astype(np.float32)).numpy()
    assert actions.argmax() == 2
    assert actions[2] > 0.8
    assert np.delete(actions, 2).max() < -0.8


def test_a_learned_policy_leaves_its_start_as_it_is_and_is_reproduced() -> None:
    start = changed(WeightPolicy())
    before = start.weights(random_states(3))
    found = [train_weight_policy(environment(), 2, start=start, seed=7) for _ in range(2)]
    np.testing.assert_array_equal(start.weights(random_states(3)), before)
    assert len(found[0].objectives) == 2
    np.testing.assert_allclose(found[0].objectives, found[1].objectives, rtol=1e-3)
    assert found[0].episodes_to(-100.0) == 1
    assert found[0].episodes_to(100.0) is None


def test_meta_training_moves_a_share_of_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """theta + 0.5 (theta_1 - theta), then + 0.25 (theta_2 - theta): the step falls along a line."""
    from tfmtl.allocation.policies import learning

    def learned(one: Any, episodes: int, *, start: WeightPolicy, **_: Any) -> learning.LearnedPolicy:
        policy = start.copy()
        policy.network.set_weights([value + one for value in policy.network.get_weights()])
        return learning.LearnedPolicy(policy, (float(one),) * episodes)

    monkeypatch.setattr(learning, "train_weight_policy", learned)
    start = WeightPolicy()
    found = meta_train_weight_policy([2.0, 4.0], 2, step=0.5, start=start)  # type: ignore[list-item]
    for one, other in zip(found.policy.network.get_weights(), start.network.get_weights(), strict=True):
        np.testing.assert_allclose(one, other + 0.5 * 2.0 + 0.25 * 4.0, rtol=1e-6)
    assert found.objectives == (2.0, 2.0, 2.0, 4.0, 4.0, 4.0)


def test_cosines_are_means_over_the_interval() -> None:
    """Cosines 1 and 0 in two measurements of the first pair, -1 in one of the second, none of the third."""
    cosines = IntervalCosines(1)
    sums = np.zeros([4, 3, 3], np.float32)
    sums[1, 0, 1] = sums[1, 1, 0] = 1.0
    sums[3, 0, 1] = sums[3, 1, 0] = 2.0
    sums[1, 0, 2] = sums[1, 2, 0] = -1.0
    sums[3, 0, 2] = sums[3, 2, 0] = 1.0
    cosines._sums = tf.Variable(sums)
    np.testing.assert_allclose(cosines.take(), [(0.5 - 1.0) / 2, 0.5, -1.0])
    assert np.isnan(cosines.take()).all()


def test_a_constant_policy_in_fit_is_fixed_weights() -> None:
    weights = np.array([1.0, 2.0, 0.5, 0.5])
    callback = LearnedWeights(lambda state: weights, small.table(), every_n_steps=5, num_steps=10)
    learned = model()
    learned.fit(small.table(), batch_size=10, epochs=2, callbacks=[callback], verbose=0)
    plain = small.model(balancer=FixedWeights(dict(zip(NAMES, weights, strict=True))))
    plain.fit(small.table(), batch_size=10, epochs=2, verbose=0)
    for ours, theirs in zip(learned.network.variables, plain.network.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-4)
    assert [one["step"] for one in callback.record] == [0, 5, 10]
    assert [one["state"][0, 4] for one in callback.record] == [1.0, 0.5, 0.0]
    assert np.isfinite(callback.record[-1]["state"]).all()
    assert callback.record[0]["objective"] == 0.0
    assert copy.deepcopy(callback).record == []
    assert learned.step_observer is None


def test_assigned_weights_are_saved_with_the_model(tmp_path: pathlib.Path) -> None:
    from tfmtl.models import load_model

    trained = model()
    trained.balancer.assign({"rating": 0.25})
    trained.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.balancer.current_weights(), [1.0, 0.25, 1.0, 1.0])


def test_bad_use_is_named() -> None:
    callback = LearnedWeights(WeightPolicy(), small.table(), every_n_steps=5, num_steps=10)
    with pytest.raises(TypeError, match="`balancer` must be AssignedWeights"):
        small.model().fit(small.table(), batch_size=10, callbacks=[callback], verbose=0)
    without = small.table().assign(liked=np.nan)
    with pytest.raises(ValueError, match=r"The validation rows have no label of the tasks \['liked'\]"):
        model().fit(
            small.table(), batch_size=10, verbose=0,
            callbacks=[LearnedWeights(WeightPolicy(), without, every_n_steps=5, num_steps=10)],
        )  # fmt: skip
    with pytest.raises(ValueError, match="losses before training must be finite and not 0"):
        TaskState(np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="Unknown learner"):
        train_weight_policy(environment(), 1, learner="ppo")
    with pytest.raises(ValueError, match="There is no environment"):
        train_weight_policy([], 1)
    with pytest.raises(ValueError, match="`train` must be a table: a data set begins again"):
        WeightEnvironment(model, tf.data.Dataset.range(3), small.table())
    with pytest.raises(ValueError, match="`episodes` must be 2 or more"):
        meta_train_weight_policy([environment()], 1, episodes=1)
    with pytest.raises(ValueError, match="`step` must be above 0 and at most 1"):
        meta_train_weight_policy([environment()], 1, step=0.0)
    one = environment()
    with pytest.raises(ValueError, match="Call `reset` first"):
        one.step(np.zeros(4))
    one.reset()
    with pytest.raises(ValueError, match="`action` must hold a finite number for each task"):
        one.step(np.zeros(3))
    balancer = AssignedWeights()
    balancer.bind([BalancedTask("click"), BalancedTask("buy")])
    for weights in ({"click": -1.0}, {"click": float("nan")}, {"click": 0.0, "buy": 0.0}):
        with pytest.raises(ValueError, match="`task_weights` must be finite numbers of at least 0"):
            balancer.assign(weights)
    with pytest.raises(ValueError, match="Unknown task"):
        balancer.assign({"klick": 1.0})
