"""Compressed embeddings: their formulas in numpy, and their approximation of a table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers import CompressedEmbedding, HashedEmbedding, LowRankEmbedding, QuotientRemainderEmbedding

V, D = 53, 6
_RNG = np.random.default_rng(1)
TABLE = _RNG.normal(size=(V, D))
EVERY = np.arange(V)
MAKES: dict[str, Callable[[], CompressedEmbedding]] = {
    "low rank": lambda: LowRankEmbedding(V, D, rank=2),
    "quotient": lambda: QuotientRemainderEmbedding(V, D, divisor=7),
    "hashed": lambda: HashedEmbedding(V, D, buckets=11, num_hashes=2, seed=4),
}


def reference(layer: CompressedEmbedding, index: int) -> np.ndarray:
    """Return one row by the formula in the docstring."""
    weights = [weight.numpy() for weight in layer.weights]
    if isinstance(layer, LowRankEmbedding):
        return weights[0][index] @ weights[1]
    if isinstance(layer, QuotientRemainderEmbedding):
        return weights[0][index // 7] * weights[1][index % 7]
    draw = np.random.default_rng(4)
    a, b = draw.integers(1, 2**31 - 1, 2), draw.integers(0, 2**31 - 1, 2)
    return sum(weights[0][11 * j + (int(a[j]) * index + int(b[j])) % (2**31 - 1) % 11] for j in range(2))


@pytest.mark.parametrize("name", MAKES)
def test_rows_are_what_the_formula_says_in_any_shape(name: str) -> None:
    layer = MAKES[name]()
    rows = layer(tf.constant(EVERY)).numpy()
    np.testing.assert_allclose(rows, [reference(layer, i) for i in EVERY], rtol=1e-5, atol=1e-7)
    different = len(
        np.unique(rows.round(6), axis=0)
    )  # two of 53 indices may share both of their buckets, 2 x 11, but few do
    assert different > 40 if name == "hashed" else different == V
    for shape, dtype in (([V, 1], tf.int64), ([1, V], tf.int32)):
        np.testing.assert_allclose(layer(tf.reshape(tf.cast(EVERY, dtype), shape)).numpy().reshape(V, D), rows)


def error(layer: CompressedEmbedding) -> float:
    return float(np.sum((layer(tf.constant(EVERY)).numpy() - TABLE) ** 2))


@pytest.mark.parametrize("name", MAKES)
def test_fitted_weights_are_a_minimum(name: str) -> None:
    layer = MAKES[name]()
    layer.fit_to(TABLE)
    fitted = error(layer)
    assert fitted < np.sum(TABLE**2)
    rng = np.random.default_rng(0)
    slack = {"hashed": 1e-3, "quotient": 1e-6}.get(name, 1e-9)  # its sweeps end before the minimum
    for weight in layer.weights:
        for _ in range(5):
            value, step = weight.numpy(), 1e-2 * rng.normal(size=weight.shape)
            for moved in (value + step, value - step):
                weight.assign(moved)
                assert error(layer) > fitted * (1 - slack)
            weight.assign(value)


def test_tables_that_fit_are_kept() -> None:
    low = LowRankEmbedding(V, D, rank=2)
    exact = TABLE[:, :2] @ _RNG.normal(size=(2, D))
    low.fit_to(exact)
    np.testing.assert_allclose(low(tf.constant(EVERY)), exact, atol=1e-5)
    wide = LowRankEmbedding(V, D, rank=9)  # wider than the table: the approximation is exact
    wide.fit_to(TABLE)
    np.testing.assert_allclose(wide(tf.constant(EVERY)), TABLE, atol=1e-5)
    products = QuotientRemainderEmbedding(56, D, divisor=7)
    q, r = _RNG.normal(size=(8, 1, D)), _RNG.normal(size=(1, 7, D))
    products.fit_to((q * r).reshape(56, D))
    np.testing.assert_allclose(products(tf.constant(np.arange(56))), (q * r).reshape(56, D), atol=1e-5)
    roomy = HashedEmbedding(V, D, buckets=5000, num_hashes=1)
    roomy.fit_to(TABLE)
    np.testing.assert_allclose(roomy(tf.constant(EVERY)), TABLE, atol=1e-5)


@pytest.mark.parametrize("name", MAKES)
def test_gradients_stay_sparse(name: str) -> None:
    layer = MAKES[name]()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.constant([3, 5])) ** 2)
    gradients = tape.gradient(loss, layer.trainable_weights)
    assert isinstance(gradients[0], tf.IndexedSlices)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="`rank` must be a positive integer"):
        LowRankEmbedding(V, D, rank=0)
    with pytest.raises(ValueError, match="`divisor` must be a positive integer"):
        QuotientRemainderEmbedding(V, D, divisor=0)
    with pytest.raises(ValueError, match="`num_hashes` must be a positive integer"):
        HashedEmbedding(V, D, num_hashes=-1)
    with pytest.raises(ValueError, match=r"`table` must have the shape \(53, 6\). Received: shape=\(52, 6\)"):
        LowRankEmbedding(V, D).fit_to(TABLE[:-1])
