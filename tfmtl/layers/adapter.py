"""Adapter: a small trainable layer between trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.kernels import KernelArguments, Kernels
from tfmtl.types import Column


@register
class Adapter(Kernels):
    """Adapter (Houlsby adapter): adds a correction through a bottleneck; the initial correction is 0.

    Use it to adapt a trained network to new data with few trainable weights; see `tfmtl.adaptation`.

    y = x + U f(D x + b) + c. D [d, units] is drawn, U [units, d], b and c are zero: a network is unchanged until the
    adapter is trained.

    Args:
        units: width of the bottleneck.
        activation: f.
        **kwargs: `kernel_initializer` of D, `kernel_regularizer` of D and U, `seed` of the initial values.

    Call arguments:
        inputs: [..., d].

    Returns:
        [..., d].

    Example:
        >>> Adapter(2)(tf.constant([[1.0, 2.0, 3.0]])).numpy().tolist()
        [[1.0, 2.0, 3.0]]

    Reference:
        Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, https://arxiv.org/abs/1902.00751,
        section 2.1. U is zero instead of nearly zero.

    Cost: 2 d units multiplications per row.
    """

    def __init__(
        self,
        units: int = 8,
        activation: Any = "relu",
        **kwargs: Unpack[KernelArguments],
    ) -> None:
        super().__init__(**kwargs)
        require_positive_int(units=units)
        self.units = units
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        """Create the kernels."""
        width, penalty = int(input_shape[-1]), self.kernel_regularizer
        self._down = self.add_weight(
            "down_kernel", [width, self.units], initializer=self.initializer(0), regularizer=penalty
        )
        self._down_bias = self.add_weight("down_bias", [self.units], initializer="zeros")
        self._up = self.add_weight("up_kernel", [self.units, width], initializer="zeros", regularizer=penalty)
        self._up_bias = self.add_weight("up_bias", [width], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        hidden = self.activation(tf.tensordot(inputs, self._down, 1) + self._down_bias)
        return inputs + tf.tensordot(hidden, self._up, 1) + self._up_bias

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return the columns of the input; see `tfmtl.types.HasColumnSources`."""
        return inputs[0]

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels, in the protocol of the model-optimization toolkit."""
        return [self._down, self._up]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the width."""
        return {"units": hp.Choice("adapter_units", [4, 8, 16, 32], default=8)}

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "units": self.units, "activation": activation}
