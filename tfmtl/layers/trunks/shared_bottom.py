"""Shared bottom: one network for all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import keras, register, spawn, tf
from tfmtl.layers.noise.randomness import Dropout
from tfmtl.layers.trunks.base import MultiTaskLayer


@register
class SharedBottom(MultiTaskLayer):
    """Hard parameter sharing: every task sees the same representation.

    y_k = h_k(f(x)) with one f for all tasks; the heads h_k belong to the tasks.

    Args:
        task_names: names of the tasks.
        units: widths of f's dense layers.
        activation: activation after each of them.
        dropout: rate after each of them, in [0, 1).
        kernel_initializer: initializer of the kernels.
        kernel_regularizer: regulariser of the kernels.
        seed: seed of the initial values and of dropout.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}, the same values for every task.

    Example:
        >>> SharedBottom(["click", "buy"], units=[4])(tf.zeros([2, 3]))["buy"].shape
        TensorShape([2, 4])

    Reference:
        Caruana, "Multitask Learning", Machine Learning 28 (1997), https://doi.org/10.1023/A:1007379606734

    Cost: one dense stack, whatever the number of tasks.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        units: Sequence[int] = (64,),
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
        self._dense = [
            keras.layers.Dense(
                width,
                activation=self.activation,
                kernel_initializer=spawn(self.kernel_initializer, i, seed),
                kernel_regularizer=self.kernel_regularizer,
                name=f"dense_{i}",
            )
            for i, width in enumerate(self.units)
        ]
        self._dropout = Dropout(dropout, seed)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """Return the shared representation under each task's name."""
        hidden = inputs
        for dense in self._dense:
            hidden = self._dropout(dense(hidden), training=training)
        hidden = self.mark_shared(hidden)
        outputs = {name: tf.identity(hidden) for name in self.task_names}
        self.mark_gated(outputs)
        return outputs

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """All of the layer's variables."""
        return list(self.trainable_weights)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search width, depth and dropout."""
        width = hp.Choice("shared_bottom_units", [32, 64, 128], default=64)
        depth = hp.Int("shared_bottom_depth", 1, 3, default=1)
        return {
            "units": (width,) * depth,
            "dropout": hp.Float("shared_bottom_dropout", 0.0, 0.4, step=0.1, default=0.0),
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
        }
