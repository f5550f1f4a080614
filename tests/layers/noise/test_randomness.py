from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tfmtl._keras import keras, tf
from tfmtl.layers import Dropout, FeatureDropout
from tfmtl.layers.noise.randomness import RandomMissing, RandomUnknown

ONES = tf.ones([50, 40])
INDICES = tf.constant(np.arange(1000) % 5, tf.int32)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [(Dropout(0.5), ONES), (FeatureDropout(0.5), ONES), (RandomUnknown(0.5), INDICES), (RandomMissing(0.5), INDICES)],
)
def test_only_training_disturbs(layer: Any, inputs: tf.Tensor) -> None:
    np.testing.assert_array_equal(layer(inputs), inputs)
    np.testing.assert_array_equal(layer(inputs, training=False), inputs)
    assert int(layer.weights[0]) == 0
    assert np.any(layer(inputs, training=True) != inputs)
    assert layer.trainable_weights == []


@pytest.mark.parametrize("layer", [Dropout(0.0), FeatureDropout(0.0), RandomUnknown(0.0), RandomMissing(0.0)])
def test_a_rate_of_zero_never_disturbs(layer: Any) -> None:
    np.testing.assert_array_equal(layer(INDICES, training=True), INDICES)


def test_dropout_keeps_the_mean() -> None:
    # 2,000 draws at rate 0.2: the share of zeros has a deviation of 0.009.
    found = Dropout(0.2, seed=1)(ONES, training=True).numpy()
    assert set(np.unique(found)) == {0.0, np.float32(1 / 0.8)}
    assert np.mean(found == 0) == pytest.approx(0.2, abs=0.03)
    assert found.mean() == pytest.approx(1, abs=0.04)


def test_dropout_passes_the_gradient_of_what_it_keeps() -> None:
    with tf.GradientTape() as tape:
        tape.watch(ONES)
        found = Dropout(0.5)(ONES, training=True)
    np.testing.assert_array_equal(tape.gradient(found, ONES), found)


def test_unknown_replaces_known_values_and_keeps_missing_ones() -> None:
    found = RandomUnknown(0.3, seed=1, unknown=2)(INDICES, training=True).numpy()
    known = INDICES.numpy() > 2
    np.testing.assert_array_equal(found[~known], INDICES.numpy()[~known])
    changed = found != INDICES.numpy()
    assert set(found[changed]) == {2}
    assert changed[known].mean() == pytest.approx(0.3, abs=0.07)  # 400 draws
    assert found.dtype == np.int32


def test_each_column_has_its_own_rate_of_unknown() -> None:
    layer = RandomUnknown([0.6, 0.0, 0.2], seed=1)
    found = layer(tf.fill([2000, 3], 5), training=True).numpy()
    assert (found == 1).mean(0).tolist() == pytest.approx([0.6, 0.0, 0.2], abs=0.05)
    assert RandomUnknown([0.0, 0.0]).idle
    assert not layer.idle
    assert RandomUnknown.from_config(layer.get_config()).rate == [0.6, 0.0, 0.2]
    with pytest.raises(ValueError, match="one rate for each of its 3 columns"):
        RandomUnknown([0.6, 0.2])(tf.fill([2, 3], 5))
    with pytest.raises(ValueError, match="`rate` must be a number"):
        RandomUnknown([0.6, 1.0])


@pytest.mark.parametrize("shape", [[4000, 6], [4000, 6, 2]])
def test_feature_dropout_drops_all_of_a_feature_and_keeps_the_mean(shape: list[int]) -> None:
    # 12,000 or 4,000 draws at rate 0.2: the share of zeros has a deviation of at most 0.0063.
    features = 3 if len(shape) == 2 else 1
    found = FeatureDropout(0.2, seed=1, features=features)(tf.ones(shape), training=True).numpy()
    of_features = found.reshape([4000, features, -1])
    assert (of_features == of_features[..., :1]).all()
    gone = of_features[..., 0] == 0
    assert gone.mean() == pytest.approx(0.2, abs=0.025)
    np.testing.assert_allclose(of_features[~gone], 1 / 0.8, rtol=1e-6)
    if features > 1:  # features are dropped independently: two of three with a probability of 3 * 0.2^2 * 0.8
        assert (gone.sum(1) == 2).mean() == pytest.approx(0.096, abs=0.02)


@pytest.mark.parametrize(("features", "shape"), [(2, [3, 5]), (2, [3, 4, 4])])
def test_feature_dropout_checks_the_width(features: int, shape: list[int]) -> None:
    with pytest.raises(ValueError, match=r"takes \[B, 2 \* d\]. Received: shape="):
        FeatureDropout(0.5, features=features)(tf.ones(shape))


@pytest.mark.parametrize("kind", [Dropout, FeatureDropout, RandomUnknown, RandomMissing])
def test_draws_are_a_function_of_seed_and_step(kind: Any) -> None:
    inputs = tf.fill([200], 7) if kind is RandomUnknown else tf.ones([200, 1])

    def steps(layer: Any, count: int = 3) -> list[list[float]]:
        return [layer(inputs, training=True).numpy().ravel().tolist() for _ in range(count)]

    first = steps(kind(0.5, seed=1))
    tf.random.set_seed(999)  # the global state does not matter
    assert steps(kind(0.5, seed=1)) == first
    assert len({tuple(draws) for draws in [*first, *steps(kind(0.5, seed=2))]}) == 6
    resumed = kind(0.5, seed=1)
    resumed.build(inputs.shape)
    resumed.set_weights([np.array(2, np.int32)])  # the value that a checkpoint of the second step restores
    assert steps(resumed, 1) == first[2:]


@pytest.mark.parametrize(
    ("value", "missing"),
    [(7, 0), ([3, 4, 5], [0, 0, 0]), ([2.5, 0.0], [0.0, 1.0]), ([2.5, 0.0], [-1.25, 0.0])],
)
def test_missing_replaces_whole_rows(value: Any, missing: Any) -> None:
    inputs = tf.repeat(tf.constant([value]), 4000, axis=0)
    found = RandomMissing(0.2, seed=1, missing=missing)(inputs, training=True)
    assert (found.dtype, found.shape) == (inputs.dtype, inputs.shape)
    gone = (found.numpy() == np.asarray(missing)).reshape(4000, -1).all(1)
    assert gone.mean() == pytest.approx(0.2, abs=0.025)  # 4,000 draws at rate 0.2 have a deviation of 0.0063
    np.testing.assert_array_equal(found.numpy()[~gone], inputs.numpy()[~gone])


def test_layers_of_one_seed_choose_the_same_rows() -> None:
    number, index = RandomMissing(0.5, seed=1, missing=[0.0, 1.0]), RandomMissing(0.5, seed=1)
    numbers, indices = tf.tile([[7.0, 0.0]], [200, 1]), tf.fill([200], 7)
    for _ in range(3):
        rows = index(indices, training=True).numpy() == 0
        np.testing.assert_array_equal(number(numbers, training=True).numpy()[:, 1] == 1, rows)
        assert 0 < rows.sum() < 200


def test_traced_steps_differ() -> None:
    layer = Dropout(0.5)
    traced = tf.function(lambda values: layer(values, training=True))
    assert np.any(traced(ONES) != traced(ONES))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
@pytest.mark.parametrize("kind", [Dropout, FeatureDropout, RandomUnknown, RandomMissing])
def test_the_rate_is_checked(kind: Any, rate: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"`rate` must be a number in [0, 1). Received: rate={rate!r}.")):
        kind(rate)


def test_half_precision() -> None:
    for kind in (Dropout, FeatureDropout):
        layer = kind(0.5, dtype=keras.mixed_precision.Policy("mixed_float16"))
        assert layer(ONES, training=True).dtype == tf.float16
