"""Attention pooling: a padded list to one vector by a learned query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.kernels import SeededArguments, SeededKernels
from tfmtl.layers.masked_softmax import masked_softmax
from tfmtl.layers.poolings.prefixes import no_later
from tfmtl.types import Column


@register
class AttentionPooling(SeededKernels):
    """Attention pooling: the mean of a padded list's embeddings, weighted by their fit to a learned query.

    Use it when some entries of a list matter more than others, independent of user and candidate.

    y = sum_j a_j e_j, a = softmax(q^T tanh(W e_j + b)) over the entries with an index above 0.

    Args:
        units: width of W e_j.
        kernel_initializer: initializer of W and q.
        seed: seed of the initial values.

    Call arguments:
        inputs: pair (embeddings [B, length, d], indices [B, length]).

    Returns:
        [B, d]; zeros for an empty list.

    Example:
        >>> pooling = AttentionPooling()
        >>> inputs = (tf.ones([1, 3, 2]), tf.constant([[5, 1, 0]]))
        >>> pooling(inputs).numpy().round(3).tolist(), pooling.attention_weights(inputs).numpy().round(3).tolist()
        ([[1.0, 1.0]], [[0.5, 0.5, 0.0]])

    Reference:
        Yang et al., "Hierarchical Attention Networks for Document Classification", NAACL 2016,
        https://aclanthology.org/N16-1174: their attention over the words of a sentence.

    Cost: a matrix product [d, units] per entry.
    """

    def __init__(self, units: int = 16, **kwargs: Unpack[SeededArguments]) -> None:
        super().__init__(**kwargs)
        require_positive_int(units=units)
        self.units = units

    def build(self, input_shape: Any) -> None:
        """Create the weights W [d, units], b [units] and q [units, 1]."""
        first, second = (self.initializer(i) for i in range(2))
        self._kernel = self.add_weight("kernel", [int(input_shape[0][-1]), self.units], initializer=first)
        self._bias = self.add_weight("bias", [self.units], initializer="zeros")
        self._query = self.add_weight("query", [self.units, 1], initializer=second)
        super().build(input_shape)

    def attention_weights(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Return a [B, length], which sum to 1 over the real entries."""
        return masked_softmax(self._logits(inputs), inputs[1] > 0)

    def _logits(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        embeddings, indices = inputs
        real = tf.where(indices[..., tf.newaxis] > 0, embeddings, 0)
        # Outside of a call Keras does not cast weights to the precision of the inputs.
        kernel, bias, query = (tf.cast(v, embeddings.dtype) for v in (self._kernel, self._bias, self._query))
        hidden = tf.tanh(tf.einsum("bld,du->blu", real, kernel) + bias)
        return tf.einsum("blu,uo->bl", hidden, query)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        embeddings, indices = inputs
        real = tf.where(indices[..., tf.newaxis] > 0, embeddings, 0)
        return tf.einsum("bl,bld->bd", self.attention_weights(inputs), real)

    def prefixes(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Return the weighted mean of each prefix; see `ReadsPrefixes`. Cost: length^2 d multiplications per row."""
        embeddings, indices = inputs
        readable = (indices > 0)[:, tf.newaxis] & no_later(embeddings.shape[1])
        weights = masked_softmax(self._logits(inputs)[:, tf.newaxis], readable)
        return tf.einsum("bij,bjd->bid", weights, tf.where(indices[..., tf.newaxis] > 0, embeddings, 0))

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return the columns of the embeddings; see `tfmtl.types.HasColumnSources`."""
        return inputs[0]

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return W, in the protocol of the model-optimization toolkit."""
        return [self._kernel]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the width."""
        return {"units": hp.Choice("attentionpooling_units", [8, 16, 32], default=16)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}
