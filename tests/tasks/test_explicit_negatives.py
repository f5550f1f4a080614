"""Explicit negatives of retrieval: the loss of candidates that a query must not retrieve."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import small
from tests.tasks.losses import NAN, ids_of, loss_of
from tfmtl._keras import tf
from tfmtl.data import Categorical, Label, Preprocessor, Schema
from tfmtl.models import MultiTaskModel, build_network
from tfmtl.tasks import LossInputs, Retrieval
from tfmtl.training import LazyAdam

RNG = np.random.default_rng(8)
QUERY, CANDIDATE, EXTRA = (RNG.normal(size=(n, 3)).astype("float32") for n in (6, 6, 2))
OUTPUTS = {"query": QUERY, "candidate": CANDIDATE}
LABELS = [1, 0, 1, -2, NAN, 1]
WEIGHTS = [1.0, 2.0, 0.5, 1.0, 0.0, 1.0]
IDS, EXTRA_IDS = [2, 3, 4, 4, 5, 7], [3, 8]  # the negative of row 1 is drawn too, that of row 3 is a positive of row 2
POSITIVE, NEGATIVE = [0, 2, 5], [1, 3]
COUNTS = {2: 4.0, 3: 2.0, 4: 1.0, 7: 1.0, 8: 2.0}
SHARE = {item: count / 10 for item, count in COUNTS.items()}


def task_of(**arguments: Any) -> Retrieval:
    task = Retrieval("t", **arguments)
    task.prepare(10)
    task._counts.known.assign([COUNTS.get(index, 0.0) for index in range(10)])
    return task


def inputs(extra: bool = True, training: bool = False, ids: list[int] = IDS) -> LossInputs:
    negatives = (tf.constant(EXTRA), ids_of(EXTRA_IDS)) if extra else None
    return LossInputs({}, ids_of(ids), negatives, training)


def reference(weight: float, *, shared: bool, corrected: bool, extra: bool) -> float:
    """Return the loss by its definition, in float64.

    A sample holds the positives, the explicit negatives if they are shared, and the drawn candidates. A row is compared
    with those of other ids, by exp(s_j) / lambda_j with lambda_j = R n_j / n + N / 10, where R is the number of other
    rows in the sample. Positives have log(exp(s) + sum) - s, negatives log(exp(s) + sum) - log(sum).
    """
    rows = [*POSITIVE, *(NEGATIVE if shared else [])]
    pool = [(CANDIDATE[j], IDS[j]) for j in rows] + [*zip(EXTRA, EXTRA_IDS, strict=True)] * extra
    summed = 0.0
    for i in [*POSITIVE, *NEGATIVE]:
        number = len(rows) - (i in rows)
        others = [
            math.exp(QUERY[i].astype(float) @ v) / (number * SHARE[c] + 2 / 10 * extra if corrected else 1)
            for v, c in pool
            if c != IDS[i]
        ]
        own = math.exp(QUERY[i].astype(float) @ CANDIDATE[i])
        if i in POSITIVE:
            summed += WEIGHTS[i] * math.log((own + sum(others)) / own)
        else:
            summed += weight * WEIGHTS[i] * math.log((own + sum(others)) / sum(others))
    return summed / 2.5


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("extra", [True, False])
@pytest.mark.parametrize("distinct", [True, False])
def test_loss_is_the_definition(shared: bool, corrected: bool, extra: bool, distinct: bool) -> None:
    task = task_of(
        explicit_negatives=3.0,
        share_explicit_negatives=shared,
        sampling_correction=corrected,
        distinct_candidates=distinct,
    )
    if shared:  # rows of one id have one embedding, as one candidate has
        CANDIDATE[3], EXTRA[0] = CANDIDATE[2], CANDIDATE[1]
    loss, weight, _ = loss_of(task, LABELS, OUTPUTS, WEIGHTS, inputs(extra))
    expected = reference(3.0, shared=shared, corrected=corrected, extra=extra)
    assert (loss, weight) == (pytest.approx(expected, rel=1e-5), 2.5)


def test_three_equal_scores() -> None:
    # Two positives and an explicit negative, of three candidates, all scores 0, uncorrected. Each positive has one
    # negative, log 2; the explicit negative has p = 1/3, so -log 2/3 = log 1.5, with weight 4 over two positives.
    outputs = {"query": [[0.0]] * 3, "candidate": [[1.0], [2.0], [3.0]]}
    task = task_of(explicit_negatives=4.0, sampling_correction=False)
    loss, weight, _ = loss_of(task, [1, 1, 0], outputs, [1.0] * 3, inputs(False, ids=[2, 3, 4]))
    assert (loss, weight) == (pytest.approx((2 * math.log(2) + 4 * math.log(1.5)) / 2, rel=1e-6), 2)


@pytest.mark.parametrize("full", [True, False])
def test_the_gradient_lowers_the_score_of_the_negative_by_its_probability(full: bool) -> None:
    # Two positives with scores 0 and a negative with score 2, which are the corpus: p = e^2 / (e^2 + 2) in both losses,
    # and p / 2 raises each positive. The difference of the gradients with and without the negative has these values.
    corpus, gradients = tf.constant([[0.0], [0.0], [2.0]]), []
    for weight in (2.0, 0.0):
        task = task_of(explicit_negatives=weight, sampling_correction=False, full_softmax=full)
        with tf.GradientTape() as tape:
            tape.watch(corpus)
            given = LossInputs({}, ids_of([2, 3, 4]), (corpus, ids_of([2, 3, 4])), positions=tf.range(3))
            rows = {"query": tf.ones([3, 1]), "candidate": corpus}
            labels, plain = tf.constant([1.0, 1.0, 0.0]), LossInputs({}, ids_of([2, 3, 4]))
            loss, _ = task.compute_loss(labels, rows, tf.ones([3]), given if full else plain)
        gradients.append(tape.gradient(loss, corpus)[:, 0].numpy())
    slope = math.exp(2) / (math.exp(2) + 2)
    np.testing.assert_allclose(gradients[0] - gradients[1], [-slope / 2, -slope / 2, slope], rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_without_explicit_negatives_their_rows_change_nothing(training: bool) -> None:
    plain, zero = task_of(), task_of(explicit_negatives=0, share_explicit_negatives=True)
    found = [loss_of(task, LABELS, OUTPUTS, WEIGHTS, inputs(training=training)) for task in (plain, zero)]
    assert found[0][:2] == found[1][:2]
    kept = {side: rows[POSITIVE] for side, rows in OUTPUTS.items()}
    alone = task_of(explicit_negatives=5.0)
    weights, ids = [WEIGHTS[row] for row in POSITIVE], [IDS[row] for row in POSITIVE]
    assert loss_of(alone, [1] * 3, kept, weights, inputs(training=training, ids=ids))[:2] == found[0][:2]


def test_rows_without_label_weight_or_candidate_do_not_count() -> None:
    task = task_of(explicit_negatives=2.0, share_explicit_negatives=True)
    labels, ids = [1, 0, 1, 0, NAN, 0], [2, 3, 4, -1, 5, 7]
    found, _, gradient = loss_of(task, labels, OUTPUTS, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0], inputs(ids=ids))
    kept = {side: rows[:3] for side, rows in OUTPUTS.items()}
    assert found == pytest.approx(loss_of(task, [1, 0, 1], kept, [1.0] * 3, inputs(ids=ids[:3]))[0], rel=1e-6)
    for side in OUTPUTS:
        np.testing.assert_array_equal(gradient[side][3:], 0)
        assert np.abs(gradient[side][1]).max() > 0


@pytest.mark.parametrize("shared", [True, False])
def test_a_batch_without_positives_has_no_loss(shared: bool) -> None:
    task = task_of(explicit_negatives=2.0, share_explicit_negatives=shared)
    for labels in ([0] * 6, [NAN] * 6):
        loss, weight, gradient = loss_of(task, labels, OUTPUTS, WEIGHTS, inputs(extra=False))
        assert (loss, weight) == (0, 0)
        assert all(not gradient[side].any() for side in OUTPUTS)


def test_a_negative_without_competitors_has_no_loss() -> None:
    # The batch's only positive is the candidate of the explicit negative.
    rows = {side: values[:2] for side, values in OUTPUTS.items()}
    loss, _, gradient = loss_of(task_of(explicit_negatives=2.0), [1, 0], rows, [1.0, 1.0], inputs(False, ids=[2, 2]))
    assert loss == 0
    assert all(np.isfinite(gradient[side]).all() for side in rows)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("scale", [1e-30, 1e2, 1e15])
def test_scores_of_any_size_are_finite(scale: float, full: bool) -> None:
    task = task_of(explicit_negatives=2.0, full_softmax=full)
    outputs = {side: scale * values for side, values in OUTPUTS.items()}
    corpus = (tf.constant(np.float32(scale) * CANDIDATE), ids_of([2, 3, 4, 5, 7, 8]))
    given = LossInputs({}, ids_of(IDS), corpus, positions=tf.constant([0, 1, 2, 2, 3, 4])) if full else inputs()
    loss, _, gradient = loss_of(task, LABELS, outputs, WEIGHTS, given)
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient[side]).all() for side in OUTPUTS)


def test_the_counts_are_those_of_the_sample() -> None:
    for shared, expected in ((False, [0, 0, 1, 0, 1, 0, 0, 1, 0, 0]), (True, [0, 0, 1, 1, 2, 0, 0, 1, 0, 0])):
        task = task_of(explicit_negatives=1.0, share_explicit_negatives=shared)
        task._counts.known.assign(np.zeros(10))
        loss_of(task, LABELS, OUTPUTS, WEIGHTS, inputs(training=True))
        assert task._counts.known.numpy().tolist() == expected


@pytest.mark.parametrize("shared", [True, False])
def test_the_mean_sum_is_that_of_the_whole_catalog(shared: bool) -> None:
    # e^l - 1 = exp(s_e) / sum, so exp(s_e) / (e^l - 1) is the estimate of the sum over all other candidates. Its mean
    # over all draws of the two other rows of the sample is that sum, for any negative.
    share, scores = [0.5, 0.3, 0.2], np.random.default_rng(1).normal(size=3)
    task = Retrieval("t", explicit_negatives=1.0, share_explicit_negatives=shared)
    task.prepare(5)
    task._counts.known.assign(1e6 * np.array([0.0, 0.0, *share]))
    others = [1, 0] if shared else [1, 1]
    for negative in range(3):
        mean = 0.0
        for drawn in itertools.product(range(3), repeat=2):
            items = [negative, *drawn]
            outputs = {"query": [[1.0]] * 3, "candidate": [[scores[item]] for item in items]}
            given = LossInputs({}, ids_of([item + 2 for item in items]), num_candidates=3)
            weights = [1.0, 1e-12, 1e-12]
            loss, total, _ = loss_of(task, [0, *others], outputs, weights, given)
            if loss > 0:  # otherwise all of the sample has the candidate of the negative, and the sum is 0
                mean += share[drawn[0]] * share[drawn[1]] * math.exp(scores[negative]) / math.expm1(loss * total)
        assert mean == pytest.approx(np.exp(scores).sum() - math.exp(scores[negative]), rel=1e-3)


def test_full_softmax_is_the_definition() -> None:
    corpus, corpus_ids = RNG.normal(size=(5, 3)).astype("float32"), [7, 3, 2, 4, 9]
    positions = [corpus_ids.index(i) if i in corpus_ids else -1 for i in IDS]
    chances = np.exp(QUERY.astype(float) @ corpus.T)
    chances = (chances / chances.sum(1, keepdims=True))[np.arange(6), positions]
    summed = sum(-WEIGHTS[i] * math.log(chances[i]) for i in POSITIVE)
    summed += sum(-3 * WEIGHTS[i] * math.log(1 - chances[i]) for i in NEGATIVE)
    given = LossInputs({}, ids_of(IDS), (tf.constant(corpus), ids_of(corpus_ids)), positions=tf.constant(positions))
    task = task_of(explicit_negatives=3.0, full_softmax=True)
    assert loss_of(task, LABELS, OUTPUTS, WEIGHTS, given)[0] == pytest.approx(summed / 2.5, rel=1e-5)


def model_of(weight: float, table: pd.DataFrame) -> MultiTaskModel:
    schema = Schema([Categorical("user")], [Categorical("item")], labels=[Label("seen")])
    preprocessor = Preprocessor.fit(schema, table)
    heads = [Retrieval("seen", explicit_negatives=weight)]
    network = build_network(preprocessor, heads, embedding_dim=4, seed=1)
    model = MultiTaskModel(network, heads, preprocessor)
    model.compile(LazyAdam(0.05))
    return model


def test_a_model_learns_not_to_retrieve_disliked_candidates() -> None:
    table = small.table()[["user", "item"]].assign(seen=1.0)
    table["seen"] = np.where((table.index % 3 == 0) & table["item"].isin(["i0", "i1", "i2"]), 0.0, 1.0)
    gaps = []
    for weight in (0.0, 5.0):
        model = model_of(weight, table)
        model.fit(table, epochs=10, batch_size=25, verbose=0)
        served, disliked = model.predict(table, verbose=0)["seen"], table["seen"] == 0
        gaps.append(served[~disliked].mean() - served[disliked].mean())
    assert gaps[1] > gaps[0] + 0.1, gaps


def test_bad_arguments_and_labels_have_a_sentence() -> None:
    for value in (-1, NAN, math.inf):
        sentence = "`explicit_negatives` of task 't' must be a finite weight, 0 or more. Received: explicit_negatives="
        with pytest.raises(ValueError, match=re.escape(sentence)):
            Retrieval("t", explicit_negatives=value)
    with pytest.raises(ValueError, match="`explicit_negatives` needs rows with a label of 0 or below"):
        model_of(1.0, small.table().assign(seen=1.0))
