"""Bilinear fusion: pairwise products of modalities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import Unpack

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.fusions.base import Fusion, FusionArguments, Groups


@register
class BilinearFusion(Fusion):
    """Low-rank bilinear fusion: products of every two projected modalities, beside the modalities themselves.

    Use it when combinations of two modalities matter, such as a title that contradicts the image.

    y = W [p_1, ..., p_M, p_1 * p_2, p_1 * p_3, ..., p_{M-1} * p_M] + b, p_m = U_m x_m + c_m [rank]: each output is a
    bilinear form of every pair, with a matrix of rank `rank`.

    Args:
        groups, units: see `Fusion`; there must be two or more modalities.
        rank: width of the projections; a higher rank allows more complex products, at proportional cost.
        **kwargs: `modality_dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`: see `Fusion`.

    Call arguments and result: see `Fusion`.

    Example:
        >>> fusion = BilinearFusion({"image": ["pixels"], "text": ["title"]}, units=4)
        >>> vectors = {"image": tf.ones([2, 5]), "text": tf.ones([2, 3])}
        >>> fusion((vectors, {"image": tf.constant([1.0, 0.0]), "text": tf.constant([1.0, 1.0])})).shape
        TensorShape([2, 4])

    Reference:
        Kim et al., "Hadamard Product for Low-rank Bilinear Pooling", ICLR 2017, https://arxiv.org/abs/1610.04325; the
        modalities themselves and more than two modalities are additions.

    Cost: M^2 / 2 times rank times units multiplications after the projections.
    """

    def __init__(self, groups: Groups, units: int = 32, *, rank: int = 16, **kwargs: Unpack[FusionArguments]) -> None:
        super().__init__(groups, units, **kwargs)
        require_positive_int(rank=rank)
        self.rank = rank

    def build(self, input_shape: Any) -> None:
        """Create the projections and the output."""
        super().build(input_shape)
        number = len(self.modalities)
        require(number > 1, "A bilinear fusion needs two or more modalities.", modalities=list(self.modalities))
        self._projections = self.projections(self.rank)
        self._output = self.dense(self.units, number, "output")

    def fuse(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        """Return a linear function of the projections and their products."""
        projected = [project(x) for project, x in zip(self._projections, vectors, strict=True)]
        stacked = tf.stack(projected, axis=1)
        first, second = np.triu_indices(len(projected), 1)
        products = tf.gather(stacked, first, axis=1) * tf.gather(stacked, second, axis=1)
        return self._output(tf.concat([*projected, *tf.unstack(products, axis=1)], axis=1))

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search also the rank."""
        return {**super().search_space(hp), "rank": hp.Choice("bilinearfusion_rank", [8, 16, 32], default=16)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rank": self.rank}
