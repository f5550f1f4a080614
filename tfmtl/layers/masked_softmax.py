"""Masked softmax: a softmax over the real entries of padded lists."""

from __future__ import annotations

from tfmtl._keras import tf


def masked_softmax(logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return softmax over the last axis where `mask` holds, exactly 0 elsewhere; all 0 where it holds nowhere.

    It computes in float32: in half precision the logit of a real entry could equal that of padding.

    Args:
        logits: [..., n]; values outside the mask have no effect, not even NaN.
        mask: bool, with a shape that broadcasts to that of the logits.

    Example:
        >>> masked_softmax(tf.constant([[3.0, 3.0, 9.0]]), tf.constant([[True, True, False]])).numpy().tolist()
        [[0.5, 0.5, 0.0]]
    """
    scores = tf.where(mask, tf.cast(logits, tf.float32), tf.float32.min)
    return tf.cast(tf.where(mask, tf.nn.softmax(scores), 0.0), logits.dtype)
