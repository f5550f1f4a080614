"""The gate neural unit: factors around 1, from what is known beforehand."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require_positive_int
from tfmtl._keras import keras, register, spawn, tf
from tfmtl.layers.experts.experts import Experts


@register
class GateNU(keras.layers.Layer):
    """Factors between 0 and 2 for the units of one or more layers side by side.

    delta_g = 2 sigmoid(V_g relu(U_g x + c_g) + e_g) for gates g. Biases start at 0, so that the factors scatter around
    1 at the start.

    Args:
        num_gates: number of gates G, such as tasks.
        units: number of factors of a gate.
        gate_units: width of a gate's hidden layer.
        kernel_initializer: initializer of a kernel; every gate gets draws of its own.
        kernel_regularizer: regulariser of the kernels.
        seed: seed of the initial values.

    Call arguments:
        inputs: [B, p].

    Returns:
        [B, G, units].

    Example:
        >>> GateNU(3, units=4)(tf.zeros([2, 5])).numpy()[0, 0].tolist()
        [1.0, 1.0, 1.0, 1.0]

    Reference:
        Chang et al., "PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized Prior
        Information", KDD 2023, https://arxiv.org/abs/2302.01115.

    Cost: two matrix products an input for all gates.
    """

    def __init__(
        self,
        num_gates: int = 1,
        units: int = 32,
        gate_units: int = 32,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_positive_int(num_gates=num_gates, units=units, gate_units=gate_units)
        self.num_gates = num_gates
        self.units = units
        self.gate_units = gate_units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = seed
        self._hidden, self._factors = (
            Experts(
                num_gates, [width], activation, kernel_initializer=spawn(self.kernel_initializer, i * num_gates, seed),
                kernel_regularizer=self.kernel_regularizer, name=name,
            )
            for i, (name, width, activation) in enumerate([("hidden", gate_units, "relu"), ("out", units, "sigmoid")])
        )  # fmt: skip

    def build(self, input_shape: Any) -> None:
        """Create both layers."""
        for part, shape in ((self._hidden, input_shape), (self._factors, [None, self.num_gates, self.gate_units])):
            with tf.name_scope(part.name):
                part.build(shape)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the factors."""
        return 2.0 * self._factors(self._hidden(inputs))

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels; the model-optimization toolkit asks by this name."""
        return [*self._hidden.get_prunable_weights(), *self._factors.get_prunable_weights()]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_gates": self.num_gates,
            "units": self.units,
            "gate_units": self.gate_units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
        }
