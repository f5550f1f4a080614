"""The base of layers that hold stacks of dense layers, and their search space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import keras
from tfmtl.layers.kernels import KernelArguments, Kernels


class StackArguments(KernelArguments, total=False):
    """Keyword arguments of `DenseStack` except `units`, for which each class has its own default."""

    activation: Any
    dropout: float


class DenseStack(Kernels):
    """Base of layers that hold one or more stacks of dense layers: widths, activation, dropout.

    Args:
        units: widths of the dense layers of a stack, one or more.
        activation: activation after each dense layer.
        dropout: rate of dropout, in [0, 1).
        **kwargs: `kernel_initializer`, `kernel_regularizer`, `seed`: see `Kernels`.

    Raises:
        ValueError: if `units` is empty, a width is not positive, or the rate is outside [0, 1).
    """

    def __init__(self, units: Sequence[int], *, activation: Any = "relu", dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(len(units) > 0, "`units` must name at least one width.", units=units)
        for width in units:
            require_positive_int(units=width)
        require_fraction(dropout=dropout)
        self.units = tuple(units)
        self.activation = keras.activations.get(activation)
        self.dropout = dropout

    def dense_layers(self, prefix: str, first: int = 0) -> list[keras.layers.Dense]:
        """Return one stack of Keras dense layers.

        Args:
            prefix: the names are `{prefix}_0`, `{prefix}_1`, ...
            first: number of the first kernel; see `dense`.
        """
        return [
            self.dense(width, first + i, f"{prefix}_{i}", activation=self.activation)
            for i, width in enumerate(self.units)
        ]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": list(self.units),
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
        }


def search_units(hp: Any, prefix: str, width: int, depth: int | None = None) -> tuple[int, ...]:
    """Return the widths of a stack chosen by `hp`: half of `width` to its double; one layer, or one to three.

    Args:
        hp: a `keras_tuner.HyperParameters`.
        prefix: beginning of the names of the hyperparameters.
        width: default width.
        depth: default number of layers, or None for a single layer.
    """
    chosen = hp.Choice(f"{prefix}_units", [width // 2, width, 2 * width], default=width)
    return (chosen,) * (1 if depth is None else hp.Int(f"{prefix}_depth", 1, 3, default=depth))


def search_dropout(hp: Any, prefix: str) -> float:
    """Return a rate of dropout from 0 to 0.4 chosen by `hp`, a `keras_tuner.HyperParameters`."""
    rate: float = hp.Float(f"{prefix}_dropout", 0.0, 0.4, step=0.1, default=0.0)
    return rate
