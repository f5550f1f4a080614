"""One batched product for all experts against one dense layer per expert: time of a forward and backward pass.

    python benchmarks/experts.py

Gradients are taken with respect to all variables and the input, which comes from embeddings. Each side is one graph,
and the sides run in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from paired import spread

from tfmtl import keras, layers

INPUT_WIDTH = 150


def experts_against_dense(rounds: int = 15) -> Iterator[str]:
    """Yield the time of a pass over a trunk, relative to one with a dense layer for each expert and gate."""
    yield "| trunk | tasks | experts | units | batch | batched / separate |"
    yield "|---|---|---|---|---|---|"
    for tasks, experts, units, batch in ((2, 8, 16, 1024), (2, 8, 16, 4096), (8, 8, 16, 1024), (4, 16, 8, 1024)):
        names = [f"t{i}" for i in range(tasks)]
        sides = (layers.MMoE(names, experts, [units]), SeparateMixture(tasks, experts, units))
        yield f"| MMoE | {tasks} | {experts} | {units} | {batch} | {_compared(*sides, batch, rounds)} |"
    for tasks, own, units, batch in ((2, 2, 16, 1024), (2, 2, 16, 4096), (8, 2, 16, 1024)):
        names = [f"t{i}" for i in range(tasks)]
        trunk = layers.PLE(names, num_task_experts=own, num_shared_experts=4, num_levels=2, units=[units])
        ratio = _compared(trunk, SeparateLevels(tasks, own, 4, units), batch, rounds)
        yield f"| PLE | {tasks} | {own} per task + 4 | {units} | {batch} | {ratio} |"


class SeparateMixture(keras.layers.Layer):
    """MMoE made of dense layers of Keras."""

    def __init__(self, tasks: int, experts: int, units: int) -> None:
        super().__init__()
        self.experts = [keras.layers.Dense(units, "relu") for _ in range(experts)]
        self.gates = [keras.layers.Dense(experts, "softmax", use_bias=False) for _ in range(tasks)]

    def call(self, inputs: tf.Tensor) -> list[tf.Tensor]:
        """Return the tasks' mixtures [B, units]."""
        hidden = tf.stack([expert(inputs) for expert in self.experts], axis=1)
        return [_mixed(gate(inputs), hidden) for gate in self.gates]


class SeparateLevels(keras.layers.Layer):
    """Two levels of PLE made of dense layers of Keras."""

    def __init__(self, tasks: int, own: int, shared: int, units: int) -> None:
        super().__init__()
        levels, count = range(2), tasks * own + shared
        self.own = [[[keras.layers.Dense(units, "relu") for _ in range(own)] for _ in range(tasks)] for _ in levels]
        self.shared = [[keras.layers.Dense(units, "relu") for _ in range(shared)] for _ in levels]
        self.gates = [[_gate(own + shared) for _ in range(tasks)] for _ in levels]
        self.shared_gate = _gate(count)

    def call(self, inputs: tf.Tensor) -> list[tf.Tensor]:
        """Return the tasks' representations [B, units]."""
        tasks, shared = [inputs] * len(self.gates[0]), inputs
        for level in range(2):
            own = [[e(x) for e in experts] for experts, x in zip(self.own[level], tasks, strict=True)]
            common = [expert(shared) for expert in self.shared[level]]
            if level == 0:
                shared = _mixed(self.shared_gate(shared), tf.stack([*(e for group in own for e in group), *common], 1))
            tasks = [
                _mixed(gate(x), tf.stack([*mine, *common], axis=1))
                for gate, x, mine in zip(self.gates[level], tasks, own, strict=True)
            ]
        return tasks


def _gate(experts: int) -> keras.layers.Layer:
    return keras.layers.Dense(experts, "softmax", use_bias=False)


def _mixed(weights: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(weights[:, :, tf.newaxis] * hidden, axis=1)


def _compared(batched: keras.layers.Layer, separate: keras.layers.Layer, batch: int, rounds: int) -> str:
    """Return the median and the quartiles of the ratios of batched to separate time."""
    inputs = tf.random.stateless_normal([batch, INPUT_WIDTH], [0, 1])
    steps = [_step(lambda x: list(batched(x).values()), batched, inputs), _step(separate, separate, inputs)]
    ratios = []
    for _ in range(rounds):
        ours, theirs = (_seconds(step) for step in steps)
        ratios.append(ours / theirs)
    return spread(ratios, half=True)


def _step(call: Callable[[tf.Tensor], Sequence[tf.Tensor]], layer: Any, inputs: tf.Tensor) -> Callable[[], Any]:
    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.add_n([tf.reduce_sum(tf.square(output)) for output in call(inputs)])
        return tape.gradient(loss, [inputs, *layer.trainable_variables])

    call(inputs)
    step()
    return step


def _seconds(step: Callable[[], Any], repeats: int = 30) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        step()
    return time.perf_counter() - begin


if __name__ == "__main__":
    for line in experts_against_dense():
        print(line, flush=True)
