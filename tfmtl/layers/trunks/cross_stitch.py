"""Cross-stitch: a network a task, whose levels read mixtures of all tasks' levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.layers.trunks.dense_trunk import DenseTrunk


@register
class CrossStitch(DenseTrunk):
    """One column of dense layers a task; after each level every task reads a learned mixture of all columns.

    h_k = act(W_k x~_k + b_k), x~_k = sum_j a_kj h_j, at each level with kernels W_k and a matrix a [tasks, tasks] of
    its own.

    Args:
        task_names, units, activation, dropout, kernel_initializer, kernel_regularizer, seed: see `DenseTrunk`.
        self_weight: what a task reads of its own column at the start, a_kk, in [0, 1]; the rest is split evenly among
            the others. A single task reads its column as it is.

    Attributes:
        stitches: a of each level [tasks, tasks], row k what task k reads; once built.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> trunk = CrossStitch(["click", "buy"], units=[4], self_weight=0.75)
        >>> trunk(tf.ones([2, 5]))["buy"].shape, trunk.stitches[0].numpy().tolist()
        (TensorShape([2, 4]), [[0.75, 0.25], [0.25, 0.75]])

    Reference:
        Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR 2016, https://arxiv.org/abs/1604.03539,
        equation 1. There columns are convolutional networks that were trained alone before, and a has a larger learning
        rate; here columns are dense, start untrained, and one matrix serves all units of a level. a is not kept
        positive, as there.

    Cost: one matrix product an input and level for all columns, and tasks^2 additions of its output.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        units: Sequence[int] = (64, 32),
        self_weight: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, units, **kwargs)
        require(0 <= self_weight <= 1, "`self_weight` must lie between 0 and 1.", self_weight=self_weight)
        self.self_weight = float(self_weight)

    def build_layers(self, input_shape: Any) -> None:
        """Create the columns and what stitches them."""
        tasks, shape = len(self.task_names), input_shape
        self._columns = [self.make_experts(f"level_{i}", tasks, [width]) for i, width in enumerate(self.units)]
        for columns, width in zip(self._columns, self.units, strict=True):
            self.build_part(columns, shape)
            shape = [None, tasks, width]
        start = keras.initializers.Constant(_near_identity(tasks, self.self_weight))
        self.stitches = [
            self.add_weight(f"stitch_{i}", [tasks, tasks], initializer=start) for i in range(len(self.units))
        ]

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """Return what each task reads of the last level."""
        mixed = inputs
        for columns, stitch in zip(self._columns, self.stitches, strict=True):
            hidden = columns(mixed, training=training)
            mixed = tf.einsum("kj,bju->bku", stitch, hidden)
        self.mark_shared(hidden)
        outputs = dict(zip(self.task_names, tf.unstack(mixed, axis=1), strict=True))
        every_row = tf.ones([tf.shape(inputs)[0], 1, 1], mixed.dtype)
        self.mark_gated(outputs, every_row * stitch)
        return outputs

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """All columns and all stitches but the last, of which each task reads a row of its own."""
        return [*(v for columns in self._columns for v in columns.trainable_weights), *self.stitches[:-1]]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search width, depth, dropout and how much tasks share at the start."""
        width = hp.Choice("cross_stitch_units", [16, 32, 64], default=32)
        return {
            "units": (width,) * hp.Int("cross_stitch_depth", 1, 3, default=2),
            "self_weight": hp.Choice("cross_stitch_self_weight", [0.5, 0.7, 0.9], default=0.9),
            "dropout": hp.Float("cross_stitch_dropout", 0.0, 0.4, step=0.1, default=0.0),
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "self_weight": self.self_weight}


def _near_identity(size: int, diagonal: float) -> np.ndarray:
    """Return rows of sum 1 with `diagonal` on the diagonal and the rest split evenly."""
    if size == 1:
        return np.ones([1, 1])
    rest = (1 - diagonal) / (size - 1)
    return np.full([size, size], rest) + (diagonal - rest) * np.eye(size)
