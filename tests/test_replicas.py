"""Communication between replicas, with a context that writes down the exchange instead of making it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl import _replicas
from tfmtl._keras import tf


class Context:
    """The second of three replicas; the others hold one row more and one row less, of zeros."""

    num_replicas_in_sync = 3
    replica_id_in_sync_group = 1

    def all_gather(self, value: tf.Tensor, axis: int) -> tf.Tensor:
        assert axis == 0
        return tf.concat([tf.zeros_like(value[:1]), value, value], 0)

    def all_reduce(self, operation: Any, value: tf.Tensor) -> tf.Tensor:
        assert operation == tf.distribute.ReduceOp.SUM
        return value * 12


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.distribute, "get_replica_context", Context)


SPARSE = tf.IndexedSlices(tf.constant([[1.0], [2.0]]), tf.constant([4, 7]), tf.constant([9, 1]))


@pytest.mark.parametrize("outside", [False, True])
def test_alone_everything_is_the_argument(outside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if outside:  # in the cross-replica context of a strategy
        monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: None)
    value = tf.constant([1, 2])
    assert (_replicas.replicas(), int(_replicas.replica())) == (1, 0)
    for function in (_replicas.all_reduce, _replicas.mean_over_replicas, _replicas.gather_rows, _replicas.own_seed):
        assert function(value) is value


@pytest.mark.usefixtures("three")
def test_sums_and_means_over_three() -> None:
    value = tf.constant([1.0, 3.0])
    assert (_replicas.replicas(), _replicas.replica()) == (3, 1)
    assert _replicas.all_reduce(value).numpy().tolist() == [12, 36]
    assert _replicas.mean_over_replicas(value).numpy().tolist() == [4, 12]
    assert _replicas.gather_rows(value).numpy().tolist() == [0, 1, 3, 1, 3]
    chosen = _replicas.gather_chosen(tf.constant([False, True]), [value, tf.constant([[1], [2]])])
    assert [rows.numpy().tolist() for rows in chosen] == [[3, 3], [[2], [2]]]


@pytest.mark.usefixtures("three")
def test_the_rows_of_sparse_gradients_are_gathered() -> None:
    found = _replicas.all_reduce(SPARSE)
    assert found.values.numpy().ravel().tolist() == [0, 1, 2, 1, 2]
    assert found.indices.numpy().tolist() == [0, 4, 7, 4, 7]
    assert found.dense_shape is SPARSE.dense_shape


@pytest.mark.usefixtures("three")
def test_replicas_draw_with_seeds_of_their_own() -> None:
    seed = tf.constant([1, 2])
    expected = tf.random.experimental.stateless_fold_in(seed, 1)
    np.testing.assert_array_equal(_replicas.own_seed(seed), expected)
    assert _replicas.own_seed(seed).numpy().tolist() != [1, 2]
