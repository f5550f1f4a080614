from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.layers.probes import GATED, PAIR, PRIORS, TASKS, dense, forward, matrices, randomize, sigmoid
from tfmtl._keras import tf
from tfmtl.layers import PEPNet


def gate(inputs: np.ndarray, values: dict[str, np.ndarray], name: str, place: int = 0) -> np.ndarray:
    hidden = np.maximum(dense(inputs, values, f"{name}/hidden", place), 0)
    return 2 * sigmoid(dense(hidden, values, f"{name}/out", place))


def test_it_is_its_definition() -> None:
    layer = PEPNet(TASKS, **GATED, units=[4, 3], gate_units=2, activation="tanh")
    values = randomize(layer, PRIORS)
    found = layer(PRIORS)
    assert list(found) == TASKS
    gated = PAIR * gate(np.concatenate([PRIORS["domain"], PAIR], 1), values, "domain_gate/gate")
    context = np.concatenate([PRIORS["personal"], gated], 1)
    for k, task in enumerate(TASKS):
        hidden = gated
        for level in (0, 1):
            factors = gate(context, values, f"tower_gate_{level}", k)
            hidden = np.tanh(dense(hidden * factors, values, f"tower_{level}", k))
        np.testing.assert_allclose(found[task], hidden, rtol=1e-3, atol=1e-5)


def test_gates_are_constants_to_what_they_gate() -> None:
    layer = PEPNet(TASKS, **GATED, units=[4], activation="tanh")
    values = randomize(layer, PRIORS)
    tape, losses, marks = forward(layer, PRIORS)
    gated, prior = marks.trunk
    factors = gate(np.concatenate([prior, gated], 1), values, "tower_gate_0", 1)
    with tf.GradientTape() as plain:
        plain.watch(gated)
        kernel = matrices(values["tower_0/expert_kernel_0"], 4)[1]
        hidden = (gated * factors) @ kernel + values["tower_0/expert_bias_0"][1]
        loss = tf.reduce_sum((tf.tanh(hidden) - 1.0) ** 2)
    np.testing.assert_allclose(tape.gradient(losses["b"], gated), plain.gradient(loss, gated), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("prior", ["domain", "personal"])
def test_priors_are_trained_through_the_gates(prior: str) -> None:
    layer = PEPNet(TASKS, **GATED, units=[4], activation="tanh")
    randomize(layer, PRIORS)
    inputs = {name: tf.constant(value) for name, value in PRIORS.items()}
    tape, losses, _ = forward(layer, inputs, list(inputs.values()))
    for loss in losses.values():
        assert np.abs(tape.gradient(loss, inputs[prior])).max() > 1e-3


@pytest.mark.parametrize(("name", "task"), [("tower_1", "b"), ("tower_gate_0/hidden", "b"), ("tower_gate_1/out", "c")])
def test_towers_and_their_gates_serve_one_task(name: str, task: str) -> None:
    layer = PEPNet(TASKS, **GATED, units=[4, 3], activation="tanh")
    randomize(layer, PRIORS)
    before = layer(PRIORS)
    (bias,) = [v for v in layer.trainable_weights if f"{name}/expert_bias" in v.name]
    bias[TASKS.index(task)].assign(bias[TASKS.index(task)] + 1.0)
    changed = {key for key, output in layer(PRIORS).items() if np.abs(output - before[key]).max() > 1e-6}
    assert changed == {task}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"domain": []}, "`domain` must name one or more distinct features. Received: domain=[]."),
        ({"domain": "page"}, "`domain` must name one or more distinct features. Received: domain='page'."),
        (
            {"personal": ["u", "u"]},
            "`personal` must name one or more distinct features. Received: personal=['u', 'u'].",
        ),
        ({"gate_units": 0}, "`gate_units` must be a positive integer. Received: gate_units=0."),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        PEPNet(TASKS, **{**GATED, **arguments})
