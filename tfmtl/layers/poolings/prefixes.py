"""The values of a pooling for all prefixes of a list, in one causal pass instead of one pass per prefix."""

from __future__ import annotations

from typing import Any, Protocol

from tfmtl._keras import keras, tf


class ReadsPrefixes(Protocol):
    """A pooling that computes its value for every prefix of a list at about the cost of one list.

    Implement `prefixes` in a pooling that `tfmtl.data.Sequences` should train.
    """

    def prefixes(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Return the pooling's value for each prefix of the lists.

        Args:
            inputs: pair (embeddings [B, length, d], indices [B, length]), oldest first, whereas a call of the layer
                reads the most recent first; index 0 is padding.
            training: as in a call.

        Returns:
            [B, length, d]: [:, t] is the value of a call on the positions t, t - 1, ..., 0.
        """


def no_later(length: int) -> tf.Tensor:
    """Return whether position i of lists in the order of time may read position j, [length, length].

    Example:
        >>> no_later(2).numpy().tolist()
        [[True, False], [True, True]]
    """
    position = tf.range(length)
    return position <= position[:, tf.newaxis]


class AtPositions(keras.layers.Layer):
    """The values of a pooling for some prefixes of lists.

    Args:
        pooling: the built layer of another network.

    Call arguments:
        inputs: (embeddings [B, length, d], indices [B, length]), oldest first, and positions [n]: i length + t
            for position t of row i.

    Returns:
        [n, d].
    """

    def __init__(self, pooling: Any, **kwargs: Any) -> None:
        super().__init__(dtype=pooling.dtype_policy, **kwargs)
        self.pooling = pooling

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        embeddings, indices, positions = inputs
        states = self.pooling.prefixes((embeddings, indices), training=training)
        return tf.gather(tf.reshape(states, [-1, states.shape[-1]]), positions)
