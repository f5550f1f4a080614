"""What trunks have in common whose tasks mix the outputs of experts."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_fraction
from tfmtl._keras import keras, seed_of, spawn, tf
from tfmtl.layers.experts.experts import Experts
from tfmtl.layers.experts.gating import Gate, SoftmaxGate
from tfmtl.layers.trunks.base import MultiTaskLayer


class MixtureOfExperts(MultiTaskLayer, abc.ABC):
    """Experts that all tasks share, mixed by gates.

    y_k = sum_e g_k(x)_e f_e(x); subclasses say with `make_gate` how g comes about.

    Args:
        task_names: names of the tasks.
        num_experts: number of experts.
        units, activation, dropout, kernel_initializer, kernel_regularizer: of the experts, see `Experts`.
        seed: seed of the initial values and of dropout.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        num_experts: int = 4,
        units: Sequence[int] = (32,),
        activation: Any = "relu",
        dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, **kwargs)
        self._experts = Experts(
            num_experts, units, activation, dropout, kernel_initializer, kernel_regularizer, seed, name="experts",
            dtype=self.dtype_policy,
        )  # fmt: skip
        self.num_experts = num_experts
        self.units = self._experts.units
        self.activation = self._experts.activation
        self.dropout = dropout
        self.kernel_initializer = self._experts.kernel_initializer
        self.kernel_regularizer = self._experts.kernel_regularizer
        self.seed = seed

    @abc.abstractmethod
    def make_gate(self, kernel_initializer: Any) -> Gate:
        """Return the gate of the tasks over the experts; called when the layer is built."""

    def build_layers(self, input_shape: Any) -> None:
        """Create the experts and the gate."""
        self._gate = self.make_gate(spawn(self.kernel_initializer, len(self.units) * self.num_experts, self.seed))
        self._experts.build(input_shape)
        self._gate.build(input_shape)

    def gates(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return each task's mixture weights [B, tasks, num_experts], which sum to 1 over the experts."""
        return self._gate(inputs, training=training)

    def gate_weights(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the mixture weights as `MultiTaskLayer.gate_weights` does."""
        return {"experts": self.gates(inputs)}

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """Mix the experts' outputs for each task."""
        hidden = self.mark_shared(self._experts(inputs, training=training))
        gates = self.gates(inputs, training=training)
        mixed = tf.unstack(tf.matmul(gates, hidden), axis=1)
        outputs = dict(zip(self.task_names, mixed, strict=True))
        self.mark_gated(outputs, gates)
        return outputs

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """The experts' variables; a gate serves one task."""
        return list(self._experts.trainable_weights)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_experts": self.num_experts,
            "units": list(self.units),
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
        }


class SoftmaxMixture(MixtureOfExperts, abc.ABC):
    """A mixture whose gates are softmax functions of the input.

    Args:
        task_names, num_experts, units, activation, dropout, kernel_initializer, kernel_regularizer, seed: see
            `MixtureOfExperts`.
        gate_temperature, expert_dropout: of the gates, see `SoftmaxGate`.
    """

    num_gates: int
    """Number of gates: one for each task, or one for all."""

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        num_experts: int = 4,
        units: Sequence[int] = (32,),
        activation: Any = "relu",
        dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        seed: int = 0,
        gate_temperature: float = 1.0,
        expert_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            task_names, num_experts, units, activation, dropout, kernel_initializer, kernel_regularizer, seed, **kwargs
        )
        require_fraction(expert_dropout=expert_dropout)
        require(gate_temperature > 0, "`gate_temperature` must be above 0.", gate_temperature=gate_temperature)
        self.gate_temperature = gate_temperature
        self.expert_dropout = expert_dropout

    def make_gate(self, kernel_initializer: Any) -> Gate:
        """Return a softmax gate."""
        return SoftmaxGate(
            self.num_gates, self.num_experts, temperature=self.gate_temperature, expert_dropout=self.expert_dropout,
            kernel_initializer=kernel_initializer, seed=seed_of("gate", self.seed), name="gate",
            dtype=self.dtype_policy,
        )  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        own = {"gate_temperature": self.gate_temperature, "expert_dropout": self.expert_dropout}
        return {**super().get_config(), **own}
