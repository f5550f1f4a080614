"""Inner products and mixtures of the tasks' gradients, dense or of the embedding rows that a batch touches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tfmtl._keras import tf

Gradient = Any
"""A tensor, `tf.IndexedSlices`, or None where a task does not reach the variable."""


class TaskGradients(NamedTuple):
    """The gradients of all K tasks with respect to one variable.

    Attributes:
        values: float32 [K, ...]: the variable's shape, or [K, rows, ...] of the rows that any task touches.
        rows: distinct indices [rows] of an embedding table, or None for a dense gradient.
        shape: shape of the variable.
    """

    values: tf.Tensor
    rows: tf.Tensor | None
    shape: tf.Tensor | None

    def matrix(self) -> tf.Tensor:
        """Return the gradients as one row a task [K, size]."""
        return tf.reshape(self.values, [self.values.shape[0], -1])

    def gradient(self, mixed: tf.Tensor) -> Gradient:
        """Return a mixture [...] of the tasks' values as a gradient of the variable."""
        return mixed if self.rows is None else tf.IndexedSlices(mixed, self.rows, self.shape)

    def weighted(self, weights: tf.Tensor) -> Gradient:
        """Return sum_i w_i g_i for weights [K]."""
        return self.gradient(tf.tensordot(weights, self.values, axes=1))


def join(gradients: Sequence[Gradient]) -> TaskGradients | None:
    """Join the tasks' gradients of one variable; None if no task reaches it.

    An embedding table is never made dense: the result holds the union of the touched rows.

    Example:
        >>> first = tf.IndexedSlices(tf.ones([3, 2]), tf.constant([7, 4, 7]), tf.constant([9, 2]))
        >>> second = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([5]), tf.constant([9, 2]))
        >>> joined = join([first, second, None])
        >>> joined.rows.numpy().tolist(), joined.values.numpy()[:, :, 0].tolist()
        ([7, 4, 5], [[2.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])

    Cost: K times the touched rows.
    """
    known = [g for g in gradients if g is not None]
    if not known:
        return None
    if any(not isinstance(g, tf.IndexedSlices) for g in known):
        dense = [None if g is None else tf.cast(tf.convert_to_tensor(g), tf.float32) for g in gradients]
        zeros = tf.zeros_like(next(g for g in dense if g is not None))
        return TaskGradients(tf.stack([zeros if g is None else g for g in dense]), None, None)
    rows, places = tf.unique(tf.concat([g.indices for g in known], axis=0))
    parts = iter(tf.split(places, [tf.shape(g.indices)[0] for g in known]))
    count = tf.shape(rows)[0]
    summed = [
        None if g is None else tf.math.unsorted_segment_sum(tf.cast(g.values, tf.float32), next(parts), count)
        for g in gradients
    ]
    zeros = tf.zeros_like(next(g for g in summed if g is not None))
    values = tf.stack([zeros if g is None else g for g in summed])
    return TaskGradients(values, rows, known[0].dense_shape)


def gramian_of(joined: Sequence[TaskGradients]) -> tf.Tensor:
    """Return the inner products [K, K] of the tasks' gradients over all given variables.

    Example:
        >>> gramian_of([join([tf.constant([1.0, 2.0]), tf.constant([3.0, 0.0])])]).numpy().tolist()
        [[5.0, 3.0], [3.0, 9.0]]
    """
    matrices = [gradients.matrix() for gradients in joined]
    return tf.add_n([tf.matmul(matrix, matrix, transpose_b=True) for matrix in matrices])


def gated_gramian(gradients: Sequence[tf.Tensor], gates: tf.Tensor | None) -> tf.Tensor:
    """Return the inner products [K, K] of the tasks' gradients with respect to f_e, given h_k = sum_e gates_k,e f_e.

    Args:
        gradients: dL_k/dh_k [B, units] by task.
        gates: [B, K, experts]; None stands for h_k = f.

    Example:
        >>> ones = tf.ones([1, 2])
        >>> gated_gramian([ones, 3.0 * ones], tf.constant([[[1.0, 0.0], [0.5, 0.5]]])).numpy().tolist()
        [[2.0, 3.0], [3.0, 9.0]]
    """
    stacked = tf.stack([tf.cast(gradient, tf.float32) for gradient in gradients])
    if gates is None:
        matrix = tf.reshape(stacked, [len(gradients), -1])
        return tf.matmul(matrix, matrix, transpose_b=True)
    by_row = tf.transpose(stacked, [1, 0, 2])
    gates = tf.cast(gates, tf.float32)
    products = tf.matmul(gates, gates, transpose_b=True) * tf.matmul(by_row, by_row, transpose_b=True)
    return tf.reduce_sum(products, axis=0)


def scale(gradient: Gradient, factor: tf.Tensor) -> Gradient:
    """Return a gradient, which may be None or sparse, times a scalar."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(factor * gradient.values, gradient.indices, gradient.dense_shape)
    return None if gradient is None else factor * gradient


def add(one: Gradient, other: Gradient) -> Gradient:
    """Return the sum of two gradients of one variable, either of which may be None or sparse."""
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, tf.IndexedSlices) and isinstance(other, tf.IndexedSlices):
        indices = tf.concat([one.indices, tf.cast(other.indices, one.indices.dtype)], axis=0)
        return tf.IndexedSlices(tf.concat([one.values, other.values], axis=0), indices, one.dense_shape)
    return tf.convert_to_tensor(one) + tf.convert_to_tensor(other)
