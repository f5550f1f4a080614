"""Bases of layers with kernels: the draw of the initial values, and the penalty on the kernels."""

from __future__ import annotations

from typing import Any, TypedDict

from tfmtl._keras import keras, spawn, tf


class LayerArguments(TypedDict, total=False):
    """Keyword arguments of every Keras layer."""

    name: str | None
    trainable: bool
    dtype: Any


class SeededArguments(LayerArguments, total=False):
    """Keyword arguments of `SeededKernels`."""

    kernel_initializer: Any
    seed: int


class KernelArguments(SeededArguments, total=False):
    """Keyword arguments of `Kernels`."""

    kernel_regularizer: Any


class SeededKernels(keras.layers.Layer):
    """Base of layers with kernels: each kernel has its own initial draw, and `seed` decides all of them.

    Derive from it instead of repeating its arguments. It passes further keyword arguments on, so that it may follow
    another base: `class MyPooling(Pooling, SeededKernels)`.

    Args:
        kernel_initializer: initializer of the kernels.
        seed: seed of the initial values, and of dropout where the layer has any.
    """

    def __init__(self, *, kernel_initializer: Any = "glorot_uniform", seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed = seed

    def initializer(self, index: int) -> Any:
        """Return `kernel_initializer` with a seed that only kernel `index` of this layer has."""
        return spawn(self.kernel_initializer, index, self.seed)

    def dense(self, units: int, index: int, name: str, **arguments: Any) -> keras.layers.Dense:
        """Return a Keras dense layer with the initial values of kernel `index`.

        Args:
            units: width of its output.
            index: number of its kernel, distinct within this layer.
            name: its name.
            **arguments: further arguments of `keras.layers.Dense`.
        """
        initializer = self.initializer(index)
        return keras.layers.Dense(
            units, kernel_initializer=initializer, name=name, dtype=self.dtype_policy, **arguments
        )

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels, in the protocol of the model-optimization toolkit."""
        return [v for v in self.trainable_weights if "kernel" in v.name]

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), "kernel_initializer": initializer, "seed": self.seed}


class Kernels(SeededKernels):
    """`SeededKernels` with a regularizer.

    Args:
        kernel_regularizer: regularizer of the kernels.
        **kwargs: `kernel_initializer`, `seed`: see `SeededKernels`.
    """

    def __init__(self, *, kernel_regularizer: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def dense(self, units: int, index: int, name: str, **arguments: Any) -> keras.layers.Dense:
        """Return a Keras dense layer with the initial values of kernel `index`, and the regularizer."""
        return super().dense(units, index, name, kernel_regularizer=self.kernel_regularizer, **arguments)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer)}
