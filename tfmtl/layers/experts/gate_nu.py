"""Gate NU: factors around 1 from prior information."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.experts.experts import Experts
from tfmtl.layers.kernels import KernelArguments, Kernels


@register
class GateNU(Kernels):
    """Gate NU (gate neural unit of PEPNet): factors between 0 and 2 for the units of one or more parallel layers.

    Use it to scale hidden units by prior information, such as the user's id; `PEPNet` and `PriorGate` are built of it.

    delta_g = 2 sigmoid(V_g relu(U_g x + c_g) + e_g) for gates g. Biases start at 0, so that the initial factors
    are around 1.

    Args:
        num_gates: number of gates G, such as tasks.
        units: number of factors per gate.
        gate_units: width of a gate's hidden layer.
        **kwargs: `kernel_initializer`, `kernel_regularizer`, `seed`: see `SharedBottom`.

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

    Cost: two matrix products per input for all gates.
    """

    def __init__(
        self,
        num_gates: int = 1,
        units: int = 32,
        gate_units: int = 32,
        **kwargs: Unpack[KernelArguments],
    ) -> None:
        super().__init__(**kwargs)
        require_positive_int(num_gates=num_gates, units=units, gate_units=gate_units)
        self.num_gates = num_gates
        self.units = units
        self.gate_units = gate_units
        self._hidden, self._factors = (
            Experts(
                num_gates, [width], activation=activation, kernel_initializer=self.initializer(i * num_gates),
                kernel_regularizer=self.kernel_regularizer, name=name, dtype=self.dtype_policy,
            )
            for i, (name, width, activation) in enumerate([("hidden", gate_units, "relu"), ("out", units, "sigmoid")])
        )  # fmt: skip

    def build(self, input_shape: Any) -> None:
        for part, shape in ((self._hidden, input_shape), (self._factors, [None, self.num_gates, self.gate_units])):
            with tf.name_scope(part.name):
                part.build(shape)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return 2.0 * self._factors(self._hidden(inputs))

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels, in the protocol of the model-optimization toolkit."""
        return [*self._hidden.get_prunable_weights(), *self._factors.get_prunable_weights()]

    def get_config(self) -> dict[str, Any]:
        own = {"num_gates": self.num_gates, "units": self.units, "gate_units": self.gate_units}
        return {**super().get_config(), **own}
