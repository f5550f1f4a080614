"""Communication between the replicas of a distribution strategy, which compute a step together.

A global batch is cut into one part per replica. A mean over the batch is the mean of the replicas' means. With a single
replica every function here returns its argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import tf


def replicas() -> int:
    """Return how many replicas of the distribution strategy compute a step together."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def replica() -> Any:
    """Return the number of this replica, from 0: an integer, or an int32 scalar where it is only known in the graph."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def serves_parameters(strategy: tf.distribute.Strategy) -> bool:
    """Return whether variables are on parameter servers and workers compute steps independently."""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def all_reduce(value: Any) -> Any:
    """Return the sum of a tensor, dense or sparse, over the replicas."""
    if replicas() == 1:
        return value
    context = tf.distribute.get_replica_context()
    if isinstance(value, tf.IndexedSlices):  # replicas touch different numbers of rows, which a reduction cannot take
        values, indices = context.all_gather(value.values, axis=0), context.all_gather(value.indices, axis=0)
        return tf.IndexedSlices(values, indices, value.dense_shape)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def mean_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Return the mean of the replicas' tensors.

    Example:
        >>> mean_over_replicas(tf.constant([2.0])).numpy().tolist()  # one replica
        [2.0]
    """
    return value if replicas() == 1 else all_reduce(value) / replicas()


def gather_rows(rows: tf.Tensor) -> tf.Tensor:
    """Return the rows of all replicas in their order, [sum of n_r, ...], from the n_r rows of each.

    The gradient of a replica's rows is the sum of their gradients over all replicas' losses. At least one replica must
    have a row: TensorFlow ends the process where all gathered tensors are empty; see `gather_chosen`.
    """
    if replicas() == 1:
        return rows
    return tf.distribute.get_replica_context().all_gather(rows, axis=0)


def gather_chosen(chosen: tf.Tensor, columns: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Return the chosen rows of all replicas in their order; there may be none.

    Args:
        chosen: bool [n].
        columns: tensors [n, ...].

    Example:
        >>> [rows] = gather_chosen(tf.constant([True, False]), [tf.constant([3, 4])])
        >>> rows.numpy().tolist()  # one replica
        [3]
    """
    everywhere = tf.cast(gather_rows(tf.cast(chosen, tf.int32)), tf.bool)
    return [tf.boolean_mask(gather_rows(column), everywhere) for column in columns]


def own_seed(seed: tf.Tensor) -> tf.Tensor:
    """Return a seed [2] of a stateless operation that differs between replicas, since they have different rows.

    Example:
        >>> own_seed(tf.constant([1, 2])).numpy().tolist()  # one replica
        [1, 2]
    """
    return seed if replicas() == 1 else tf.random.experimental.stateless_fold_in(seed, replica())
