"""Seeded noise: random layers with draws that depend on (seed, step), so that a resumed training repeats the draws."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl._passes import once
from tfmtl._replicas import own_seed
from tfmtl.types import Column


class SeededNoise(keras.layers.Layer, abc.ABC):
    """Base of random layers with reproducible draws: the number of training steps is a weight, restored by checkpoints.

    Args:
        seed: seed of the draws.
    """

    def __init__(self, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Create the counter of steps."""
        self._step = self.add_weight("step", [], tf.int32, initializer="zeros", trainable=False)
        super().build(input_shape)

    @property
    @abc.abstractmethod
    def idle(self) -> bool:
        """Whether the layer adds no noise, such as at rate 0."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Disturb the inputs in training; return them unchanged otherwise."""
        if not training or self.idle:
            return inputs
        return self.disturb(inputs, self.next_seed())

    def next_seed(self) -> tf.Tensor:
        """Count a step and return the seed [2] of its draws; a repeated pass has the draws of the first one."""
        return once(self.name, lambda: own_seed(tf.stack([self.seed, self._step.assign_add(1)])))

    @abc.abstractmethod
    def disturb(self, inputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the inputs changed by draws from a stateless seed [2]."""

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return the columns of the input; see `tfmtl.types.HasColumnSources`."""
        return inputs[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


class _AtRate(SeededNoise, abc.ABC):
    """Noise on each element of the inputs with a probability."""

    def __init__(self, rate: float, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        require_fraction(rate=rate)
        self.rate = rate

    @property
    def idle(self) -> bool:
        """Whether the rate is 0."""
        return self.rate == 0

    def chosen(self, shape: Any, seed: tf.Tensor) -> tf.Tensor:
        """Return a mask of the elements of a shape that the noise changes."""
        return tf.random.stateless_uniform(shape, seed) < self.rate

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


@register
class Dropout(_AtRate):
    """Dropout: set a share of the elements to 0 in training and scale the others up.

    Use it instead of Keras' own layer when a resumed training must equal an uninterrupted one: Keras draws from a
    stateful operation, which starts again after a restart.

    y = x m / (1 - rate), m = 0 with probability `rate`.

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

    def disturb(self, inputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return tf.where(self.chosen(tf.shape(inputs), seed), tf.zeros_like(inputs), inputs / (1 - self.rate))


@register
class FeatureDropout(_AtRate):
    """Feature dropout: set whole features of a row to 0 in training and scale the others up.

    Use it when a model relies on one feature, such as the id, and fails on rows where it is missing or new.

    y_f = x_f m_f / (1 - rate), one m_f for all coordinates of feature f of a row, 0 with probability `rate`.

    Args:
        rate: probability, in [0, 1).
        seed: seed of the draws.
        features: number of features of equal width that the last axis concatenates; 1 for longer shapes.

    Call arguments:
        inputs: floats [B, features * d], or [B, ..., d] of one feature.

    Raises:
        ValueError: if the features do not divide the width.

    Example:
        >>> FeatureDropout(0.5, features=2)(tf.ones([1, 4]), training=False).numpy().tolist()
        [[1.0, 1.0, 1.0, 1.0]]

    Reference:
        Tompson et al., "Efficient Object Localization Using Convolutional Networks", CVPR 2015,
        https://arxiv.org/abs/1411.4280, section 3.2, which drops whole channels; and the masking of features of Yao et
        al., "Self-supervised Learning for Large-scale Item Recommendations", CIKM 2021,
        https://arxiv.org/abs/2007.12865, section 3.3, here per feature and on the task's own loss.
    """

    def __init__(self, rate: float, seed: int = 0, features: int = 1, **kwargs: Any) -> None:
        super().__init__(rate, seed, **kwargs)
        require_positive_int(features=features)
        self.features = features

    def build(self, input_shape: Any) -> None:
        shape = tuple(input_shape)
        require(
            shape[-1] % self.features == 0 and (self.features == 1 or len(shape) == 2),
            f"Layer {self.name!r} takes [B, {self.features} * d].",
            shape=shape,
        )
        super().build(input_shape)

    def disturb(self, inputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        chosen = self.chosen([tf.shape(inputs)[0], self.features], seed)
        if self.features > 1:
            chosen = tf.repeat(chosen, inputs.shape[-1] // self.features, axis=1)
        while chosen.shape.rank < inputs.shape.rank:
            chosen = chosen[..., tf.newaxis]
        return tf.where(chosen, tf.zeros_like(inputs), inputs / (1 - self.rate))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "features": self.features}


@register
class RandomUnknown(_AtRate):
    """Replace known indices by "unknown" in training, so that the unknown embedding is trained.

    Use it when new ids arrive at serving; their embedding is then that of an average value, which the other features
    of a row complete.

    Args:
        rate: probability, in [0, 1); or one for each column [n] of inputs [B, n].
        seed: seed of the draws.
        unknown: the index that replaces others; smaller indices (missing) are kept.

    Call arguments:
        inputs: int32 indices of any shape.

    Raises:
        ValueError: if the number of rates is not that of the columns.

    Example:
        >>> RandomUnknown(0.5)(tf.constant([0, 2, 3])).numpy().tolist()
        [0, 2, 3]

    Reference:
        Volkovs, Yu, Poutanen, "DropoutNet: Addressing Cold Start in Recommender Systems", NIPS 2017, section 4.1, which
        replaces the latent vector of a user or item by 0; here the id becomes the unknown one, which is trained.
    """

    def __init__(self, rate: float | Sequence[float], seed: int = 0, unknown: int = 1, **kwargs: Any) -> None:
        rates = [rate] if isinstance(rate, int | float) else list(rate)
        super().__init__(0.0, seed, **kwargs)
        for each in rates:
            require_fraction(rate=each)
        self.rate = rate if isinstance(rate, int | float) else rates  # type: ignore[assignment]
        self.unknown = unknown
        self._rates = rates

    @property
    def idle(self) -> bool:
        """Whether all rates are 0."""
        return not any(self._rates)

    def build(self, input_shape: Any) -> None:
        shape = tuple(input_shape)
        columns = shape[-1] if shape else 0
        rule = f"Layer {self.name!r} needs one rate for each of its {columns} columns."
        require(len(self._rates) in (1, columns), rule, rate=self.rate)
        super().build(input_shape)

    def disturb(self, inputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return tf.where(self.chosen(tf.shape(inputs), seed) & (inputs > self.unknown), self.unknown, inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "unknown": self.unknown}


@register
class RandomMissing(_AtRate):
    """Replace the value of a feature by its missing value in some rows in training.

    Use it for features that requests may lack although no training row does; a model would otherwise answer such
    requests by weights that were never trained. Layers of one seed that are called once per step choose the same rows,
    so that a group of features is missing together.

    Args:
        rate: probability, in [0, 1).
        seed: seed of the draws.
        missing: the encoding of a missing value [...], such as 0 for an index or (0, 1) for a number and its flag.

    Call arguments:
        inputs: encoded feature [B, ...].

    Example:
        >>> layer = RandomMissing(0.5, seed=1, missing=(0.0, 1.0))
        >>> sorted(set(map(tuple, layer(tf.tile([[7.0, 0.0]], [50, 1]), training=True).numpy().tolist())))
        [(0.0, 1.0), (7.0, 0.0)]
    """

    def __init__(self, rate: float, seed: int = 0, missing: float | Sequence[float] = 0, **kwargs: Any) -> None:
        super().__init__(rate, seed, **kwargs)
        self.missing = missing if isinstance(missing, int | float) else list(missing)

    def disturb(self, inputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        chosen = tf.reshape(self.chosen([tf.shape(inputs)[0]], seed), [-1, *[1] * (inputs.shape.rank - 1)])
        return tf.where(chosen, tf.cast(self.missing, inputs.dtype), inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "missing": self.missing}
