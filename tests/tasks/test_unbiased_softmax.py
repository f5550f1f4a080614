"""The sampled softmax estimates the softmax over the catalog without bias."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.tasks import CandidateIds, LossInputs, Retrieval

TOTAL = 1e6
Loss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def loss_function(share: Sequence[float], *, distinct: bool = True, removed: bool = True) -> Loss:
    """Return the function of scores, ids of the positives, their weights and ids of negatives to loss and gradient."""
    task = Retrieval("t", distinct_candidates=distinct, remove_accidental_hits=removed)
    task.prepare(2 + len(share))
    task._counts.known.assign(TOTAL * np.array([0.0, 0.0, *share]))

    @tf.function
    def loss(scores: tf.Tensor, ids: tf.Tensor, weights: tf.Tensor, extra: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(scores)
            candidates = scores[:, tf.newaxis]
            towers = {"query": tf.ones([tf.size(ids), 1]), "candidate": tf.gather(candidates, ids)}
            known, drawn = (CandidateIds(tf.cast(chosen, tf.int64), chosen + 2) for chosen in (ids, extra))
            negatives = (tf.gather(candidates, extra), drawn) if extra.shape[0] else None
            inputs = LossInputs({}, known, negatives, num_candidates=len(share))
            value, _ = task.compute_loss(tf.ones_like(weights), towers, weights, inputs)
        return value, tf.convert_to_tensor(tape.gradient(value, scores))

    return loss


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize(
    ("rows", "extra", "share"),
    [
        (1, 2, [0.5, 0.3, 0.2]),
        (2, 0, [0.8, 0.15, 0.05]),
        (3, 1, [0.8, 0.15, 0.05]),
        (4, 0, [0.98, 0.01, 0.01]),
        (2, 2, [0.4, 0.3, 0.2, 0.1]),
        (5, 0, [0.7, 0.3]),
    ],
)
def test_the_mean_denominator_is_that_of_the_whole_catalog(
    rows: int, extra: int, share: list[float], distinct: bool
) -> None:
    # Over all draws of the B - 1 other positives and of the N uniform negatives, by their probability:
    # E[exp(l + s_p)] = sum_c exp(s_c) for each positive p and any scores.
    catalog = len(share)
    scores = np.random.default_rng(catalog).normal(size=catalog)
    loss = loss_function(share, distinct=distinct)
    weights = tf.constant([1.0] + [1e-9] * (rows - 1))  # only row 0 counts; the others are its negatives
    for positive in range(catalog):
        mean = 0.0
        for drawn in itertools.product(range(catalog), repeat=rows - 1 + extra):
            batch, uniform = [positive, *drawn[: rows - 1]], drawn[rows - 1 :]
            probability = math.prod(share[item] for item in batch[1:]) / catalog**extra
            value, _ = loss(
                tf.constant(scores, tf.float32), tf.constant(batch), weights, tf.constant(uniform, tf.int32)
            )
            mean += probability * math.exp(float(value) + scores[positive])
        assert mean == pytest.approx(np.exp(scores).sum(), rel=1e-4)


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("removed", [True, False])
def test_the_mean_gradient_at_the_truth_is_zero(removed: bool, distinct: bool) -> None:
    # One user with P = (0.8, 0.15, 0.05), scores log P, B = 64; exact over all 2,145 compositions of a batch. With the
    # correction of the positive by 1/q the mean was (-0.557, 0.415, 0.142). The rest, of the order of 0.1 / B, is that
    # of the logarithm of an unbiased estimate.
    share, size = (0.8, 0.15, 0.05), 64
    loss = loss_function(share, distinct=distinct, removed=removed)
    scores, weights = tf.constant(np.log(share), tf.float32), tf.ones([size])
    mean, total = np.zeros(3), 0.0
    for first in range(size + 1):
        for second in range(size + 1 - first):
            counts = [first, second, size - first - second]
            ways = math.factorial(size) / math.prod(math.factorial(count) for count in counts)
            probability = ways * math.prod(p**n for p, n in zip(share, counts, strict=True))
            if probability > 1e-9:
                ids = tf.constant(np.repeat([0, 1, 2], counts), tf.int32)
                mean += probability * loss(scores, ids, weights, tf.constant([], tf.int32))[1].numpy()
                total += probability
    assert total == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(mean, 0, atol=3e-3 if removed else 1e-5)
