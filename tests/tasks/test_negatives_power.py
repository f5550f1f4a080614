"""Negatives from the corpus that are drawn by popularity."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest

from tests.models import small
from tests.tasks.losses import ids_of, loss_of
from tfmtl._keras import tf
from tfmtl.data import to_batch
from tfmtl.models import Candidates
from tfmtl.tasks import LossInputs, Retrieval


def task_of(power: float, counts: list[float]) -> Retrieval:
    task = Retrieval("t", num_uniform_negatives=2, negatives_power=power)
    task.prepare(2 + len(counts))
    task._counts.known.assign([0.0, 0.0, *counts])
    return task


def test_shares_are_powers_of_the_counts() -> None:
    # (1 + 8)^0.5 : (1 + 3)^0.5 : (1 + 0)^0.5 = 3 : 2 : 1
    assert task_of(0.5, [8, 3, 0]).negative_shares(ids_of([2, 3, 4])).numpy().tolist() == pytest.approx(
        [1 / 2, 1 / 3, 1 / 6]
    )
    assert task_of(-0.5, [8, 3, 0]).negative_shares(ids_of([2, 3, 4])).numpy().tolist() == pytest.approx(
        [2 / 11, 3 / 11, 6 / 11]
    )
    assert Retrieval("t", num_uniform_negatives=2).negative_shares(ids_of([2, 3, 4])) is None


@pytest.mark.parametrize("power", [-1.0, 0.75, 2.0])
@pytest.mark.parametrize("rows", [1, 2])
def test_the_mean_denominator_is_that_of_the_whole_catalog(power: float, rows: int) -> None:
    # Over all draws of the other rows by their share and of two negatives by p: E[exp(l + s_p)] = sum_c exp(s_c).
    share, scores = np.array([0.6, 0.3, 0.1]), np.random.default_rng(1).normal(size=3)
    task = task_of(power, (10 * share).tolist())
    p = task.negative_shares(ids_of([2, 3, 4]))
    values = tf.constant(scores[:, np.newaxis], tf.float32)
    for positive in range(3):
        mean = 0.0
        for drawn in itertools.product(range(3), repeat=rows + 1):
            ids, extra = [positive, *drawn[: rows - 1]], list(drawn[rows - 1 :])
            negatives = (tf.gather(values, extra), ids_of(np.array(extra) + 2))
            given = LossInputs(
                {}, ids_of(np.array(ids) + 2), negatives, num_candidates=3,
                negative_shares=lambda keys: tf.gather(p, tf.cast(keys, tf.int32) - 2),
            )  # fmt: skip
            outputs = {"query": np.ones([rows, 1]), "candidate": tf.gather(values, ids)}
            loss = loss_of(task, [1] * rows, outputs, [1.0] + [1e-12] * (rows - 1), given)[0]
            chance = math.prod(share[item] for item in ids[1:]) * math.prod(float(p[item]) for item in extra)
            mean += chance * math.exp(loss + scores[positive])
        assert mean == pytest.approx(np.exp(scores).sum(), rel=1e-4)


def test_draws_have_the_shares() -> None:
    corpus: Candidates = small.candidates()
    shares = tf.range(float(len(corpus)))
    keys, features = corpus.sample(20_000, tf.constant([3, 4]), shares)
    found = np.bincount(corpus.positions(keys), minlength=len(corpus)) / 20_000
    np.testing.assert_allclose(found, shares / tf.reduce_sum(shares), atol=0.02)
    assert found[0] == 0
    np.testing.assert_array_equal(features["item"], tf.gather(corpus.features["item"], corpus.positions(keys)))
    plain, same = (corpus.sample(9, tf.constant([3, 4]), x)[0].numpy() for x in (None, tf.ones([len(corpus)])))
    assert set(plain) <= set(corpus.keys.numpy())
    assert set(same) <= set(corpus.keys.numpy())


def test_values_are_found_by_key() -> None:
    corpus = small.candidates()
    keys = tf.stack([corpus.keys[3], tf.constant(-1, tf.int64), corpus.keys[0]])
    assert corpus.values_of(tf.range(5.0, 5.0 + len(corpus)), keys).numpy().tolist() == [8, 0, 5]


def test_a_model_draws_by_the_counts_so_far() -> None:
    model = small.model(heads=small.tasks(num_uniform_negatives=3, negatives_power=50.0))
    task, corpus = model.tasks[0], model.candidates
    chosen = 4
    counts = np.zeros(task._counts.known.shape)
    counts[corpus.features["item"][chosen]] = 9.0
    task._counts.known.assign(counts)
    _, _, inputs = model.loss_arguments(task, to_batch(small.table(), small.preprocessor()), training=True)
    np.testing.assert_array_equal(inputs.negatives[1].keys, [corpus.keys[chosen]] * 3)
    np.testing.assert_allclose(inputs.negative_shares(corpus.keys), np.eye(len(corpus))[chosen], atol=1e-6)
    model.fit(small.table(), epochs=2, batch_size=16, verbose=0)
    assert np.isfinite(model.evaluate(small.table(), verbose=0)).all()


def test_counts_are_kept_without_correction() -> None:
    task = Retrieval("t", num_uniform_negatives=2, negatives_power=0.5, sampling_correction=False)
    task.prepare(5)
    rows = {"query": np.ones([2, 1]), "candidate": np.ones([2, 1])}
    loss_of(task, [1, 1], rows, [1.0, 1.0], LossInputs({}, ids_of([2, 4]), training=True))
    assert task._counts.known.numpy().tolist() == [0, 0, 1, 0, 1]


@pytest.mark.parametrize(("power", "number"), [(math.inf, 2), (1.0, 0)])
def test_bad_arguments_have_a_sentence(power: float, number: int) -> None:
    sentence = "`negatives_power` of task 't' must be a finite number, and needs `num_uniform_negatives` above 0."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Retrieval("t", negatives_power=power, num_uniform_negatives=number)
