"""Quotient-remainder embeddings: products of the rows of two small tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._checks import require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.embeddings.base import CompressedEmbedding

_ROUNDS = 30


@register
class QuotientRemainderEmbedding(CompressedEmbedding):
    """Quotient-remainder trick (QR embedding): embeds an index by its quotient and remainder after a division.

    Use it for a large vocabulary in which every index must keep a distinct embedding, unlike with hashing.

    y = Q[i div m] * R[i mod m], elementwise: (V / m + m) d parameters instead of V d, and no two indices have the same
    pair of rows.

    Args:
        input_dim, output_dim, embeddings_initializer, seed: see `CompressedEmbedding`.
        divisor: m; near sqrt(V) the number of parameters is smallest.

    Call arguments and result: see `CompressedEmbedding`.

    Example:
        >>> QuotientRemainderEmbedding(1000, 16, divisor=32)(tf.constant([3, 999])).shape
        TensorShape([2, 16])

    Reference:
        Shi et al., "Compositional Embeddings Using Complementary Partitions for Memory-Efficient Recommendation
        Systems", KDD 2020, https://arxiv.org/abs/1909.02107, section 3 with element-wise products.

    Cost: two look-ups and d multiplications per index.
    """

    def __init__(self, input_dim: int, output_dim: int, divisor: int = 64, **kwargs: Any) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        require_positive_int(divisor=divisor)
        self.divisor = divisor

    def build(self, input_shape: Any) -> None:
        """Create the tables `quotients` and `remainders`."""
        self.quotients = self.add_table("quotients", -(-self.input_dim // self.divisor), self.output_dim)
        self.remainders = self.add_table("remainders", self.divisor, self.output_dim)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        inputs = tf.cast(inputs, tf.int32)
        quotients = self.rows_of(self.quotients, inputs // self.divisor)
        return quotients * self.rows_of(self.remainders, inputs % self.divisor)

    def fit_to(self, table: np.ndarray) -> None:
        """Set the weights to the best products: the rank-1 approximation of each column as a matrix [V / m, m]."""
        values = self.checked(table)
        rows = -(-self.input_dim // self.divisor)
        padded = np.pad(values, [(0, rows * self.divisor - self.input_dim), (0, 0)])
        for _ in range(_ROUNDS if len(padded) > len(values) else 1):
            matrices = padded.T.reshape(self.output_dim, rows, self.divisor)
            left, sizes, right = np.linalg.svd(matrices, full_matrices=False)
            quotients, remainders = left[:, :, 0] * np.sqrt(sizes[:, :1]), right[:, 0] * np.sqrt(sizes[:, :1])
            products = (quotients[:, :, np.newaxis] * remainders[:, np.newaxis]).reshape(self.output_dim, -1).T
            padded[len(values) :] = products[len(values) :]  # free values: no index is above V
        self.quotients.assign(quotients.T)
        self.remainders.assign(remainders.T)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the divisor."""
        return {"divisor": hp.Choice("quotient_remainder_divisor", [16, 64, 256], default=64)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "divisor": self.divisor}
