"""The base of trunks that combine one or more levels of experts with softmax gates."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_fraction
from tfmtl._keras import tf
from tfmtl.layers.dense_stack import StackArguments, search_dropout, search_units
from tfmtl.layers.experts.gating import SoftmaxGate
from tfmtl.layers.kernels import KernelArguments
from tfmtl.layers.trunks.dense_trunk import DenseTrunk


class ExpertArguments(KernelArguments, total=False):
    """Keyword arguments of `GatedExperts` except `activation`."""

    units: Sequence[int]
    dropout: float
    gate_temperature: float
    expert_dropout: float


class GatedArguments(ExpertArguments, total=False):
    """Keyword arguments of `GatedExperts`."""

    activation: Any


class GatedExperts(DenseTrunk, abc.ABC):
    """Base of trunks with sets of experts, some of them of one task, and softmax gates that combine their outputs.

    Subclasses create the experts and gates in `build_layers` and connect them in `combine`.

    Args:
        task_names: names of the tasks.
        units: widths of each expert's dense layers, the same at every level.
        activation: activation of the experts.
        dropout: rate on the experts' outputs, in [0, 1).
        kernel_initializer: initializer of the kernels; every expert and gate has its own draw.
        kernel_regularizer: regularizer of the experts' kernels.
        seed: seed of the initial values and of dropout.
        gate_temperature: divisor of the gates' logits; above 1 the gates mix more evenly.
        expert_dropout: rate at which an expert is dropped from a row in training, in [0, 1); set it if the gates
            settle on one expert.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        *,
        units: Sequence[int] = (32,),
        gate_temperature: float = 1.0,
        expert_dropout: float = 0.0,
        **kwargs: Unpack[StackArguments],
    ) -> None:
        super().__init__(task_names, units, **kwargs)
        require_fraction(expert_dropout=expert_dropout)
        require(gate_temperature > 0, "`gate_temperature` must be above 0.", gate_temperature=gate_temperature)
        self.gate_temperature = gate_temperature
        self.expert_dropout = expert_dropout

    def make_gate(
        self, name: str, num_gates: int, num_experts: int, readable: Sequence[Sequence[bool]] | None = None
    ) -> SoftmaxGate:
        """Return a gate with this trunk's arguments; `name` decides its initial values and draws."""
        return SoftmaxGate(
            num_gates, num_experts, readable, self.gate_temperature, self.expert_dropout, **self.part_arguments(name)
        )

    @abc.abstractmethod
    def combine(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return the tasks' representations [B, tasks, units], and the gates' weights by level."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        return self.by_task(self.combine(inputs, training)[0])

    def gate_weights(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the gates' weights; see `MultiTaskLayer.gate_weights`."""
        if not self.built:
            self(inputs)
        return self.combine(tf.convert_to_tensor(inputs), training=False)[1]

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the experts' kernels; gates have few weights, and outputs depend strongly on them."""
        return [v for v in self.trainable_weights if "expert_kernel" in v.name]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the experts' width and dropout."""
        name = cls.__name__.lower()
        return {"units": search_units(hp, name, 32), "dropout": search_dropout(hp, name)}

    def get_config(self) -> dict[str, Any]:
        own = {"gate_temperature": self.gate_temperature, "expert_dropout": self.expert_dropout}
        return {**super().get_config(), **own}


def weighted_sums(weights: tf.Tensor, experts: tf.Tensor) -> tf.Tensor:
    """Return for each reader the weighted sum of the experts' outputs.

    Args:
        weights: [B, readers, experts].
        experts: [B, experts, units].

    Returns:
        [B, readers, units].
    """
    return tf.matmul(weights, experts)
