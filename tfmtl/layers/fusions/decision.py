"""Late fusion: a network for each modality, and a mean of what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, register, spawn, tf
from tfmtl.layers.experts.experts import Experts
from tfmtl.layers.fusions.base import Fusion
from tfmtl.layers.masked_softmax import masked_softmax

Kind = Literal["mean", "learned", "gated"]


@register
class DecisionFusion(Fusion):
    """Fusion of decisions: each modality has a tower of its own, and the towers of those present are averaged.

    y = sum_m w_m (V_m act(U_m x_m + c_m) + b_m), w = softmax(z) over the modalities present in the row; z = 0 for
    `"mean"`, a vector learned for all rows for `"learned"`, a linear function of all x_m for `"gated"`.

    Args:
        groups, units, modality_dropout, kernel_initializer, kernel_regularizer, seed: see `Fusion`.
        kind: `"mean"`, `"learned"` or `"gated"`.
        hidden_units: width of the towers' hidden layer.
        activation: act.

    Call arguments:
        inputs: see `Fusion`.

    Returns:
        [B, units].

    Example:
        >>> fusion = DecisionFusion({"image": ["pixels"], "text": ["title"]}, units=4)
        >>> vectors = {"image": tf.ones([2, 5]), "text": tf.ones([2, 3])}
        >>> inputs = vectors, {"image": tf.constant([1.0, 0.0]), "text": tf.constant([1.0, 1.0])}
        >>> fusion(inputs).shape, fusion.modality_weights(inputs).numpy().tolist()
        (TensorShape([2, 4]), [[0.5, 0.5], [0.0, 1.0]])

    Reference:
        Baltrusaitis et al., "Multimodal Machine Learning: A Survey and Taxonomy", TPAMI 2019,
        https://arxiv.org/abs/1705.09406, on late fusion.

    Cost: a hidden layer a modality, then one matrix product each.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[str]],
        units: int = 32,
        modality_dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        seed: int = 0,
        kind: Kind = "mean",
        hidden_units: int = 32,
        activation: Any = "relu",
        **kwargs: Any,
    ) -> None:
        super().__init__(groups, units, modality_dropout, kernel_initializer, kernel_regularizer, seed, **kwargs)
        require(kind in ("mean", "learned", "gated"), "`kind` must be 'mean', 'learned' or 'gated'.", kind=kind)
        require_positive_int(hidden_units=hidden_units)
        self.kind = kind
        self.hidden_units = hidden_units
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        """Create the towers and the weights' source."""
        super().build(input_shape)
        number = len(self.modalities)
        self._hidden = self.projections(self.hidden_units, activation=self.activation)
        self._towers = Experts(
            number, [self.units], "linear", kernel_initializer=spawn(self.kernel_initializer, number, self.seed),
            kernel_regularizer=self.kernel_regularizer, name="towers", dtype=self.dtype_policy,
        )  # fmt: skip
        if self.kind == "learned":
            self._logits = self.add_weight("logits", [number], initializer="zeros")
        if self.kind == "gated":
            self._gate = self.dense(number, 2 * number, "gate")

    def fuse(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        """Average the towers of the modalities present."""
        hidden = [project(x) for project, x in zip(self._hidden, vectors, strict=True)]
        return tf.einsum("bm,bmu->bu", self._weigh(vectors, present), self._towers(tf.stack(hidden, axis=1)))

    def modality_weights(self, inputs: Any) -> tf.Tensor:
        """Return w [B, modalities]: 0 for missing modalities, sum 1."""
        return self._weigh(*self.complete(inputs))

    def _weigh(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        if self.kind == "gated":
            return masked_softmax(self._gate(tf.concat(vectors, axis=1)), present)
        zeros = tf.zeros(tf.shape(present), vectors[0].dtype)
        logits = zeros + tf.cast(self._logits, zeros.dtype) if self.kind == "learned" else zeros
        return masked_softmax(logits, present)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search how the parts are weighted besides."""
        return {
            **super().search_space(hp),
            "kind": hp.Choice("decisionfusion_kind", ["mean", "learned", "gated"], default="mean"),
        }

    def get_config(self) -> dict[str, Any]:
        own = {"kind": self.kind, "hidden_units": self.hidden_units}
        return {**super().get_config(), **own, "activation": keras.activations.serialize(self.activation)}
