"""Attention fusion: a weighted mean of the modalities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.fusions.base import Fusion, FusionArguments, Groups
from tfmtl.layers.poolings.attention_pooling import AttentionPooling


@register
class AttentionFusion(Fusion):
    """Attention fusion: mean of the projected modalities, weighted by attention to a learned query.

    Use it when the most informative modality differs by row, and to show each modality's weight.

    y = sum_m w_m t_m, t_m = U_m x_m + c_m, w = softmax(q^T tanh(W t_m + b)) over the modalities present in the row.

    Args:
        groups, units: see `Fusion`.
        attention_units: width of W t_m; more units separate modalities by finer differences.
        **kwargs: `modality_dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`: see `Fusion`.

    Call arguments and result: see `Fusion`.

    Example:
        >>> fusion = AttentionFusion({"image": ["pixels"], "text": ["title"]}, units=4)
        >>> vectors = {"image": tf.ones([2, 5]), "text": tf.ones([2, 3])}
        >>> inputs = vectors, {"image": tf.constant([1.0, 0.0]), "text": tf.constant([1.0, 1.0])}
        >>> fusion(inputs).shape, fusion.modality_weights(inputs)[1].numpy().tolist()
        (TensorShape([2, 4]), [0.0, 1.0])

    Reference:
        The pooling is that of Yang et al., "Hierarchical Attention Networks for Document Classification", NAACL 2016,
        https://aclanthology.org/N16-1174, over the modalities instead of the words.

    Cost: units times the sum of the widths, and `AttentionPooling` over M entries.
    """

    def __init__(
        self, groups: Groups, units: int = 32, *, attention_units: int = 16, **kwargs: Unpack[FusionArguments]
    ) -> None:
        super().__init__(groups, units, **kwargs)
        require_positive_int(attention_units=attention_units)
        self.attention_units = attention_units

    def build(self, input_shape: Any) -> None:
        """Create the projections and the attention."""
        super().build(input_shape)
        self._projections = self.projections(self.units)
        initializer = self.initializer(len(self.modalities))
        self._attention = AttentionPooling(
            self.attention_units, kernel_initializer=initializer, name="attention", dtype=self.dtype_policy
        )

    def fuse(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        """Return the weighted mean of the projected modalities."""
        return self._attention(self._tokens(vectors, present))

    def modality_weights(self, inputs: Any) -> tf.Tensor:
        """Return w [B, modalities]: 0 for missing modalities, sum 1."""
        return self._attention.attention_weights(self._tokens(*self.complete(inputs)))

    def _tokens(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        tokens = [project(x) for project, x in zip(self._projections, vectors, strict=True)]
        return tf.stack(tokens, axis=1), tf.cast(present, tf.int32)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search also the width of the attention."""
        return {
            **super().search_space(hp),
            "attention_units": hp.Choice("attentionfusion_attention_units", [8, 16, 32], default=16),
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "attention_units": self.attention_units}
