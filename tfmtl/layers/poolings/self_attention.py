"""One transformer block over masked lists."""

from __future__ import annotations

from collections.abc import Sequence

from tfmtl._keras import keras, register, tf
from tfmtl.layers.masked_softmax import masked_softmax
from tfmtl.layers.poolings.attention_block import AttentionBlock, Readers


@register
class SelfAttention(AttentionBlock):
    """Transformer block: multi-head self-attention and a feed-forward network, with layer norm, dropout and residuals.

    `SelfAttentionHistory` stacks several; use one directly to build another sequence encoder.

    s = x + drop(A(norm(x))), y = s + drop(W2 drop(relu(W1 norm(s) + b1)) + b2); a head of A is
    softmax(Q K^T / sqrt(d / num_heads) + b) V over the readable entries, and the heads are concatenated; b_ij is 0, or
    with `num_distances` a learned number per head and distance |i - j|.

    Args:
        num_heads: number of heads; must divide the states' width d.
        dropout: rate, in [0, 1).
        num_distances: number of distances with a bias, at least the length of the lists, or 0 for no bias.
        kernel_initializer: initializer of the kernels [d, d].
        seed: seed of the initial values and of dropout.

    Call arguments:
        inputs: pair (states [B, length, d], readable [B, length, length]); entry i reads j where [:, i, j]. With
            positions [B] as a third part the layer computes one entry of each list; `readable` may then be that of
            these entries, [B, 1, length].

    Returns:
        [B, length, d], or [B, d] at the positions.

    Example:
        >>> SelfAttention(2)((tf.ones([1, 3, 4]), tf.ones([1, 3, 3], tf.bool))).shape
        TensorShape([1, 3, 4])

    Reference:
        Kang, McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, https://arxiv.org/abs/1808.09781, section
        3.2. The heads' outputs are concatenated without another projection. The biases are those of Raffel et al.,
        "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", JMLR 2020,
        https://arxiv.org/abs/1910.10683, section 2.1, except that each distance and each block has its own.

    Cost: length^2 d multiplications for the weights and 5 length d^2 for the projections, per row; length d and
    (2 length + 3) d^2 at one position.
    """

    def make_kernels(self, width: int) -> Sequence[keras.layers.Dense]:
        """Create the projections and the feed-forward network, and return them."""
        self._projections = [
            self.dense(width, i, name, use_bias=False) for i, name in enumerate(("query", "key", "value"))
        ]
        self._feed_forward = [self.dense(width, 3, "inner", activation="relu"), self.dense(width, 4, "outer")]
        return [*self._projections, *self._feed_forward]

    def _attend(self, inputs: Sequence[tf.Tensor]) -> tuple[Readers, tf.Tensor, tf.Tensor]:
        """Return the n readers, their weights [B, heads, n, length] and the values [B, length, heads, d / heads]."""
        normed = self._norms[0](inputs[0])
        readers, size = self.readers(inputs, normed), normed.shape[-1] // self.num_heads
        query, key, value = (
            tf.reshape(project(part), [-1, part.shape[1], self.num_heads, size])
            for project, part in zip(self._projections, (readers.normed, normed, normed), strict=True)
        )
        logits = tf.einsum("bihd,bjhd->bhij", query / size**0.5, key)  # scaled first, since half precision overflows
        return readers, masked_softmax(self.biased(logits, readers.at), readers.readable[:, tf.newaxis]), value

    def attention_weights(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Return the weight with which entry i reads entry j, mean over the heads, [B, length, length]."""
        return tf.reduce_mean(self._attend(inputs)[1], axis=1)

    def call(self, inputs: tuple[tf.Tensor, ...], training: bool | None = None) -> tf.Tensor:
        readers, weights, value = self._attend(inputs)
        attended = tf.reshape(tf.einsum("bhij,bjhd->bihd", weights, value), tf.shape(readers.states))
        states = readers.states + self._dropout(attended, training=training)
        inner, outer = self._feed_forward
        hidden = self._dropout(inner(self._norms[1](states)), training=training)
        states = states + self._dropout(outer(hidden), training=training)
        return states if len(inputs) == 2 else states[:, 0]

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels, in the protocol of the model-optimization toolkit."""
        return [part.kernel for part in (*self._projections, *self._feed_forward)]
