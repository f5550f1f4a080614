from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, log_softmax, logit, softmax

from tfmtl._keras import tf
from tfmtl.tasks import (
    BinaryClassification,
    ChainedRegression,
    DoublyRobustConversion,
    EntireSpaceConversion,
    MultiClassClassification,
    Regression,
    Retrieval,
    Task,
)
from tfmtl.tasks.pools import (
    JoinedEmbeddings,
    MeanConversion,
    MeanDistribution,
    MeanExpectation,
    MeanProbability,
    MeanValue,
)

SHARES = np.array([0.5, 0.2, 0.3])
POOLS = [MeanValue, MeanProbability, MeanDistribution, MeanConversion, MeanExpectation]


def outputs(columns: int, scale: float = 2.0, seed: int = 0) -> np.ndarray:
    """Return outputs of three members for seven rows."""
    return np.random.default_rng(seed).normal(0, scale, (3, 7, columns)).astype(np.float32)


def pooled(pool: type, members: np.ndarray, shares: Any = SHARES) -> np.ndarray:
    return pool(list(shares))([tf.constant(each, tf.float32) for each in members]).numpy()


def mean(values: np.ndarray) -> np.ndarray:
    return np.einsum("m,mbn->bn", SHARES, values.astype(np.float64))


def test_values_probabilities_and_distributions_against_numpy() -> None:
    z = outputs(3)
    np.testing.assert_allclose(pooled(MeanValue, z), mean(z), rtol=1e-5)
    np.testing.assert_allclose(pooled(MeanProbability, z), logit(mean(expit(z))), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pooled(MeanDistribution, z), np.log(mean(softmax(z, axis=-1))), rtol=1e-4, atol=1e-5)


def test_conversions_are_the_mixture_of_the_members() -> None:
    z = outputs(3)
    own, front, other = np.split(z, 3, axis=-1)
    found = expit(pooled(MeanConversion, z)[:, :2])
    np.testing.assert_allclose(found[:, 1:], mean(expit(front)), rtol=1e-5)
    np.testing.assert_allclose(found[:, :1] * found[:, 1:], mean(expit(own) * expit(front)), rtol=1e-5)
    np.testing.assert_allclose(pooled(MeanConversion, z)[:, 2:], mean(other), rtol=1e-5)
    task = EntireSpaceConversion("buy", after="click")
    members = [task.predict(tf.constant(each)) for each in z[..., :2]]
    served = task.predict(tf.constant(pooled(MeanConversion, z[..., :2])))
    np.testing.assert_allclose(served, SHARES @ np.stack(members), rtol=1e-5)


def test_expectations_are_the_mean_of_what_members_serve() -> None:
    z, task = outputs(2), ChainedRegression("spend", after="buy", offset=3.0, scale=2.0)
    members = np.stack([task.predict(tf.constant(each)) for each in z])
    served = task.predict(tf.constant(pooled(MeanExpectation, z)))
    np.testing.assert_allclose(served, SHARES @ members, rtol=1e-4, atol=1e-5)


def test_scores_of_joined_embeddings_are_the_weighted_sum() -> None:
    u, v = outputs(4), outputs(4, seed=1)
    scores = np.einsum("m,mbd,mcd->bc", SHARES, u, v)
    np.testing.assert_allclose(
        pooled(JoinedEmbeddings, u) @ pooled(JoinedEmbeddings, v).T, scores, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("pool", POOLS)
def test_members_that_agree_are_not_changed(pool: type) -> None:
    one = outputs(2)[0]
    expected = log_softmax(one, axis=-1) if pool is MeanDistribution else one
    np.testing.assert_allclose(pooled(pool, np.stack([one] * 3)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", POOLS)
def test_order_of_the_members_does_not_matter_and_one_alone_is_itself(pool: type) -> None:
    z = outputs(2)
    np.testing.assert_allclose(pooled(pool, z), pooled(pool, z[::-1], SHARES[::-1]), rtol=1e-4, atol=1e-5)
    alone = np.log(softmax(z[0], axis=-1)) if pool is MeanDistribution else z[0]
    np.testing.assert_allclose(pooled(pool, z[:1], [1.0]), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [0.0, 40.0, 1e4, 1e15])
@pytest.mark.parametrize("pool", [MeanProbability, MeanDistribution, MeanConversion, MeanExpectation])
def test_extreme_logits_stay_finite_with_their_gradients(pool: type, size: float) -> None:
    z = tf.Variable(size * np.sign(outputs(2)))
    shares = tf.Variable(np.float32(SHARES))
    with tf.GradientTape() as tape:
        pooled_outputs = pool.pool(tf.unstack(tf.cast(z, tf.float32)), shares)
    gradients = tape.gradient(pooled_outputs, [z, shares])
    for tensor in [pooled_outputs, *gradients]:
        assert np.isfinite(tensor).all()


def test_small_probabilities_keep_their_digits() -> None:
    # (e^-100 + e^-110) / 2 is below the smallest float32
    found = pooled(MeanProbability, np.array([[[-100.0]], [[-110.0]]]), [0.5, 0.5])
    np.testing.assert_allclose(found, [[-100 + np.log1p(np.exp(-10.0)) - np.log(2)]], rtol=1e-6)


@pytest.mark.parametrize(
    ("task", "pool"),
    [
        (Regression("a"), MeanValue),
        (ChainedRegression("a", after="b"), MeanExpectation),
        (BinaryClassification("a", after="b", order_penalty=1.0), MeanProbability),
        (DoublyRobustConversion("a", after="b"), MeanConversion),
        (MultiClassClassification("a", num_classes=3), MeanDistribution),
        (Retrieval("a"), JoinedEmbeddings),
    ],
)
def test_each_task_has_its_pool(task: Task, pool: type) -> None:
    assert task.pool is pool


@pytest.mark.parametrize("shares", [[], [0.5, 0.0], [-1.0], [float("nan")], [float("inf")]])
def test_shares_that_are_no_shares_are_refused(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="`shares` must be numbers above 0"):
        MeanValue(shares)
