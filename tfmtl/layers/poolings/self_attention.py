"""One transformer block over masked lists."""

from __future__ import annotations

from typing import Any, ClassVar

from typing_extensions import Unpack

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.dense_stack import search_dropout
from tfmtl.layers.kernels import SeededArguments, SeededKernels
from tfmtl.layers.masked_softmax import masked_softmax
from tfmtl.layers.noise.randomness import Dropout


@register
class SelfAttention(SeededKernels):
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

    num_kernels: ClassVar[int] = 5
    """Number of kernels of a block, each with its own initial values."""

    def __init__(
        self,
        num_heads: int = 1,
        dropout: float = 0.0,
        num_distances: int = 0,
        **kwargs: Unpack[SeededArguments],
    ) -> None:
        super().__init__(**kwargs)
        require_positive_int(num_heads=num_heads)
        require_fraction(dropout=dropout)
        require(num_distances >= 0, "`num_distances` must be 0 or more.", num_distances=num_distances)
        self.num_heads = num_heads
        self.dropout = dropout
        self.num_distances = num_distances
        self._norms = [
            keras.layers.LayerNormalization(epsilon=1e-6, name=f"norm_{i}", dtype=self.dtype_policy) for i in range(2)
        ]
        self._dropout = Dropout(dropout, self.seed, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        """Create the kernels, all [d, d]."""
        width = int(input_shape[0][-1])
        require(
            width % self.num_heads == 0,
            f"`num_heads` must divide the embeddings' width {width}.",
            num_heads=self.num_heads,
        )
        self._projections = [
            self.dense(width, i, name, use_bias=False) for i, name in enumerate(("query", "key", "value"))
        ]
        self._feed_forward = [self.dense(width, 3, "inner", activation="relu"), self.dense(width, 4, "outer")]
        for part in (*self._norms, *self._projections, *self._feed_forward):
            part.build(input_shape[0])
        if self.num_distances:
            shape = [self.num_heads, self.num_distances]
            self._distances = self.add_weight("distances", shape, initializer="zeros")
        super().build(input_shape)

    def _attend(
        self, states: tf.Tensor, readable: tf.Tensor, positions: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return the states of the n readers [B, n, d], weights [B, heads, n, length] and values.

        The values [B, length, heads, d / heads] are those of all entries. The readers are all entries, or those at
        `positions` [B] with n = 1.
        """
        normed = self._norms[0](states)
        length, width = states.shape[1:]
        reader, asking, at = states, normed, tf.range(length)[tf.newaxis]
        if positions is not None:
            at = tf.cast(positions, tf.int32)[:, tf.newaxis]
            reader, asking = (tf.gather(part, at, batch_dims=1) for part in (states, normed))
            readable = readable if readable.shape[1] == 1 else tf.gather(readable, at, batch_dims=1)
        query, key, value = (
            tf.reshape(project(part), [-1, part.shape[1], self.num_heads, width // self.num_heads])
            for project, part in zip(self._projections, (asking, normed, normed), strict=True)
        )
        logits = tf.einsum("bihd,bjhd->bhij", query / (width // self.num_heads) ** 0.5, key)  # scaled before: overflow
        if self.num_distances:
            rule = f"Layer {self.name!r} has biases for {self.num_distances} distances; cut longer lists."
            require(length <= self.num_distances, rule, length=length)
            apart = tf.abs(at[..., tf.newaxis] - tf.range(length))
            biases = tf.transpose(tf.gather(self._distances, apart, axis=1), [1, 0, 2, 3])
            logits += tf.cast(biases, logits.dtype)
        return reader, masked_softmax(logits, readable[:, tf.newaxis]), value

    def attention_weights(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Return the weight with which entry i reads entry j, mean over the heads, [B, length, length]."""
        return tf.reduce_mean(self._attend(*inputs)[1], axis=1)

    def call(self, inputs: tuple[tf.Tensor, ...], training: bool | None = None) -> tf.Tensor:
        states, weights, value = self._attend(*inputs)
        attended = tf.reshape(tf.einsum("bhij,bjhd->bihd", weights, value), tf.shape(states))
        states = states + self._dropout(attended, training=training)
        inner, outer = self._feed_forward
        hidden = self._dropout(inner(self._norms[1](states)), training=training)
        states = states + self._dropout(outer(hidden), training=training)
        return states if len(inputs) == 2 else states[:, 0]

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels, in the protocol of the model-optimization toolkit."""
        return [part.kernel for part in (*self._projections, *self._feed_forward)]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search dropout."""
        return {"dropout": search_dropout(hp, "selfattention")}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "num_distances": self.num_distances,
        }
