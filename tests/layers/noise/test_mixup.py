from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import keras, tf
from tfmtl.layers import Mixup
from tfmtl.layers.noise.mixup import MixupPairs, MixupPartners

VALUES = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def drawn(layer: MixupPartners, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    partners, kept = layer(tf.zeros([rows, 2]), training=True)
    return partners.numpy(), kept.numpy()


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 8.0])
def test_shares_have_the_moments_of_the_beta_distribution(alpha: float) -> None:
    partners, kept = drawn(MixupPartners(alpha, seed=2))
    np.testing.assert_array_equal(np.sort(partners), np.arange(4000))
    assert np.mean(partners == np.arange(4000)) < 0.005
    assert np.isfinite(kept).all()
    assert kept.min() >= 0
    assert kept.max() <= 1
    # Beta(a, a) has mean 1 / 2 and variance 1 / (4 (2 a + 1)); the mean of 4,000 has a deviation below 0.008.
    assert kept.mean() == pytest.approx(0.5, abs=0.03)
    assert kept.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_a_tiny_alpha_gives_shares_too() -> None:
    _, kept = drawn(MixupPartners(1e-3))
    assert np.isfinite(kept).all()
    assert ((kept < 0.01) | (kept > 0.99)).mean() > 0.95


def test_draws_are_those_of_seed_and_step() -> None:
    layer, again = MixupPartners(0.4, seed=1), MixupPartners(0.4, seed=1)
    first, second = drawn(layer, 50), drawn(layer, 50)
    assert np.any(first[0] != second[0])
    assert np.any(first[1] != second[1])
    again.build([50, 2])
    again.set_weights([np.array(1, np.int32)])
    for found, expected in zip(drawn(again, 50), second, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert np.any(drawn(MixupPartners(0.4, seed=2), 50)[0] != first[0])


def test_only_training_draws() -> None:
    layer = MixupPartners(0.4)
    assert not layer.idle
    pairs = layer(VALUES)
    assert isinstance(pairs, MixupPairs)
    np.testing.assert_array_equal(pairs.partners, np.arange(6))
    np.testing.assert_array_equal(pairs.kept, 1)
    assert int(layer.weights[0]) == 0
    pairs = layer(VALUES, training=True)
    assert isinstance(pairs, MixupPairs)
    assert np.all(pairs.kept.numpy() < 1)
    assert int(layer.weights[0]) == 1


def test_rows_are_mixed_with_their_partners() -> None:
    # 0.25 (8, 0) + 0.75 (4, 4) = (5, 3); 0.5 (4, 4) + 0.5 (0, 2) = (2, 3); (0, 2) stays.
    values, partners = tf.constant([[8.0, 0], [4, 4], [0, 2]]), tf.constant([1, 2, 0])
    found = Mixup()((values, partners, tf.constant([0.25, 0.5, 1.0])), training=True)
    np.testing.assert_allclose(found, [[5, 3], [2, 3], [0, 2]])


def test_gradients_reach_both_rows() -> None:
    values, kept = tf.constant(VALUES), tf.linspace(0.0, 1.0, 6)
    partners = tf.constant([3, 0, 5, 4, 1, 2])
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = tf.reduce_sum(Mixup()((values, partners, kept), training=True))
    expected = kept.numpy()
    expected[partners.numpy()] += 1 - kept.numpy()
    gradient = tf.convert_to_tensor(tape.gradient(total, values))
    np.testing.assert_allclose(gradient, np.tile(expected[:, np.newaxis], 3), rtol=1e-6)


def test_longer_shapes_and_half_precision() -> None:
    values = tf.random.stateless_normal([6, 2, 3], [1, 2])
    inputs = (values, tf.constant([1, 2, 3, 4, 5, 0]), tf.fill([6], 0.25))
    found = Mixup()(inputs, training=True)
    np.testing.assert_allclose(found, 0.25 * values + 0.75 * tf.roll(values, -1, axis=0), rtol=1e-5)
    assert Mixup(dtype=keras.mixed_precision.Policy("mixed_float16"))(inputs, training=True).dtype == tf.float16


def test_partners_of_a_structure() -> None:
    pairs = MixupPairs(tf.constant([2, 0, 1]), tf.ones([3]))
    found = pairs.partners_of({"a": tf.constant([5, 6, 7]), "b": [tf.constant([[1.0], [2.0], [3.0]])]})
    assert found["a"].numpy().tolist() == [7, 5, 6]
    assert found["b"][0].numpy().tolist() == [[3.0], [1.0], [2.0]]


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf")])
def test_alpha_is_checked(alpha: float) -> None:
    with pytest.raises(ValueError, match="`alpha` must be above 0"):
        MixupPartners(alpha)
