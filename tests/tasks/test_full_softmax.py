from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from tests.tasks.losses import NAN, ids_of, loss_of
from tfmtl._keras import tf
from tfmtl.tasks import LossInputs, Retrieval, corpus_softmax
from tfmtl.tasks.corpus_softmax import corpus_cross_entropy

RNG = np.random.default_rng(5)
QUERY, CORPUS = RNG.normal(size=(4, 3)).astype(np.float32), RNG.normal(size=(5, 3)).astype(np.float32)
CORPUS_IDS = [6, 3, 2, 5, 9]
OUTPUTS = {"query": QUERY, "candidate": RNG.normal(size=(4, 3))}
IDS, WEIGHTS = [2, 3, 2, 9], [1.0, 2.0, 0.5, 1.0]


def losses(query: np.ndarray, corpus: np.ndarray, positive: list[int]) -> np.ndarray:
    logits = query.astype(np.float64) @ corpus.T
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(query)), positive]


@pytest.mark.parametrize("block", [1, 10, 1 << 20], ids=["one row", "two rows", "all rows"])
def test_blocks_are_the_whole(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_softmax, "_BLOCK", block)
    positive, weight = tf.constant([2, 0, 2, 4]), tf.constant(WEIGHTS)
    query, corpus = tf.constant(QUERY), tf.constant(CORPUS)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([query, corpus])
        found = 3.0 * corpus_cross_entropy(query, corpus, positive, weight)
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(positive, tf.matmul(query, corpus, transpose_b=True))
        plain = 3.0 * tf.reduce_sum(weight * each)
    assert float(found) == pytest.approx(3 * np.dot(WEIGHTS, losses(QUERY, CORPUS, [2, 0, 2, 4])), rel=1e-5)
    for own, expected in zip(*(tape.gradient(loss, [query, corpus]) for loss in (found, plain)), strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("negative", [None, [False, True, False, True]], ids=["positives", "with negatives"])
def test_loss_and_gradients_in_a_graph_are_the_eager_ones(negative: list[bool] | None) -> None:
    marks = None if negative is None else tf.constant(negative)

    def loss_and_gradients(query: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(query)
            positive, weight = tf.constant([2, 0, 2, 4]), tf.constant(WEIGHTS)
            loss = corpus_cross_entropy(query, tf.constant(CORPUS), positive, weight, negative=marks)
        return loss, tape.gradient(loss, query)

    eager, graph = (call(tf.constant(QUERY)) for call in (loss_and_gradients, tf.function(loss_and_gradients)))
    for own, expected in zip(graph, eager, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-6)


def test_scores_of_any_size_are_finite() -> None:
    for scale in (0.0, 1e-30, 1e15):
        query = tf.constant(QUERY * scale)
        with tf.GradientTape() as tape:
            tape.watch(query)
            loss = corpus_cross_entropy(query, tf.constant(CORPUS), tf.constant([0, 1, 2, 3]), tf.constant(WEIGHTS))
        assert np.isfinite(loss)
        assert np.isfinite(tape.gradient(loss, query)).all()


def task_of(**arguments: Any) -> Retrieval:
    task = Retrieval("t", full_softmax=True, **arguments)
    task.prepare(10)
    return task


def inputs(ids: list[int] = IDS, corpus: np.ndarray = CORPUS, training: bool = True) -> LossInputs:
    positions = [CORPUS_IDS.index(i) if i in CORPUS_IDS else -1 for i in ids]
    negatives = (tf.constant(corpus), ids_of(CORPUS_IDS))
    return LossInputs({}, ids_of(ids), negatives, training, positions=tf.constant(positions))


@pytest.mark.parametrize("training", [True, False])
def test_loss_is_the_mean_over_the_corpus(training: bool) -> None:
    found, weight, gradient = loss_of(task_of(), [1] * 4, OUTPUTS, WEIGHTS, inputs(training=training))
    expected = np.average(losses(QUERY, CORPUS, [2, 1, 2, 4]), weights=WEIGHTS)  # positions of 2, 3, 2, 9 in the corpus
    assert (found, weight) == (pytest.approx(expected, rel=1e-5), 4.5)
    assert not gradient["candidate"].any()  # the loss reads the candidates of the corpus


def test_rows_that_are_no_positives_or_outside_the_corpus_do_not_count() -> None:
    labels, weights = [1, NAN, 0, 1], [1.0, 0.0, 1.0, 2.0]
    found, weight, gradient = loss_of(task_of(), labels, OUTPUTS, weights, inputs([2, 3, 2, 7]))  # no candidate 7
    assert (found, weight) == (pytest.approx(losses(QUERY[:1], CORPUS, [2])[0], rel=1e-5), 1)
    assert not gradient["query"][1:].any()
    nothing, weight, gradient = loss_of(task_of(), [0] * 4, OUTPUTS, WEIGHTS, inputs())
    assert (nothing, weight) == (0, 0)
    np.testing.assert_array_equal(gradient["query"], 0)


def test_nothing_is_counted_and_no_popularity_corrected() -> None:
    task, plain = task_of(), task_of(sampling_correction=False, remove_accidental_hits=False)
    task._counts.known.assign(tf.range(10.0))
    left, right = (loss_of(t, [1] * 4, OUTPUTS, WEIGHTS, inputs())[0] for t in (task, plain))
    assert left == right
    np.testing.assert_array_equal(task._counts.known, np.arange(10))


def test_the_candidate_tower_learns_from_the_corpus() -> None:
    corpus = tf.constant(CORPUS)
    with tf.GradientTape() as tape:
        tape.watch(corpus)
        given = dataclasses.replace(inputs(), negatives=(corpus, ids_of(CORPUS_IDS)))
        rows = {side: tf.constant(value, tf.float32) for side, value in OUTPUTS.items()}
        loss, _ = task_of().compute_loss(tf.ones([4]), rows, tf.constant(WEIGHTS), given)
    powers = np.exp(QUERY @ CORPUS.T)
    slopes = powers / powers.sum(1, keepdims=True) - np.eye(5)[[2, 1, 2, 4]]
    expected = (slopes * np.array(WEIGHTS)[:, np.newaxis] / 4.5).T @ QUERY
    np.testing.assert_allclose(tape.gradient(loss, corpus), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("arguments", [{"num_uniform_negatives": 3}, {"num_hard_negatives": 2}])
def test_other_negatives_are_refused(arguments: dict[str, int]) -> None:
    sentence = (
        "`full_softmax` of task 't' has no negatives to choose; leave out the other arguments on negatives. Received: "
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Retrieval("t", full_softmax=True, **arguments)


def test_its_config_says_so() -> None:
    assert Retrieval.from_config(task_of().get_config()).full_softmax


def test_it_asks_for_the_corpus() -> None:
    assert task_of().needs_corpus
    assert not Retrieval("t").needs_corpus
    with pytest.raises(ValueError, match="with `full_softmax` needs the corpus as `negatives`"):
        loss_of(task_of(), [1] * 4, OUTPUTS, WEIGHTS, LossInputs({}, ids_of(IDS)))
