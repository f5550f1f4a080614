from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from tests.layers.probes import PAIR, dense, matrices, randomize, sigmoid
from tfmtl._keras import keras
from tfmtl.layers import GateNU


def test_it_is_its_definition() -> None:
    layer = GateNU(3, units=4, gate_units=2)
    values = randomize(layer, PAIR)
    found = layer(PAIR)
    assert found.shape == (len(PAIR), 3, 4)
    for gate in range(3):
        hidden = np.maximum(dense(PAIR, values, "hidden", gate), 0)
        np.testing.assert_allclose(found[:, gate], 2 * sigmoid(dense(hidden, values, "out", gate)), rtol=1e-4)


def test_factors_scatter_around_one_at_the_start() -> None:
    factors = GateNU(20, units=50)(PAIR).numpy()
    assert factors.mean() == pytest.approx(1, abs=0.02)
    assert 0.1 < factors.std() < 0.5
    assert factors.min() > 0
    assert factors.max() < 2


def test_gates_are_distinct_and_seeded() -> None:
    first, again, other = (
        GateNU(2, 4, kernel_initializer=keras.initializers.HeNormal(seed), seed=9)(PAIR).numpy() for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    assert np.abs(first[:, 0] - first[:, 1]).max() > 0.01


def test_its_two_layers_start_differently() -> None:
    layer = GateNU(2, units=5, gate_units=5, kernel_initializer=keras.initializers.HeNormal(seed=3))
    layer(PAIR)
    kernels = [matrix for kernel in layer.get_prunable_weights() for matrix in matrices(kernel.numpy(), 5)]
    assert len(kernels) == 4
    for left, right in itertools.combinations(kernels, 2):
        assert np.abs(left - right).max() > 0.05


@pytest.mark.parametrize("argument", ["num_gates", "units", "gate_units"])
def test_arguments_are_checked(argument: str) -> None:
    given: dict[str, Any] = {argument: 0}
    sentence = f"`{argument}` must be a positive integer. Received: {argument}=0."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        GateNU(**given)
