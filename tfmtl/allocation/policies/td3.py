"""Twin delayed deep deterministic policy gradients for weights of tasks."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._keras import keras, tf
from tfmtl.allocation.policies.environment import WeightEnvironment
from tfmtl.allocation.policies.replay import Replay
from tfmtl.allocation.policies.weight_policy import LARGEST_ACTION, Critic, WeightPolicy

_DISCOUNT, _MOVE = 0.98, 0.02
_NOISE, _SMOOTHING, _SMOOTHING_LIMIT = 0.6, 0.2, 0.5
_BATCH, _FEWEST, _UPDATES_PER_STEP, _DELAY = 64, 16, 10, 2
_ACTOR_RATE, _CRITIC_RATE = 1e-3, 3e-3


class TD3:
    """Learns a policy off-policy, by an actor, two critics and a replay of all episodes.

    y = r + 0.98 (1 - ended) min(Q'_1, Q'_2)(s', clip(pi'(s') + noise)); the critics minimize (Q - y)^2, the actor every
    second time maximizes Q_1(s, pi(s)); pi' and Q' follow by 0.02. Explores with normal noise of 0.6. Rewards are
    divided by their standard deviation among all transitions with the same number of tasks.

    Args:
        policy: the policy to start from, which learns.
        seed: seed of the critics, the noise and the draws.

    Reference: Fujimoto, van Hoof, Meger, "Addressing Function Approximation Error in Actor-Critic Methods", ICML 2018,
        https://arxiv.org/abs/1802.09477, algorithm 1. The actor and the critics are shared by the tasks.
    """

    def __init__(self, policy: WeightPolicy, seed: int = 0) -> None:
        self.policy, self._target = policy, policy.copy()
        self._critics = [Critic(seed=seed + i) for i in (1, 2)]
        self._target_critics = [Critic(seed=seed + i) for i in (1, 2)]
        self._actor_optimizer = keras.optimizers.Adam(_ACTOR_RATE)
        self._critic_optimizer = keras.optimizers.Adam(_CRITIC_RATE)
        self._actor_optimizer.build(policy.network.trainable_variables)
        self._critic_optimizer.build(self._critic_variables)
        self._rng = np.random.default_rng(seed)
        self._replay, self._updates = Replay(), 0
        self._learn_critics = tf.function(self._critic_step, reduce_retracing=True)
        self._learn_actor = tf.function(self._actor_step, reduce_retracing=True)

    @property
    def _critic_variables(self) -> list[tf.Variable]:
        return [v for critic in self._critics for v in critic.network.trainable_variables]

    def run_episode(self, environment: WeightEnvironment, seed: int) -> float:
        """Train a model once with exploration, learn after each action, and return the objective at the end."""
        state, _ = environment.reset(seed=seed)
        objective, ended = 0.0, False
        while not ended:
            action = self.policy.actions(state.astype(np.float32)).numpy()
            action = np.clip(action + _NOISE * self._rng.normal(size=action.shape), -LARGEST_ACTION, LARGEST_ACTION)
            following, reward, ended, _, details = environment.step(action)
            self._replay.add(state, action, reward, following, ended)
            state, objective = following, details["objective"]
            self._learn()
        return float(objective)

    def _learn(self) -> None:
        if len(self._replay) < _FEWEST:
            return
        for _ in range(_UPDATES_PER_STEP):
            drawn = self._replay.draw(_BATCH, self._rng)
            scale = self._replay.deviation(drawn.actions.shape[1])
            noise = _SMOOTHING * self._rng.normal(size=drawn.actions.shape)
            noise = np.clip(noise, -_SMOOTHING_LIMIT, _SMOOTHING_LIMIT)
            self._learn_critics(*map(tf.constant, drawn._replace(rewards=drawn.rewards / scale)),
                                tf.constant(noise, tf.float32))  # fmt: skip
            self._updates += 1
            if self._updates % _DELAY == 0:
                self._learn_actor(tf.constant(drawn.states))

    def _critic_step(self, states: Any, actions: Any, rewards: Any, following: Any, ended: Any, noise: Any) -> None:
        ahead = tf.clip_by_value(self._target.actions(following) + noise, -LARGEST_ACTION, LARGEST_ACTION)
        values = [critic.values(following, ahead) for critic in self._target_critics]
        target = rewards + _DISCOUNT * (1.0 - ended) * tf.minimum(*values)
        with tf.GradientTape() as tape:
            errors = [tf.square(critic.values(states, actions) - target) for critic in self._critics]
            loss = tf.reduce_mean(tf.add_n(errors))
        variables = self._critic_variables
        self._critic_optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    def _actor_step(self, states: Any) -> None:
        variables = self.policy.network.trainable_variables
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self._critics[0].values(states, self.policy.actions(states)))
        self._actor_optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        targets = [self._target.network, *(critic.network for critic in self._target_critics)]
        sources = [self.policy.network, *(critic.network for critic in self._critics)]
        for target, source in zip(targets, sources, strict=True):
            for one, other in zip(target.variables, source.variables, strict=True):
                one.assign_add(_MOVE * (other - one))
