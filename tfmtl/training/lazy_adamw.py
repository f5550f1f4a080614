"""AdamW with a step that costs as much as the rows of the batch."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require
from tfmtl._keras import register
from tfmtl.training.lazy_adam import LazyAdam


@register
class LazyAdamW(LazyAdam):
    """`LazyAdam` with decoupled weight decay, which a table's row pays in the steps that touch it.

    A dense weight decays as in AdamW, x <- x - rate decay x, before its step. A row of a table decays when it is
    touched: with `catch_up` by all steps since it was touched last, x <- (1 - rate decay)^k x, which is AdamW, late;
    without, once. Rows never touched never decay. A table of up to `dense_rows` rows that catches up decays
    as a whole.

    Args:
        learning_rate: as in `LazyAdam`.
        weight_decay: share of a weight, times the rate, that a step takes away.
        name, **kwargs: as in `LazyAdam`; `exclude_from_weight_decay` keeps variables from it, before the first step.

    Example:
        >>> from tfmtl._keras import tf
        >>> table = tf.Variable(tf.ones([20_000, 1]))
        >>> optimizer = LazyAdamW(0.5, weight_decay=0.25)
        >>> optimizer.apply_gradients([(tf.IndexedSlices(tf.zeros([1, 1]), tf.constant([1])), table)]) and None
        >>> table.numpy()[:3, 0].round(4).tolist()
        [1.0, 0.875, 1.0]

    Reference:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, https://arxiv.org/abs/1711.05101,
        algorithm 2; here the decay is times the rate, as in Keras.

    Cost: that of `LazyAdam` and one more look-up of the touched rows.
    """

    def __init__(
        self, learning_rate: Any = 0.001, weight_decay: float = 0.004, *, name: str = "LazyAdamW", **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        require(weight_decay is not None, "`weight_decay` must be a number.", weight_decay=weight_decay)
