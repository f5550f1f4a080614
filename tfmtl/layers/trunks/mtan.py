"""MTAN: a shared network, and for each task attention masks over its features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.dense_stack import StackArguments, search_dropout, search_units
from tfmtl.layers.trunks.dense_trunk import DenseTrunk, trainable


@register
class MTAN(DenseTrunk):
    """MTAN (multi-task attention network): one stack of dense layers, with a soft mask per task and level.

    Use it when tasks need different parts of the same features and a full set of experts is too expensive.

    s_l = act(W_l s_{l-1} + b_l), s_0 = x; for task k
    a_k,l = sigmoid(V_k,l relu(U_k,l [s_l, z_k,l-1] + c_k,l) + e_k,l) and z_k,l = a_k,l s_l, elementwise; z_k,0 is
    empty, and the output is the last z_k.

    Args:
        task_names: names of the tasks.
        units: widths of the shared stack.
        attention_units: width of the attention modules' hidden layers.
        **kwargs: `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`: see `SharedBottom`.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}.

    Example:
        >>> MTAN(["click", "buy"], units=[8, 4], attention_units=3)(tf.ones([2, 5]))["buy"].shape
        TensorShape([2, 4])

    Reference:
        Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019,
        https://arxiv.org/abs/1803.10704. The paper's network is convolutional; this is its dense counterpart: a dense
        layer for a convolution block, no batch normalisation, and the masked features of one level enter the next
        level's attention module directly.

    Cost: one dense stack, and two matrix products per level and input for the attention of all tasks.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        units: Sequence[int] = (64, 32),
        attention_units: int = 32,
        **kwargs: Unpack[StackArguments],
    ) -> None:
        super().__init__(task_names, units, **kwargs)
        require_positive_int(attention_units=attention_units)
        self.attention_units = attention_units

    def build_layers(self, input_shape: Any) -> None:
        """Create the stack and the attention modules."""
        tasks, width, plain = len(self.task_names), self.attention_units, {"dropout": 0.0}
        levels = list(enumerate(self.units))
        self._stack = [self.make_experts(f"shared_{i}", 1, [units]) for i, units in levels]
        self._hidden = [
            self.make_experts(f"attention_{i}", tasks, [width], activation="relu", **plain) for i, _ in levels
        ]
        self._masks = [
            self.make_experts(f"mask_{i}", tasks, [units], activation="sigmoid", **plain) for i, units in levels
        ]
        shape, passed_on = input_shape, 0
        for stack, hidden, mask, width in zip(self._stack, self._hidden, self._masks, self.units, strict=True):
            self.build_part(stack, shape)
            self.build_part(hidden, [None, tasks, width + passed_on] if passed_on else [None, width])
            self.build_part(mask, [None, tasks, self.attention_units])
            shape, passed_on = [None, width], width

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        features, picked = inputs, None
        for stack, hidden, mask in zip(self._stack, self._hidden, self._masks, strict=True):
            features = stack(features, training=training)[:, 0]
            # A copy: the next level reads the features too, and tasks must read the marked tensors only.
            read = self.mark_shared(tf.identity(features))
            for_each = tf.repeat(read[:, tf.newaxis], len(self.task_names), axis=1)
            context = read if picked is None else tf.concat([for_each, picked], 2)
            picked = mask(hidden(context)) * for_each
        return self.by_task(picked)

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """The stack's variables; each attention module belongs to one task."""
        return trainable(*self._stack)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search widths, depth and dropout."""
        return {
            "units": search_units(hp, "mtan", 64, depth=2),
            "attention_units": hp.Choice("mtan_attention_units", [8, 16, 32], default=16),
            "dropout": search_dropout(hp, "mtan"),
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "attention_units": self.attention_units}
