"""ComiRec-SA: a history to several vectors, by one attention per interest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.kernels import SeededArguments, SeededKernels
from tfmtl.layers.masked_softmax import masked_softmax
from tfmtl.layers.poolings.prefixes import no_later
from tfmtl.types import Column


@register
class MultiInterestPooling(SeededKernels):
    """ComiRec-SA, self-attentive interests: K means of a history's embeddings, each with weights of its own.

    Use it with `tasks.Retrieval(num_interests=K)`, for users who want several kinds of candidates at a time; with K = 1
    it is one attention over a history in which recent entries can count more.

    u_k = sum_j a_kj e_j, a_k = softmax_j( q_k^T tanh(W e_j + b) + c_kj ) over the entries with an index above 0. j = 0
    is the most recent position, and c is a learned number per interest and position, 0 at the start.

    Args:
        num_interests: K, number of vectors.
        units: width of W e_j.
        kernel_initializer: initializer of W and of the columns q_k.
        seed: seed of the initial values.

    Call arguments:
        inputs: pair (embeddings [B, length, d], indices [B, length]), most recent first; index 0 is padding. The first
            call decides the longest length.

    Returns:
        [B, K d], one vector after the other; zeros for an empty list.

    Raises:
        ValueError: if lists are longer than in the first call or of no fixed length.

    Example:
        >>> pooling = MultiInterestPooling(num_interests=2)
        >>> inputs = (tf.ones([1, 3, 2]), tf.constant([[5, 1, 0]]))
        >>> pooling(inputs).numpy().round(3).tolist(), pooling.attention_weights(inputs).shape
        ([[1.0, 1.0, 1.0, 1.0]], TensorShape([1, 2, 3]))

    Reference:
        Cen et al., "Controllable Multi-Interest Framework for Recommendation", KDD 2020,
        https://arxiv.org/abs/2005.09347, equations 5 and 6. There embeddings of positions are added to those of the
        items; here a position adds to the logits, so that `prefixes` computes the vectors after all items at once and
        `tfmtl.data.Sequences` can train the network.

    Cost: a matrix product [d, units] per entry, and K d multiplications; `prefixes` length^2 K d per row.
    """

    def __init__(self, num_interests: int = 4, units: int = 64, **kwargs: Unpack[SeededArguments]) -> None:
        super().__init__(**kwargs)
        require_positive_int(num_interests=num_interests, units=units)
        self.num_interests = num_interests
        self.units = units

    def build(self, input_shape: Any) -> None:
        """Create W [d, units], b [units], the queries [units, K] and c [K, length]."""
        _, length, width = input_shape[0]
        require(length is not None, f"Layer {self.name!r} learns a number per position; give the lists a fixed length.")
        first, second = (self.initializer(i) for i in range(2))
        self._kernel = self.add_weight("kernel", [int(width), self.units], initializer=first)
        self._bias = self.add_weight("bias", [self.units], initializer="zeros")
        self._queries = self.add_weight("query_kernel", [self.units, self.num_interests], initializer=second)
        self._positions = self.add_weight("positions", [self.num_interests, int(length)], initializer="zeros")
        super().build(input_shape)

    def attention_weights(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Return a [B, K, length], which sum to 1 over the real entries."""
        logits = self._logits(inputs)
        positions = tf.cast(self._positions[:, : logits.shape[2]], logits.dtype)
        return masked_softmax(logits + positions, (inputs[1] > 0)[:, tf.newaxis])

    def _logits(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Return the logits [B, K, length] without positions."""
        longest, length = int(self._positions.shape[1]), inputs[0].shape[1]
        require(
            length is not None and length <= longest,
            f"Layer {self.name!r} has positions for {longest} entries; cut longer lists, most recent first.",
            length=length,
        )
        real = _real(inputs)
        # Outside of a call Keras does not cast weights to the precision of the inputs.
        kernel, bias, queries = (tf.cast(v, real.dtype) for v in (self._kernel, self._bias, self._queries))
        return tf.einsum("blu,uk->bkl", tf.tanh(tf.einsum("bld,du->blu", real, kernel) + bias), queries)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return self._flat(tf.einsum("bkl,bld->bkd", self.attention_weights(inputs), _real(inputs)))

    def prefixes(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Return the vectors of each prefix [B, length, K d]; see `ReadsPrefixes`."""
        logits, length = self._logits(inputs), inputs[0].shape[1]
        readable = (inputs[1] > 0)[:, tf.newaxis] & no_later(length)
        position = tf.range(length)
        ago = tf.maximum(position[:, tf.newaxis] - position, 0)  # of entry j at the moment of entry i
        bias = tf.cast(tf.gather(self._positions, ago, axis=1), logits.dtype)
        weights = masked_softmax(logits[:, :, tf.newaxis] + bias, readable[:, tf.newaxis])
        return self._flat(tf.einsum("bkij,bjd->bikd", weights, _real(inputs)))

    def _flat(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return vectors [..., K, d] as [..., K d]."""
        shape = tf.shape(vectors)[:-2]
        width = self.num_interests * vectors.shape[-1]
        flat = tf.reshape(vectors, tf.concat([shape, [width]], axis=0))
        return tf.ensure_shape(flat, [*vectors.shape[:-2], width])

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return the columns of the embeddings, with their interest; see `tfmtl.types.HasColumnSources`."""
        if self.num_interests == 1:
            return inputs[0]
        return [(k, column) for k in range(self.num_interests) for column in inputs[0]]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the width; the number of interests is that of the task."""
        return {"units": hp.Choice("multiinterestpooling_units", [16, 32, 64], default=64)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_interests": self.num_interests, "units": self.units}


def _real(inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """Return the embeddings [B, length, d], zeros in padding."""
    return tf.where(inputs[1][..., tf.newaxis] > 0, inputs[0], 0)
