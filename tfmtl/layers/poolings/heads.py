"""Attention with several heads: the parts of states by head."""

from __future__ import annotations

from tfmtl._keras import tf


def split_heads(states: tf.Tensor, num_heads: int) -> tf.Tensor:
    """Return states [B, length, d] by head, [B, num_heads, length, d / num_heads].

    Example:
        >>> split_heads(tf.constant([[[1.0, 2.0], [3.0, 4.0]]]), 2).numpy().tolist()
        [[[[1.0], [3.0]], [[2.0], [4.0]]]]
    """
    length, width = states.shape[1:]
    return tf.transpose(tf.reshape(states, [-1, length, num_heads, width // num_heads]), [0, 2, 1, 3])


def join_heads(states: tf.Tensor) -> tf.Tensor:
    """Return states by head [B, num_heads, length, size] as [B, length, num_heads size].

    Example:
        >>> join_heads(tf.constant([[[[1.0], [3.0]], [[2.0], [4.0]]]])).numpy().tolist()
        [[[1.0, 2.0], [3.0, 4.0]]]
    """
    _, num_heads, length, size = states.shape
    return tf.reshape(tf.transpose(states, [0, 2, 1, 3]), [-1, length, num_heads * size])
