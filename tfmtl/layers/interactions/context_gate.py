"""EPNet: a gate on the pair's encoding by features of the context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.experts.prior_gate import PriorGate
from tfmtl.layers.interactions.base import Interaction
from tfmtl.layers.kernels import KernelArguments, Kernels
from tfmtl.layers.trunks.base import FeatureEncodings
from tfmtl.types import Column


@register
class ContextGate(Interaction, Kernels):
    """EPNet of PEPNet: scales each column of the pair's encoding by a gate that reads some features.

    Use it when features such as the hour, the location or the device change the weight of all others.

    y = x * 2 sigmoid(V relu(U [p, stop(x)] + c) + e), elementwise, with p the joined encodings of `features`: the
    `PriorGate`, as one of the `interactions` of `build_network`.

    Args:
        features: names of features of the schema, in any role.
        gate_units: width of the gate's hidden layer.
        **kwargs: `kernel_initializer`, `kernel_regularizer`, `seed`: see `SharedBottom`.

    Call arguments:
        inputs: pair (encoding [B, d], prior [B, p]).

    Returns:
        [B, d].

    Raises:
        ValueError: by `build_network`, if the schema has no such feature.

    Example:
        >>> ContextGate(["hour"], gate_units=4)((tf.ones([2, 3]), tf.zeros([2, 1]))).shape
        TensorShape([2, 3])

    Reference:
        The EPNet of Chang et al., "PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized
        Prior Information", KDD 2023, https://arxiv.org/abs/2302.01115. There the prior is the domain.

    Cost: two matrix products.
    """

    def __init__(
        self,
        features: Sequence[str],
        gate_units: int = 32,
        **kwargs: Unpack[KernelArguments],
    ) -> None:
        super().__init__(**kwargs)
        names = [features] if isinstance(features, str) else list(features)
        require(bool(names) and not isinstance(features, str), "`features` must be a list of names.", features=features)
        require_positive_int(gate_units=gate_units)
        self.features = names
        self.gate_units = gate_units
        self._gate = PriorGate(
            gate_units,
            kernel_initializer=self.kernel_initializer,
            kernel_regularizer=self.kernel_regularizer,
            seed=self.seed,
            name="gate",
            dtype=self.dtype_policy,
        )

    def connect(self, pair: Any, features: FeatureEncodings) -> Any:
        return self((pair, features.encode(self.features)))

    def build(self, input_shape: Any) -> None:
        self._gate.build(input_shape)
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        gated: tf.Tensor = self._gate(inputs)
        return gated

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return the columns of the pair's encoding; see `tfmtl.types.HasColumnSources`."""
        return inputs[0]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the gate's width; `features` are given."""
        return {"gate_units": hp.Choice("contextgate_units", [8, 16, 32, 64], default=32)}

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the gate's kernels, in the protocol of the model-optimization toolkit."""
        return self._gate.get_prunable_weights()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "features": list(self.features), "gate_units": self.gate_units}
