"""Several positives of one query in a batch."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tests.tasks.losses import NAN, ids_of, loss_of
from tfmtl._keras import tf
from tfmtl.tasks import LossInputs, Retrieval

RNG = np.random.default_rng(11)
QUERY, ITEM = RNG.normal(size=(7, 3)).astype("float32"), RNG.normal(size=(10, 3)).astype("float32")
IDS, EXTRA_IDS = [2, 3, 4, 3, 5, 2, 7], [3, 8]
USERS = [1, 1, 2, 2, -1, -1, 1]  # user 1 has 2, 3, 7 and user 2 has 4, 3; two rows have no user
WEIGHTS = [1.0, 2.0, 0.5, 1.0, 1.0, 3.0, 1.0]
OUTPUTS = {"query": QUERY, "candidate": ITEM[IDS]}
COUNTS = {2: 4.0, 3: 2.0, 4: 1.0, 5: 1.0, 7: 1.0, 8: 1.0}


def task_of(**arguments: Any) -> Retrieval:
    task = Retrieval("t", **{"query_key": "user", **arguments})
    task.prepare(10)
    task._counts.known.assign([COUNTS.get(index, 0.0) for index in range(10)])
    return task


def inputs(users: list[int] = USERS, extra: bool = False, ids: list[int] = IDS) -> LossInputs:
    negatives = (tf.constant(ITEM[EXTRA_IDS]), ids_of(EXTRA_IDS)) if extra else None
    return LossInputs({}, ids_of(ids), negatives, keys={"user": tf.constant(users, tf.int64)})


def reference(*, joint: bool, corrected: bool, extra: bool, hard: int | None = None) -> float:
    """Return the loss by its definition in float64.

    P are the items of all rows of the user, R is the number of rows of others. Each row and each drawn item outside of
    P counts exp(s) / lambda with lambda = R n / 10 + 2 / 10, where two items are drawn of ten.
    """
    losses = []
    for i, user in enumerate(USERS):
        own = [j for j in range(7) if j == i or (user >= 0 and USERS[j] == user)]
        positives = {IDS[j] for j in own}
        powers = np.exp(QUERY[i].astype(float) @ ITEM.T)
        pool = IDS + EXTRA_IDS * extra
        weights = [1 / ((7 - len(own)) * COUNTS[c] / 10 + 0.2 * extra) if corrected else 1.0 for c in pool]
        others = [powers[c] * w for c, w in zip(pool, weights, strict=True) if c not in positives]
        negatives = sum(sorted(others, reverse=True)[:hard])
        wanted = sum(powers[c] for c in positives) if joint else powers[IDS[i]]
        losses.append(math.log((wanted + negatives) / wanted))
    return float(np.average(losses, weights=WEIGHTS))


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("extra", [True, False])
@pytest.mark.parametrize(("distinct", "hard"), [(True, None), (False, None), (True, 2), (False, 50)])
def test_loss_is_the_definition(joint: bool, corrected: bool, extra: bool, distinct: bool, hard: int | None) -> None:
    task = task_of(
        joint_positives=joint, sampling_correction=corrected, distinct_candidates=distinct, num_hard_negatives=hard
    )
    found, weight, gradient = loss_of(task, [1] * 7, OUTPUTS, WEIGHTS, inputs(extra=extra))
    expected = reference(joint=joint, corrected=corrected, extra=extra, hard=hard)
    assert (found, weight) == (pytest.approx(expected, rel=1e-5), 9.5)
    assert np.isfinite(gradient["query"]).all()


def test_three_equal_scores() -> None:
    # A user with two positives and one with one, all scores 0, uncorrected. The rows of the first have one negative and
    # the third row has two: log 2, log 2, log 3; jointly the first two are log(1 + 1/2). Without keys all are log 3.
    outputs, ids = {"query": [[0.0]] * 3, "candidate": [[1.0], [2.0], [3.0]]}, [2, 3, 4]
    for users, joint, losses in (
        ([1, 1, 2], False, [2, 2, 3]),
        ([1, 1, 2], True, [1.5, 1.5, 3]),
        ([-1] * 3, True, [3] * 3),
    ):
        task = task_of(sampling_correction=False, joint_positives=joint)
        found = loss_of(task, [1] * 3, outputs, [1.0] * 3, inputs(users, ids=ids))[0]
        assert found == pytest.approx(np.log(losses).mean(), rel=1e-6)


@pytest.mark.parametrize("extra", [True, False])
@pytest.mark.parametrize("distinct", [True, False])
def test_with_one_row_for_each_user_it_is_the_plain_loss(extra: bool, distinct: bool) -> None:
    plain = task_of(query_key=None, distinct_candidates=distinct)
    expected, _, slopes = loss_of(plain, [1] * 7, OUTPUTS, WEIGHTS, inputs(extra=extra))
    for users in ([-1] * 7, list(range(7))):
        task = task_of(distinct_candidates=distinct)
        found, _, gradient = loss_of(task, [1] * 7, OUTPUTS, WEIGHTS, inputs(users, extra))
        assert found == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(gradient["query"], slopes["query"], rtol=1e-4, atol=1e-6)


def test_no_positive_of_the_user_is_pushed_away() -> None:
    # The gradient of row 0's loss by the embeddings of the other rows of user 1 is 0, and that of the rest is not.
    rows = {side: tf.constant(values) for side, values in OUTPUTS.items()}
    weights = tf.constant([1.0] + [1e-12] * 6)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        loss, _ = task_of(distinct_candidates=False).compute_loss(tf.ones([7]), rows, weights, inputs())
    length = np.abs(tape.gradient(loss, rows)["candidate"]).max(axis=1)
    assert length[[1, 3, 5, 6]].max() < 1e-9  # items 3, 3, 2 and 7
    assert length[[0, 2, 4]].min() > 1e-3


def test_a_user_alone_in_the_batch_has_no_negatives() -> None:
    for joint in (True, False):
        loss, _, gradient = loss_of(task_of(joint_positives=joint), [1] * 7, OUTPUTS, WEIGHTS, inputs([1] * 7))
        assert loss == 0
        assert not gradient["query"].any()


def test_rows_that_are_no_positives_do_not_count() -> None:
    labels, weights = [1, 0, 1, NAN, 1, 0, 1], [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    kept = [0, 2, 4, 6]
    found = loss_of(task_of(), labels, OUTPUTS, weights, inputs())[0]
    part = {side: values[kept] for side, values in OUTPUTS.items()}
    given = inputs([USERS[i] for i in kept], ids=[IDS[i] for i in kept])
    assert found == pytest.approx(loss_of(task_of(), [1] * 4, part, [1.0] * 4, given)[0], rel=1e-6)
    assert loss_of(task_of(), [0] * 7, OUTPUTS, WEIGHTS, inputs())[:2] == (0, 0)


def test_a_shared_explicit_negative_of_the_user_stays_a_negative() -> None:
    # Scores 0, uncorrected; user 1 likes 2 and 3 and dislikes 4. Both positives have the negative 4: log 2. The
    # loss of 4 against both is -log 2/3.
    outputs, ids = {"query": [[0.0]] * 3, "candidate": [[1.0], [2.0], [3.0]]}, [2, 3, 4]
    task = task_of(sampling_correction=False, explicit_negatives=1.0, share_explicit_negatives=True)
    found = loss_of(task, [1, 1, 0], outputs, [1.0] * 3, inputs([1, 1, 1], ids=ids))[0]
    assert found == pytest.approx((2 * math.log(2) + math.log(1.5)) / 2, rel=1e-6)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("extra", [0, 1])
def test_the_mean_sum_is_that_of_the_candidates_outside_the_positives(joint: bool, extra: int) -> None:
    # A user with the positives 0 and 1; two rows of others are drawn by `share`, and `extra` candidates uniformly. With
    # S = exp(s) of the positives that share the term, S (e^l - 1) is the estimate of the sum over the other candidates.
    share, scores = [0.4, 0.3, 0.2, 0.1], np.random.default_rng(1).normal(size=4)
    task, powers = task_of(joint_positives=joint), np.exp(scores)
    task._counts.known.assign(1e6 * np.array([0.0, 0.0, *share, 0.0, 0.0, 0.0, 0.0]))
    mean = 0.0
    for drawn in itertools.product(range(4), repeat=2 + extra):
        items, uniform = [0, 1, *drawn[:2]], list(drawn[2:])
        embeddings = tf.constant(scores[:, np.newaxis], tf.float32)
        negatives = (tf.gather(embeddings, uniform), ids_of(np.array(uniform) + 2)) if extra else None
        given = LossInputs(
            {}, ids_of(np.array(items) + 2), negatives, keys={"user": tf.constant([1, 1, 2, 3], tf.int64)},
            num_candidates=4,
        )  # fmt: skip
        outputs = {"query": np.ones([4, 1]), "candidate": tf.gather(embeddings, items)}
        loss = loss_of(task, [1] * 4, outputs, [1.0, 1e-12, 1e-12, 1e-12], given)[0]
        wanted = powers[0] + powers[1] if joint else powers[0]
        mean += share[drawn[0]] * share[drawn[1]] / 4**extra * wanted * math.expm1(loss)
    assert mean == pytest.approx(powers[2] + powers[3], rel=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e15])
@pytest.mark.parametrize("joint", [True, False])
def test_scores_of_any_size_are_finite(scale: float, joint: bool) -> None:
    outputs = {side: scale * values for side, values in OUTPUTS.items()}
    loss, _, gradient = loss_of(task_of(joint_positives=joint), [1] * 7, outputs, WEIGHTS, inputs())
    assert np.isfinite(loss)
    assert np.isfinite(gradient["query"]).all()


@pytest.mark.parametrize("key", ["user", "recent"])
def test_a_model_gives_the_keys(key: str) -> None:
    heads = small.tasks(query_key=key)
    if key == "recent":
        with pytest.raises(ValueError, match="Unknown feature of ids \\['recent'\\] in `query_key` of task 'seen'"):
            small.model(heads=heads)
        return
    model = small.model(heads=heads)
    history = model.fit(small.table(), epochs=2, batch_size=25, verbose=0).history
    plain = small.model().fit(small.table(), epochs=2, batch_size=25, verbose=0).history
    assert history["seen_loss"][1] < plain["seen_loss"][1]  # fewer negatives


def test_bad_arguments_have_a_sentence() -> None:
    for arguments, sentence in (
        ({"joint_positives": True}, "`joint_positives` of task 't' needs `query_key`, by which rows of one query"),
        ({"query_key": "user", "full_softmax": True}, "leave it or `full_softmax` out. Received: query_key='user'"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            Retrieval("t", **arguments)
    with pytest.raises(ValueError, match="The rows have no feature 'user' that identifies their queries"):
        loss_of(task_of(), [1] * 7, OUTPUTS, WEIGHTS, LossInputs({}, ids_of(IDS)))
