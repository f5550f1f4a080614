"""Helpers of the tests of trunks: weights by name, tasks per variable, marks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.layers import MTAN, STEM, CrossStitch, LearningToBranch, MultiTaskLayer, PEPNet
from tfmtl.layers.marks import Marks, marking

TASKS = ["a", "b", "c"]
ROWS = 6
_RNG = np.random.default_rng(3)
PAIR = _RNG.normal(size=(ROWS, 5)).astype(np.float32)
BY_TASK = {"shared": PAIR, **{task: _RNG.normal(size=(ROWS, 4)).astype(np.float32) for task in TASKS}}
PRIORS = {
    "pair": PAIR,
    "domain": _RNG.normal(size=(ROWS, 2)).astype(np.float32),
    "personal": _RNG.normal(size=(ROWS, 3)).astype(np.float32),
}
GATED = {"domain": ["page"], "personal": ["user", "item"]}

Make = Callable[..., MultiTaskLayer]
TRUNKS: dict[str, tuple[Make, Any]] = {
    "CrossStitch": (lambda **given: CrossStitch(TASKS, **given), PAIR),
    "LearningToBranch": (lambda **given: LearningToBranch(TASKS, **given), PAIR),
    "MTAN": (lambda **given: MTAN(TASKS, **given), PAIR),
    "PEPNet": (lambda **given: PEPNet(TASKS, **{**GATED, **given}), PRIORS),
    "STEM": (lambda **given: STEM(TASKS, **given), BY_TASK),
}
"""How to make each trunk of levels of dense layers, and inputs for it."""


def randomize(layer: Any, inputs: Any) -> dict[str, np.ndarray]:
    """Set every weight, also biases, to distinct values, and return them by their names within the layer."""
    layer(inputs)
    rng = np.random.default_rng(4)
    for variable in layer.trainable_weights:
        variable.assign(rng.normal(size=variable.shape))
    return {name_in(layer, variable): variable.numpy() for variable in layer.trainable_weights}


def name_in(layer: Any, variable: tf.Variable) -> str:
    return str(variable.name).removeprefix(f"{layer.name}/").split(":")[0]


def dense(inputs: np.ndarray, values: dict[str, np.ndarray], name: str, expert: int = 0, level: int = 0) -> np.ndarray:
    """Return the output of an expert's dense layer before its activation."""
    kernel, bias = values[f"{name}/expert_kernel_{level}"], values[f"{name}/expert_bias_{level}"][expert]
    return inputs @ matrices(kernel, len(bias))[expert] + bias


def matrices(kernel: np.ndarray, columns: int) -> list[np.ndarray]:
    """Return the experts' matrices in a kernel [rows, experts * columns] or [groups, rows, experts * columns]."""
    groups = kernel.reshape(-1, *kernel.shape[-2:])
    return [group[:, i : i + columns] for group in groups for i in range(0, group.shape[1], columns)]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def losses_of(outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return one loss per task, each with another gradient."""
    return {task: tf.reduce_sum((output - i) ** 2) for i, (task, output) in enumerate(outputs.items())}


def forward(layer: Any, inputs: Any, watched: Any = ()) -> tuple[tf.GradientTape, dict[str, tf.Tensor], Marks]:
    """Run a training pass, and return its tape, the tasks' losses and the marks."""
    with marking() as marks, tf.GradientTape(persistent=True) as tape:
        tape.watch(watched)
        losses = losses_of(layer(inputs, training=True))
    return tape, losses, marks


def number_of_tasks(layer: Any, inputs: Any) -> dict[str, int]:
    """Return for each variable the largest number of tasks with a gradient for the same element of it."""
    tape, losses, _ = forward(layer, inputs)
    found = {}
    for variable in layer.trainable_weights:
        gradients = [tape.gradient(loss, variable) for loss in losses.values()]
        reached = [np.zeros(variable.shape) if g is None else np.abs(g) > 1e-12 for g in gradients]
        found[name_in(layer, variable)] = int(sum(r.astype(int) for r in reached).max())
    return found
