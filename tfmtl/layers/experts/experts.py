"""Experts: many small networks of one shape, computed in few matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, register, spawn, tf
from tfmtl.layers.dense_stack import DenseStack, StackArguments
from tfmtl.layers.experts.products import products
from tfmtl.layers.noise.randomness import Dropout


@register
class Experts(DenseStack):
    """Experts: several dense networks of one shape side by side, each with its own initial values.

    Use it to build a trunk: it needs far fewer matrix products than one Keras layer per expert.

    f_e = act(... act(x_e W_e0 + b_e0) ... W_eL + b_eL) for experts e; with `normalize`, act(norm(x W + b)) at each
    layer, norm(h) = (h - mean(h)) / sqrt(var(h) + 1e-3) over the units of a row.

    Args:
        num_experts: number of experts E.
        units: widths of each expert's dense layers.
        normalize: whether to normalise before each activation, without learned scale or shift.
        **kwargs: `activation` after each dense layer, `dropout` on the outputs, `kernel_initializer` with one draw per
            expert, `kernel_regularizer`, `seed`: see `SharedBottom`.

    Call arguments:
        inputs: [B, d], read by every expert, or [B, G, d]: input g is read by the g-th of G groups of E / G
            consecutive experts.

    Returns:
        [B, E, units[-1]].

    Raises:
        ValueError: if G does not divide E.

    Example:
        >>> Experts(3, units=[4])(tf.ones([2, 5])).shape
        TensorShape([2, 3, 4])

    Cost: for the first layer one matrix product per input, independent of the number of experts; for every other layer
    one per expert.
    """

    def __init__(
        self,
        num_experts: int,
        units: Sequence[int] = (32,),
        *,
        normalize: bool = False,
        **kwargs: Unpack[StackArguments],
    ) -> None:
        super().__init__(units, **kwargs)
        require_positive_int(num_experts=num_experts)
        self.num_experts = num_experts
        self.normalize = normalize
        self._dropout = Dropout(self.dropout, self.seed, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        """Create kernels, [d, E * units] or [G, d, E / G * units] and then [E, rows, units], and biases [E, units]."""
        experts, inputs = self.num_experts, tuple(input_shape)[1:-1]
        require(
            all(experts % number == 0 for number in inputs),
            f"The number of inputs of layer {self.name!r} must divide its {experts} experts.",
            shape=tuple(input_shape),
        )
        self._kernels, self._biases = [], []
        for level, (rows, columns) in enumerate(zip((int(input_shape[-1]), *self.units), self.units, strict=False)):
            groups = (experts,) if level else inputs
            self._kernels.append(
                self.add_weight(
                    f"expert_kernel_{level}",
                    [*groups, rows, experts // math.prod(groups) * columns],
                    initializer=_Apart(self.kernel_initializer, columns, level * experts, self.seed),
                    regularizer=self.kernel_regularizer,
                )
            )
            self._biases.append(self.add_weight(f"expert_bias_{level}", [experts, columns], initializer="zeros"))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        hidden = inputs
        for kernel, bias in zip(self._kernels, self._biases, strict=True):
            product = tf.nn.bias_add(products(hidden, kernel), tf.reshape(bias, [-1]))
            hidden = tf.reshape(product, [-1, *bias.shape])
            hidden = self.activation(_normalized(hidden) if self.normalize else hidden)
        return self._dropout(hidden, training=training)

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels, in the protocol of the model-optimization toolkit."""
        return list(self._kernels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_experts": self.num_experts, "normalize": self.normalize}


def _normalized(hidden: tf.Tensor) -> tf.Tensor:
    """Return rows of mean 0 and variance 1, computed in float32: squares overflow in half precision."""
    mean, variance = tf.nn.moments(tf.cast(hidden, tf.float32), axes=[-1], keepdims=True)
    return tf.cast((tf.cast(hidden, tf.float32) - mean) * tf.math.rsqrt(variance + 1e-3), hidden.dtype)


class _Apart(keras.initializers.Initializer):
    """Initializer of [..., rows, n * columns] as matrices [rows, columns], each with its own fan-in and draw."""

    def __init__(self, initializer: Any, columns: int, first: int, seed: int) -> None:
        self.initializer, self.columns, self.first, self.seed = initializer, columns, first, seed

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        *groups, rows, width = tuple(shape)
        together, apart = math.prod(groups), width // self.columns
        matrices = [
            spawn(self.initializer, self.first + i, self.seed)([rows, self.columns], dtype)
            for i in range(together * apart)
        ]
        joined = [tf.concat(matrices[g * apart : (g + 1) * apart], axis=1) for g in range(together)]
        return tf.reshape(tf.stack(joined), shape)

    def get_config(self) -> dict[str, Any]:
        return {"initializer": self.initializer, "columns": self.columns, "first": self.first, "seed": self.seed}
