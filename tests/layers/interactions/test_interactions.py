"""The interactions that wrap layers of TFRS."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from tests.layers.lists import randomize
from tfmtl._keras import keras, tf
from tfmtl.layers import CrossNetwork, DotInteraction

INPUTS = np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)


@pytest.mark.parametrize(("structure", "kept"), [("parallel", [("a",), ("b",)]), ("stacked", [])])
def test_a_crossed_column_comes_from_its_input_by_the_layer(structure: Any, kept: list[Any]) -> None:
    inputs: Any = [[("a",), ("b",)]]
    own: Any = [("cross", 0), ("cross", 1)]
    found = CrossNetwork(structure=structure).column_sources(inputs, own)
    assert list(found) == [*kept, (("cross", 0), ("a",)), (("cross", 0), ("b",))]


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
@pytest.mark.parametrize("rank", [None, 2])
def test_the_cross_network_is_its_definition(structure: Any, rank: int | None) -> None:
    layer = CrossNetwork(2, structure, projection_dim=rank, diag_scale=0.5)
    randomize(layer, INPUTS)
    values = [v.numpy() for v in layer.trainable_weights]
    crossed = INPUTS
    for level in range(2):
        if rank is None:
            kernel, bias = values[2 * level : 2 * level + 2]
        else:
            left, right, bias = values[3 * level : 3 * level + 3]
            kernel = left @ right
        crossed = INPUTS * (crossed @ kernel + bias + 0.5 * crossed) + crossed
    expected = np.concatenate([INPUTS, crossed], 1) if structure == "parallel" else crossed
    np.testing.assert_allclose(layer(INPUTS), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tf.function(layer, jit_compile=True)(INPUTS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("initializer", ["truncated_normal", keras.initializers.GlorotUniform(seed=7)])
def test_the_kernels_of_a_cross_network_start_apart_and_by_the_seed(initializer: Any) -> None:
    def kernels(seed: int) -> list[np.ndarray]:
        layer = CrossNetwork(3, projection_dim=2, kernel_initializer=initializer, seed=seed)
        layer(INPUTS)
        return [kernel.numpy().ravel() for kernel in layer.get_prunable_weights()]

    assert len(kernels(1)) == 6
    for left, right in itertools.combinations(kernels(1), 2):
        assert np.abs(left - right).max() > 0.01
    for same, again in zip(kernels(1), kernels(1), strict=True):
        np.testing.assert_array_equal(same, again)
    if isinstance(initializer, str):
        assert np.abs(kernels(1)[0] - kernels(2)[0]).max() > 0.01


def test_the_cross_network_penalizes_its_kernels() -> None:
    layer = CrossNetwork(2, kernel_regularizer=keras.regularizers.L2(0.5))
    layer(INPUTS)
    penalty = 0.5 * sum((kernel.numpy() ** 2).sum() for kernel in layer.get_prunable_weights())
    assert float(tf.add_n(layer.losses)) == pytest.approx(penalty, rel=1e-5)


def test_half_precision() -> None:
    half = tf.cast(INPUTS, tf.float16)
    assert CrossNetwork(projection_dim=2, dtype="mixed_float16")(half).dtype == tf.float16
    assert DotInteraction(["a", "b"], dtype="mixed_float16")([half, half]).dtype == tf.float16


@pytest.mark.parametrize("itself", [False, True])
def test_dot_products_are_those_of_every_two_features(itself: bool) -> None:
    inputs = [np.roll(INPUTS, i, 1) * (i + 1) for i in range(3)]
    pairs = [(i, j) for i in range(3) for j in range(i + 1) if itself or j < i]
    expected = np.stack([(inputs[i] * inputs[j]).sum(1) for i, j in pairs], 1)
    layer = DotInteraction(["a", "b", "c"], self_interaction=itself)
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tf.function(layer, jit_compile=True)(inputs), expected, rtol=1e-5, atol=1e-5)
    assert layer([keras.Input([5]) for _ in range(3)]).shape == [None, len(pairs)]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: CrossNetwork(0), "`num_layers` must be a positive integer. Received: num_layers=0."),
        (
            lambda: CrossNetwork(structure="deep"),  # type: ignore[arg-type]
            "`structure` must be 'parallel' or 'stacked'. Received: structure='deep'.",
        ),
        (lambda: CrossNetwork(projection_dim=0), "`projection_dim` must be a positive integer. Received: projection_d"),
        (lambda: CrossNetwork(diag_scale=-1), "`diag_scale` must be 0 or more. Received: diag_scale=-1."),
        (
            lambda: CrossNetwork(projection_dim=5)(INPUTS),
            "`projection_dim` must be below the pair's width 5. Received: projection_dim=5.",
        ),
        (
            lambda: DotInteraction(["a"]),
            "`feature_names` must be two or more distinct names. Received: feature_names=['a'].",
        ),
        (
            lambda: DotInteraction(["a", "a"]),
            "`feature_names` must be two or more distinct names. Received: feature_names=['a', 'a'].",
        ),
        (
            lambda: DotInteraction(["a", "b"])([INPUTS, INPUTS[:, :3]]),
            "Inner products need encodings of one width, but ('a', 'b') have [5, 3]; set `embedding_dim`, and leave "
            "numbers out.",
        ),
    ],
)  # fmt: skip
def test_bad_argument_is_named(make: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()
