from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.tasks.losses import tfrs
from tfmtl._keras import tf
from tfmtl.tasks import Retrieval
from tfmtl.tasks.distinct_softmax import distinct_softmax

RNG = np.random.default_rng(11)


def case(rows: int, candidates: int, items: int, width: int = 3) -> tuple[np.ndarray, ...]:
    """Return queries, candidates, their ids and their probabilities; equal ids have equal rows."""
    table, share = RNG.normal(size=(items, width)), RNG.uniform(0.01, 1, size=items)
    ids = RNG.integers(items, size=candidates)
    return RNG.normal(size=(rows, width)), table[ids], ids, share[ids]


def losses_of(query: Any, candidate: Any, ids: np.ndarray, share: np.ndarray, hits: bool) -> tf.Tensor:
    single = [tf.convert_to_tensor(x, tf.float32) for x in (query, candidate, share)]
    return distinct_softmax(single[0], single[1], tf.constant(ids), single[2], remove_accidental_hits=not hits)


def reference(query: np.ndarray, candidate: np.ndarray, ids: np.ndarray, share: np.ndarray, hits: bool) -> np.ndarray:
    """Return the loss by the softmax over all rows; without accidental hits the positive has no correction."""
    losses = []
    for row, scores in enumerate(query @ candidate.T):
        logits = scores - np.log(share)
        if not hits:
            logits[row] = scores[row]
        kept = [j == row or hits or ids[j] != ids[row] for j in range(len(ids))]
        losses.append(np.log(np.exp(logits[kept]).sum()) - logits[row])
    return np.array(losses)


@pytest.mark.parametrize("hits", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 2), (8, 8, 3), (16, 20, 1), (16, 20, 100), (64, 96, 9)])
def test_equal_rows_give_the_softmax_over_all_rows(shape: tuple[int, int, int], hits: bool) -> None:
    values = case(*shape)
    np.testing.assert_allclose(losses_of(*values, hits), reference(*values, hits), rtol=2e-5, atol=3e-5)


def test_unequal_rows_of_an_id_are_their_mean() -> None:
    # Item 1 has the embeddings 1 and 3, of mean 2; item 2 has 0. The scores are 2 and 0. Rows 1 and 2 have the loss
    # log(e^2 + e^0) - 2, because the other row of item 1 is an accidental hit; row 3 has log(2 e^2 + e^0) - 0.
    query, candidate = np.ones((3, 1)), np.array([[1.0], [3.0], [0.0]])
    found = losses_of(query, candidate, np.array([1, 1, 2]), np.ones(3), hits=False)
    rare = np.log(2 * np.exp(2) + 1)
    np.testing.assert_allclose(found, [np.log(np.exp(2) + 1) - 2] * 2 + [rare], rtol=1e-5)


@pytest.mark.parametrize("hits", [True, False])
def test_gradient_of_an_id_is_that_of_tfrs(hits: bool) -> None:
    query, candidate, ids, share = case(32, 32, 5)
    share = share if hits else np.ones(32)  # TFRS corrects the positive too, which is right among accidental hits alone
    sides = [tf.constant(x, tf.float32) for x in (query, candidate)]
    stock = tfrs.tasks.Retrieval(remove_accidental_hits=not hits)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(sides)
        ours = tf.reduce_sum(losses_of(*sides, ids, share, hits))
        theirs = stock(
            *sides,
            candidate_ids=tf.constant(ids),
            candidate_sampling_probability=tf.constant(share, tf.float32),
            compute_metrics=False,
        )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for side in sides:
        own, other = (
            np.stack([np.sum(np.asarray(tape.gradient(loss, side))[ids == item], axis=0) for item in range(5)])
            if side is sides[1]
            else np.asarray(tape.gradient(loss, side))
            for loss in (ours, theirs)
        )
        np.testing.assert_allclose(own, other, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("hits", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1e-20, 30.0, 1e4, 1e15])
def test_scores_of_any_size_stay_finite(scale: float, hits: bool) -> None:
    query, candidate, ids, share = case(40, 40, 4)
    sides = [tf.constant(scale * query, tf.float32), tf.constant(candidate, tf.float32)]
    with tf.GradientTape() as tape:
        tape.watch(sides)
        losses = distinct_softmax(
            *sides, tf.constant(ids), tf.constant(share, tf.float32), remove_accidental_hits=not hits
        )
    assert np.isfinite(losses).all()
    assert all(np.isfinite(part).all() for part in tape.gradient(losses, sides))
    if scale <= 30:
        np.testing.assert_allclose(losses, reference(scale * query, candidate, ids, share, hits), rtol=1e-4, atol=1e-4)


def test_second_derivatives_are_those_of_the_definition() -> None:
    # Meta-learning differentiates a gradient step; a closed form of the gradient would hide this silently.
    query, candidate, ids, share = case(6, 6, 3)
    fixed = [tf.constant(x, tf.float32) for x in (candidate, share)]

    def squared_gradient(values: np.ndarray) -> tuple[float, np.ndarray]:
        start = tf.constant(values, tf.float32)
        with tf.GradientTape() as outer:
            outer.watch(start)
            with tf.GradientTape() as inner:
                inner.watch(start)
                loss = tf.reduce_sum(distinct_softmax(start, fixed[0], tf.constant(ids), fixed[1]))
            size = tf.reduce_sum(inner.gradient(loss, start) ** 2)
        return float(size), np.asarray(outer.gradient(size, start))

    _, slope = squared_gradient(query)
    for place in [(0, 0), (3, 1), (5, 2)]:
        step = np.zeros_like(query)
        step[place] = 1e-2
        difference = (squared_gradient(query + step)[0] - squared_gradient(query - step)[0]) / 2e-2
        assert slope[place] == pytest.approx(difference, rel=2e-2, abs=1e-3)


def test_the_argument_survives_its_configuration() -> None:
    assert Retrieval.from_config(Retrieval("t", distinct_candidates=False).get_config()).distinct_candidates is False
