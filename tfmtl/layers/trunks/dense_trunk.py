"""What trunks have in common that are made of levels of dense layers."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import keras, seed_of, spawn, tf
from tfmtl.layers.experts.experts import Experts
from tfmtl.layers.trunks.base import MultiTaskLayer


class DenseTrunk(MultiTaskLayer, abc.ABC):
    """Levels of dense layers, each level one `Experts`.

    Args:
        task_names: names of the tasks.
        units: widths of the levels.
        activation: activation of the dense layers.
        dropout: rate after each level, in [0, 1).
        kernel_initializer: initializer of a kernel; every dense layer gets a draw of its own.
        kernel_regularizer: regulariser of the kernels.
        seed: seed of the initial values and of dropout.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        units: Sequence[int] = (64, 32),
        activation: Any = "relu",
        dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, **kwargs)
        require(len(units) > 0, "`units` must name at least one width.", units=units)
        for width in units:
            require_positive_int(units=width)
        require_fraction(dropout=dropout)
        self.units = tuple(units)
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = seed

    def make_experts(self, name: str, num_experts: int, units: Sequence[int], **options: Any) -> Experts:
        """Return experts like this trunk's, with initial values and draws that no other part of it has.

        Args:
            name: name of the part, distinct in the trunk.
            num_experts, units: see `Experts`.
            **options: arguments of `Experts` other than this trunk's.
        """
        own = {"activation": self.activation, "dropout": self.dropout, "kernel_regularizer": self.kernel_regularizer}
        return Experts(
            num_experts, units, kernel_initializer=self.initializer_of(name), seed=seed_of(name, self.seed), name=name,
            dtype=self.dtype_policy, **{**own, **options},
        )  # fmt: skip

    def initializer_of(self, name: str) -> Any:
        """Return the kernel initializer of the part called `name`."""
        return spawn(self.kernel_initializer, seed_of(name, 0), self.seed)

    def build_part(self, part: keras.layers.Layer, shape: Any) -> None:
        """Build a part, its variables named after it: two variables of one name cannot be saved as HDF5."""
        with tf.name_scope(part.name):
            part.build(shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": list(self.units),
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
        }


def width_of(shape: Any) -> int:
    """Return the last dimension of a shape."""
    return int(shape[-1])
