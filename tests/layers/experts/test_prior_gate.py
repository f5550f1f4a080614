from __future__ import annotations

import re

import numpy as np
import pytest

from tests.layers.probes import PAIR, PRIORS, dense, randomize, sigmoid
from tfmtl._keras import keras, tf
from tfmtl.layers.experts.prior_gate import PriorGate

PRIOR = PRIORS["domain"]


def test_it_is_its_definition() -> None:
    layer = PriorGate(gate_units=3)
    values = randomize(layer, (PAIR, PRIOR))
    hidden = np.maximum(dense(np.concatenate([PRIOR, PAIR], 1), values, "gate/hidden"), 0)
    expected = PAIR * 2 * sigmoid(dense(hidden, values, "gate/out"))
    np.testing.assert_allclose(layer((PAIR, PRIOR)), expected, rtol=1e-4)
    # One gate, no second one that nothing reads; its layers have (2 + 5 + 1) * 3 and (3 + 1) * 5 weights.
    assert sum(value.size for value in values.values()) == 24 + 20


def test_the_encoding_is_not_trained_through_its_gate() -> None:
    layer = PriorGate(gate_units=3)
    randomize(layer, (PAIR, PRIOR))
    encoding, prior = tf.constant(PAIR), tf.constant(PRIOR)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([encoding, prior])
        gated = layer((encoding, prior))
    factors = gated / encoding
    np.testing.assert_allclose(tape.gradient(gated, encoding), factors, rtol=1e-4)  # as if they were constants
    assert np.abs(tape.gradient(gated, prior)).max() > 0.01


def test_it_gates_an_encoding_inside_a_network() -> None:
    inputs = keras.Input([5]), keras.Input([2])
    network = keras.Model(inputs, PriorGate()(inputs))
    assert network([PAIR, PRIOR]).shape == PAIR.shape


def test_gate_units_are_checked() -> None:
    with pytest.raises(ValueError, match=re.escape("`gate_units` must be a positive integer. Received: gate_units=0.")):
        PriorGate(gate_units=0)
