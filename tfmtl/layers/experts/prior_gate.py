"""EPNet: a gate on an encoding by prior information, such as the domain, the time or the location."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.experts.gate_nu import GateNU
from tfmtl.layers.kernels import KernelArguments, Kernels


@register
class PriorGate(Kernels):
    """EPNet (of PEPNet): multiplies an encoding by factors between 0 and 2 that depend on prior information.

    Use it in a layer; `ContextGate` adds it to a network by names of features.

    y = x * 2 sigmoid(V relu(U [p, stop(x)] + c) + e), elementwise: given the encoding x, the prior p strengthens or
    weakens each of its columns. `stop` blocks the gradient, so that the encoding is not trained through its gate.

    Args:
        gate_units: width of the gate's hidden layer.
        **kwargs: `kernel_initializer`, `kernel_regularizer`, `seed`: see `SharedBottom`.

    Call arguments:
        inputs: pair (encoding [B, d], prior [B, p]).

    Returns:
        [B, d], close to the encoding before training; see `GateNU`.

    Example:
        >>> encoding, context = tf.ones([2, 3]), tf.zeros([2, 1])
        >>> PriorGate(gate_units=4)((encoding, context)).shape
        TensorShape([2, 3])

    Reference:
        The EPNet of Chang et al., "PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized
        Prior Information", KDD 2023, https://arxiv.org/abs/2302.01115.

    Cost: two matrix products.
    """

    def __init__(self, gate_units: int = 32, **kwargs: Unpack[KernelArguments]) -> None:
        super().__init__(**kwargs)
        require_positive_int(gate_units=gate_units)
        self.gate_units = gate_units

    def build(self, input_shape: Any) -> None:
        width, prior = (int(shape[-1]) for shape in input_shape)
        self._gate = GateNU(
            1, width, self.gate_units, kernel_initializer=self.kernel_initializer,
            kernel_regularizer=self.kernel_regularizer, seed=self.seed, name="gate", dtype=self.dtype_policy,
        )  # fmt: skip
        with tf.name_scope("gate"):
            self._gate.build([None, prior + width])
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        encoding, prior = inputs
        return encoding * self._gate(tf.concat([prior, tf.stop_gradient(encoding)], 1))[:, 0]

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the gate's kernels, in the protocol of the model-optimization toolkit."""
        return self._gate.get_prunable_weights()

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the gate's width."""
        return {"gate_units": hp.Choice("priorgate_units", [8, 16, 32, 64], default=32)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gate_units": self.gate_units}
