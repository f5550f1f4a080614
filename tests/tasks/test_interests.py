"""Several vectors per query: the chosen vector of the loss, and the largest product in every score."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from tests.tasks.losses import ids_of, loss_of
from tfmtl._keras import keras, tf
from tfmtl.tasks import HeadInputs, LossInputs, Retrieval, corpus_softmax
from tfmtl.tasks.interests import best_of_all, best_of_pairs, best_scores, interest_of, joined_to_each

RNG = np.random.default_rng(5)
K, D = 3, 2
QUERY, CANDIDATE = RNG.normal(size=(5, K * D)), RNG.normal(size=(5, D))
CORPUS, EXTRA = RNG.normal(size=(7, D)), RNG.normal(size=(4, D))
IDS, CORPUS_IDS = [2, 3, 4, 5, 6], [9, 6, 2, 3, 8, 4, 5]
LABELS, WEIGHTS = [1.0, 1.0, 0.0, 1.0, 1.0], [1.0, 2.0, 0.5, 1.0, 1.0]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "distinct": {},
    "row": {"distinct_candidates": False},
    "with hits": {"remove_accidental_hits": False},
    "hard": {"num_hard_negatives": 2},
    "uniform": {"num_uniform_negatives": 4},
    "queued": {"num_queued_negatives": 3},
    "by query": {"query_key": "user"},
    "explicit": {"explicit_negatives": 3.0, "share_explicit_negatives": True},
    "full": {"full_softmax": True, "explicit_negatives": 0.5},
    "no gather": {"gather_negatives": False},
}


def vectors() -> np.ndarray:
    return QUERY.reshape(-1, K, D)


def chosen(sharpness: float | None) -> np.ndarray:
    """Return the vector of each row, one by one: the best product, or the mean by softmax of the products."""
    found = []
    for own, candidate in zip(vectors(), CANDIDATE, strict=True):
        products = [float(u @ candidate) for u in own]
        if sharpness is None:
            found.append(own[int(np.argmax(products))])
        else:
            powers = [np.exp(sharpness * p) for p in products]
            found.append(sum(a / sum(powers) * u for a, u in zip(powers, own, strict=True)))
    return np.array(found)


def task_of(**arguments: Any) -> Retrieval:
    task = Retrieval("t", **{"shared_interest": True, **arguments})
    task.prepare(12)
    task.prepare_output({"query": np.zeros([1, 6]), "candidate": np.zeros([1, D])})
    task._counts.known.assign(np.arange(12.0))
    return task


def inputs(task: Retrieval) -> LossInputs:
    keys = {"user": tf.constant([1, 1, 2, 3, 1], tf.int64)}
    rows, ids = (CORPUS, CORPUS_IDS) if task.full_softmax else (EXTRA, [7, 8, 2, 10])
    needed = task.full_softmax or task.num_uniform_negatives
    negatives = (tf.constant(rows, tf.float32), ids_of(ids)) if needed else None
    positions = tf.constant([CORPUS_IDS.index(i) for i in IDS]) if task.full_softmax else None
    return LossInputs({}, ids_of(IDS), negatives, False, keys=keys, positions=positions, num_candidates=10)


def test_the_vector_of_a_row_is_chosen_by_its_candidate() -> None:
    # <(1, 0), (2, 3)> = 2 and <(0, 1), (2, 3)> = 3; of the soft choice with p = log 2 the weights are 2^2 and 2^3.
    query, candidate = tf.constant([[1.0, 0.0, 0.0, 1.0]]), tf.constant([[2.0, 3.0]])
    np.testing.assert_allclose(interest_of(query, candidate), [[0, 1]])
    np.testing.assert_allclose(interest_of(query, candidate, float(np.log(2))), [[1 / 3, 2 / 3]], rtol=1e-6)
    assert best_of_pairs(query, candidate).numpy().tolist() == [3.0]


@pytest.mark.parametrize("sharpness", [None, 0.7])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_loss_is_that_of_the_chosen_vector(name: str, sharpness: float | None) -> None:
    several = task_of(num_interests=K, interest_sharpness=sharpness, **ARGUMENTS[name])
    one = task_of(**ARGUMENTS[name])
    loss, weight, _ = loss_of(several, LABELS, {"query": QUERY, "candidate": CANDIDATE}, WEIGHTS, inputs(several))
    expected = loss_of(one, LABELS, {"query": chosen(sharpness), "candidate": CANDIDATE}, WEIGHTS, inputs(one))
    assert (loss, weight) == (pytest.approx(expected[0], rel=1e-5), expected[1])


@pytest.mark.parametrize("name", ["distinct", "full"])
def test_only_the_best_vector_has_a_gradient(name: str) -> None:
    task, one = task_of(num_interests=K, **ARGUMENTS[name]), task_of(**ARGUMENTS[name])
    outputs = {"query": QUERY, "candidate": CANDIDATE}
    gradient = loss_of(task, [1.0] * 5, outputs, WEIGHTS, inputs(task))[2]
    plain = loss_of(one, [1.0] * 5, {**outputs, "query": chosen(None)}, WEIGHTS, inputs(one))[2]
    best = np.argmax(np.einsum("bkd,bd->bk", vectors(), CANDIDATE), axis=1)
    assert len(set(best.tolist())) > 1
    found = gradient["query"].reshape(5, K, D)
    np.testing.assert_allclose(found[np.arange(5), best], plain["query"], rtol=1e-4, atol=1e-6)
    found[np.arange(5), best] = 0
    assert not found.any()
    np.testing.assert_allclose(gradient["candidate"], plain["candidate"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [*ARGUMENTS, "joint"])
def test_each_candidate_can_have_its_own_vector(name: str) -> None:
    """The scores are those of one vector by which each pair of query and candidate has its largest product.

    With orthogonal candidates, a coordinate each, that vector exists: its coordinates are the scores.
    """
    arguments = ARGUMENTS.get(name, {"query_key": "user", "joint_positives": True})
    several = task_of(num_interests=K, shared_interest=False, **arguments)
    one = task_of(**arguments)
    for task in (several, one):
        task.prepare_output({"query": np.zeros([1, 16 * K]), "candidate": np.zeros([1, 16])})
    query = np.random.default_rng(8).normal(size=(5, K, 16))
    axes = {id_: np.eye(16)[i] for i, id_ in enumerate(dict.fromkeys([*IDS, *CORPUS_IDS, 7, 8, 10]))}
    candidate = np.array([axes[i] for i in IDS])

    def given(task: Retrieval) -> LossInputs:
        own = inputs(task)
        if own.negatives is None:
            return own
        rows = np.array([axes[i] for i in own.negatives[1].keys.numpy()])
        return dataclasses.replace(own, negatives=(tf.constant(rows, tf.float32), own.negatives[1]))

    outputs = {"query": query.reshape(5, -1), "candidate": candidate}
    loss, weight, gradient = loss_of(several, LABELS, outputs, WEIGHTS, given(several))
    plain = loss_of(one, LABELS, {**outputs, "query": query.max(axis=1)}, WEIGHTS, given(one))
    assert (loss, weight) == (pytest.approx(plain[0], rel=1e-5), plain[1])
    found, chosen_by = gradient["query"].reshape(5, K, 16), np.argmax(query, axis=1)
    expected = np.where(np.arange(K)[:, np.newaxis] == chosen_by[:, np.newaxis], plain[2]["query"][:, np.newaxis], 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_interests", [1, K])
def test_a_batch_without_explicit_negatives_has_the_loss_of_its_positives(num_interests: int) -> None:
    outputs = {"query": QUERY[:, : num_interests * D], "candidate": CANDIDATE}
    found = []
    for arguments in ({"explicit_negatives": 1.0}, {}):
        task = task_of(num_interests=num_interests, shared_interest=False, **arguments)
        found.append(loss_of(task, [1.0] * 5, outputs, WEIGHTS, inputs(task)))
    np.testing.assert_allclose(found[0][:2], found[1][:2], rtol=1e-6)
    np.testing.assert_allclose(found[0][2]["query"], found[1][2]["query"], rtol=1e-5, atol=1e-7)


def test_no_query_has_no_score() -> None:
    assert best_of_all(tf.zeros([0, K * D]), tf.constant(CORPUS, tf.float32)).shape == [0, 7]
    assert best_scores(np.zeros([0, K * D]), CORPUS).shape == (0, 7)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_traced_training_step_of_any_batch_has_the_loss(name: str, shared: bool) -> None:
    task = task_of(num_interests=K, shared_interest=shared, **ARGUMENTS[name])
    task.prepare_output({"query": np.zeros([1, K * D]), "candidate": np.zeros([1, D])})
    given = dataclasses.replace(inputs(task), training=True)
    counts = task._counts.known.numpy()

    def loss(query: tf.Tensor, candidate: tf.Tensor) -> tf.Tensor:
        outputs = {"query": query, "candidate": candidate}
        return task.compute_loss(tf.constant(LABELS), outputs, tf.constant(WEIGHTS), given)[0]

    outputs = [tf.constant(x, tf.float32) for x in (QUERY, CANDIDATE)]
    eager = loss(*outputs)
    task._counts.known.assign(counts)
    if task.num_queued_negatives:
        task._queue.embeddings.assign(tf.zeros_like(task._queue.embeddings))
    traced = tf.function(loss, input_signature=[tf.TensorSpec([None, x.shape[1]]) for x in outputs])
    assert float(traced(*outputs)) == pytest.approx(float(eager), rel=1e-5)


def test_blocks_of_several_vectors_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    query, corpus = tf.constant(QUERY, tf.float32), tf.constant(CORPUS, tf.float32)
    positive, weight, found = tf.constant([2, 0, 2, 4, 6]), tf.constant(WEIGHTS), []
    for block in (1, 2 * 7 * K, 1 << 20):
        monkeypatch.setattr(corpus_softmax, "_BLOCK", block)
        with tf.GradientTape() as tape:
            tape.watch([query, corpus])
            loss = corpus_softmax.corpus_cross_entropy(query, corpus, positive, weight)
        found.append((loss, *tape.gradient(loss, [query, corpus])))
    with tf.GradientTape() as tape:
        tape.watch([query, corpus])
        logits = best_of_all(query, corpus)
        loss = tf.reduce_sum(weight * tf.nn.sparse_softmax_cross_entropy_with_logits(positive, logits))
    whole = (loss, *tape.gradient(loss, [query, corpus]))
    for own in found:
        for part, expected in zip(own, whole, strict=True):
            np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-6)


def test_the_soft_choice_moves_every_vector() -> None:
    task = task_of(num_interests=K, interest_sharpness=1.0)
    outputs = {"query": QUERY, "candidate": CANDIDATE}
    gradient = loss_of(task, [1.0] * 5, outputs, WEIGHTS, inputs(task))[2]["query"].reshape(5, K, D)
    assert (np.abs(gradient).max(axis=2) > 1e-6).all()


def test_a_sharp_choice_is_the_largest_product() -> None:
    query, candidate = (tf.constant(x, tf.float32) for x in (QUERY, CANDIDATE))
    np.testing.assert_allclose(interest_of(query, candidate, 1e4), chosen(None), rtol=1e-5)


def test_scores_are_the_largest_products() -> None:
    query, corpus = tf.constant(QUERY, tf.float32), tf.constant(CORPUS, tf.float32)
    expected = [[max(float(u @ c) for u in own) for c in CORPUS] for own in vectors()]
    np.testing.assert_allclose(best_of_all(query, corpus), expected, rtol=1e-5)
    np.testing.assert_allclose(best_scores(QUERY, CORPUS), expected, rtol=1e-12)
    pairs = [max(float(u @ c) for u in own) for own, c in zip(vectors(), CANDIDATE, strict=True)]
    outputs = {"query": query, "candidate": tf.constant(CANDIDATE, tf.float32)}
    np.testing.assert_allclose(Retrieval("t", num_interests=K).predict(outputs), pairs, rtol=1e-5)


def connected(**arguments: Any) -> keras.Model:
    sides = keras.Input([6]), keras.Input([arguments.pop("width", 2)])
    return keras.Model(sides, Retrieval("t", **arguments).connect(HeadInputs(*sides, {}, seed=1)))


def test_heads_make_k_vectors_of_length_1_with_the_bias_of_the_candidate() -> None:
    model = connected(num_interests=K, units=[5, D], normalize=True, temperature=0.5, candidate_bias=True)
    query, candidate = (model([QUERY, CANDIDATE])[side].numpy() for side in ("query", "candidate"))
    assert (query.shape, candidate.shape) == ((5, K * (D + 1)), (5, D + 1))
    by_vector = query.reshape(5, K, D + 1)
    np.testing.assert_allclose(by_vector[..., -1], 1)
    np.testing.assert_allclose(np.linalg.norm(by_vector[..., :-1], axis=2), 2, rtol=1e-5)  # 1 / temperature
    first = np.maximum(QUERY @ model.get_layer("t_query_hidden_0").get_weights()[0], 0)
    kernel, bias = model.get_layer("t_query_output").get_weights()
    raw = (first @ kernel + bias).reshape(5, K, D)
    np.testing.assert_allclose(
        by_vector[..., :-1], 2 * raw / np.linalg.norm(raw, axis=2, keepdims=True), rtol=1e-4, atol=1e-6
    )


def test_a_tower_of_k_widths_needs_no_head() -> None:
    found = connected(num_interests=K)([QUERY, CANDIDATE])
    np.testing.assert_allclose(found["query"], QUERY, rtol=1e-6)


def test_one_vector_is_the_network_of_before() -> None:
    arguments: dict[str, Any] = {"units": [5, 2], "normalize": True, "temperature": 0.5, "candidate_bias": True}
    one = connected(num_interests=1, **arguments)
    names = {layer.name for layer in one.layers if layer.name.startswith("t_")}
    both = {"t_query", "t_candidate"}
    added = {f"{side}_{part}" for side in both for part in ("hidden_0", "output", "unit")}
    assert names == added | {"t_query_scaled", "t_query_biased", "t_candidate_bias_output", "t_candidate_biased"}
    outputs = {side: tensor[:, :D] for side, tensor in one([QUERY, CANDIDATE]).items()}
    scores = Retrieval("t", num_interests=1).predict(outputs)
    np.testing.assert_array_equal(scores, tf.reduce_sum(outputs["query"] * outputs["candidate"], axis=1))


def test_coordinates_join_every_vector() -> None:
    query, extra = keras.Input([4]), keras.Input([1])
    found = keras.Model([query, extra], joined_to_each(query, [extra], 2, "joined"))
    np.testing.assert_allclose(found([tf.constant([[1.0, 2.0, 3.0, 4.0]]), tf.constant([[9.0]])]), [[1, 2, 9, 3, 4, 9]])


def test_distillation_compares_the_largest_products() -> None:
    """A student that has the teacher's vectors in another order has its scores."""
    task = Retrieval("t", num_interests=K)
    order = vectors()[:, [2, 0, 1]].reshape(5, -1)
    outputs = [{"query": tf.constant(q, tf.float32), "candidate": tf.constant(CANDIDATE, tf.float32)}
               for q in (QUERY, order, QUERY[:, :2])]  # fmt: skip
    weight, given = tf.constant(WEIGHTS), LossInputs({}, ids_of(IDS))
    assert float(task.distillation_loss(outputs[0], outputs[1], weight, given, 2.0)) == pytest.approx(0, abs=1e-6)
    best = np.array([[max(float(u @ c) for u in own) for c in CANDIDATE] for own in vectors()]) / 2
    one = QUERY[:, :2] @ CANDIDATE.T / 2
    p, q = (np.exp(s) / np.exp(s).sum(1, keepdims=True) for s in (best, one))
    expected = 4 * np.average((p * np.log(p / q)).sum(1), weights=WEIGHTS)
    found = float(task.distillation_loss(outputs[2], outputs[0], weight, given, 2.0))  # a student with one vector
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_interests": 0}, "`num_interests` must be a positive integer. Received: num_interests=0."),
        (
            {"interest_sharpness": 2.0},
            "`interest_sharpness` of task 't' must be a finite number above 0, and needs `num_interests` above 1",
        ),
        (
            {"num_interests": 2, "interest_sharpness": 1.0, "shared_interest": False},
            "`interest_sharpness` of task 't' must be a finite number above 0, and needs `num_interests` above 1 and a",
        ),
        ({"num_interests": 2, "interest_sharpness": 0.0}, "`interest_sharpness` of task 't' must be a finite number"),
        (
            {"num_interests": 2, "query_key": "user", "joint_positives": True, "shared_interest": True},
            "`joint_positives` of task 't' has one term for positives of several interests;",
        ),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Retrieval("t", **arguments)


def test_a_narrow_tower_is_refused() -> None:
    sentence = "must have `num_interests` times the width of the candidate tower, 3 x 6; give `Retrieval(units=...)` a"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        connected(num_interests=3, width=6)


def test_an_ensemble_is_refused() -> None:
    with pytest.raises(ValueError, match="'t' has several interests, and an ensemble of such tasks cannot be searched"):
        Retrieval("t", num_interests=2).output_arguments()
