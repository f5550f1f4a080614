"""The product of all modalities, by a tensor of low rank."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.fusions.base import Fusion


@register
class LowRankFusion(Fusion):
    """A linear function of the outer product of all modalities, each with 1 appended.

    y = sum_{r <= rank} prod_m W_m^(r) [x_m, 1] + b: the products of up to M modalities, those of fewer by the ones, at
    a cost linear in M.

    Args:
        groups, units, modality_dropout, kernel_initializer, kernel_regularizer, seed: see `Fusion`.
        rank: number of terms.

    Call arguments:
        inputs: see `Fusion`.

    Returns:
        [B, units].

    Example:
        >>> fusion = LowRankFusion({"image": ["pixels"], "text": ["title"]}, units=4)
        >>> vectors = {"image": tf.ones([2, 5]), "text": tf.ones([2, 3])}
        >>> fusion((vectors, {"image": tf.constant([1.0, 0.0]), "text": tf.constant([1.0, 1.0])})).shape
        TensorShape([2, 4])

    Reference:
        Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors", ACL 2018,
        https://arxiv.org/abs/1806.00064. The weight of the appended 1 starts at 1, so that no small modality stops the
        gradients of the others, and b at -rank, so that the result starts near 0.

    Cost: rank times units times the sum of the widths.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[str]],
        units: int = 32,
        modality_dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        seed: int = 0,
        rank: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(groups, units, modality_dropout, kernel_initializer, kernel_regularizer, seed, **kwargs)
        require_positive_int(rank=rank)
        self.rank = rank

    def build(self, input_shape: Any) -> None:
        """Create the factors and the bias."""
        super().build(input_shape)
        self._factors = self.projections(self.rank * self.units, bias_initializer="ones")
        start = keras.initializers.Constant(-float(self.rank))
        self._bias = self.add_weight("bias", [self.units], initializer=start)

    def fuse(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        """Multiply over the modalities and sum over the terms."""
        factors = [project(x) for project, x in zip(self._factors, vectors, strict=True)]
        terms = tf.reshape(functools.reduce(tf.multiply, factors), [-1, self.rank, self.units])
        return tf.reduce_sum(terms, axis=1) + self._bias

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the rank besides."""
        return {**super().search_space(hp), "rank": hp.Choice("lowrankfusion_rank", [2, 4, 8], default=4)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rank": self.rank}
