"""The bases of layers with kernels: draws, regularizer, precision and config."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from tfmtl._keras import keras, tf
from tfmtl.layers import STEM, MMoE, PEPNet, SharedBottom
from tfmtl.layers.kernels import Kernels, SeededKernels


def _draw(layer: SeededKernels, index: int) -> np.ndarray:
    return np.asarray(layer.initializer(index)([3, 4]))


def test_each_kernel_has_its_own_draw_which_seed_and_index_decide() -> None:
    layer, again, other = Kernels(seed=3), Kernels(seed=3), Kernels(seed=4)
    np.testing.assert_array_equal(_draw(layer, 1), _draw(again, 1))
    assert np.abs(_draw(layer, 1) - _draw(layer, 2)).min() > 0
    assert np.abs(_draw(layer, 1) - _draw(other, 1)).min() > 0


@pytest.mark.parametrize("kind", [SeededKernels, Kernels])
def test_a_dense_layer_has_the_draw_of_its_index(kind: type[SeededKernels]) -> None:
    layer = kind(seed=3)
    dense = layer.dense(4, 2, "part", use_bias=False)
    dense.build([None, 3])
    np.testing.assert_array_equal(dense.kernel, _draw(layer, 2))
    assert dense.name == "part"


def test_only_kernels_gives_its_regularizer_to_dense_layers() -> None:
    regularizer = keras.regularizers.L2(0.25)
    assert Kernels(kernel_regularizer=regularizer).dense(4, 0, "part").kernel_regularizer is regularizer
    with pytest.raises(TypeError, match="kernel_regularizer"):
        SeededKernels(kernel_regularizer=regularizer)


def test_the_config_holds_the_arguments() -> None:
    config = Kernels(kernel_initializer="zeros", kernel_regularizer=keras.regularizers.L2(0.25), seed=3).get_config()
    assert config["seed"] == 3
    assert keras.initializers.deserialize(config["kernel_initializer"]).get_config() == {}
    assert float(keras.regularizers.deserialize(config["kernel_regularizer"]).l2) == 0.25
    assert "kernel_regularizer" not in SeededKernels().get_config()


PEP = functools.partial(PEPNet, domain=["page"], personal=["user"])


@pytest.mark.parametrize("kind", [SharedBottom, MMoE, PEP, functools.partial(STEM, num_task_experts=2)])
def test_parts_of_a_trunk_have_its_precision(kind: Any) -> None:
    trunk = kind(["a"], units=[3], dtype="mixed_float16")
    assert trunk(tf.ones([2, 4]))["a"].dtype == tf.float16
    assert {layer.compute_dtype for layer in trunk.submodules if isinstance(layer, keras.layers.Layer)} == {"float16"}
