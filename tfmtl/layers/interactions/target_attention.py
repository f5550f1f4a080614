"""DIN: attention of the candidate over a history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.interactions.base import Interaction
from tfmtl.layers.kernels import KernelArguments, Kernels
from tfmtl.layers.masked_softmax import masked_softmax
from tfmtl.layers.trunks.base import FeatureEncodings
from tfmtl.types import Column


@register
class TargetAttention(Interaction, Kernels):
    """DIN: the sum of a history's embeddings, each weighted by its fit to the candidate.

    Use it when users have several interests and only some past items matter for a candidate.

    y = sum_j a_j h_j, a_j = MLP([h_j, t, h_j - t, h_j * t]) over the real entries h_j, t the candidate's embedding from
    the same table. The output is joined to the encoding of the pair.

    Args:
        history: an `IdSequence` of the candidate's ids.
        units: widths of the MLP's hidden layers.
        activation: activation of these.
        normalize: whether the weights of a row pass a softmax. By default they do not, as in the paper: their sum then
            measures the strength of the interest.
        kernel_initializer: initializer of the kernels.
        kernel_regularizer: regularizer of the kernels.
        seed: seed of the initial values.

    Call arguments:
        inputs: triple (t [B, d], h [B, length, d], the history's indices [B, length], 0 in padding).

    Returns:
        [B, d]; zeros for an empty history.

    Raises:
        ValueError: by `build_network`, if `history` holds no ids of a candidate feature.

    Example:
        >>> attention = TargetAttention("recent")
        >>> inputs = tf.ones([1, 4]), tf.ones([1, 3, 4]), tf.constant([[5, 1, 0]])
        >>> attention(inputs).shape, float(attention.attention_weights(inputs)[0, 2])
        (TensorShape([1, 4]), 0.0)

    Reference:
        Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018,
        https://arxiv.org/abs/1706.06978, section 4.3. The MLP reads difference and product of the embeddings, where the
        paper draws an outer product.

    Cost: 4 d units[0] multiplications per entry, and the rest of the MLP.
    """

    def __init__(
        self,
        history: str,
        units: Sequence[int] = (32,),
        activation: Any = "relu",
        normalize: bool = False,
        **kwargs: Unpack[KernelArguments],
    ) -> None:
        super().__init__(**kwargs)
        require(isinstance(history, str) and bool(history), "`history` must be the name of a feature.", history=history)
        for width in units:
            require_positive_int(units=width)
        self.history = history
        self.units = tuple(units)
        self.activation = keras.activations.get(activation)
        self.normalize = normalize
        self._dense = [
            self.dense(width, i, f"dense_{i}", activation=self.activation if i < len(self.units) else None)
            for i, width in enumerate((*self.units, 1))
        ]

    def connect(self, pair: Any, features: FeatureEncodings) -> Any:
        target = features.embed_target(self.history)
        return self.join(pair, self((target, *features.embed(self.history))))

    def attention_weights(self, inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Return a [B, length], 0 in padding."""
        target, history, indices = inputs
        real = indices > 0
        entry = tf.where(real[..., tf.newaxis], history, 0)
        target = tf.broadcast_to(target[:, tf.newaxis], tf.shape(entry))
        hidden = tf.concat([entry, target, entry - target, entry * target], axis=-1)
        for dense in self._dense:
            hidden = dense(hidden)
        scores = hidden[..., 0]
        return masked_softmax(scores, real) if self.normalize else tf.where(real, scores, 0)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Sum the real entries by their weights."""
        _, history, indices = inputs
        entries = tf.where(indices[..., tf.newaxis] > 0, history, 0)
        return tf.einsum("bl,bld->bd", self.attention_weights(inputs), entries)

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return new columns, one per output column; see `tfmtl.types.HasColumnSources`."""
        return own

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the width and `normalize`; `history` is given."""
        return {
            "units": (hp.Choice("targetattention_units", [16, 32, 64], default=32),),
            "normalize": hp.Boolean("targetattention_normalize", default=False),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "history": self.history,
            "units": list(self.units),
            "activation": keras.activations.serialize(self.activation),
            "normalize": self.normalize,
        }
