"""DLRM: inner products of features' embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_recommenders as tfrs

from tfmtl._checks import require
from tfmtl._keras import register, tf
from tfmtl.layers.interactions.base import Interaction
from tfmtl.layers.trunks.base import FeatureEncodings


@register
class DotInteraction(Interaction):
    """DLRM's interaction: inner products of every two of several features' encodings, joined to the pair's encoding.

    Use it when most features are categorical with embeddings of one width; it has no weights and costs little.

    y = (<e_1, e_0>, <e_2, e_0>, <e_2, e_1>, ...), by `tfrs.layers.feature_interaction.DotInteraction`.

    Args:
        feature_names: two or more features with encodings of one width, such as categories and lists of them.
        self_interaction: whether <e_i, e_i> is among the products.

    Call arguments:
        inputs: list of F tensors [B, d].

    Returns:
        [B, F (F - 1) / 2], or [B, F (F + 1) / 2] with `self_interaction`.

    Raises:
        ValueError: if the features have encodings of different widths.

    Example:
        >>> products = DotInteraction(["user", "item", "genres"])
        >>> products([tf.ones([1, 2]), 2 * tf.ones([1, 2]), 3 * tf.ones([1, 2])]).numpy().tolist()
        [[4.0, 6.0, 12.0]]

    Reference:
        Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation Systems", 2019,
        https://arxiv.org/abs/1906.00091. Numeric features take part in the pair's encoding only: the bottom MLP
        that maps them to the embeddings' width is left out.

    Cost: F^2 d multiplications.
    """

    def __init__(self, feature_names: Sequence[str], self_interaction: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        names = tuple(feature_names)
        require(
            len(names) > 1 and len(set(names)) == len(names),
            "`feature_names` must be two or more distinct names.",
            feature_names=feature_names,
        )
        self.feature_names = names
        self.self_interaction = self_interaction
        # The layer of TFRS returns all products and `call` gathers some: its own selection has no static shape.
        self._products = tfrs.layers.feature_interaction.DotInteraction(
            self_interaction, skip_gather=True, dtype=self.dtype_policy
        )

    def connect(self, pair: Any, features: FeatureEncodings) -> Any:
        return self.join(pair, self([features.encode([name]) for name in self.feature_names]))

    def build(self, input_shape: Any) -> None:
        """Raise `ValueError` unless all encodings have one width."""
        widths = [int(shape[-1]) for shape in input_shape]
        require(
            len(set(widths)) == 1,
            f"Inner products need encodings of one width, but {self.feature_names} have {widths}; set `embedding_dim`, "
            "and leave numbers out.",
        )
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return the products below the diagonal, row by row."""
        rows, columns = np.tril_indices(len(inputs), 0 if self.self_interaction else -1)
        return tf.gather(self._products(inputs), rows * len(inputs) + columns, axis=1)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search whether features meet themselves; `feature_names` are given."""
        return {"self_interaction": hp.Boolean("dotinteraction_self", default=False)}

    def get_config(self) -> dict[str, Any]:
        own = {"feature_names": list(self.feature_names), "self_interaction": self.self_interaction}
        return {**super().get_config(), **own}
