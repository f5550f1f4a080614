"""Low-rank embeddings: the product of a narrow table and a small matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._checks import require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.embeddings.base import CompressedEmbedding


@register
class LowRankEmbedding(CompressedEmbedding):
    """Low-rank embedding (ALBERT's factorized parameterization): embeds indices with a table of low rank.

    Use it when the embeddings are wide; with `fit_to` it compresses a trained table at the smallest squared error.

    y = A[i] B, A [V, rank], B [rank, d]: V rank + rank d parameters instead of V d.

    Args:
        input_dim, output_dim, embeddings_initializer, seed: see `CompressedEmbedding`.
        rank: width of the stored table; below d, otherwise it saves nothing.

    Call arguments and result: see `CompressedEmbedding`.

    Example:
        >>> LowRankEmbedding(1000, 64, rank=8)(tf.constant([[3, 999]])).shape
        TensorShape([1, 2, 64])

    Reference:
        Lan et al., "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations", ICLR 2020,
        https://arxiv.org/abs/1909.11942, section 3.1, factorized embedding parameterization.

    Cost: a look-up of rank numbers and rank d multiplications per index.
    """

    def __init__(self, input_dim: int, output_dim: int, rank: int = 8, **kwargs: Any) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        require_positive_int(rank=rank)
        self.rank = rank

    def build(self, input_shape: Any) -> None:
        """Create the narrow table `embeddings` and the matrix `projection`."""
        self.embeddings = self.add_table("embeddings", self.input_dim, self.rank)
        self.projection = self.add_table("projection", self.rank, self.output_dim)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        narrow = self.rows_of(self.embeddings, inputs)
        return tf.tensordot(narrow, tf.cast(self.projection, self.compute_dtype), 1)

    def fit_to(self, table: np.ndarray) -> None:
        """Set the weights to the best approximation of this rank, by singular values (Eckart and Young)."""
        left, values, right = np.linalg.svd(self.checked(table), full_matrices=False)
        roots = np.sqrt(np.pad(values, (0, max(0, self.rank - len(values))))[: self.rank])
        kept = min(self.rank, len(values))
        narrow, wide = np.zeros([self.input_dim, self.rank]), np.zeros([self.rank, self.output_dim])
        narrow[:, :kept], wide[:kept] = left[:, :kept], right[:kept]
        self.embeddings.assign(narrow * roots)
        self.projection.assign(roots[:, np.newaxis] * wide)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the rank."""
        return {"rank": hp.Choice("low_rank", [4, 8, 16, 32], default=8)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rank": self.rank}
