"""Pairwise products of modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.fusions.base import Fusion


@register
class BilinearFusion(Fusion):
    """Every two modalities multiplied in a common space, beside the modalities themselves.

    y = W [p_1, ..., p_M, p_1 * p_2, p_1 * p_3, ..., p_{M-1} * p_M] + b, p_m = U_m x_m + c_m [rank]: each output is a
    bilinear form of every pair, of a matrix of that rank.

    Args:
        groups, units, modality_dropout, kernel_initializer, kernel_regularizer, seed: see `Fusion`. There must be two
            modalities.
        rank: width of the common space.

    Call arguments:
        inputs: see `Fusion`.

    Returns:
        [B, units].

    Example:
        >>> fusion = BilinearFusion({"image": ["pixels"], "text": ["title"]}, units=4)
        >>> vectors = {"image": tf.ones([2, 5]), "text": tf.ones([2, 3])}
        >>> fusion((vectors, {"image": tf.constant([1.0, 0.0]), "text": tf.constant([1.0, 1.0])})).shape
        TensorShape([2, 4])

    Reference:
        Kim et al., "Hadamard Product for Low-rank Bilinear Pooling", ICLR 2017, https://arxiv.org/abs/1610.04325; the
        modalities by themselves, and more than two of them, are our addition.

    Cost: M^2 / 2 times rank times units multiplications behind the projections.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[str]],
        units: int = 32,
        modality_dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        seed: int = 0,
        rank: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(groups, units, modality_dropout, kernel_initializer, kernel_regularizer, seed, **kwargs)
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
        """Search the rank besides."""
        return {**super().search_space(hp), "rank": hp.Choice("bilinearfusion_rank", [8, 16, 32], default=16)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rank": self.rank}
