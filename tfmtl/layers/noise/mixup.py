"""Mixup: rows of a batch mixed in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.layers.noise.randomness import SeededNoise
from tfmtl.types import Column


class MixupPairs(NamedTuple):
    """The pairs that the rows of a batch are mixed in.

    Attributes:
        partners: index [B] of the row that each row is mixed with.
        kept: share [B] that each row keeps of its values, lambda.
    """

    partners: tf.Tensor
    kept: tf.Tensor

    def partners_of(self, rows: Any) -> Any:
        """Return a structure of tensors [B, ...] with each row replaced by its partner."""
        return tf.nest.map_structure(lambda column: tf.gather(column, self.partners), rows)


@register
class MixupPartners(SeededNoise):
    """Mixup's random draw: for each row of a training batch its partner and the share of its values that it keeps.

    lambda ~ Beta(alpha, alpha), and the partners are a random permutation. Outside of training each row is its own
    partner. `Mixup` mixes the rows by these pairs, and the training loop mixes the labels by them.

    Args:
        alpha: parameter of the Beta distribution, above 0; small values keep most rows nearly unchanged.
        seed: seed of the draws.

    Call arguments:
        inputs: [B, ...], of which only the number of rows B matters.

    Returns:
        `MixupPairs`: partners int32 [B] and lambda float32 [B].

    Example:
        >>> partners, kept = MixupPartners(0.2)(tf.zeros([3, 1]))
        >>> partners.numpy().tolist(), kept.numpy().tolist()
        ([0, 1, 2], [1.0, 1.0, 1.0])

    Reference:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, https://arxiv.org/abs/1710.09412, with a
        lambda per row where their program has one per batch.
    """

    def __init__(self, alpha: float, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        require(isinstance(alpha, int | float) and 0 < alpha < float("inf"), "`alpha` must be above 0.", alpha=alpha)
        self.alpha = alpha

    @property
    def idle(self) -> bool:
        """False: mixup has no rate of 0."""
        return False

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> MixupPairs:
        """Draw pairs in training."""
        if training:
            return self.disturb(inputs, self.next_seed())
        rows = tf.shape(inputs)[0]
        return MixupPairs(tf.range(rows), tf.ones([rows]))

    def disturb(self, inputs: tf.Tensor, seed: tf.Tensor) -> MixupPairs:
        """Return a random permutation and random shares."""
        rows = tf.shape(inputs)[0]
        fold = tf.random.experimental.stateless_fold_in
        return MixupPairs(tf.argsort(tf.random.stateless_uniform([rows], fold(seed, 1))), self._shares(rows, seed))

    def _shares(self, rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return draws of Beta(alpha, alpha): the shares of Gamma(alpha) variables in sums of two of them.

        Gamma(alpha) is Gamma(alpha + 1) U^(1 / alpha), which underflows for a small alpha; its logarithm does not.
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
    """Manifold mixup: mix each row with its partner in training.

    Use `Regularization.mixup` to add it to a network; labels are then mixed, too.

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
        values, partners, kept = inputs
        if not training:
            return values
        kept = tf.reshape(tf.cast(kept, values.dtype), [-1, *[1] * (values.shape.rank - 1)])
        return kept * values + (1 - kept) * tf.gather(values, partners)

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return the columns of the mixed values; see `tfmtl.types.HasColumnSources`."""
        return inputs[0]
