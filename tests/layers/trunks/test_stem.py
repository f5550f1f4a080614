from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from tests.layers.probes import BY_TASK, TASKS, dense, forward, randomize, softmax
from tfmtl._keras import tf
from tfmtl.layers import STEM

SMALL: dict[str, Any] = {"units": [4, 3], "activation": "tanh", "num_shared_experts": 2, "num_task_experts": 2}


def experts(values: dict[str, np.ndarray], group: str, inputs: np.ndarray, places: range) -> list[np.ndarray]:
    """Return the outputs of some experts of a group."""
    return [
        np.tanh(dense(np.tanh(dense(inputs, values, group, e)), values, group, e, level=1)) for e in places
    ]  # fmt: skip


def test_it_is_its_definition() -> None:
    layer = STEM(TASKS, **SMALL)
    values = randomize(layer, BY_TASK)
    found, gates = layer(BY_TASK), layer.gate_weights(BY_TASK)["experts"]
    every = experts(values, "shared_experts", BY_TASK["shared"], range(2))
    for j, task in enumerate(TASKS):
        every += experts(values, "task_experts", BY_TASK[task], range(2 * j, 2 * j + 2))
    assert list(found) == TASKS
    for k, task in enumerate(TASKS):
        both = np.concatenate([BY_TASK["shared"], BY_TASK[task]], 1)
        gate = softmax(both @ values["gates/gate"][:, 8 * k : 8 * k + 8])
        np.testing.assert_allclose(gates[:, k], gate, rtol=1e-3, atol=1e-6)
        expected = sum(gate[:, e : e + 1] * every[e] for e in range(8))
        np.testing.assert_allclose(found[task], expected, rtol=1e-3, atol=1e-5)


def test_a_task_trains_the_shared_tables_and_its_own() -> None:
    layer = STEM(TASKS, **SMALL)
    randomize(layer, BY_TASK)
    inputs = {name: tf.constant(value) for name, value in BY_TASK.items()}
    tape, losses, _ = forward(layer, inputs, list(inputs.values()))
    reached = {
        task: {name for name, value in inputs.items() if np.any(tape.gradient(loss, value) != 0)}
        for task, loss in losses.items()
    }
    assert reached == {task: {"shared", task} for task in TASKS}
    assert {task: set(layer.reached_inputs(task, inputs)) for task in TASKS} == reached


def test_a_task_reads_what_it_does_not_train() -> None:
    layer = STEM(TASKS, **SMALL)
    randomize(layer, BY_TASK)
    before = layer(BY_TASK)
    for changed in BY_TASK:
        for task, output in layer({**BY_TASK, changed: -BY_TASK[changed]}).items():
            assert np.abs(output - before[task]).max() > 1e-3, (changed, task)


def test_own_experts_are_trained_as_if_the_others_were_constants() -> None:
    layer = STEM(TASKS, **SMALL)
    values = randomize(layer, BY_TASK)
    tape, losses, _ = forward(layer, BY_TASK)
    bias = layer._own.trainable_weights[-1]
    gates = layer.gate_weights(BY_TASK)["experts"].numpy()
    outputs = {task: output.numpy() for task, output in layer(BY_TASK).items()}
    for k, task in enumerate(TASKS):
        gradient = tape.gradient(losses[task], bias).numpy()
        for e in range(6):
            hidden = experts(values, "task_experts", BY_TASK[TASKS[e // 2]], range(e, e + 1))[0]
            expected = 2 * (outputs[task] - k) * gates[:, k, 2 + e, np.newaxis] * (1 - hidden**2)
            expected = expected.sum(0) if e // 2 == k else 0.0
            np.testing.assert_allclose(gradient[e], expected, rtol=1e-3, atol=1e-4)


def test_gates_learn_from_stopped_experts_too() -> None:
    layer = STEM(TASKS, **SMALL)
    randomize(layer, BY_TASK)
    tape, losses, _ = forward(layer, BY_TASK)
    gradient = tape.gradient(losses["b"], layer._gate.trainable_weights[0]).numpy()
    per_expert = np.abs(gradient).max(axis=0).reshape(3, 8)
    assert (per_expert[1] > 1e-6).all()
    assert (per_expert[[0, 2]] == 0).all()


def test_gates_start_distinct_and_sum_to_one() -> None:
    gates = STEM(TASKS, **SMALL).gate_weights(dict.fromkeys(BY_TASK, BY_TASK["a"]))["experts"].numpy()
    assert gates.shape == (6, 3, 8)
    np.testing.assert_allclose(gates.sum(2), 1, rtol=1e-5)
    for left, right in itertools.combinations(range(3), 2):
        assert np.abs(gates[:, left] - gates[:, right]).max() > 0.01


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_shared_experts": 0}, "`num_shared_experts` must be a positive integer. Received: num_shared_experts=0."),
        ({"num_task_experts": 0}, "`num_task_experts` must be a positive integer. Received: num_task_experts=0."),
        (
            {"task_names": ["shared", "a"]},
            "No task of a STEM may be called 'shared'. Received: task_names=['shared', 'a'].",
        ),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        STEM(**{"task_names": TASKS, **arguments})
