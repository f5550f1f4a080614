"""Cross-stitch: one network per task, connected after each level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import Unpack

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.layers.dense_stack import StackArguments, search_dropout, search_units
from tfmtl.layers.trunks.dense_trunk import DenseTrunk, trainable


@register
class CrossStitch(DenseTrunk):
    """Cross-stitch network: one column of dense layers per task; every task reads a learned mixture of all columns.

    Use it for few tasks when their relation is unknown: `self_weight` sets how separate they start.

    h_k = act(W_k x~_k + b_k), x~_k = sum_j a_kj h_j, at each level with its own kernels W_k and matrix a
    [tasks, tasks].

    Args:
        task_names: names of the tasks.
        units: widths of the levels of each column.
        self_weight: initial weight a_kk of a task's own column, in [0, 1]; the others share the rest evenly. A single
            task reads its column unweighted.
        **kwargs: `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`: see `SharedBottom`.

    Attributes:
        stitches: a of each level [tasks, tasks], row k for the reader k; once built.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}.

    Example:
        >>> trunk = CrossStitch(["click", "buy"], units=[4], self_weight=0.75)
        >>> trunk(tf.ones([2, 5]))["buy"].shape, trunk.stitches[0].numpy().tolist()
        (TensorShape([2, 4]), [[0.75, 0.25], [0.25, 0.75]])

    Reference:
        Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR 2016, https://arxiv.org/abs/1604.03539,
        equation 1. There columns are convolutional networks, trained separately before, and a has a higher learning
        rate; here columns are dense and untrained at first, and one matrix serves all units of a level. The entries of
        a may become negative, as there.

    Cost: one matrix product per level and input for all columns, and tasks^2 additions of its output.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        units: Sequence[int] = (64, 32),
        self_weight: float = 0.9,
        **kwargs: Unpack[StackArguments],
    ) -> None:
        super().__init__(task_names, units, **kwargs)
        require(0 <= self_weight <= 1, "`self_weight` must lie between 0 and 1.", self_weight=self_weight)
        self.self_weight = float(self_weight)

    def build_layers(self, input_shape: Any) -> None:
        """Create the columns and the matrices between their levels."""
        tasks = len(self.task_names)
        self._columns = self.make_levels(tasks, input_shape)
        start = keras.initializers.Constant(_near_identity(tasks, self.self_weight))
        self.stitches = [
            self.add_weight(f"stitch_{i}", [tasks, tasks], initializer=start) for i in range(len(self.units))
        ]

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        mixed = inputs
        for columns, stitch in zip(self._columns, self.stitches, strict=True):
            hidden = columns(mixed, training=training)  # [B, tasks, units]
            mixed = tf.einsum("kj,bju->bku", stitch, hidden)
        return self.read_last_level(hidden, mixed, stitch)

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """All columns and every matrix except the last, of which each task reads its own row."""
        return [*trainable(*self._columns), *self.stitches[:-1]]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search width, depth, dropout and the initial degree of sharing."""
        return {
            "units": search_units(hp, "cross_stitch", 32, depth=2),
            "self_weight": hp.Choice("cross_stitch_self_weight", [0.5, 0.7, 0.9], default=0.9),
            "dropout": search_dropout(hp, "cross_stitch"),
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "self_weight": self.self_weight}


def _near_identity(size: int, diagonal: float) -> np.ndarray:
    """Return rows of sum 1 with `diagonal` on the diagonal and the rest split evenly."""
    if size == 1:
        return np.ones([1, 1])
    rest = (1 - diagonal) / (size - 1)
    return np.full([size, size], rest) + (diagonal - rest) * np.eye(size)
