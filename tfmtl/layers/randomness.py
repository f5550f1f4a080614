"""Random layers whose draws are a function of (seed, step), so that a resumed training repeats an undisturbed one."""

from __future__ import annotations

import abc
from typing import Any

from tfmtl._checks import require_fraction
from tfmtl._keras import keras, register, tf
from tfmtl._replicas import own_seed


class _Counted(keras.layers.Layer, abc.ABC):
    """Counts training steps in a weight: a checkpoint restores it, where a stateful random operation starts anew."""

    def __init__(self, rate: float, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_fraction(rate=rate)
        self.rate = rate
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Create the counter."""
        self._step = self.add_weight("step", [], tf.int32, initializer="zeros", trainable=False)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Disturb the inputs in training, pass them on otherwise."""
        if not training or self.rate == 0:
            return inputs
        step = self._step.assign_add(1)
        draws = tf.random.stateless_uniform(tf.shape(inputs), own_seed(tf.stack([self.seed, step])))
        return self.disturb(inputs, draws < self.rate)

    @abc.abstractmethod
    def disturb(self, inputs: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        """Return the inputs with the chosen elements changed."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@register
class Dropout(_Counted):
    """Set a share of the elements to 0 in training and scale the others up.

    y = x m / (1 - rate), m = 0 with probability `rate`. Keras' own layer draws from a stateful operation: after a
    restart its draws begin again, so that a resumed training differs from an undisturbed one.

    Args:
        rate: probability, in [0, 1).
        seed: seed of the draws.

    Call arguments:
        inputs: floats of any shape.

    Example:
        >>> Dropout(0.5)(tf.ones([4]), training=False).numpy().tolist()
        [1.0, 1.0, 1.0, 1.0]

    Reference:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
    """

    def disturb(self, inputs: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        """Drop the chosen elements."""
        return tf.where(chosen, tf.zeros_like(inputs), inputs / (1 - self.rate))


@register
class RandomUnknown(_Counted):
    """Replace known indices by "unknown" in training, so that the unknown embedding means an average value.

    Args:
        rate: probability, in [0, 1).
        seed: seed of the draws.
        unknown: the index put in; smaller indices (missing) are kept.

    Call arguments:
        inputs: int32 indices of any shape.

    Example:
        >>> RandomUnknown(0.5)(tf.constant([0, 2, 3])).numpy().tolist()
        [0, 2, 3]
    """

    def __init__(self, rate: float, seed: int = 0, unknown: int = 1, **kwargs: Any) -> None:
        super().__init__(rate, seed, **kwargs)
        self.unknown = unknown

    def disturb(self, inputs: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        """Replace the chosen indices."""
        return tf.where(chosen & (inputs > self.unknown), self.unknown, inputs)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "unknown": self.unknown}
