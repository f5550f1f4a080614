"""A policy from the state of a training to weights of its tasks, for any number of tasks."""

from __future__ import annotations

import pathlib
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, spawn, tf
from tfmtl._staging import replace_file
from tfmtl.allocation.affinity import Floats
from tfmtl.allocation.policies.task_state import FEATURES, STATE_VERSION

LARGEST_ACTION = 2.0
"""Largest size of an action: e^2, 7.4, to each side of the plain sum."""


class WeightPolicy:
    """Gives each task a weight by its own state and the mean state of all tasks.

    a_k = 2 tanh(v^T tanh(W [s_k; mean_j s_j] + b)), w = K softmax(a). The tasks share the network, so that a policy
    learned with some tasks serves others. v is 0 at first: the plain sum.

    Args:
        units: size of the hidden layer.
        seed: seed of W.

    Raises:
        ValueError: if `units` is below 1.

    Example:
        >>> policy = WeightPolicy(units=8)
        >>> policy.weights(np.zeros([3, 5])).tolist()
        [1.0, 1.0, 1.0]

    Cost: microseconds for each task.
    """

    def __init__(self, units: int = 16, seed: int = 0) -> None:
        require_positive_int(units=units)
        self.units, self.seed = units, seed
        self.network = _network(units, 2 * len(FEATURES), seed, zero=True)

    def actions(self, states: Any) -> tf.Tensor:
        """Return the actions a [..., K] for states [..., K, 5]."""
        return LARGEST_ACTION * tf.tanh(self.network(with_mean(states))[..., 0])

    def weights(self, state: Floats) -> Floats:
        """Return the weights [K] for a state [K, 5]; they have the mean 1."""
        return weights_of(self.actions(np.asarray(state, np.float32)).numpy())

    def copy(self) -> WeightPolicy:
        """Return a policy of its own with the same values."""
        copied = WeightPolicy(self.units, self.seed)
        copied.network.set_weights(self.network.get_weights())
        return copied

    def save(self, path: str | pathlib.Path) -> None:
        """Write the policy to a file `.npz`; an older file is replaced in one step."""
        values: dict[str, Any] = {f"value_{i}": value for i, value in enumerate(self.network.get_weights())}
        values |= {"state_version": STATE_VERSION, "units": self.units, "seed": self.seed}
        replace_file(pathlib.Path(path), lambda file: np.savez(file, **values))

    @classmethod
    def load(cls, path: str | pathlib.Path) -> WeightPolicy:
        """Return the policy of a file that `save` wrote.

        Raises:
            ValueError: if the file holds no policy, or one of another version of the state.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                found = dict(file)
        except (ValueError, EOFError, zipfile.BadZipFile):
            found = {}
        require("state_version" in found, f"{path} holds no policy.")
        version = int(found["state_version"])
        rule = f"The policy of {path} reads another version of the state; train it again."
        require(version == STATE_VERSION, rule, version=version, expected=STATE_VERSION)
        policy = cls(int(found["units"]), int(found["seed"]))
        policy.network.set_weights([found[f"value_{i}"] for i in range(4)])
        return policy


class Critic:
    """Estimates the value of actions [..., K] in states [..., K, 5] as a mean over the tasks.

    Q = mean_k u^T tanh(W [s_k; mean_j s_j; a_k; mean_j a_j] + b) + c, for any number of tasks.

    Args:
        units: size of the hidden layer.
        seed: seed of the values.
    """

    def __init__(self, units: int = 32, seed: int = 0) -> None:
        self.network = _network(units, 2 * len(FEATURES) + 2, seed, zero=False)

    def values(self, states: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        """Return the values [...]."""
        mean = tf.reduce_mean(actions, axis=-1, keepdims=True) + tf.zeros_like(actions)
        inputs = tf.concat([with_mean(states), actions[..., tf.newaxis], mean[..., tf.newaxis]], axis=-1)
        return tf.reduce_mean(self.network(inputs)[..., 0], axis=-1)


def weights_of(actions: npt.ArrayLike) -> Floats:
    """Return the weights K softmax(a) [K] of actions [K]."""
    actions = np.asarray(actions, np.float64)
    powers = np.exp(actions - actions.max())
    return powers * len(powers) / powers.sum()


def with_mean(states: Any) -> tf.Tensor:
    """Return the state of each task beside the mean of all [..., K, 10]."""
    states = tf.convert_to_tensor(states, tf.float32)
    mean = tf.reduce_mean(states, axis=-2, keepdims=True) + tf.zeros_like(states)
    return tf.concat([states, mean], axis=-1)


def _network(units: int, width: int, seed: int, zero: bool) -> keras.Sequential:
    glorot = keras.initializers.GlorotUniform(seed)
    last = "zeros" if zero else spawn(glorot, 1)
    network = keras.Sequential(
        [
            keras.layers.Dense(units, "tanh", kernel_initializer=glorot, dtype="float32"),
            keras.layers.Dense(1, kernel_initializer=last, dtype="float32"),
        ]
    )
    network.build([None, width])
    return network
