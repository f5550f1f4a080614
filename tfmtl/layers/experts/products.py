"""Matrix products of one input, or of several inputs with their own kernels."""

from __future__ import annotations

from tfmtl._keras import tf


def products(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Return [B, d] times [d, n], or input g of [B, G, d] times matrix g of [G, d, n], concatenated to [B, G * n].

    Separate products are faster than a batched one, which would have to transpose the batch.
    """
    if inputs.shape.rank == 2:
        return tf.matmul(inputs, kernel)
    parts = zip(tf.unstack(inputs, axis=1), tf.unstack(kernel), strict=True)
    return tf.concat([tf.matmul(part, matrix) for part, matrix in parts], axis=1)
