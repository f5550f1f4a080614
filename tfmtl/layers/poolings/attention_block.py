"""The shared part of attention blocks over masked lists: heads, biases of distances, and one reader or all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from typing_extensions import Unpack

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import keras, tf
from tfmtl.layers.dense_stack import search_dropout
from tfmtl.layers.kernels import SeededArguments, SeededKernels
from tfmtl.layers.noise.randomness import Dropout


class Readers(NamedTuple):
    """The entries that read: all of a list, or one.

    Attributes:
        states: their states [B, n, d].
        normed: the same after the first norm.
        readable: the entries that each of them reads, [B, n, length].
        at: their positions, [B, n] or [1, n].
    """

    states: tf.Tensor
    normed: tf.Tensor
    readable: tf.Tensor
    at: tf.Tensor


class AttentionBlock(SeededKernels):
    """Base of attention blocks: two norms, dropout, a bias per head and distance, and kernels [d, d].

    Args:
        num_heads: number of heads; must divide the states' width d.
        dropout: rate, in [0, 1).
        num_distances: number of distances with a bias, or 0 for no bias.
        **kwargs: as in `SeededKernels`.
    """

    num_kernels: ClassVar[int] = 5
    """Number of kernels of a block, each with its own initial values."""

    def __init__(
        self, num_heads: int = 1, dropout: float = 0.0, num_distances: int = 0, **kwargs: Unpack[SeededArguments]
    ) -> None:
        super().__init__(**kwargs)
        require_positive_int(num_heads=num_heads)
        require_fraction(dropout=dropout)
        require(num_distances >= 0, "`num_distances` must be 0 or more.", num_distances=num_distances)
        self.num_heads = num_heads
        self.dropout = dropout
        self.num_distances = num_distances
        self._norms = [
            keras.layers.LayerNormalization(epsilon=1e-6, name=f"norm_{i}", dtype=self.dtype_policy) for i in range(2)
        ]
        self._dropout = Dropout(dropout, self.seed, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        """Create the kernels, all [d, d], and the biases of distances [heads, distances]."""
        width = int(input_shape[0][-1])
        require(
            width % self.num_heads == 0,
            f"`num_heads` must divide the embeddings' width {width}.",
            num_heads=self.num_heads,
        )
        for part in (*self._norms, *self.make_kernels(width)):
            part.build(input_shape[0])
        if self.num_distances:
            shape = [self.num_heads, self.num_distances]
            self._distances = self.add_weight("distances", shape, initializer="zeros")
        super().build(input_shape)

    def make_kernels(self, width: int) -> Sequence[keras.layers.Dense]:
        """Create the dense layers of the block, and return them."""
        raise NotImplementedError

    def readers(self, inputs: Sequence[tf.Tensor], normed: tf.Tensor) -> Readers:
        """Return the readers of the inputs of a call, of which the states have the first norm in `normed`."""
        states, readable, *positions = inputs
        if not positions:
            return Readers(states, normed, readable, tf.range(states.shape[1])[tf.newaxis])
        at = tf.cast(positions[0], tf.int32)[:, tf.newaxis]
        readable = readable if readable.shape[1] == 1 else tf.gather(readable, at, batch_dims=1)
        return Readers(tf.gather(states, at, batch_dims=1), tf.gather(normed, at, batch_dims=1), readable, at)

    def biased(self, logits: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
        """Return logits [B, heads, n, length] of readers at some positions with the biases of distances."""
        if not self.num_distances:
            return logits
        length = logits.shape[3]
        rule = f"Layer {self.name!r} has biases for {self.num_distances} distances; cut longer lists."
        require(length <= self.num_distances, rule, length=length)
        apart = tf.abs(at[..., tf.newaxis] - tf.range(length))
        biases = tf.transpose(tf.gather(self._distances, apart, axis=1), [1, 0, 2, 3])
        return logits + tf.cast(biases, logits.dtype)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search dropout."""
        return {"dropout": search_dropout(hp, cls.__name__.lower())}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "num_distances": self.num_distances,
        }
