"""Shared bottom: one network for all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._keras import register, tf
from tfmtl.layers.dense_stack import DenseStack, StackArguments, search_dropout, search_units
from tfmtl.layers.noise.randomness import Dropout
from tfmtl.layers.trunks.base import MultiTaskLayer


@register
class SharedBottom(MultiTaskLayer, DenseStack):
    """Shared bottom (hard parameter sharing): one stack of dense layers, and every task reads its output.

    Use it as the baseline, and when tasks are closely related or the latency budget is small.

    y_k = h_k(f(x)) with one f for all tasks; the heads h_k belong to the tasks.

    Args:
        task_names: names of the tasks.
        units: widths of f's dense layers.
        activation: activation after each dense layer.
        dropout: rate after each dense layer, in [0, 1).
        kernel_initializer: initializer of the kernels; each kernel has its own draw.
        kernel_regularizer: regularizer of the kernels.
        seed: seed of the initial values and of dropout.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}, the same values for every task.

    Example:
        >>> SharedBottom(["click", "buy"], units=[4])(tf.zeros([2, 3]))["buy"].shape
        TensorShape([2, 4])

    Reference:
        Caruana, "Multitask Learning", Machine Learning 28 (1997), https://doi.org/10.1023/A:1007379606734

    Cost: one dense stack for any number of tasks.
    """

    def __init__(
        self, task_names: Sequence[str] | None = None, units: Sequence[int] = (64,), **kwargs: Unpack[StackArguments]
    ) -> None:
        super().__init__(task_names, units=units, **kwargs)
        self._dense = self.dense_layers("dense")
        self._dropout = Dropout(self.dropout, self.seed, dtype=self.dtype_policy)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        hidden = inputs
        for dense in self._dense:
            hidden = self._dropout(dense(hidden), training=training)
        hidden = self.mark_shared(hidden)
        outputs = {name: tf.identity(hidden) for name in self.task_names}
        self.mark_gated(outputs)
        return outputs

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """All variables of the layer."""
        return list(self.trainable_weights)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search width, depth and dropout."""
        return {
            "units": search_units(hp, "shared_bottom", 64, depth=1),
            "dropout": search_dropout(hp, "shared_bottom"),
        }
