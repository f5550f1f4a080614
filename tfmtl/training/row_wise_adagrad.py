"""Adagrad with one accumulator per row of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, register, tf
from tfmtl.balancing.dense_layout import is_table
from tfmtl.training.touched_rows import TouchedRows, by_row


@register
class RowWiseAdagrad(TouchedRows, keras.optimizers.Adagrad):
    """Adagrad that keeps one number for each row of a table, and updates the touched rows only.

    For a touched row x [d] with gradient g: h <- h + mean(g^2), x <- x - rate g / sqrt(h + eps). All other weights have
    an accumulator each, as in Adagrad. A table is a variable named `embeddings`, like that of Keras' `Embedding`.

    Args:
        learning_rate: a number or a schedule; Adagrad wants more than Adam.
        initial_accumulator_value: where h starts; the mean of a loss over a batch has small gradients, which want a
            small start, too.
        epsilon: eps.
        name: of the optimiser.
        **kwargs: `weight_decay`, clipping and more, see `TouchedRows`.

    Example:
        >>> table = tf.Variable(tf.ones([3, 2]), name="user/embeddings")
        >>> slices = tf.IndexedSlices(tf.constant([[1.0, 7.0]]), tf.constant([1]))  # a mean square of 25
        >>> RowWiseAdagrad(1.25, 0.0, 0.0).apply_gradients([(slices, table)]) and None
        >>> table.numpy().tolist()
        [[1.0, 1.0], [0.75, -0.75], [1.0, 1.0]]

    Reference:
        Duchi, Hazan, Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", JMLR 12,
        2011, http://www.jmlr.org/papers/volume12/duchi11a/duchi11a.pdf; by rows as MXNet's `GroupAdaGrad`,
        https://mxnet.apache.org/versions/1.5.0/api/python/optimization/contrib.html, Caffe2's `RowWiseSparseAdagrad`
        and FBGEMM's `rowwise_adagrad`. As in Keras' Adagrad eps is within the root.

    Cost: rows of the batch; 4 bytes of state per row, where Adam has 8 d.
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        *,
        name: str = "RowWiseAdagrad",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate, initial_accumulator_value=initial_accumulator_value, epsilon=epsilon,
            name=name, **kwargs,
        )  # fmt: skip

    def build(self, var_list: Sequence[Any]) -> None:
        """Create the accumulators: [n] for a table [n, ...], else of the variable's shape."""
        if getattr(self, "_built", False):
            return
        keras.optimizers.Optimizer.build(self, var_list)
        self._built = True
        self._accumulators = [self._accumulator(variable) for variable in var_list]

    def _accumulator(self, variable: Any) -> tf.Variable:
        shape = variable.shape[:1] if is_table(variable) else variable.shape
        initial = tf.fill(shape, tf.cast(self.initial_accumulator_value, variable.dtype))
        return self.add_variable_from_reference(variable, "accumulator", shape, initial)

    def update_rows(self, gradient: tf.IndexedSlices, variable: Any) -> None:
        """Update the touched rows."""
        accumulator, rows = self._accumulators[self.slot_of(variable)], gradient.indices
        accumulator.scatter_add(tf.IndexedSlices(_squares(gradient.values, accumulator), rows))
        self.subtract(variable, rows, self._change(gradient.values, tf.gather(accumulator, rows)))

    def update_dense(self, gradient: tf.Tensor, variable: Any) -> None:
        """Update a whole variable."""
        accumulator = self._accumulators[self.slot_of(variable)]
        accumulator.assign_add(_squares(gradient, accumulator))
        variable.assign_sub(self._change(gradient, accumulator))

    def _change(self, gradient: tf.Tensor, accumulated: tf.Tensor) -> tf.Tensor:
        if accumulated.shape.rank != gradient.shape.rank:
            accumulated = by_row(accumulated, gradient)
        return tf.cast(self.learning_rate, gradient.dtype) * gradient / tf.sqrt(accumulated + self.epsilon)


def _squares(gradient: tf.Tensor, accumulator: tf.Variable) -> tf.Tensor:
    """Return the squares of a gradient, or their mean over each row for an accumulator of one number per row."""
    squares = tf.square(gradient)
    if accumulator.shape.rank == gradient.shape.rank:
        return squares
    return tf.reduce_mean(squares, axis=list(range(1, gradient.shape.rank)))
