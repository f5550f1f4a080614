"""The bases of trunks with one set of shared experts that gates mix for each task."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_fraction
from tfmtl._keras import seed_of, tf
from tfmtl.layers.dense_stack import DenseStack, StackArguments
from tfmtl.layers.experts.experts import Experts
from tfmtl.layers.experts.gating import Gate, SoftmaxGate
from tfmtl.layers.trunks.base import MultiTaskLayer


class MixtureOfExperts(MultiTaskLayer, DenseStack, abc.ABC):
    """Base of trunks with experts that all tasks share and a gate that mixes them for each task.

    y_k = sum_e g_k(x)_e f_e(x); subclasses return g from `make_gate`.

    Args:
        task_names: names of the tasks.
        num_experts: number of experts.
        units: widths of each expert's dense layers.
        **kwargs: `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer`, `seed` of the experts: see
            `Experts`.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None,
        num_experts: int,
        units: Sequence[int],
        **kwargs: Unpack[StackArguments],
    ) -> None:
        super().__init__(task_names, units=units, **kwargs)
        self._experts = Experts(
            num_experts, units, activation=self.activation, dropout=self.dropout,
            kernel_initializer=self.kernel_initializer, kernel_regularizer=self.kernel_regularizer, seed=self.seed,
            name="experts", dtype=self.dtype_policy,
        )  # fmt: skip
        self.num_experts = num_experts

    @abc.abstractmethod
    def make_gate(self, kernel_initializer: Any) -> Gate:
        """Return the gate of the tasks over the experts; called when the layer is built."""

    def build_layers(self, input_shape: Any) -> None:
        """Create the experts and the gate."""
        self._gate = self.make_gate(self.initializer(len(self.units) * self.num_experts))
        self._experts.build(input_shape)
        self._gate.build(input_shape)

    def gates(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return each task's mixture weights [B, tasks, num_experts], which sum to 1 over the experts."""
        return self._gate(inputs, training=training)

    def gate_weights(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the mixture weights as "experts"; see `MultiTaskLayer.gate_weights`."""
        return {"experts": self.gates(inputs)}

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        hidden = self.mark_shared(self._experts(inputs, training=training))
        gates = self.gates(inputs, training=training)
        outputs = self.by_task(tf.matmul(gates, hidden))
        self.mark_gated(outputs, gates)
        return outputs

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """The experts' variables; each gate belongs to one task."""
        return list(self._experts.trainable_weights)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_experts": self.num_experts}


class SoftmaxMixture(MixtureOfExperts, abc.ABC):
    """Base of mixtures with gates that are softmax functions of the input.

    Args:
        task_names, num_experts, units: see `MixtureOfExperts`.
        gate_temperature, expert_dropout: arguments of the gates; see `SoftmaxGate`.
        **kwargs: `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`: see `MixtureOfExperts`.
    """

    num_gates: int
    """Number of gates: one per task, or one for all tasks."""

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        num_experts: int = 4,
        units: Sequence[int] = (32,),
        *,
        gate_temperature: float = 1.0,
        expert_dropout: float = 0.0,
        **kwargs: Unpack[StackArguments],
    ) -> None:
        super().__init__(task_names, num_experts, units, **kwargs)
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
