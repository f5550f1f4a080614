"""The base of optimisers with a step that costs as much as the rows of the batch, not of the vocabulary."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf


class ExactClipping(keras.optimizers.Optimizer):
    """A Keras optimiser that clips (`clipnorm`, `global_clipnorm`, `clipvalue`) as if all gradients were dense.

    A table's gradient stays sparse: its repeated rows are summed before the norm is taken. Keras clips them apart,
    which makes another norm of a batch with repeated ids.
    """

    @property
    def _clips(self) -> bool:
        return any((self.clipnorm, self.global_clipnorm, self.clipvalue))

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        return super()._clip_gradients(summed(grads)) if self._clips else grads


class TouchedRows(ExactClipping, abc.ABC):
    """A Keras optimiser that updates a table only in the rows that have a gradient.

    Goes before the Keras optimiser it changes: `class LazySGD(TouchedRows, keras.optimizers.SGD)`. A subclass updates
    the touched rows of a table and whole dense weights; this class adds the steps that Keras does for all weights:

    - Clipping: see `ExactClipping`.
    - `weight_decay`: a table's row decays once in each step that touches it, never the whole table.
    - `use_ema` and constraints of a variable are left to Keras, which updates every row; see `ASGD` for averages.
    """

    @abc.abstractmethod
    def update_rows(self, gradient: tf.IndexedSlices, variable: Any) -> None:
        """Update the touched rows of a table; `gradient.indices` are distinct."""

    @abc.abstractmethod
    def update_dense(self, gradient: tf.Tensor, variable: Any) -> None:
        """Update a whole variable, which has decayed already."""

    def update_step(self, gradient: Any, variable: Any) -> None:
        """Update one variable."""
        if isinstance(gradient, tf.IndexedSlices):
            self.update_rows(gradient, variable)
            return
        share = self.decay_share(variable)
        if share is not None:
            variable.assign_sub(share * variable)
        self.update_dense(gradient, variable)

    def moved_rows(self, gradient: Any, variable: Any) -> tf.Tensor | None:
        """Return the rows that `update_step` may change, or None for all of them."""
        return gradient.indices if isinstance(gradient, tf.IndexedSlices) else None

    def slot_of(self, variable: Any) -> int:
        """Return the variable's position among those the optimiser was built for."""
        return int(self._index_dict[self._var_key(variable)])

    def decay_share(self, variable: Any) -> tf.Tensor | None:
        """Return the share of a weight that decay takes away in a step, or None where nothing decays."""
        if not self.weight_decay or not self._use_weight_decay(variable):
            return None
        return tf.cast(self.learning_rate, variable.dtype) * tf.cast(self.weight_decay, variable.dtype)

    def subtract(self, variable: Any, rows: tf.Tensor, change: tf.Tensor, steps: tf.Tensor | None = None) -> None:
        """Subtract a change [r, ...] from distinct rows [r] of a table, which decay by one step or by `steps` [r]."""
        share = self.decay_share(variable)
        if share is not None:
            if steps is not None:
                share = by_row(1 - tf.pow(1 - share, tf.cast(steps, share.dtype)), change)
            change += share * tf.gather(variable, rows)
        variable.scatter_sub(tf.IndexedSlices(change, rows))

    def add_row_steps(self, variable: Any, columns: int = 1) -> tf.Variable:
        """Return a new slot of step counters, int64 [n, columns] for a variable [n, ...] and [columns] for a scalar."""
        with tf.distribute.get_strategy().extended.colocate_vars_with(variable):
            zeros = tf.zeros([*variable.shape[:1], columns], tf.int64)
            steps = tf.Variable(zeros, trainable=False, name=f"step/{variable._shared_name}")
        self._variables.append(steps)
        return steps

    def sums_rows(self, gradient: tf.IndexedSlices) -> bool:
        """Return whether `update_rows` itself sums repeated rows of such a gradient."""
        return False

    def _deduplicate_sparse_grad(self, grads: Sequence[Any]) -> Sequence[Any]:
        if self._clips:
            return grads  # summed before they were clipped
        return [g if isinstance(g, tf.IndexedSlices) and self.sums_rows(g) else summed([g])[0] for g in grads]

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Do nothing: weights decay in `update_step`, which has the touched rows."""


def summed(gradients: Sequence[Any]) -> list[Any]:
    """Return the gradients, those of tables with distinct rows.

    Example:
        >>> slices = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), tf.constant([7, 3, 7]))
        >>> (once,) = summed([slices])
        >>> once.indices.numpy().tolist(), once.values.numpy().tolist()
        ([7, 3], [[5.0], [2.0]])
    """
    return [_summed(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient for gradient in gradients]


def _summed(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    rows, places = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def by_row(factors: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Return one number per row, [r], in a shape that fits values [r, ...]."""
    return tf.reshape(factors, [-1, *[1] * (values.shape.rank - 1)] if values.shape.rank else [])
