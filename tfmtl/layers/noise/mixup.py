"""Rows of a batch mixed in pairs."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.layers.marks import Mixing, active_marks
from tfmtl.layers.noise.randomness import SeededNoise


@register
class MixupPartners(SeededNoise):
    """Draw for each row of a training batch the row it is mixed with, and how much of its own it keeps.

    lambda ~ Beta(alpha, alpha), the partner from a random permutation. The draw is marked (see
    `tfmtl.layers.marks.marking`), so that the loss can mix the labels alike; otherwise each row is its own partner.

    Args:
        alpha: parameter of the Beta distribution, above 0; small ones keep most rows nearly as they are.
        seed: seed of the draws.

    Call arguments:
        inputs: [B, ...], whose number of rows counts.

    Returns:
        Partners int32 [B] and lambda float32 [B].

    Example:
        >>> partners, kept = MixupPartners(0.2)(tf.zeros([3, 1]))
        >>> partners.numpy().tolist(), kept.numpy().tolist()
        ([0, 1, 2], [1.0, 1.0, 1.0])

    Reference:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, https://arxiv.org/abs/1710.09412, with a
        lambda a row where their program has one a batch.
    """

    def __init__(self, alpha: float, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        require(isinstance(alpha, int | float) and 0 < alpha < float("inf"), "`alpha` must be above 0.", alpha=alpha)
        self.alpha = alpha

    @property
    def idle(self) -> bool:
        """Never."""
        return False

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw in training."""
        if training:
            return self.disturb(inputs, self.next_seed())
        rows = tf.shape(inputs)[0]
        return tf.range(rows), tf.ones([rows])

    def disturb(self, inputs: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return a permutation and shares."""
        rows = tf.shape(inputs)[0]
        fold = tf.random.experimental.stateless_fold_in
        mixing = Mixing(tf.argsort(tf.random.stateless_uniform([rows], fold(seed, 1))), self._shares(rows, seed))
        marks = active_marks()
        if marks is not None:
            marks.mixing = mixing
        return mixing.partners, mixing.kept

    def _shares(self, rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the shares of Gamma(alpha) variables in the sums of two, which are Beta(alpha, alpha).

        Gamma(alpha) is Gamma(alpha + 1) U^(1 / alpha), of which only the logarithm is no 0 for a small alpha.
        """
        larger = tf.random.stateless_gamma([2, rows], seed, alpha=self.alpha + 1.0)
        fold = tf.random.experimental.stateless_fold_in
        uniform = tf.random.stateless_uniform([2, rows], fold(seed, 2), minval=1e-30)
        one, other = tf.unstack(tf.math.log(larger) + tf.math.log(uniform) / self.alpha)
        return tf.sigmoid(one - other)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}


@register
class Mixup(keras.layers.Layer):
    """Mix each row with its partner in training.

    y_i = lambda_i x_i + (1 - lambda_i) x_p(i).

    Call arguments:
        inputs: (floats [B, ...], partners [B], lambda [B]), the latter two from `MixupPartners`.

    Returns:
        Floats [B, ...].

    Example:
        >>> inputs = tf.constant([[1.0], [3.0]]), tf.constant([1, 0]), tf.constant([1.0, 0.75])
        >>> Mixup()(inputs, training=True).numpy().tolist(), Mixup()(inputs).numpy().tolist()
        ([[1.0], [2.5]], [[1.0], [3.0]])

    Reference:
        Verma et al., "Manifold Mixup: Better Representations by Interpolating Hidden States", ICML 2019,
        https://arxiv.org/abs/1806.05236: hidden states are mixed instead of inputs; ids could not be.
    """

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Mix in training."""
        values, partners, kept = inputs
        if not training:
            return values
        kept = tf.reshape(tf.cast(kept, values.dtype), [-1, *[1] * (values.shape.rank - 1)])
        return kept * values + (1 - kept) * tf.gather(values, partners)
