"""The base of trunks that consist of levels of dense layers."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._keras import keras, seed_of, tf
from tfmtl.layers.dense_stack import DenseStack, StackArguments
from tfmtl.layers.experts.experts import Experts
from tfmtl.layers.trunks.base import MultiTaskLayer


class DenseTrunk(MultiTaskLayer, DenseStack, abc.ABC):
    """Base of trunks made of levels of dense layers, each level one `Experts`.

    Derive from it if a trunk consists of several named parts: each part gets its own initial values and dropout draws.

    Args:
        task_names: names of the tasks.
        units: widths of the levels.
        **kwargs: `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`: see `DenseStack`.
    """

    def __init__(
        self, task_names: Sequence[str] | None = None, units: Sequence[int] = (64, 32), **kwargs: Unpack[StackArguments]
    ) -> None:
        super().__init__(task_names, units=units, **kwargs)

    def make_experts(self, name: str, num_experts: int, units: Sequence[int] | None = None, **options: Any) -> Experts:
        """Return experts with this trunk's arguments.

        Args:
            name: name of the part, distinct in the trunk; it decides initial values and dropout draws.
            num_experts: number of experts.
            units: widths of their layers, or None for the trunk's.
            **options: arguments of `Experts` that replace the trunk's.
        """
        own = {"activation": self.activation, "dropout": self.dropout, "kernel_regularizer": self.kernel_regularizer}
        widths = self.units if units is None else units
        return Experts(num_experts, widths, **{**own, **self.part_arguments(name), **options})

    def part_arguments(self, name: str) -> dict[str, Any]:
        """Return the arguments that give a part its name, precision, initial values and draws."""
        return {
            "kernel_initializer": self.initializer_of(name),
            "seed": seed_of(name, self.seed),
            "name": name,
            "dtype": self.dtype_policy,
        }

    def initializer_of(self, name: str) -> Any:
        """Return the kernel initializer of the part called `name`."""
        return self.initializer(seed_of(name, 0))

    def build_part(self, part: keras.layers.Layer, shape: Any) -> None:
        """Build a part and name its variables after it: two variables of one name cannot be saved as HDF5."""
        with tf.name_scope(part.name):
            part.build(shape)

    def make_levels(self, width: int, input_shape: Any) -> list[Experts]:
        """Return one built level per entry of `units`, each of `width` dense layers side by side.

        The first level reads the input; each layer of the other levels reads its own vector.
        """
        levels, shape = [], input_shape
        for i, units in enumerate(self.units):
            level = self.make_experts(f"level_{i}", width, [units])
            self.build_part(level, shape)
            levels.append(level)
            shape = [None, width, units]
        return levels

    def read_last_level(self, hidden: tf.Tensor, read: tf.Tensor, weights: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the outputs by task and mark them as gated sums of the last level.

        Args:
            hidden: outputs of the last level [B, width, units].
            read: the tasks' sums [B, tasks, units].
            weights: of the sums [tasks, width], the same for all rows.
        """
        self.mark_shared(hidden)
        outputs = self.by_task(read)
        every_row = tf.ones([tf.shape(read)[0], 1, 1], read.dtype)
        self.mark_gated(outputs, every_row * weights)
        return outputs


def width_of(shape: Any) -> int:
    """Return the last dimension of a shape."""
    return int(shape[-1])


def trainable(*layers: keras.layers.Layer) -> list[tf.Variable]:
    """Return the trainable variables of several layers."""
    return [variable for layer in layers for variable in layer.trainable_weights]
