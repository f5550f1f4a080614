"""Concatenation fusion, also called early fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._keras import keras, register, tf
from tfmtl.layers.fusions.base import Fusion, FusionArguments, Groups


@register
class ConcatFusion(Fusion):
    """Early fusion: a dense layer on the concatenation of all modalities.

    Use it as the first choice and as the baseline of the other fusions.

    y = act(W [x_1, ..., x_M] + b); x_m is a learned vector where modality m is missing.

    Args:
        groups, units: see `Fusion`.
        activation: act; None for a linear function, if the towers that follow have hidden layers.
        **kwargs: `modality_dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`: see `Fusion`.

    Call arguments and result: see `Fusion`.

    Example:
        >>> fusion = ConcatFusion({"image": ["pixels"], "text": ["title"]}, units=4)
        >>> vectors = {"image": tf.ones([2, 5]), "text": tf.ones([2, 3])}
        >>> fusion((vectors, {"image": tf.constant([1.0, 0.0]), "text": tf.constant([1.0, 1.0])})).shape
        TensorShape([2, 4])

    Reference:
        Baltrusaitis et al., "Multimodal Machine Learning: A Survey and Taxonomy", TPAMI 2019,
        https://arxiv.org/abs/1705.09406, on early fusion.

    Cost: a dense layer.
    """

    def __init__(
        self, groups: Groups, units: int = 32, *, activation: Any = "relu", **kwargs: Unpack[FusionArguments]
    ) -> None:
        super().__init__(groups, units, **kwargs)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        """Create the dense layer."""
        super().build(input_shape)
        self._output = self.dense(self.units, 0, "output", activation=self.activation)

    def fuse(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        """Return the dense layer's output."""
        return self._output(tf.concat(vectors, axis=1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}
