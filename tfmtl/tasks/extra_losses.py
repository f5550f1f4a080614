"""Further losses of a task, beside that of its rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from tfmtl._checks import require, require_type
from tfmtl._keras import keras, tf
from tfmtl._trusted import deserialize
from tfmtl.tasks.group_loss import GroupLoss
from tfmtl.tasks.task import mean_over_observed


@dataclasses.dataclass(frozen=True)
class ValueLoss:
    """A loss of Keras between the label and the served value of each row, beside the loss of a task.

    Use it as `OrdinalRegression(extra_losses=[ValueLoss(keras.losses.MeanSquaredError(), 0.5)])` where a second error
    of the prediction counts, such as the squared error of stars that are predicted as levels. The loss of the task
    grows by `weight` times the weighted mean over the observed rows.

    The loss reads labels [B, 1] and served values [B, 1], or [B, n] of a task that serves several: probabilities of
    classes (not logits) and quantiles. A value that `clip` bounds has no gradient. The loss is in the unit of the label
    or its square: choose a weight by which it is near 1, or gradients of large labels overflow in half precision.

    Attributes:
        loss: an instance such as `keras.losses.MeanAbsoluteError()`; a class of the user must be registered with Keras.
        weight: factor beside the loss of the task; above 0.

    Raises:
        TypeError: if `loss` is no loss of Keras.
        ValueError: if `weight` is not above 0.

    Example:
        >>> loss = ValueLoss(keras.losses.MeanAbsoluteError(), weight=0.5)
        >>> labels, values = tf.constant([1.0, 5.0, 7.0]), tf.constant([2.0, 8.0, 0.0])
        >>> float(loss.of_rows(labels, values, tf.constant([1.0, 3.0, 0.0])))  # (1 + 3 * 3) / 4
        2.5

    Cost: that of the loss.
    """

    loss: keras.losses.Loss
    weight: float = 1.0

    def __post_init__(self) -> None:
        cure = "Pass an instance such as keras.losses.MeanAbsoluteError()."
        require_type(self.loss, keras.losses.Loss, "loss", cure)
        number = isinstance(self.weight, int | float) and not isinstance(self.weight, bool)
        valid = number and math.isfinite(self.weight) and self.weight > 0
        require(valid, "`weight` of a `ValueLoss` must be a finite number above 0.", weight=self.weight)

    @property
    def name(self) -> str:
        """The name of the loss, which `evaluate` logs after that of the task."""
        return str(self.loss.name or type(self.loss).__name__)

    def config(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return {"loss": keras.losses.serialize(self.loss), "weight": self.weight}

    def of_rows(self, labels: tf.Tensor, values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Return the weighted mean loss of rows, a scalar, without the factor `weight`.

        Args:
            labels: [B], without NaN.
            values: served values [B] or [B, n].
            weights: [B], 0 for rows that do not count.

        Raises:
            ValueError: if the loss returns no vector [B] or matrix [B, n], of which the mean over n counts.
        """
        values = tf.cast(values, tf.float32)
        columns = values if len(values.shape) > 1 else values[:, tf.newaxis]
        losses = tf.cast(self.loss.call(labels[:, tf.newaxis], columns), tf.float32)
        rank = losses.shape.rank
        require(rank in (1, 2), f"The loss {self.name!r} must return one number per row, [B] or [B, n].", rank=rank)
        losses = losses if rank == 1 else tf.reduce_mean(losses, axis=1)
        return mean_over_observed(tf.where(weights > 0, losses, 0.0), weights)[0]


ExtraLoss: TypeAlias = GroupLoss | ValueLoss


def extra_losses_of(given: Sequence[Any], task: str) -> tuple[ExtraLoss, ...]:
    """Return the losses of an argument, each of which is one already or the attributes of one.

    Args:
        given: the losses.
        task: name of the task.

    Raises:
        TypeError: if there is no sequence, or an entry is no such loss.
        ValueError: if two losses have one name.
    """
    cure = 'Pass a list such as [GroupLoss("softmax", "user_id"), ValueLoss(keras.losses.MeanAbsoluteError(), 0.5)].'
    require_type(given, Sequence, "extra_losses", cure)
    losses = tuple(_of(each) if isinstance(each, Mapping) else each for each in given)
    for loss in losses:
        require_type(loss, (GroupLoss, ValueLoss), "extra_losses[...]", cure)
    names = [loss.name for loss in losses]
    rule = f"`extra_losses` of task {task!r} must have distinct names; give a loss of Keras another `name`."
    require(len(set(names)) == len(names), rule, names=names)
    return losses


def _of(attributes: Mapping[str, Any]) -> ExtraLoss:
    """Return the loss of `config()`."""
    if "kind" in attributes:
        return GroupLoss(**attributes)
    loss = attributes.get("loss")
    made = deserialize(keras.losses.deserialize, loss, "extra_losses") if isinstance(loss, Mapping) else loss
    return ValueLoss(**{**attributes, "loss": made})
