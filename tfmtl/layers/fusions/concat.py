"""Early fusion of modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._keras import keras, register, tf
from tfmtl.layers.fusions.base import Fusion


@register
class ConcatFusion(Fusion):
    """A dense layer over all modalities side by side: fusion of features.

    y = act(W [x_1, ..., x_M] + b), x_m the learned vector where modality m is missing.

    Args:
        groups, units, modality_dropout, kernel_initializer, kernel_regularizer, seed: see `Fusion`.
        activation: act.

    Call arguments:
        inputs: see `Fusion`.

    Returns:
        [B, units].

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
        self,
        groups: Mapping[str, Sequence[str]],
        units: int = 32,
        modality_dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        seed: int = 0,
        activation: Any = "relu",
        **kwargs: Any,
    ) -> None:
        super().__init__(groups, units, modality_dropout, kernel_initializer, kernel_regularizer, seed, **kwargs)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        """Create the dense layer."""
        super().build(input_shape)
        self._output = self.dense(self.units, 0, "output", activation=self.activation)

    def fuse(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        """Return the layer's output."""
        return self._output(tf.concat(vectors, axis=1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}
