"""LMF: the product of all modalities, by a tensor of low rank."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.fusions.base import Fusion, FusionArguments, Groups


@register
class LowRankFusion(Fusion):
    """LMF (low-rank multimodal fusion): a linear function of the outer product of all modalities.

    Use it when combinations of three or more modalities matter; its cost is linear in their number.

    y = sum_{r <= rank} prod_m W_m^(r) [x_m, 1] + b; the appended 1 adds the products of fewer than M modalities.

    Args:
        groups, units: see `Fusion`.
        rank: number of terms; a higher rank allows more complex products, at proportional cost.
        **kwargs: `modality_dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`: see `Fusion`.

    Call arguments and result: see `Fusion`.

    Example:
        >>> fusion = LowRankFusion({"image": ["pixels"], "text": ["title"]}, units=4)
        >>> vectors = {"image": tf.ones([2, 5]), "text": tf.ones([2, 3])}
        >>> fusion((vectors, {"image": tf.constant([1.0, 0.0]), "text": tf.constant([1.0, 1.0])})).shape
        TensorShape([2, 4])

    Reference:
        Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors", ACL 2018,
        https://arxiv.org/abs/1806.00064. The weight of the appended 1 starts at 1, so that a modality near 0 does not
        block the gradients of the others, and b starts at -rank, so that the initial result is near 0.

    Cost: rank times units times the sum of the widths.
    """

    def __init__(self, groups: Groups, units: int = 32, *, rank: int = 4, **kwargs: Unpack[FusionArguments]) -> None:
        super().__init__(groups, units, **kwargs)
        require_positive_int(rank=rank)
        self.rank = rank

    def build(self, input_shape: Any) -> None:
        """Create the factors and the bias."""
        super().build(input_shape)
        self._factors = self.projections(self.rank * self.units, bias_initializer="ones")
        start = keras.initializers.Constant(-float(self.rank))
        self._bias = self.add_weight("bias", [self.units], initializer=start)

    def fuse(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        """Return the sum over the terms of the products over the modalities."""
        factors = [project(x) for project, x in zip(self._factors, vectors, strict=True)]
        terms = tf.reshape(functools.reduce(tf.multiply, factors), [-1, self.rank, self.units])
        return tf.reduce_sum(terms, axis=1) + self._bias

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search also the rank."""
        return {**super().search_space(hp), "rank": hp.Choice("lowrankfusion_rank", [2, 4, 8], default=4)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rank": self.rank}
