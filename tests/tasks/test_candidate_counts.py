"""Counts of candidates: by identity, also for ids without an index of their own."""

from __future__ import annotations

import numpy as np

from tfmtl._keras import keras, tf
from tfmtl.data import keys_of
from tfmtl.tasks import CandidateIds
from tfmtl.tasks.candidate_counts import CandidateCounts


def ids_of(names: list[str], indices: list[int]) -> CandidateIds:
    return CandidateIds(keys_of(tf.constant(names)), tf.constant(indices))


def test_ids_with_one_index_have_counts_of_their_own() -> None:
    counts = CandidateCounts(keras.layers.Layer(), 4)
    ids = ids_of(["a", "b", "b", "c", "d"], [2, 1, 1, 1, 3])
    counts.add(ids, tf.constant([1.0, 1.0, 1.0, 1.0, 0.0]))
    assert counts.of(ids).numpy().tolist() == [1.0, 2.0, 2.0, 1.0, 0.0]
    assert float(counts.total) == 4.0


def test_cap_scales_known_and_unknown_ids_alike() -> None:
    counts = CandidateCounts(keras.layers.Layer(), 3)
    ids = ids_of(["a", "b"], [2, 1])
    counts.add(ids, tf.constant([6.0, 2.0]))
    counts.cap(4.0)
    assert counts.of(ids).numpy().tolist() == [3.0, 1.0]
    counts.cap(100.0)
    assert float(counts.total) == 4.0


def test_a_thousand_consecutive_integers_without_an_index_are_hardly_ever_confused() -> None:
    counts = CandidateCounts(keras.layers.Layer(), 2)
    ids = CandidateIds(tf.range(1000, dtype=tf.int64) * 2**40, tf.ones([1000], tf.int32))
    amounts = np.arange(1000, dtype=np.float32)
    counts.add(ids, tf.constant(amounts))
    assert np.mean(counts.of(ids).numpy() == amounts) > 0.99
