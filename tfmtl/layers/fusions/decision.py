"""Decision fusion, also called late fusion: one network per modality, and the mean of their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from typing_extensions import Unpack

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.experts.experts import Experts
from tfmtl.layers.fusions.base import Fusion, FusionArguments, Groups
from tfmtl.layers.masked_softmax import masked_softmax

Kind = Literal["mean", "learned", "gated"]


@register
class DecisionFusion(Fusion):
    """Late fusion: one tower per modality, and the mean of the outputs of the modalities that are present.

    Use it when modalities are often missing: no tower reads another modality.

    y = sum_m w_m (V_m act(U_m x_m + c_m) + b_m), w = softmax(z) over the modalities present in the row. z is 0 for
    `"mean"`, one learned vector for `"learned"`, and a linear function of all x_m for `"gated"`.

    Args:
        groups, units: see `Fusion`.
        kind: `"mean"` for modalities of similar quality, `"learned"` if some are better than others, `"gated"` if the
            best one depends on the row.
        hidden_units: width of the towers' hidden layer.
        activation: act.
        **kwargs: `modality_dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`: see `Fusion`.

    Call arguments and result: see `Fusion`.

    Example:
        >>> fusion = DecisionFusion({"image": ["pixels"], "text": ["title"]}, units=4)
        >>> vectors = {"image": tf.ones([2, 5]), "text": tf.ones([2, 3])}
        >>> inputs = vectors, {"image": tf.constant([1.0, 0.0]), "text": tf.constant([1.0, 1.0])}
        >>> fusion(inputs).shape, fusion.modality_weights(inputs).numpy().tolist()
        (TensorShape([2, 4]), [[0.5, 0.5], [0.0, 1.0]])

    Reference:
        Baltrusaitis et al., "Multimodal Machine Learning: A Survey and Taxonomy", TPAMI 2019,
        https://arxiv.org/abs/1705.09406, on late fusion.

    Cost: two matrix products per modality.
    """

    def __init__(
        self,
        groups: Groups,
        units: int = 32,
        *,
        kind: Kind = "mean",
        hidden_units: int = 32,
        activation: Any = "relu",
        **kwargs: Unpack[FusionArguments],
    ) -> None:
        super().__init__(groups, units, **kwargs)
        require(kind in ("mean", "learned", "gated"), "`kind` must be 'mean', 'learned' or 'gated'.", kind=kind)
        require_positive_int(hidden_units=hidden_units)
        self.kind = kind
        self.hidden_units = hidden_units
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        """Create the towers, and the logits or the gate of their weights."""
        super().build(input_shape)
        number = len(self.modalities)
        self._hidden = self.projections(self.hidden_units, activation=self.activation)
        self._towers = Experts(
            number, [self.units], activation="linear", kernel_initializer=self.initializer(number),
            kernel_regularizer=self.kernel_regularizer, name="towers", dtype=self.dtype_policy,
        )  # fmt: skip
        if self.kind == "learned":
            self._logits = self.add_weight("logits", [number], initializer="zeros")
        if self.kind == "gated":
            self._gate = self.dense(number, 2 * number, "gate")

    def fuse(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        """Return the weighted mean of the towers' outputs."""
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
        """Search also the kind of weights."""
        return {
            **super().search_space(hp),
            "kind": hp.Choice("decisionfusion_kind", ["mean", "learned", "gated"], default="mean"),
        }

    def get_config(self) -> dict[str, Any]:
        own = {"kind": self.kind, "hidden_units": self.hidden_units}
        return {**super().get_config(), **own, "activation": keras.activations.serialize(self.activation)}
