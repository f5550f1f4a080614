from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.tasks.losses import NAN, ids_of, loss_of, tfrs
from tfmtl._keras import keras, tf
from tfmtl.tasks import HeadInputs, LossInputs, Retrieval

RNG = np.random.default_rng(5)
QUERY, CANDIDATE, EXTRA = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3)), RNG.normal(size=(2, 3))
IDS, EXTRA_IDS = [2, 3, 2, 5], [3, 7]  # rows 0 and 2 have the same positive; an extra negative is row 1's positive
CANDIDATE[2], EXTRA[0] = CANDIDATE[0], CANDIDATE[1]
OUTPUTS = {"query": QUERY, "candidate": CANDIDATE}
WEIGHTS = [1.0, 2.0, 0.5, 1.0]
CORPUS = 10


def task_of(counts: dict[int, float] | None = None, **arguments: Any) -> Retrieval:
    task = Retrieval("t", **arguments)
    task.prepare(CORPUS)
    task._counts.known.assign([(counts or {}).get(index, 0.0) for index in range(CORPUS)])
    return task


def inputs(ids: Sequence[int] = IDS, extra: bool = False, training: bool = False) -> LossInputs:
    negatives = (tf.constant(EXTRA, tf.float32), ids_of(EXTRA_IDS)) if extra else None
    return LossInputs({}, ids_of(ids), negatives, training)


def reference(
    logits: np.ndarray,
    ids: Sequence[int],
    weights: Sequence[float],
    *,
    accidental: bool = True,
    hard: int | None = None,
) -> float:
    """Return the loss by its definition: a softmax over the positive and the negatives that are kept."""
    losses = []
    for row, scores in enumerate(logits):
        others = [s for j, s in enumerate(scores) if j != row and not (accidental and ids[j] == ids[row])]
        chosen = np.array([scores[row], *sorted(others, reverse=True)[:hard]])
        losses.append(np.log(np.exp(chosen).sum()) - scores[row])
    return float(np.average(losses, weights=weights))


def test_two_equal_scores() -> None:
    # Two candidates with scores 0: -log 1/2 with any weights. Corrected, the one negative is drawn from 10 candidates
    # without counts and has the weight of all of them: -log 1/11.
    outputs = {"query": [[0.0], [0.0]], "candidate": [[1.0], [2.0]]}
    for correction, expected in ((False, np.log(2)), (True, np.log(11))):
        task = task_of(sampling_correction=correction)
        loss, weight, _ = loss_of(task, [1, 1], outputs, [1.0, 3.0], inputs([2, 3]))
        assert (loss, weight) == (pytest.approx(expected, rel=1e-6), 4)


@pytest.mark.parametrize("accidental", [True, False])
@pytest.mark.parametrize("hard", [None, 1, 2, 3, 50])
@pytest.mark.parametrize("extra", [True, False])
@pytest.mark.parametrize("distinct", [True, False])
def test_loss_is_the_definition(accidental: bool, hard: int | None, extra: bool, distinct: bool) -> None:
    task = task_of(
        sampling_correction=False,
        remove_accidental_hits=accidental,
        num_hard_negatives=hard,
        distinct_candidates=distinct,
    )
    loss, weight, _ = loss_of(task, [1] * 4, OUTPUTS, WEIGHTS, inputs(extra=extra))
    candidates = np.concatenate([CANDIDATE, EXTRA]) if extra else CANDIDATE
    ids = [*IDS, *EXTRA_IDS] if extra else IDS
    expected = reference(QUERY @ candidates.T, ids, WEIGHTS, accidental=accidental, hard=hard)
    assert (loss, weight) == (pytest.approx(expected, rel=1e-5), 4.5)


def test_loss_is_that_of_tfrs() -> None:
    task = task_of(sampling_correction=False)
    stock = tfrs.tasks.Retrieval(remove_accidental_hits=True)
    summed = stock(
        *(tf.constant(x, tf.float32) for x in (QUERY, CANDIDATE)), candidate_ids=tf.constant(IDS), compute_metrics=False
    )
    assert loss_of(task, [1] * 4, OUTPUTS, [1.0] * 4, inputs())[0] == pytest.approx(float(summed) / 4, rel=1e-5)


def test_correction_reduces_the_logit_of_a_popular_negative() -> None:
    # All scores 0; item 2 was seen 9 times, item 3 once, and a row has one negative: lambda is 0.9 and 0.1. The popular
    # positive has the rare negative, l = log(1 + 1/0.1), the rare one log(1 + 1/0.9); uncorrected both are log 2.
    outputs = {"query": [[0.0], [0.0]], "candidate": [[1.0], [2.0]]}
    task = task_of({2: 9.0, 3: 1.0})
    popular, rare = np.log(11), np.log(1 + 1 / 0.9)
    for weights in ([1.0, 3.0], [3.0, 1.0]):
        loss = loss_of(task, [1, 1], outputs, weights, inputs([2, 3]))[0]
        assert loss == pytest.approx(np.average([popular, rare], weights=weights), rel=1e-5)


@pytest.mark.parametrize("accidental", [True, False])
@pytest.mark.parametrize("hard", [None, 2])
@pytest.mark.parametrize("distinct", [True, False])
def test_correction_with_uniform_negatives_is_the_expected_number(
    accidental: bool, hard: int | None, distinct: bool
) -> None:
    # B = 4 in-batch, N = 2 uniform of C = 10: lambda = 3 n / 10 + 2 / 10 among the negatives of a row, and 4 n / 10 +
    # 2 / 10 if the positive is one of the sample; item 7 has no counts and gets 1 / C.
    share = {2: 0.5, 3: 0.3, 5: 0.2, 7: 0.1}
    ids = [*IDS, *EXTRA_IDS]
    drawn = 3 if accidental else 4
    scores = QUERY @ np.concatenate([CANDIDATE, EXTRA]).T
    logits = scores - np.log([drawn * share[item] + 2 / CORPUS for item in ids])
    if accidental:
        np.fill_diagonal(logits, np.diag(scores))
    task = task_of(
        {2: 5.0, 3: 3.0, 5: 2.0},
        remove_accidental_hits=accidental,
        num_hard_negatives=hard,
        distinct_candidates=distinct,
    )
    loss = loss_of(task, [1] * 4, OUTPUTS, WEIGHTS, inputs(extra=True))[0]
    assert loss == pytest.approx(reference(logits, ids, WEIGHTS, accidental=accidental, hard=hard), rel=1e-5)


@pytest.mark.parametrize("distinct", [True, False])
def test_a_single_positive_has_no_loss(distinct: bool) -> None:
    first = {side: rows[:1] for side, rows in OUTPUTS.items()}
    loss, _, gradient = loss_of(task_of({2: 5.0}, distinct_candidates=distinct), [1], first, [1.0], inputs([2]))
    assert loss == 0
    for side in first:
        np.testing.assert_array_equal(gradient[side], 0)


def test_counts_are_positives_of_training_steps() -> None:
    task = task_of()
    loss_of(task, [1] * 4, OUTPUTS, WEIGHTS, inputs())
    assert task._counts.known.numpy().sum() == 0  # an evaluation does not count
    loss_of(task, [1, 1, 0, NAN], OUTPUTS, [1.0, 1.0, 1.0, 0.0], inputs(training=True, extra=True))
    loss_of(task, [1, 1, 1, 1], OUTPUTS, WEIGHTS, inputs(training=True))
    assert task._counts.known.numpy().tolist() == [0, 0, 3, 2, 0, 1, 0, 0, 0, 0]
    assert task.trainable_weights == []
    off = task_of(sampling_correction=False)
    loss_of(off, [1] * 4, OUTPUTS, WEIGHTS, inputs(training=True))
    assert off._counts.known.numpy().sum() == 0


@pytest.mark.parametrize("correction", [True, False])
@pytest.mark.parametrize("extra", [True, False])
def test_rows_that_are_no_positives_touch_neither_loss_nor_gradient(correction: bool, extra: bool) -> None:
    task = task_of({2: 3.0, 5: 1.0}, sampling_correction=correction)
    loss, weight, gradient = loss_of(task, [1, NAN, 0, 1], OUTPUTS, [1.0, 0.0, 1.0, 2.0], inputs(extra=extra))
    kept = {side: rows[[0, 3]] for side, rows in OUTPUTS.items()}
    expected, _, without = loss_of(task, [1, 1], kept, [1.0, 2.0], inputs([2, 5], extra=extra))
    assert (loss, weight) == (pytest.approx(expected, rel=1e-6), 3)
    for side in OUTPUTS:
        np.testing.assert_array_equal(gradient[side][[1, 2]], 0)
        np.testing.assert_allclose(gradient[side][[0, 3]], without[side], rtol=1e-5, atol=1e-7)
        assert np.abs(without[side]).max() > 0


@pytest.mark.parametrize("hard", [None, 2])
@pytest.mark.parametrize("extra", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_without_a_positive_loss_weight_and_gradient_are_zero(hard: int | None, extra: bool, training: bool) -> None:
    task = task_of(num_hard_negatives=hard)
    outputs = {side: tf.constant(rows, tf.float32) for side, rows in OUTPUTS.items()}
    labels, weights = tf.constant([NAN, NAN, 0, 0]), tf.constant([0.0, 0.0, 1.0, 1.0])
    rest = inputs(extra=extra, training=training)
    traced = tf.function(lambda *rows: task.compute_loss(*rows, rest))  # Keras warns if the shape of a score is static
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss, weight = traced(labels, outputs, weights)
    assert (float(loss), float(weight)) == (0, 0)
    for gradient in tape.gradient(loss, outputs).values():
        np.testing.assert_array_equal(gradient, 0)
    assert task._counts.known.numpy().sum() == 0


def test_large_scores_stay_finite() -> None:
    outputs = {side: 1e15 * values for side, values in OUTPUTS.items()}
    loss, _, gradient = loss_of(task_of({2: 1.0}), [1] * 4, outputs, WEIGHTS, inputs(training=True))
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient[side]).all() for side in OUTPUTS)


def network_of(task: Retrieval) -> keras.Model:
    query, candidate = keras.Input([3], name="query"), keras.Input([3], name="candidate")
    return keras.Model([query, candidate], task.connect(HeadInputs(query, candidate, {})))


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_normalized_towers_have_length_one_before_the_temperature(temperature: float) -> None:
    found = network_of(Retrieval("t", normalize=True, temperature=temperature))(
        [tf.constant(QUERY), tf.constant(CANDIDATE)]
    )
    np.testing.assert_allclose(np.linalg.norm(found["query"], axis=1), 1 / temperature, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found["candidate"], axis=1), 1, rtol=1e-5)


def test_temperature_divides_the_scores() -> None:
    rows = [tf.constant(QUERY, tf.float32), tf.constant(CANDIDATE, tf.float32)]
    plain, divided = (Retrieval("t", temperature=t) for t in (1.0, 0.5))
    np.testing.assert_allclose(
        divided.predict(network_of(divided)(rows)), 2 * plain.predict(network_of(plain)(rows)), rtol=1e-6
    )
    np.testing.assert_allclose(plain.predict(network_of(plain)(rows)), np.sum(QUERY * CANDIDATE, axis=1), rtol=1e-6)


def test_candidate_bias_is_added_to_the_score_of_the_towers() -> None:
    task = Retrieval("t", units=[5, 2], candidate_bias=True)
    network = network_of(task)
    found = network([tf.constant(QUERY), tf.constant(CANDIDATE)])
    assert found["query"].shape == found["candidate"].shape == [4, 3]  # two units and the coordinate of the bias
    np.testing.assert_array_equal(found["query"][:, -1], 1)
    layer = network.get_layer("t_candidate_bias_output")
    np.testing.assert_allclose(
        found["candidate"][:, -1], (CANDIDATE @ layer.kernel.numpy())[:, 0], rtol=1e-4, atol=1e-6
    )
    bare = np.sum(found["query"][:, :2] * found["candidate"][:, :2], axis=1)
    np.testing.assert_allclose(task.predict(found), bare + found["candidate"][:, -1], rtol=1e-5, atol=1e-6)


def test_a_network_without_candidates_is_refused() -> None:
    with pytest.raises(ValueError, match="Retrieval task 't' needs candidate features; the schema has none"):
        Retrieval("t").connect(HeadInputs(keras.Input([3]), None, {}))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"temperature": 0}, "`temperature` of task 't' must be above 0. Received: temperature=0."),
        ({"num_uniform_negatives": -1}, "`num_uniform_negatives` of task 't' must be 0 or more. Received: "),
        ({"num_hard_negatives": 0}, "`num_hard_negatives` must be a positive integer. Received: num_hard_negatives=0."),
        ({"units": [3, -1]}, "`units` must be a positive integer. Received: units=-1."),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Retrieval("t", **arguments)


def test_it_asks_for_its_negatives() -> None:
    assert Retrieval("t", num_uniform_negatives=7).num_extra_negatives == 7
    assert not Retrieval("t").uses_trunk
