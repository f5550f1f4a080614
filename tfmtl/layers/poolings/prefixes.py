"""Lists whose beginnings are all wanted: one causal pass in the place of a pass a beginning."""

from __future__ import annotations

from typing import Any, Protocol

from tfmtl._keras import keras, tf


class ReadsPrefixes(Protocol):
    """A pooling that gives its value for every beginning of a list at the cost of about one list."""

    def prefixes(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Return for each place what the pooling makes of the list up to it.

        Args:
            inputs: pair (embeddings [B, length, d], indices [B, length]), oldest first, where a call of the layer has
                the most recent first; index 0 is padding.
            training: as in a call.

        Returns:
            [B, length, d]: [:, t] is what a call gives for the places t, t - 1, ..., 0.
        """


def no_later(length: int) -> tf.Tensor:
    """Return whether place i of lists in the order of time may read place j, [length, length].

    Example:
        >>> no_later(2).numpy().tolist()
        [[True, False], [True, True]]
    """
    place = tf.range(length)
    return place <= place[:, tf.newaxis]


class AtPlaces(keras.layers.Layer):
    """What a pooling makes of some beginnings of lists.

    Args:
        pooling: the layer, built; it stays where it is and is only used here.

    Call arguments:
        inputs: (embeddings [B, length, d], indices [B, length]), oldest first, and places [n]: place t of row i, as
            i length + t.

    Returns:
        [n, d].
    """

    def __init__(self, pooling: Any, **kwargs: Any) -> None:
        super().__init__(dtype=pooling.dtype_policy, **kwargs)
        self.pooling = pooling

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Gather the places."""
        embeddings, indices, places = inputs
        states = self.pooling.prefixes((embeddings, indices), training=training)
        return tf.gather(tf.reshape(states, [-1, states.shape[-1]]), places)
