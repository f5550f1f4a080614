"""Gates: how much of each expert a task reads."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import keras, register, spawn, tf
from tfmtl.layers.experts.products import products
from tfmtl.layers.noise.randomness import Dropout


class Gate(keras.layers.Layer, abc.ABC):
    """Weights of experts for each of several readers, from the readers' inputs.

    Args:
        num_gates: number of readers G, such as tasks.
        num_experts: number of experts E.
        readable: which experts a reader may read, [G][E] of truth values; all by default. The others weigh 0.

    Call arguments:
        inputs: [B, d], or [B, G, d] with one input a reader.

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
        """Return nothing: gates are small and decide much."""
        return []

    def get_config(self) -> dict[str, Any]:
        own = {"num_gates": self.num_gates, "num_experts": self.num_experts, "readable": self.readable}
        return {**super().get_config(), **own}


@register
class SoftmaxGate(Gate):
    """Softmax over the experts a reader may read.

    w_g = softmax(W_g x / temperature) over the readable experts; in training each expert is dropped with
    `expert_dropout` (all readers alike in a row) and the weights of those left are scaled to sum 1.

    Args:
        num_gates, num_experts, readable: see `Gate`.
        temperature: divides the logits; above 1 evens the weights out, below 1 sharpens them.
        expert_dropout: rate at which an expert is left out of a row in training, in [0, 1). A row that would lose all
            of a reader's experts keeps them.
        kernel_initializer: initializer of the kernel [d, G * E].
        seed: seed of the initial values and of dropout.

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
        kernel_initializer: Any = "glorot_uniform",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_gates, num_experts, readable, **kwargs)
        require(temperature > 0, "`temperature` must be above 0.", temperature=temperature)
        require_fraction(expert_dropout=expert_dropout)
        self.temperature = float(temperature)
        self.expert_dropout = expert_dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed = seed
        self._dropout = Dropout(expert_dropout, seed)

    def build(self, input_shape: Any) -> None:
        """Create the kernel [d, G * E]."""
        self._kernel = self.add_weight(
            "gate", [int(input_shape[-1]), self.num_gates * self.num_experts],
            initializer=spawn(self.kernel_initializer, 0, self.seed),
        )  # fmt: skip
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return the weights [B, G, E]."""
        logits = self.project(inputs, self._kernel) / self.temperature
        if self.readable is None and not self.expert_dropout:
            return tf.nn.softmax(logits)
        allowed = tf.constant(self.readable or [[True] * self.num_experts] * self.num_gates)
        if not self.expert_dropout:  # a constant term, whose gradient costs nothing
            return tf.nn.softmax(logits + tf.where(allowed, tf.zeros([], logits.dtype), logits.dtype.min / 2))
        # on the logits: dividing what is left of the weights would overflow where it is tiny
        kept = (self._dropout(tf.ones_like(logits[:, :1]), training=training) > 0) & allowed
        allowed = kept | (allowed & ~tf.reduce_any(kept, axis=2, keepdims=True))
        return tf.nn.softmax(tf.where(allowed, logits, logits.dtype.min))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "expert_dropout": self.expert_dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }
