"""Calibration: increasing, piecewise linear maps of logits, and the layer that applies them in inference only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._identity import UNKNOWN
from tfmtl._keras import keras, register, tf


@register
class Calibration(keras.layers.Layer):
    """Piecewise linear calibration of logits: temperature, Platt, prior correction and isotonic maps in one form.

    Use it by `recipes.calibrate`, which fits its weights on validation rows; a layer without fitted weights returns its
    input.

    With the knots x_1 < ... < x_K, their values y_1 < ... < y_K and slopes s_0, ..., s_K above 0:

        T(z) = y_k + s_k (z - x_k) for x_k < z <= x_(k+1), and y_1 + s_0 (z - x_1) for z <= x_1

    One knot and equal slopes are an affine map of the logit. T increases strictly, so that it keeps the order of the
    logits. With `num_indices` each index of a categorical feature has one of `num_maps` maps; indices that a grown
    vocabulary adds have that of the unknown value.

    Args:
        num_knots: K.
        num_maps: number of maps.
        num_indices: number of indices of the feature that chooses the map; 0 for one map for all rows.

    Call arguments:
        inputs: logits [B, n]; with `num_indices` a list of logits and indices int32 [B].

    Returns:
        float32 [B, n].

    Example:
        >>> layer = Calibration()
        >>> logits = tf.constant([[-1.0], [2.0]])
        >>> layer(logits).numpy().tolist()
        [[-1.0], [2.0]]
        >>> layer.set_maps([[0.0]], [[1.0]], [[0.5, 0.5]])  # Platt: z / 2 + 1
        >>> layer(logits).numpy().tolist()
        [[0.5], [2.0]]

    Reference: Zadrozny, Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates", KDD
    2002, https://doi.org/10.1145/775047.775151: monotone maps of scores; interpolated between knots here.

    Cost: K comparisons for a logit.
    """

    def __init__(self, num_knots: int = 1, num_maps: int = 1, num_indices: int = 0, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        require_positive_int(num_knots=num_knots, num_maps=num_maps)
        valid = isinstance(num_indices, int) and num_indices >= 0
        require(valid, "`num_indices` of a `Calibration` must be an integer of 0 or more.", num_indices=num_indices)
        self.num_knots = num_knots
        self.num_maps = num_maps
        self.num_indices = num_indices

    def build(self, input_shape: Any) -> None:
        """Create the knots, values, slopes and choices of the identity."""
        maps, knots = self.num_maps, self.num_knots
        self._knots = self.add_weight("knots", [maps, knots], initializer="zeros", trainable=False)
        self._values = self.add_weight("values", [maps, knots], initializer="zeros", trainable=False)
        self._slopes = self.add_weight("slopes", [maps, knots + 1], initializer="ones", trainable=False)
        if self.num_indices:
            self._choices = self.add_weight(
                "choices", [self.num_indices], tf.int32, initializer="zeros", trainable=False
            )
        super().build(input_shape)

    def set_maps(self, knots: Any, values: Any, slopes: Any, choices: Any = None) -> None:
        """Set the weights of a layer that was called.

        Args:
            knots: x [num_maps, K]; a map with fewer knots repeats its last one, its value and its last slope.
            values: y [num_maps, K].
            slopes: s [num_maps, K + 1].
            choices: map of each index [num_indices]; required with `num_indices`.
        """
        chosen = [choices] if self.num_indices else []
        self.set_weights([np.asarray(part) for part in (knots, values, slopes, *chosen)])

    def call(self, inputs: Any) -> tf.Tensor:
        logits, chosen = inputs, tf.zeros([1], tf.int32)
        if self.num_indices:
            logits, indices = inputs
            known = tf.where(indices < self.num_indices, indices, min(UNKNOWN, self.num_indices - 1))
            chosen = tf.gather(self._choices, known)
        logits = tf.cast(logits, tf.float32)
        above = logits[:, :, tf.newaxis] > tf.gather(self._knots, chosen)[:, tf.newaxis]
        part = tf.reduce_sum(tf.cast(above, tf.int32), axis=2)
        knot = chosen[:, tf.newaxis] * self.num_knots + tf.maximum(part - 1, 0)
        part += chosen[:, tf.newaxis] * (self.num_knots + 1)
        start, value, slope = (
            tf.gather(tf.reshape(weight, [-1]), rows)
            for weight, rows in ((self._knots, knot), (self._values, knot), (self._slopes, part))
        )
        return value + slope * (logits - start)

    def get_config(self) -> dict[str, Any]:
        own = {"num_knots": self.num_knots, "num_maps": self.num_maps, "num_indices": self.num_indices}
        return {**super().get_config(), **own}


def uncalibrated(output: Any) -> Any:
    """Return the output of a task in a network before its calibration."""
    layer = None if isinstance(output, dict) else output.node.layer
    return output.node.keras_inputs[0] if isinstance(layer, AtInference) else output


@register
class AtInference(keras.layers.Layer):
    """Returns its first input in training and its second one in inference.

    Use it for a fixed change of an output that evaluation, prediction, teachers, ensembles and exports read, but not
    the training loss, such as `Calibration`.

    Call arguments:
        inputs: two tensors of one shape and type.

    Example:
        >>> pair = [tf.constant([1.0]), tf.constant([2.0])]
        >>> float(AtInference()(pair, training=True)[0]), float(AtInference()(pair)[0])
        (1.0, 2.0)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, inputs: Sequence[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        trained, served = inputs
        return trained if training else served
