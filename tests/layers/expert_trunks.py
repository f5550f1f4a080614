"""Helpers of the tests of expert trunks: random weights, experts in plain numpy, tasks per variable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfmtl._keras import keras, tf
from tfmtl.layers import MultiTaskLayer

TASKS = ["a", "b", "c"]
INPUTS = np.random.default_rng(3).normal(size=(6, 5)).astype(np.float32)
Values = dict[str, np.ndarray]


def randomize(layer: keras.layers.Layer, inputs: np.ndarray = INPUTS) -> Values:
    """Set every trainable weight, also biases, to distinct values, and return them by name within the layer."""
    layer(inputs)
    rng = np.random.default_rng(4)
    for variable in layer.trainable_weights:
        variable.assign(rng.normal(size=variable.shape))
    return values_of(layer)


def values_of(layer: keras.layers.Layer) -> Values:
    return {v.name.removeprefix(f"{layer.name}/").split(":")[0]: v.numpy() for v in layer.trainable_weights}


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def matrix(kernel: np.ndarray, bias: np.ndarray, index: int) -> np.ndarray:
    """Return one expert's kernel [d, units] out of [d, E * units] or [G, d, E / G * units]; bias [E, units]."""
    groups = kernel.reshape(-1, *kernel.shape[-2:])
    group, place = divmod(index, len(bias) // len(groups))
    return groups[group][:, place * bias.shape[1] : (place + 1) * bias.shape[1]]


def expert_layer(values: Values, name: str, index: int, level: int, x: np.ndarray) -> np.ndarray:
    """Return x W + b of one layer of one expert."""
    kernel, bias = (values[f"{name}/expert_{part}_{level}"] for part in ("kernel", "bias"))
    product: np.ndarray = x @ matrix(kernel, bias, index) + bias[index]
    return product


def expert(
    values: Values, name: str, index: int, x: np.ndarray, act: Callable[[np.ndarray], np.ndarray] = np.tanh
) -> np.ndarray:
    """Return the output [B, units] of one expert for its input [B, d]."""
    for level in range(sum(key.startswith(f"{name}/expert_kernel") for key in values)):
        x = act(expert_layer(values, name, index, level, x))
    return x


def gate(values: Values, name: str, index: int, x: np.ndarray, readable: Any, count: int) -> np.ndarray:
    """Return the weights [B, readable experts] of one of several gates over `count` experts."""
    return softmax(x @ values[f"{name}/gate"][:, index * count : (index + 1) * count][:, readable])


def reach(layer: MultiTaskLayer) -> dict[str, np.ndarray]:
    """Return for each element of each trainable variable the number of tasks with a gradient for it."""
    counts = {v.name: np.zeros(v.shape, int) for v in layer.trainable_weights}
    for task in layer.task_names:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(INPUTS)[task] ** 2)
        gradients = tape.gradient(total, layer.trainable_weights, unconnected_gradients="zero")
        for variable, gradient in zip(layer.trainable_weights, gradients, strict=True):
            counts[variable.name] += np.asarray(gradient) != 0
    return counts
