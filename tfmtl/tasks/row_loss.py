"""A Keras loss from a function of targets and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfmtl._keras import keras, tf


class RowLoss(keras.losses.Loss):
    """The loss of a task that Keras does not have, summed over the batch, for `Ranking.keras_loss`.

    Args:
        losses: function from targets [B] and outputs [B, n] to the losses of the rows [B].

    Example:
        >>> loss = RowLoss(lambda targets, outputs: tf.abs(targets - outputs[:, 0]))
        >>> float(loss(tf.constant([[1.0], [4.0]]), tf.constant([[3.0], [3.0]]), sample_weight=tf.constant([1.0, 5.0])))
        7.0
    """

    def __init__(self, losses: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> None:
        super().__init__(reduction=keras.losses.Reduction.SUM)
        self.losses = losses

    @tf.autograph.experimental.do_not_convert
    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        return self.losses(y_true[:, 0], y_pred)
