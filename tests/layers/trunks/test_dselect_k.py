"""DSelect-k: its gate and its trunk against plain numpy."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from tests.layers.expert_trunks import INPUTS, TASKS, expert, randomize, softmax
from tfmtl._keras import tf
from tfmtl.layers import DSelectK, DSelectKGate
from tfmtl.layers.experts.dselect_k_gate import smooth_step

CASES = [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4)]
"""Number of experts and of bits that tell them apart."""


def numpy_step(t: np.ndarray, gamma: float) -> np.ndarray:
    inside = -2 * t**3 / gamma**3 + 3 * t / (2 * gamma) + 0.5
    return np.where(t <= -gamma / 2, 0.0, np.where(t >= gamma / 2, 1.0, inside))


def numpy_selectors(z: np.ndarray, experts: list[int], total: int, gamma: float) -> np.ndarray:
    """Return [..., total] for bits z [..., bits], lowest bit first; code c belongs to experts[c mod len(experts)]."""
    step = numpy_step(z, gamma)
    weights = np.zeros([*z.shape[:-1], total])
    for code, bits in enumerate(itertools.product([0, 1], repeat=z.shape[-1])):
        chance = np.prod([step[..., i] if bit else 1 - step[..., i] for i, bit in enumerate(bits[::-1])], axis=0)
        weights[..., experts[code % len(experts)]] += chance
    return weights


def entropy(chances: np.ndarray) -> np.ndarray:
    return -np.where(chances > 0, chances * np.log(np.where(chances > 0, chances, 1.0)), 0.0)


def test_the_smooth_step_is_its_definition() -> None:
    t = np.linspace(-3, 3, 61).astype(np.float32)
    for gamma in (0.5, 1.0, 4.0):
        np.testing.assert_allclose(smooth_step(tf.constant(t), gamma), numpy_step(t, gamma), atol=1e-6)


@pytest.mark.parametrize(("count", "bits"), CASES)
@pytest.mark.parametrize("per_gate", [False, True], ids=["one-input", "input-a-gate"])
def test_a_gate_is_its_definition(count: int, bits: int, per_gate: bool) -> None:
    layer = DSelectKGate(2, count, num_selectors=min(3, count), gamma=8.0, entropy_weight=0.5)
    k, gates = layer.num_selectors, 2
    inputs = np.stack([INPUTS, INPUTS[::-1]], axis=1) if per_gate else INPUTS
    values = randomize(layer, inputs)
    found = layer(inputs)
    penalty = 0.0
    for g in range(gates):
        x = inputs[:, g] if per_gate else inputs
        z = x @ values["gate_bits"][:, g * k * bits : (g + 1) * k * bits] + values["gate_bits_bias"][g]
        selectors = numpy_selectors(z.reshape([6, k, bits]), list(range(count)), count, 8.0)
        shares = softmax(x @ values["gate_mixture"][:, g * k : (g + 1) * k] + values["gate_mixture_bias"][g])
        np.testing.assert_allclose(found[:, g], np.einsum("bk,bke->be", shares, selectors), rtol=1e-3, atol=1e-6)
        penalty += 0.5 * entropy(selectors).sum() / 6
    np.testing.assert_allclose(layer.losses, [penalty], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(tf.reduce_sum(found, axis=2), 1.0, rtol=1e-5)


def test_a_static_gate_is_the_same_for_every_row() -> None:
    layer = DSelectKGate(3, 5, num_selectors=2, gamma=8.0, static=True, entropy_weight=0.5)
    values = randomize(layer)
    assert sorted(values) == ["gate_bits_bias", "gate_mixture_bias"]
    selectors = numpy_selectors(values["gate_bits_bias"].reshape([3, 2, 3]), list(range(5)), 5, 8.0)
    expected = np.einsum("gk,gke->ge", softmax(values["gate_mixture_bias"]), selectors)
    np.testing.assert_allclose(layer(INPUTS), [expected] * 6, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.losses, [0.5 * entropy(selectors).sum()], rtol=1e-4)


def test_a_reader_only_reads_what_it_may() -> None:
    layer = DSelectKGate(2, 4, [[True, False, True, True], [False, True, False, False]], 1, gamma=8.0, static=True)
    values = randomize(layer)
    z = values["gate_bits_bias"].reshape([2, 1, 2])
    expected = [numpy_selectors(z[0, 0], [0, 2, 3], 4, 8.0), [0, 1, 0, 0]]
    np.testing.assert_allclose(layer(INPUTS), [expected] * 6, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [case[0] for case in CASES])
@pytest.mark.parametrize("selectors", [1, 2, 3])
@pytest.mark.parametrize("static", [False, True])
def test_a_settled_gate_reads_at_most_k_experts(count: int, selectors: int, static: bool) -> None:
    if selectors > count:
        pytest.skip("more selectors than experts are refused")
    layer = DSelectKGate(40, count, num_selectors=selectors, gamma=1e-6, static=static, entropy_weight=1.0)
    randomize(layer)
    weights = layer(INPUTS).numpy()
    read = (weights > 0).sum(axis=2)
    assert read.min() >= 1
    assert read.max() == selectors
    np.testing.assert_allclose(weights.sum(axis=2), 1.0, rtol=1e-5)
    np.testing.assert_allclose(layer.losses, [0.0], atol=1e-6)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 20.0])
def test_at_the_start_bits_are_undecided_and_selectors_differ(static: bool, gamma: float) -> None:
    layer = DSelectKGate(2, 8, num_selectors=3, gamma=gamma, static=static)
    with tf.GradientTape() as tape:
        weights = layer(INPUTS)
        total = tf.reduce_sum(weights[..., 0]) + tf.add_n(layer.losses)
    z = layer._affine("bits", tf.constant(INPUTS)).numpy()
    assert np.abs(z).max() < gamma / 4
    for left, right in itertools.combinations(np.moveaxis(z.reshape([-1, 6, 3]), 1, 0), 2):
        assert np.abs(left - right).max() > 1e-4 * gamma
    for gradient in tape.gradient(total, layer.trainable_weights):
        assert (np.asarray(gradient) != 0).all()


def test_the_penalty_falls_to_zero_without_bad_gradients() -> None:
    """A decided bit has a probability of 0, with an infinite logarithm."""
    layer = DSelectKGate(2, 4, num_selectors=1, static=True, entropy_weight=1.0)
    layer(INPUTS)
    layer.trainable_weights[0].assign([[0.5, -3.0], [0.2, 7.0]])
    with tf.GradientTape() as tape:
        layer(INPUTS)
        (penalty,) = layer.losses
    gradient = tape.gradient(penalty, layer.trainable_weights[0]).numpy()
    step = numpy_step(np.array(0.2), 1.0)
    np.testing.assert_allclose(penalty, entropy(np.array([step, 1 - step])).sum(), rtol=1e-5)
    slope = np.log((1 - step) / step) * (1.5 - 6 * 0.2**2)  # dH/dp = log((1 - p) / p), S' = 3/2 - 6 t^2
    np.testing.assert_allclose(gradient, [[0.0, 0.0], [slope, 0.0]], rtol=1e-4, atol=1e-6)


def test_no_weight_no_penalty_and_no_rows_no_trouble() -> None:
    free, empty = DSelectKGate(2, 4, entropy_weight=0.0), DSelectKGate(2, 4, entropy_weight=1.0)
    free(INPUTS)
    assert free.losses == []
    assert empty(INPUTS[:0]).shape == [0, 2, 4]
    assert float(empty.losses[0]) == 0.0


@pytest.mark.parametrize("static", [False, True])
def test_the_trunk_is_its_definition(static: bool) -> None:
    layer = DSelectK(TASKS, 5, num_selectors=2, gamma=8.0, static=static, units=[4, 3], activation="tanh")
    values = {f"own/{name}": value for name, value in randomize(layer).items()}
    weights = layer.gates(INPUTS).numpy()
    assert np.abs(weights[:, 0] - weights[:, 1]).max() > 0.01
    experts = np.stack([expert(values, "own", e, INPUTS) for e in range(5)])
    for k, task in enumerate(TASKS):
        expected = np.einsum("be,ebu->bu", weights[:, k], experts)
        np.testing.assert_allclose(layer(INPUTS)[task], expected, rtol=1e-3, atol=1e-5)


def test_the_penalty_counts_every_task() -> None:
    """All bits undecided: each of three tasks' two selectors is uniform over four experts."""
    layer = DSelectK(TASKS, 4, num_selectors=2, static=True, entropy_weight=0.5)
    layer(INPUTS)
    layer._gate.trainable_weights[0].assign(np.zeros([3, 4]))
    layer(INPUTS)
    np.testing.assert_allclose(layer.losses, [0.5 * 3 * 2 * np.log(4)], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"gamma": 0.0}, "`gamma` must be above 0. Received: gamma=0.0."),
        ({"entropy_weight": -1.0}, "`entropy_weight` must be 0 or more. Received: entropy_weight=-1.0."),
        ({"num_selectors": 5}, "`num_selectors` must be at most the number of experts, 4. Received: num_selectors=5."),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    for make in (lambda **given: DSelectKGate(2, 4, **given), lambda **given: DSelectK(TASKS, 4, **given)):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            make(**arguments)
