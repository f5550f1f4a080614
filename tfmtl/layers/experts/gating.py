"""Gates: the weights with which readers, such as tasks, mix experts."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.experts.products import products
from tfmtl.layers.kernels import SeededArguments, SeededKernels
from tfmtl.layers.noise.randomness import Dropout


class Gate(keras.layers.Layer, abc.ABC):
    """Base of gates: maps the inputs of several readers to each reader's weights of the experts.

    Derive from it to add a way of mixing experts; a trunk returns it from `make_gate`.

    Args:
        num_gates: number of readers G, such as tasks.
        num_experts: number of experts E.
        readable: truth values [G][E], whether a reader may read an expert; None for all. Other experts have weight 0.

    Call arguments:
        inputs: [B, d], or [B, G, d] with one input per reader.

    Returns:
        [B, G, E], 0 or more, sum 1 over the experts.
    """

    def __init__(
        self, num_gates: int, num_experts: int, readable: Sequence[Sequence[bool]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        require_positive_int(num_gates=num_gates, num_experts=num_experts)
        self.num_gates = num_gates
        self.num_experts = num_experts
        self.readable = None if readable is None else [[bool(x) for x in row] for row in readable]
        if self.readable is not None:
            require(
                [len(row) for row in self.readable] == [num_experts] * num_gates and all(map(any, self.readable)),
                f"`readable` must be {num_gates} rows of {num_experts} truth values, each with one that is true.",
                readable=readable,
            )

    @abc.abstractmethod
    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return the weights [B, G, E]."""

    def project(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return inputs times a kernel [d, G * n] as [B, G, n]."""
        width = kernel.shape[1] // self.num_gates
        if inputs.shape.rank == 3:
            kernel = tf.stack(tf.split(kernel, self.num_gates, axis=1))
        return tf.reshape(products(inputs, kernel), [-1, self.num_gates, width])

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return no weights: gates have few, and outputs depend strongly on them."""
        return []

    def get_config(self) -> dict[str, Any]:
        own = {"num_gates": self.num_gates, "num_experts": self.num_experts, "readable": self.readable}
        return {**super().get_config(), **own}


@register
class SoftmaxGate(Gate, SeededKernels):
    """Softmax gate of MMoE: a softmax over the experts that a reader may read.

    Use it unless each reader should settle on few experts; `DSelectKGate` does that.

    w_g = softmax(W_g x / temperature) over the readable experts. In training each expert is dropped from a row with
    probability `expert_dropout`, for all readers alike, and the remaining weights are scaled to sum 1.

    Args:
        num_gates, num_experts, readable: see `Gate`.
        temperature: divisor of the logits; a value above 1 makes the weights more even, a value below 1 less even.
        expert_dropout: rate at which an expert is dropped from a row in training, in [0, 1); set it if the gates
            settle on one expert. A row that would lose all experts of a reader keeps them.
        **kwargs: `kernel_initializer` of the kernel [d, G * E], `seed` of the initial values and of dropout.

    Call arguments:
        inputs: [B, d], or [B, G, d].

    Returns:
        [B, G, E].

    Example:
        >>> SoftmaxGate(2, 3)(tf.ones([4, 5])).shape
        TensorShape([4, 2, 3])

    Reference:
        Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018,
        https://doi.org/10.1145/3219819.3220007. No bias, as there; temperature and dropout are additions.

    Cost: one matrix product for all gates.
    """

    def __init__(
        self,
        num_gates: int,
        num_experts: int,
        readable: Sequence[Sequence[bool]] | None = None,
        temperature: float = 1.0,
        expert_dropout: float = 0.0,
        **kwargs: Unpack[SeededArguments],
    ) -> None:
        super().__init__(num_gates, num_experts, readable, **kwargs)
        require(temperature > 0, "`temperature` must be above 0.", temperature=temperature)
        require_fraction(expert_dropout=expert_dropout)
        self.temperature = float(temperature)
        self.expert_dropout = expert_dropout
        self._dropout = Dropout(expert_dropout, self.seed, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        """Create the kernel [d, G * E]."""
        self._kernel = self.add_weight(
            "gate", [int(input_shape[-1]), self.num_gates * self.num_experts],
            initializer=self.initializer(0),
        )  # fmt: skip
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        logits = self.project(inputs, self._kernel) / self.temperature
        if self.readable is None and not self.expert_dropout:
            return tf.nn.softmax(logits)
        allowed = tf.constant(self.readable or [[True] * self.num_experts] * self.num_gates)
        if not self.expert_dropout:  # adding a constant needs no gradient, unlike `tf.where` below
            return tf.nn.softmax(logits + tf.where(allowed, tf.zeros([], logits.dtype), logits.dtype.min / 2))
        # Drop logits instead of weights: dividing by a tiny sum of the remaining weights would overflow.
        kept = (self._dropout(tf.ones_like(logits[:, :1]), training=training) > 0) & allowed
        allowed = kept | (allowed & ~tf.reduce_any(kept, axis=2, keepdims=True))
        return tf.nn.softmax(tf.where(allowed, logits, logits.dtype.min))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature, "expert_dropout": self.expert_dropout}
