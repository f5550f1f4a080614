"""Policy gradients from whole episodes, for weights of tasks."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._keras import keras, tf
from tfmtl.allocation.policies.environment import WeightEnvironment
from tfmtl.allocation.policies.weight_policy import LARGEST_ACTION, WeightPolicy

_NOISE, _RATE, _KEPT = 0.6, 3e-3, 0.8


class Reinforce:
    """Learns a policy from the returns of whole episodes, the baseline of more elaborate learners.

    After each episode: ascend sum_t (G_t - b_t) log N(a_t; pi(s_t), 0.6^2), with G_t the sum of the rewards from t on
    and b_t its running mean over earlier episodes; the differences are divided by their standard deviation.

    Args:
        policy: the policy to start from, which learns.
        seed: seed of the noise.

    Reference: Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
        Machine Learning 1992, https://doi.org/10.1007/BF00992696, equation 4.
    """

    def __init__(self, policy: WeightPolicy, seed: int = 0) -> None:
        self.policy, self._rng = policy, np.random.default_rng(seed)
        self._optimizer = keras.optimizers.Adam(_RATE)
        self._baselines: dict[int, Any] = {}  # by environment

    def run_episode(self, environment: WeightEnvironment, seed: int) -> float:
        """Train a model once with exploration, learn at its end, and return the objective there."""
        state, _ = environment.reset(seed=seed)
        states, actions, rewards, ended, objective = [], [], [], False, 0.0
        while not ended:
            mean = self.policy.actions(state.astype(np.float32)).numpy()
            action = mean + _NOISE * self._rng.normal(size=mean.shape)
            following, reward, ended, _, details = environment.step(np.clip(action, -LARGEST_ACTION, LARGEST_ACTION))
            states.append(state)
            actions.append(action)
            rewards.append(reward)
            state, objective = following, details["objective"]
        returns = np.cumsum(rewards[::-1])[::-1]
        baseline = self._baselines.get(id(environment))
        self._baselines[id(environment)] = returns if baseline is None else _KEPT * baseline + (1 - _KEPT) * returns
        if baseline is not None:
            self._learn(np.array(states), np.array(actions), returns - baseline)
        return float(objective)

    def _learn(self, states: Any, actions: Any, advantages: Any) -> None:
        scaled = tf.constant(advantages / max(float(advantages.std()), 1e-6), tf.float32)
        variables = self.policy.network.trainable_variables
        with tf.GradientTape() as tape:
            distances = (tf.constant(actions, tf.float32) - self.policy.actions(states.astype(np.float32))) / _NOISE
            loss = 0.5 * tf.reduce_mean(scaled * tf.reduce_sum(tf.square(distances), axis=-1))
        self._optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
