"""MTAN: a shared network, of whose features each task picks by attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.trunks.dense_trunk import DenseTrunk


@register
class MTAN(DenseTrunk):
    """One stack of dense layers for all tasks; each task has a soft mask for each level's features.

    s_l = act(W_l s_{l-1} + b_l), s_0 = x; for task k
    a_k,l = sigmoid(V_k,l relu(U_k,l [s_l, z_k,l-1] + c_k,l) + e_k,l) and z_k,l = a_k,l s_l, elementwise; z_k,0 is
    empty, and the output is the last z_k.

    Args:
        task_names, units, activation, dropout, kernel_initializer, kernel_regularizer, seed: see `DenseTrunk`; `units`
            are the widths of the shared stack, the regulariser is that of all kernels.
        attention_units: width of the attention modules' hidden layers.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> MTAN(["click", "buy"], units=[8, 4], attention_units=3)(tf.ones([2, 5]))["buy"].shape
        TensorShape([2, 4])

    Reference:
        Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019,
        https://arxiv.org/abs/1803.10704. The paper's network is convolutional; this is its dense counterpart: a dense
        layer for a convolution block, no batch normalisation, and what one level passes to the next enters its
        attention module without a layer in between.

    Cost: one dense stack, and two matrix products an input and level for the attention of all tasks.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        units: Sequence[int] = (64, 32),
        attention_units: int = 32,
        **kwargs: Any,
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
        """Return what each task picks of the last level."""
        features, picked = inputs, None
        for stack, hidden, mask in zip(self._stack, self._hidden, self._masks, strict=True):
            features = stack(features, training=training)[:, 0]
            # A copy, since the next level reads the features too: the copies are all that tasks read.
            read = self.mark_shared(tf.identity(features))
            for_each = tf.repeat(read[:, tf.newaxis], len(self.task_names), axis=1)
            context = read if picked is None else tf.concat([for_each, picked], 2)
            picked = mask(hidden(context)) * for_each
        return dict(zip(self.task_names, tf.unstack(picked, axis=1), strict=True))

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """The stack's variables; an attention module serves one task."""
        return [variable for stack in self._stack for variable in stack.trainable_weights]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search widths, depth and dropout."""
        width = hp.Choice("mtan_units", [32, 64, 128], default=64)
        return {
            "units": (width,) * hp.Int("mtan_depth", 1, 3, default=2),
            "attention_units": hp.Choice("mtan_attention_units", [8, 16, 32], default=16),
            "dropout": hp.Float("mtan_dropout", 0.0, 0.4, step=0.1, default=0.0),
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "attention_units": self.attention_units}
