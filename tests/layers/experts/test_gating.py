"""The softmax gate against plain numpy, its limits, its mask and its dropout."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.layers.expert_trunks import INPUTS, TASKS, expert, randomize, softmax
from tfmtl._keras import keras, tf
from tfmtl.layers import MMoE, OMoE, SoftmaxGate

READABLE = [[True, False, True, False], [False, True, False, False], [True, True, True, True]]
MANY = np.random.default_rng(5).normal(size=(2000, 5)).astype(np.float32)


def logits_of(values: dict[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """Return [B, 3, 4] for inputs [B, 5] or [B, 3, 5]."""
    of_gates = np.moveaxis(inputs, 1, 0) if inputs.ndim == 3 else [inputs] * 3
    return np.stack([x @ values["gate"][:, 4 * g : 4 * g + 4] for g, x in enumerate(of_gates)], axis=1)


@pytest.mark.parametrize("inputs", [INPUTS, np.stack([INPUTS, -INPUTS, INPUTS**2], axis=1)], ids=["one", "one-a-gate"])
def test_a_gate_is_the_softmax_of_its_logits(inputs: np.ndarray) -> None:
    layer = SoftmaxGate(3, 4, temperature=2.5)
    logits = logits_of(randomize(layer, inputs), inputs)
    np.testing.assert_allclose(layer(inputs), softmax(logits / 2.5), rtol=1e-4, atol=1e-6)


def test_what_a_reader_may_not_read_weighs_nothing() -> None:
    layer = SoftmaxGate(3, 4, READABLE)
    powers = np.exp(logits_of(randomize(layer), INPUTS)) * np.array(READABLE)
    with tf.GradientTape() as tape:
        found = layer(INPUTS)
        total = tf.reduce_sum(found**2)
    np.testing.assert_allclose(found, powers / powers.sum(2, keepdims=True), rtol=1e-4, atol=1e-7)
    assert (found.numpy()[:, ~np.array(READABLE)] == 0).all()
    gradient = tape.gradient(total, layer.trainable_weights[0]).numpy().reshape([5, 3, 4])
    assert (gradient[:, ~np.array(READABLE)] == 0).all()
    assert (gradient[:, 0, [0, 2]] != 0).all()


def test_a_high_temperature_is_uniform_and_a_low_one_the_best_expert() -> None:
    for readable, mask in ((None, np.ones([3, 4])), (READABLE, np.array(READABLE, float))):
        high, low = (SoftmaxGate(3, 4, readable, temperature) for temperature in (1e6, 1e-6))
        np.testing.assert_allclose(high(INPUTS), [mask / mask.sum(1, keepdims=True)] * 6, atol=1e-4)
        logits = np.where(mask > 0, logits_of(randomize(low), INPUTS), -np.inf)
        np.testing.assert_allclose(low(INPUTS), np.eye(4)[logits.argmax(2)], atol=1e-6)


def test_expert_dropout_acts_in_training_only() -> None:
    layer = SoftmaxGate(3, 4, expert_dropout=0.5)
    plain = SoftmaxGate(3, 4)
    plain(INPUTS)
    plain.set_weights([randomize(layer)["gate"]])
    for training in (False, None):
        np.testing.assert_array_equal(layer(INPUTS, training=training), plain(INPUTS))
    assert (layer(INPUTS, training=True).numpy() == 0).any()


def test_expert_dropout_drops_at_its_rate_and_scales_the_others_alike() -> None:
    rate = 0.3
    layer = SoftmaxGate(3, 4, expert_dropout=rate)
    logits = logits_of(randomize(layer), MANY)
    layer.trainable_weights[0].assign(0.3 * layer.trainable_weights[0])
    found = layer(MANY, training=True).numpy()
    dropped = found == 0
    assert (dropped == dropped[:, :1]).all()  # an expert is dropped for all readers of a row
    assert abs(dropped.mean() - (rate - rate**4)) < 0.02  # rows that would lose all four experts keep them
    kept = softmax(np.where(dropped, -np.inf, 0.3 * logits))
    np.testing.assert_allclose(found, kept, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.sum(2), 1.0, rtol=1e-5)


def test_a_row_that_would_lose_all_a_reader_may_read_keeps_it() -> None:
    layer = SoftmaxGate(3, 4, READABLE, expert_dropout=0.9)
    randomize(layer)
    plain, found = layer(MANY).numpy(), layer(MANY, training=True).numpy()
    np.testing.assert_allclose(found.sum(2), 1.0, rtol=1e-5)
    assert (found[:, ~np.array(READABLE)] == 0).all()
    np.testing.assert_allclose(found[:, 1, 1], 1.0)  # this reader has one expert only
    whole = (np.abs(found - plain).max(2) < 1e-6)[:, [0, 2]].mean(0)
    expected = [0.1**2 + 0.9**2, 0.1**4 + 0.9**4]  # no expert dropped, or all
    np.testing.assert_allclose(whole, expected, atol=0.05)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_extreme_logits_under_dropout_keep_values_and_gradients_finite(policy: str) -> None:
    """The remaining experts may weigh 1e-30 of the dropped ones: their softmax is recomputed, not divided."""
    layer = SoftmaxGate(1, 3, expert_dropout=0.5, dtype=keras.mixed_precision.Policy(policy))
    inputs = tf.ones([500, 1])
    layer(inputs)
    layer.trainable_weights[0].assign([[60.0, -60.0, -61.0]])
    with tf.GradientTape() as tape:
        found = layer(inputs, training=True)
        total = tf.reduce_sum(tf.cast(found, tf.float32) * [1.0, 2.0, 3.0])
    assert np.isfinite(tape.gradient(total, layer.trainable_weights[0])).all()
    np.testing.assert_allclose(tf.reduce_sum(tf.cast(found, tf.float32), axis=2), 1.0, rtol=2e-3)
    first_lost = found.numpy()[(found.numpy()[:, 0, 0] == 0) & (found.numpy()[:, 0, 1:] > 0).all(1)]
    assert len(first_lost) > 20
    np.testing.assert_allclose(first_lost[:, 0, 1], 1 / (1 + np.exp(-1)), rtol=2e-3)


def test_omoe_has_one_gate_for_all_tasks() -> None:
    layer = OMoE(TASKS, num_experts=3, units=[4], activation="tanh")
    values = randomize(layer)
    weights = softmax(INPUTS @ values["gate"])
    of_experts = {f"own/{name}": value for name, value in values.items()}
    expected = sum(weights[:, e : e + 1] * expert(of_experts, "own", e, INPUTS) for e in range(3))
    assert values["gate"].shape == (5, 3)
    for found in layer(INPUTS).values():
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.gate_weights(INPUTS)["experts"], np.stack([weights] * 3, axis=1), rtol=1e-4)
    assert {v.ref() for v in layer.shared_variables} == {v.ref() for v in layer.trainable_weights}


def test_experts_and_gates_drop_by_draws_of_their_own() -> None:
    """With equal seeds, an expert would be dropped from the rows in which the first units are dropped."""
    layer = MMoE(TASKS, num_experts=4, units=[3], activation="linear", dropout=0.5, expert_dropout=0.5)
    layer(MANY)
    units = layer._experts(MANY, training=True).numpy().ravel()[:8000] == 0
    experts = layer.gates(MANY, training=True).numpy()[:, 0].ravel() == 0
    assert abs(np.corrcoef(units, experts)[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_gates": 0}, "`num_gates` must be a positive integer. Received: num_gates=0."),
        ({"num_experts": -1}, "`num_experts` must be a positive integer. Received: num_experts=-1."),
        ({"temperature": 0.0}, "`temperature` must be above 0. Received: temperature=0.0."),
        ({"expert_dropout": 1.0}, "`expert_dropout` must be a number in [0, 1). Received: expert_dropout=1.0."),
        (
            {"readable": [[True, False, True]]},
            "`readable` must be 2 rows of 3 truth values, each with one that is true. "
            "Received: readable=[[True, False, True]].",
        ),
        ({"readable": [[True] * 3, [False] * 3]}, "`readable` must be 2 rows of 3 truth values"),
        ({"readable": [[True] * 3, [True] * 2]}, "`readable` must be 2 rows of 3 truth values"),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        SoftmaxGate(**{"num_gates": 2, "num_experts": 3, **arguments})
