"""Counting zeros."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import keras
from tfmtl.compression import check_sparsity, sparsity
from tfmtl.compression.sparsity import _lacking_groups, is_prunable
from tfmtl.layers import MMoE


def network(zeros: int, units: int = 10) -> keras.Model:
    """A dense layer of ten inputs with zeros in the first entries."""
    inputs = keras.Input([10])
    built = keras.Model(inputs, keras.layers.Dense(units, name="head")(inputs))
    kernel = np.ones(10 * units, np.float32)
    kernel[:zeros] = 0
    built.get_layer("head").kernel.assign(kernel.reshape(10, units))
    return built


def test_sparsity_is_the_fraction_of_zeros_and_leaves_biases_out() -> None:
    assert sparsity(network(25)) == {"head/kernel": 0.25}


def test_prunable_layers_are_dense_layers_embeddings_and_trunks() -> None:
    trunk = MMoE(["a", "b"], num_experts=2, units=[3])
    trunk.build([None, 4])
    dense, embedding = keras.layers.Dense(2), keras.layers.Embedding(3, 2)
    for layer in (dense, embedding):
        layer.build([None, 4])
    assert [is_prunable(layer) for layer in (trunk, dense, embedding, keras.layers.Dropout(0.5))] == [True] * 3 + [
        False
    ]


@pytest.mark.parametrize(("zeros", "passes"), [(80, True), (78, True), (77, False)])
def test_check_allows_the_tolerance_and_one_entry(zeros: int, passes: bool) -> None:
    if passes:
        check_sparsity(network(zeros), 0.8, tolerance=0.01)
    else:
        with pytest.raises(ValueError, match=r"Weight 'head/kernel' has 77.0% zeros instead of 80.0%"):
            check_sparsity(network(zeros), 0.8, tolerance=0.01)


def test_check_refuses_what_cannot_be_checked() -> None:
    with pytest.raises(ValueError, match=r"`target` must be a number in \[0, 1\)"):
        check_sparsity(network(0), 1.0)
    with pytest.raises(ValueError, match="No layer of the network is selected"):
        check_sparsity(network(0), 0.5, select=lambda layer: False)


@pytest.mark.parametrize(
    ("column", "lacking"),
    [
        ([1, 1, 0, 0], 0.0),
        ([1, 1, 1, 0], 1.0),  # three of four are not zero
        ([0, 0, 0, 0], 0.0),
        ([1, 1, 0, 0, 1], 0.0),  # the second group is 1 and three added zeros
        ([1, 1, 0, 0, 1, 1, 1, 0], 0.5),
    ],
)
def test_groups_with_too_few_zeros(column: list[float], lacking: float) -> None:
    assert _lacking_groups(np.array(column)[:, np.newaxis], 2, 4) == lacking
