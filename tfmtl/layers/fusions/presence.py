"""The presence of a modality in each row."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import keras, register, tf


@register
class Presence(keras.layers.Layer):
    """Presence: whether any of several encoded features has a value, for each row.

    `build_network` uses it to find the rows in which a modality of a `Fusion` is missing.

    An index is missing where it is 0, a list where all its indices are 0, and numbers where the flag in the last column
    is set. An unknown value counts as a value; a `Numeric` with `missing="mean"` always has one.

    Call arguments:
        inputs: list of encoded features: int32 [B] or [B, length], floats [B, size + 1].

    Returns:
        [B], 1 where a value is present and 0 elsewhere.

    Example:
        >>> Presence()([tf.constant([0, 3, 0]), tf.constant([[0.5, 0.0], [0.0, 1.0], [0.0, 1.0]])]).numpy().tolist()
        [1.0, 1.0, 0.0]
    """

    def call(self, inputs: Any) -> tf.Tensor:
        present = [_present(feature) for feature in tf.nest.flatten(inputs)]  # Keras unpacks lists of one
        return tf.cast(tf.reduce_any(tf.stack(present), axis=0), self.compute_dtype)


def _present(feature: tf.Tensor) -> tf.Tensor:
    if feature.dtype.is_floating:
        return tf.equal(feature[:, -1], 0)
    return feature > 0 if feature.shape.rank == 1 else tf.reduce_any(feature > 0, axis=1)
