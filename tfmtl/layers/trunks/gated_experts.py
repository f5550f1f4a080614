"""What trunks have in common that stack levels of experts, some of which belong to a task."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import keras, seed_of, spawn, tf
from tfmtl.layers.experts.experts import Experts
from tfmtl.layers.experts.gating import SoftmaxGate
from tfmtl.layers.trunks.base import MultiTaskLayer


class GatedExperts(MultiTaskLayer, abc.ABC):
    """Sets of experts whose outputs softmax gates mix; subclasses say in `mix` who reads what.

    Args:
        task_names: names of the tasks.
        units: widths of each expert's dense layers, the same at every level.
        activation: activation of the experts.
        dropout: rate on the experts' outputs, in [0, 1).
        kernel_initializer: initializer of an expert's kernel; every expert and gate gets a draw of its own.
        kernel_regularizer: regulariser of the experts' kernels.
        seed: seed of the initial values and of dropout.
        gate_temperature: divides the gates' logits.
        expert_dropout: rate at which a row's expert is left out in training, in [0, 1).
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        *,
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
        super().__init__(task_names, **kwargs)
        require(len(units) > 0, "`units` must name at least one width.", units=units)
        for width in units:
            require_positive_int(units=width)
        require_fraction(dropout=dropout, expert_dropout=expert_dropout)
        require(gate_temperature > 0, "`gate_temperature` must be above 0.", gate_temperature=gate_temperature)
        self.units = tuple(units)
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = seed
        self.gate_temperature = gate_temperature
        self.expert_dropout = expert_dropout

    def make_experts(self, name: str, num_experts: int, **arguments: Any) -> Experts:
        """Return experts as the layer's arguments say; others with the same name start with the same values."""
        given = {
            "units": self.units, "activation": self.activation, "dropout": self.dropout,
            "kernel_regularizer": self.kernel_regularizer, **self._starting(name),
        }  # fmt: skip
        return Experts(num_experts, **{**given, **arguments})

    def make_gate(
        self, name: str, num_gates: int, num_experts: int, readable: Sequence[Sequence[bool]] | None = None
    ) -> SoftmaxGate:
        """Return a gate as the layer's arguments say."""
        return SoftmaxGate(
            num_gates, num_experts, readable, self.gate_temperature, self.expert_dropout, **self._starting(name)
        )

    def _starting(self, name: str) -> dict[str, Any]:
        initializer = spawn(self.kernel_initializer, seed_of(name, 0), self.seed)
        return {
            "kernel_initializer": initializer,
            "seed": seed_of(name, self.seed),
            "name": name,
            "dtype": self.dtype_policy,
        }

    @abc.abstractmethod
    def mix(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return the tasks' representations [B, tasks, units], and the weights of each level's gates."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """Mix the experts' outputs for each task."""
        return self.by_task(self.mix(inputs, training)[0])

    def by_task(self, mixed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the parts of a tensor [B, tasks, units] by task."""
        return dict(zip(self.task_names, tf.unstack(mixed, num=len(self.task_names), axis=1), strict=True))

    def gate_weights(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the gates' weights as `MultiTaskLayer.gate_weights` does."""
        if not self.built:
            self(inputs)
        return self.mix(tf.convert_to_tensor(inputs), training=False)[1]

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the experts' kernels; gates are small and decide much."""
        return [v for v in self.trainable_weights if "expert_kernel" in v.name]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the experts' width and dropout."""
        name = cls.__name__.lower()
        return {
            "units": (hp.Choice(f"{name}_units", [16, 32, 64], default=32),),
            "dropout": hp.Float(f"{name}_dropout", 0.0, 0.4, step=0.1, default=0.0),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": list(self.units),
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
            "gate_temperature": self.gate_temperature,
            "expert_dropout": self.expert_dropout,
        }


def weighted_sums(weights: tf.Tensor, experts: tf.Tensor) -> tf.Tensor:
    """Return for each reader the sum of the experts' outputs times its weights.

    Args:
        weights: [B, readers, experts].
        experts: [B, experts, units].

    Returns:
        [B, readers, units].
    """
    return tf.matmul(weights, experts)


def trainable(*layers: keras.layers.Layer) -> list[tf.Variable]:
    """Return the trainable variables of some layers."""
    return [variable for layer in layers for variable in layer.trainable_weights]
