"""Hashed embeddings: indices share the rows of a small table."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._checks import require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.embeddings.base import CompressedEmbedding

_PRIME = 2**31 - 1
_SWEEPS = 10


@register
class HashedEmbedding(CompressedEmbedding):
    """Hash embedding: embeds an index as the sum of the rows that several hash functions assign to it.

    Use it for a vocabulary that is very large or grows: the number of parameters does not depend on it.

    y = sum_j E_j[h_j(i)], h_j(i) = ((a_j i + b_j) mod (2^31 - 1)) mod buckets, E_j [buckets, d]. Two indices may share
    a row under one hash function, but hardly ever under all. It has buckets n d parameters.

    Args:
        input_dim, output_dim, embeddings_initializer, seed: see `CompressedEmbedding`; `seed` also sets a_j and b_j.
        buckets: rows of each table; more buckets mean fewer collisions.
        num_hashes: number n of hash functions; with 1, all indices of a bucket have the same embedding.

    Call arguments and result: see `CompressedEmbedding`.

    Example:
        >>> HashedEmbedding(100_000, 16, buckets=1000)(tf.constant([3, 99_999])).shape
        TensorShape([2, 16])

    Reference:
        Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009,
        https://arxiv.org/abs/0902.2206; several functions as in Svenstrup, Hansen, Winther, "Hash Embeddings for
        Efficient Word Representations", NeurIPS 2017, https://arxiv.org/abs/1709.03933, without its weights per index.

    Cost: n look-ups per index.
    """

    def __init__(
        self, input_dim: int, output_dim: int, buckets: int = 1024, num_hashes: int = 2, **kwargs: Any
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        require_positive_int(buckets=buckets, num_hashes=num_hashes)
        self.buckets = buckets
        self.num_hashes = num_hashes
        draw = np.random.default_rng(seed=self.seed)
        self._factors = draw.integers(1, _PRIME, num_hashes, dtype=np.int64)
        self._offsets = draw.integers(0, _PRIME, num_hashes, dtype=np.int64)

    def build(self, input_shape: Any) -> None:
        """Create the table `embeddings` [num_hashes * buckets, d]."""
        self.embeddings = self.add_table("embeddings", self.num_hashes * self.buckets, self.output_dim)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        indices = tf.cast(inputs, tf.int64)[..., tf.newaxis]
        hashed = (indices * self._factors + self._offsets) % _PRIME % self.buckets
        return tf.reduce_sum(self.rows_of(self.embeddings, hashed + self._first()), axis=-2)

    def _first(self) -> np.ndarray:
        return np.arange(self.num_hashes, dtype=np.int64) * self.buckets

    def fit_to(self, table: np.ndarray) -> None:
        """Set the weights by a few sweeps; each sets every row to the mean of its indices' remaining residuals."""
        values = self.checked(table)
        indices = np.arange(self.input_dim, dtype=np.int64)[:, np.newaxis]
        rows = (indices * self._factors + self._offsets) % _PRIME % self.buckets + self._first()
        found = np.zeros([self.num_hashes * self.buckets, self.output_dim])
        counts = np.maximum(np.bincount(rows.reshape(-1), minlength=len(found)), 1)[:, np.newaxis]
        for own in np.tile(np.arange(self.num_hashes), _SWEEPS):
            left = values - found[rows].sum(axis=1) + found[rows[:, own]]
            sums = np.zeros_like(found)
            np.add.at(sums, rows[:, own], left)
            part = slice(own * self.buckets, (own + 1) * self.buckets)
            found[part] = (sums / counts)[part]
        self.embeddings.assign(found)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the size of the tables and their number."""
        return {
            "buckets": hp.Choice("hashed_buckets", [256, 1024, 4096], default=1024),
            "num_hashes": hp.Int("num_hashes", 1, 3, default=2),
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "buckets": self.buckets, "num_hashes": self.num_hashes}
