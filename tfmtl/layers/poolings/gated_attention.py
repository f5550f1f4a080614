"""One block of HSTU over masked lists: attention without a softmax, and a gate."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Unpack

from tfmtl._checks import require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.kernels import SeededArguments
from tfmtl.layers.poolings.attention_block import AttentionBlock, Readers
from tfmtl.layers.poolings.heads import join_heads, split_heads


@register
class GatedAttention(AttentionBlock):
    """HSTU block: attention by SiLU of each logit instead of a softmax, with a gate instead of a feed-forward network.

    The weights of an entry have no fixed sum, so that the state shows how many entries fit, which a softmax hides.
    `SelfAttentionHistory(gated=True)` stacks several. In short training on MovieLens-1M it lost to `SelfAttention`.

    y = x + W drop(norm(A V) * U) + b with Q, K, V, U = silu(norm(x) W_q + b_q), ...; a head of A is
    silu(Q K^T + c) / n over the readable entries and 0 elsewhere, and the heads are concatenated; c_ij is a learned
    number per head and distance |i - j|, and n the number of distances.

    Args:
        num_distances: n, number of distances with a bias; at least the length of the lists.
        num_heads: number of heads; must divide the states' width d.
        dropout: rate, in [0, 1).
        kernel_initializer: initializer of the kernels [d, d].
        seed: seed of the initial values and of dropout.

    Call arguments:
        inputs: pair (states [B, length, d], readable [B, length, length]); entry i reads j where [:, i, j]. With
            positions [B] as a third part the layer computes one entry of each list; `readable` may then be that of
            these entries, [B, 1, length].

    Returns:
        [B, length, d], or [B, d] at the positions.

    Example:
        >>> GatedAttention(3, num_heads=2)((tf.ones([1, 3, 4]), tf.ones([1, 3, 3], tf.bool))).shape
        TensorShape([1, 3, 4])

    Reference:
        Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative
        Recommendations", ICML 2024, https://arxiv.org/abs/2402.17152, equations 1 to 3. The bias has no part of the
        time between entries.

    Cost: length^2 d multiplications for the weights and 5 length d^2 for the projections, per row; the weights need no
    sum over their row.
    """

    def __init__(
        self, num_distances: int, num_heads: int = 1, dropout: float = 0.0, **kwargs: Unpack[SeededArguments]
    ) -> None:
        require_positive_int(num_distances=num_distances)
        super().__init__(num_heads, dropout, num_distances, **kwargs)

    def make_kernels(self, width: int) -> Sequence[keras.layers.Dense]:
        """Create the projections and the output, and return them."""
        names = ("query", "key", "value", "gate")
        self._projections = [self.dense(width, i, name, activation="swish") for i, name in enumerate(names)]
        self._output = self.dense(width, 4, "output")
        return [*self._projections, self._output]

    def _attend(self, readers: Readers, normed: tf.Tensor) -> tf.Tensor:
        """Return the weights [B, heads, n, length] of the n readers."""
        query, key = (
            split_heads(project(part), self.num_heads)
            for project, part in zip(self._projections[:2], (readers.normed, normed), strict=True)
        )
        logits = self.biased(tf.matmul(query, key, transpose_b=True), readers.at)
        return tf.where(readers.readable[:, tf.newaxis], tf.nn.silu(logits) / self.num_distances, 0)

    def attention_weights(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Return the weight with which entry i reads entry j, mean over the heads, [B, length, length]."""
        normed = self._norms[0](inputs[0])
        return tf.reduce_mean(self._attend(self.readers(inputs, normed), normed), axis=1)

    def call(self, inputs: tuple[tf.Tensor, ...], training: bool | None = None) -> tf.Tensor:
        normed = self._norms[0](inputs[0])
        readers = self.readers(inputs, normed)
        value, gate = self._projections[2](normed), self._projections[3](readers.normed)
        attended = join_heads(tf.matmul(self._attend(readers, normed), split_heads(value, self.num_heads)))
        states = readers.states + self._output(self._dropout(self._norms[1](attended) * gate, training=training))
        return states if len(inputs) == 2 else states[:, 0]

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels, in the protocol of the model-optimization toolkit."""
        return [part.kernel for part in (*self._projections, self._output)]
