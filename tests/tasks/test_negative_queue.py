"""Cross-batch negatives of retrieval."""

from __future__ import annotations

import itertools
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tests.tasks.losses import NAN, ids_of, loss_of
from tfmtl._keras import tf
from tfmtl.models import load_model, save_model
from tfmtl.tasks import LossInputs, Retrieval

RNG = np.random.default_rng(12)
QUERY = RNG.normal(size=(3, 2)).astype("float32")
BATCHES = [[2, 3, 4], [3, 5, 6], [2, 2, 5]]
ITEMS = RNG.normal(size=(3, 10, 2)).astype("float32")  # an item has another embedding in every step


def task_of(size: int = 4, **arguments: Any) -> Retrieval:
    task = Retrieval("t", num_queued_negatives=size, **arguments)
    task.prepare(10)
    task.prepare_output({"candidate": tf.zeros([1, 2])})
    return task


def step(task: Retrieval, number: int, labels: Sequence[float] = (1, 1, 1), training: bool = True) -> Any:
    ids = BATCHES[number]
    outputs = {"query": QUERY, "candidate": ITEMS[number][ids]}
    weights = [0.0 if math.isnan(label) else 1.0 for label in labels]
    given = LossInputs({}, ids_of(ids), training=training, keys={"user": tf.constant([7, 8, 9], tf.int64)})
    return loss_of(task, labels, outputs, weights, given)


def contents(task: Retrieval) -> list[int]:
    return [key for key in task._queue.keys.numpy().tolist() if key >= 0]


def reference(number: int, queue: list[tuple[int, int]], corrected: bool) -> float:
    """Return the loss in float64; the queue holds (step, item), and an item of the batch has its present embedding.

    lambda_j = (2 + length of the queue) times the share of the item in all batches so far.
    """
    ids = BATCHES[number]
    seen = [item for batch in BATCHES[: number + 1] for item in batch]
    pool = [(number, item) for item in ids] + [(number if item in ids else at, item) for at, item in queue]
    losses = []
    for row, item in enumerate(ids):
        score = QUERY[row].astype(float) @ ITEMS[number, item]
        total = math.exp(score)
        for at, other in pool:
            if other != item:
                expected = (2 + len(queue)) * seen.count(other) / len(seen) if corrected else 1
                total += math.exp(QUERY[row].astype(float) @ ITEMS[at, other]) / expected
        losses.append(math.log(total) - score)
    return float(np.mean(losses))


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("distinct", [True, False])
def test_loss_is_the_definition(corrected: bool, distinct: bool) -> None:
    task = task_of(sampling_correction=corrected, distinct_candidates=distinct)
    queues: list[list[tuple[int, int]]] = [[], [(0, 2), (0, 3), (0, 4)], [(1, 3), (1, 5), (1, 6), (0, 2)]]
    for number, queue in enumerate(queues):
        assert contents(task) == [item for _, item in queue]
        assert step(task, number)[0] == pytest.approx(reference(number, queue, corrected), rel=1e-5)
    assert contents(task) == [2, 2, 5, 3]


def test_three_equal_scores() -> None:
    # All scores 0, uncorrected: the first step has two negatives, log 3; in the second with items 3, 5, 6 the queue has
    # 2, 3 and 4 too. Row 0 with item 3 has 5, 6, 2, 4: log 5. The others have 5 negatives: log 6.
    task = task_of(sampling_correction=False)
    for number, losses in ((0, [3, 3, 3]), (1, [5, 6, 6])):
        outputs = {"query": np.zeros([3, 2]), "candidate": ITEMS[0][BATCHES[number]]}
        found = loss_of(task, [1] * 3, outputs, [1.0] * 3, LossInputs({}, ids_of(BATCHES[number]), training=True))[0]
        assert found == pytest.approx(np.log(losses).mean(), rel=1e-6)


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("hits", [True, False])
def test_negatives_of_the_batch_have_the_gradient_of_the_queue(hits: bool, distinct: bool) -> None:
    # Twice the same batch with embeddings of their own: each item is in the batch and in the queue. The positive has
    # the gradient -(1 - p) u, or -u and that of a negative if hits are kept. Of two equal negatives the one of the
    # batch has the gradient (2 + 3) / 2 p / 2 u, or (3 + 3) / 3 p / 2 u.
    task = task_of(sampling_correction=False, remove_accidental_hits=not hits, distinct_candidates=distinct)
    step(task, 0)
    outputs = {"query": QUERY, "candidate": ITEMS[1][BATCHES[0]]}
    given = LossInputs({}, ids_of(BATCHES[0]), training=True)
    gradient = loss_of(task, [1] * 3, outputs, [1.0, 1e-12, 1e-12], given)[2]
    powers = np.exp(QUERY[0].astype(float) @ ITEMS[1][BATCHES[0]].T) * [2 if hits else 1, 2, 2]
    chances = powers / powers.sum()
    by_row = chances * (1 if hits else [1, 1.25, 1.25]) - [1, 0, 0]
    np.testing.assert_allclose(gradient["candidate"], by_row[:, np.newaxis] * QUERY[0], rtol=1e-4, atol=1e-6)
    expected = (chances - [1, 0, 0]) @ ITEMS[1][BATCHES[0]]
    np.testing.assert_allclose(gradient["query"][0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("joint", [True, False])
def test_one_logit_for_a_candidate_has_the_gradients_of_its_rows(joint: bool) -> None:
    found = []
    for distinct in (True, False):
        task = task_of(distinct_candidates=distinct, query_key="user", joint_positives=joint, explicit_negatives=2.0)
        outputs = {"query": QUERY, "candidate": ITEMS[0][[2, 2, 5]]}
        given = LossInputs({}, ids_of([2, 2, 5]), training=True, keys={"user": tf.constant([7, 8, 7], tf.int64)})
        for _ in range(2):
            loss, _, gradient = loss_of(task, [1, 1, 0], outputs, [1.0, 2.0, 3.0], given)
        by_item = np.stack([gradient["candidate"][:2].sum(axis=0), gradient["candidate"][2]])
        found.append((loss, gradient["query"], by_item))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_other_positives_of_a_user_in_the_queue_are_no_negatives() -> None:
    # All scores 0: step 0 had the items 2, 3, 4 of the users 7, 8, 9, step 1 has 3, 5, 6. User 7 has 2 and 3, negatives
    # 5, 6, 4: log 4. User 8 has 3 and 5, negatives 6, 2, 4: log 4. User 9 has 4 and 6, negatives 3, 3, 5, 2: log 5.
    task = task_of(sampling_correction=False, query_key="user")
    for number, losses in ((0, [3, 3, 3]), (1, [4, 4, 5])):
        outputs = {"query": np.zeros([3, 2]), "candidate": ITEMS[0][BATCHES[number]]}
        given = LossInputs({}, ids_of(BATCHES[number]), training=True, keys={"user": tf.constant([7, 8, 9], tf.int64)})
        found = loss_of(task, [1] * 3, outputs, [1.0] * 3, given)[0]
        assert found == pytest.approx(np.log(losses).mean(), rel=1e-6)


def test_evaluation_neither_reads_nor_changes_the_queue() -> None:
    task, plain = task_of(), Retrieval("t")
    plain.prepare(10)
    for number in range(2):
        for each in (task, plain):
            step(each, number)
    before = [weight.numpy() for weight in task._queue.weights]
    assert step(task, 2, training=False)[0] == step(plain, 2, training=False)[0]
    for weight, kept in zip(task._queue.weights, before, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_rows_without_label_are_not_queued() -> None:
    task = task_of()
    step(task, 0, [NAN, 1, 0])
    assert contents(task) == [3]
    step(task, 1, [0, 0, NAN])
    assert contents(task) == [3]
    shared = task_of(explicit_negatives=1.0, share_explicit_negatives=True)
    step(shared, 0, [NAN, 1, 0])
    assert contents(shared) == [3, 4]


@pytest.mark.parametrize("arguments", [{}, {"distinct_candidates": False}, {"query_key": "user"}])
def test_the_mean_sum_and_its_gradient_are_those_of_the_whole_catalog(arguments: dict[str, Any]) -> None:
    # Over all draws of the other row and of two entries of the queue: E[Z] = sum_c exp(s_c) for Z = exp(l + s_p), and
    # E[Z dl/dv_c] = exp(s_c) u for c other than p, E[Z dl/dv_p] = (exp(s_p) - E[Z]) u.
    share, scores = [0.5, 0.3, 0.2], np.random.default_rng(1).normal(size=3)
    task = Retrieval("t", num_queued_negatives=2, **arguments)
    task.prepare(5)
    task.prepare_output({"candidate": tf.zeros([1, 1])})
    values, users = tf.constant(scores[:, np.newaxis], tf.float32), {"user": tf.constant([7, 8], tf.int64)}
    for positive in range(3):
        mean, change = 0.0, np.zeros(3)
        for drawn in itertools.product(range(3), repeat=3):
            task._counts.known.assign(1e7 * np.array([0.0, 0.0, *share]))
            queue = list(drawn[1:])
            task._queue.add(tf.gather(values, queue), ids_of(np.array(queue) + 2), None)
            ids = [positive, drawn[0]]
            outputs = {"query": [[1.0], [1.0]], "candidate": tf.gather(values, ids)}
            given = LossInputs({}, ids_of(np.array(ids) + 2), training=True, keys=users)
            loss, _, gradient = loss_of(task, [1, 1], outputs, [1.0, 1e-12], given)
            sums = math.prod(share[item] for item in drawn) * math.exp(loss + scores[positive])
            mean += sums
            np.add.at(change, ids, sums * gradient["candidate"][:, 0])
        assert mean == pytest.approx(np.exp(scores).sum(), rel=1e-4)
        expected = np.exp(scores) - mean * np.eye(3)[positive]
        np.testing.assert_allclose(change, expected, rtol=1e-3)


def model_of(seed: int = 0) -> Any:
    return small.model(heads=small.tasks(num_queued_negatives=20, query_key="user"), seed=seed)


def test_a_saved_model_continues_with_its_queue(tmp_path: pathlib.Path) -> None:
    model = model_of()
    model.fit(small.table(), epochs=1, batch_size=16, verbose=0)
    assert (model.tasks[0]._queue.keys.numpy() >= 0).all()
    again = load_model(save_model(model, tmp_path / "model"))
    for own, theirs in zip(model.tasks[0]._queue.weights, again.tasks[0]._queue.weights, strict=True):
        np.testing.assert_array_equal(own, theirs)
    found = [each.fit(small.table(), epochs=1, batch_size=16, verbose=0).history for each in (model, again)]
    assert found[0]["seen_loss"] == found[1]["seen_loss"]


def test_preparing_again_empties_the_queue() -> None:
    task = task_of()
    step(task, 0)
    before = len(task.weights)
    task.prepare(10)
    task.prepare_output({"candidate": tf.zeros([1, 2])})
    assert contents(task) == []
    assert len(task.weights) == before


def test_parameter_servers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfmtl.tasks.retrieval.serves_parameters", lambda strategy: True)
    with pytest.raises(ValueError, match="`num_queued_negatives` of task 'seen' needs workers that compute a batch"):
        model_of()


def test_bad_arguments_have_a_sentence() -> None:
    with pytest.raises(ValueError, match=re.escape("`num_queued_negatives` of task 't' must be 0 or more. Received: ")):
        Retrieval("t", num_queued_negatives=-1)
    with pytest.raises(ValueError, match="`full_softmax` of task 't' has no negatives to choose"):
        Retrieval("t", num_queued_negatives=1, full_softmax=True)
    outputs = {"query": QUERY, "candidate": QUERY}
    with pytest.raises(ValueError, match="with `num_queued_negatives` needs the ids of the candidates"):
        loss_of(task_of(), [1] * 3, outputs, [1.0] * 3, LossInputs({}, None, training=True))
