"""Values of the trunks against plain numpy, and properties of every trunk."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tfmtl._keras import keras, tf
from tfmtl.layers import MMoE, MultiTaskLayer, SharedBottom

TASKS = ["a", "b"]
INPUTS = np.random.default_rng(3).normal(size=(6, 5)).astype(np.float32)
Make = Callable[..., MultiTaskLayer]


@pytest.fixture(params=[SharedBottom, MMoE])
def make(request: pytest.FixtureRequest) -> Make:
    return lambda **arguments: request.param(TASKS, **arguments)  # type: ignore[no-any-return]


def randomize(layer: MultiTaskLayer) -> None:
    """Set every weight, also biases, to distinct values."""
    layer.build(INPUTS.shape)
    layer(INPUTS)
    rng = np.random.default_rng(4)
    layer.set_weights([rng.normal(size=w.shape) if w.dtype == np.float32 else w for w in layer.get_weights()])


def by_name(layer: MultiTaskLayer) -> dict[str, np.ndarray]:
    return {variable.name.split("/")[-1].split(":")[0]: variable.numpy() for variable in layer.trainable_weights}


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def test_shared_bottom_is_its_definition() -> None:
    layer = SharedBottom(TASKS, units=[4, 3], activation="tanh")
    randomize(layer)
    first, first_bias, second, second_bias = (v.numpy() for v in layer.trainable_weights)
    expected = np.tanh(np.tanh(INPUTS @ first + first_bias) @ second + second_bias)
    found = layer(INPUTS)
    assert list(found) == TASKS
    for task in TASKS:
        np.testing.assert_allclose(found[task], expected, rtol=1e-5)


def test_mmoe_is_its_definition() -> None:
    layer = MMoE(TASKS, num_experts=3, units=[4, 2], activation="tanh")
    randomize(layer)
    values = by_name(layer)
    kernels = [np.split(values["expert_kernel_0"], 3, axis=1), values["expert_kernel_1"]]
    biases = [values[f"expert_bias_{level}"] for level in (0, 1)]
    experts = [np.tanh(np.tanh(INPUTS @ kernels[0][e] + biases[0][e]) @ kernels[1][e] + biases[1][e]) for e in range(3)]
    found = layer(INPUTS)
    for position, task in enumerate(TASKS):
        gate = softmax(INPUTS @ values["gate"][:, 3 * position : 3 * position + 3])
        expected = sum(gate[:, e : e + 1] * experts[e] for e in range(3))
        np.testing.assert_allclose(found[task], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(layer.gates(INPUTS)[:, position], gate, rtol=1e-4)


@pytest.mark.parametrize(
    "initializer", ["glorot_uniform", keras.initializers.HeNormal(seed=7)], ids=["named", "seeded"]
)
@pytest.mark.parametrize("clone", [False, True], ids=["original", "clone"])
def test_experts_and_gates_are_distinct_at_the_start(initializer: Any, clone: bool) -> None:
    layer = MMoE(TASKS, num_experts=3, units=[5, 5], kernel_initializer=initializer)
    if clone:
        layer = MMoE.from_config(layer.get_config())
    layer(INPUTS)
    values = by_name(layer)
    experts = [*np.split(values["expert_kernel_0"], 3, axis=1), *values["expert_kernel_1"]]
    for left, right in itertools.combinations(experts, 2):
        assert np.abs(left - right).max() > 0.1
    gates = layer.gates(INPUTS).numpy()
    assert np.abs(gates[:, 0] - gates[:, 1]).max() > 0.01


def test_an_expert_is_initialized_like_a_matrix_of_its_own() -> None:
    layer = MMoE(TASKS, num_experts=50, units=[40], kernel_initializer="glorot_uniform")
    layer(np.zeros([1, 20], np.float32))
    kernel = layer.trainable_weights[0].numpy()
    limit = np.sqrt(6 / (20 + 40))  # Glorot's bound for 20 x 40, for any number of experts
    assert 0.99 * limit < np.abs(kernel).max() <= limit


def test_the_seed_decides_the_initial_values(make: Make) -> None:
    def first(seed: int) -> list[np.ndarray]:
        layer = make(units=[4], seed=seed)
        layer(INPUTS)
        return [v.numpy() for v in layer.trainable_weights if "kernel" in v.name or "gate" in v.name]

    for same, again, other in zip(first(1), first(1), first(2), strict=True):
        np.testing.assert_array_equal(same, again)
        assert np.abs(same - other).max() > 0.01


def test_shared_variables_are_what_every_task_reaches(make: Make) -> None:
    layer = make(units=[4, 3])
    randomize(layer)
    reached = []
    for task in TASKS:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(INPUTS)[task] ** 2)
        gradients = tape.gradient(total, layer.trainable_weights)
        reached.append(
            {v.ref() for v, g in zip(layer.trainable_weights, gradients, strict=True) if np.abs(g).max() > 0}
        )
    shared = {variable.ref() for variable in layer.shared_variables}
    assert shared
    assert shared <= set.intersection(*reached)
    assert all("gate" in ref.deref().name for ref in set.union(*reached) - shared)


def test_prunable_weights_are_the_kernels(make: Make) -> None:
    layer = make(units=[4, 3])
    layer(INPUTS)
    names = [variable.name for variable in layer.get_prunable_weights()]
    assert len(names) == 2
    assert all("kernel" in name for name in names)


def test_dropout_acts_in_training_only(make: Make) -> None:
    layer = make(units=[64], activation="linear", dropout=0.5)
    randomize(layer)
    plain = layer(INPUTS)["a"].numpy()
    np.testing.assert_array_equal(layer(INPUTS, training=False)["a"], plain)
    assert np.abs(layer(INPUTS, training=True)["a"] - plain).max() > 0.1


def test_regularizer_is_that_of_the_kernels(make: Make) -> None:
    layer = make(units=[4], kernel_regularizer=keras.regularizers.L2(0.5))
    randomize(layer)
    kernel = layer.get_prunable_weights()[0].numpy()
    assert float(tf.add_n(layer.losses)) == pytest.approx(0.5 * np.sum(kernel**2), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"task_names": []}, "`task_names` must be one or more distinct, non-empty names. Received: task_names=[]."),
        ({"task_names": ["a", "a"]}, "`task_names` must be one or more distinct"),
        ({"task_names": [""]}, "`task_names` must be one or more distinct"),
        ({"units": []}, "`units` must name at least one width. Received: units=[]."),
        ({"units": [4, 0]}, "`units` must be a positive integer. Received: units=0."),
        ({"dropout": 1.0}, "`dropout` must be a number in [0, 1). Received: dropout=1.0."),
    ],
)
@pytest.mark.parametrize("kind", [SharedBottom, MMoE])
def test_bad_argument_is_named(kind: Any, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        kind(**{"task_names": TASKS, **arguments})


def test_number_of_experts_is_checked() -> None:
    with pytest.raises(
        ValueError, match=re.escape("`num_experts` must be a positive integer. Received: num_experts=0.")
    ):
        MMoE(TASKS, num_experts=0)
