"""One block of HSTU over masked lists: attention without a softmax, and a gate."""

from __future__ import annotations

from typing import Any, ClassVar

from typing_extensions import Unpack

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import keras, register, tf
from tfmtl.layers.dense_stack import search_dropout
from tfmtl.layers.kernels import SeededArguments, SeededKernels
from tfmtl.layers.noise.randomness import Dropout
from tfmtl.layers.poolings.heads import join_heads, split_heads


@register
class GatedAttention(SeededKernels):
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

    num_kernels: ClassVar[int] = 5
    """Number of kernels of a block, each with its own initial values."""

    def __init__(
        self,
        num_distances: int,
        num_heads: int = 1,
        dropout: float = 0.0,
        **kwargs: Unpack[SeededArguments],
    ) -> None:
        super().__init__(**kwargs)
        require_positive_int(num_distances=num_distances, num_heads=num_heads)
        require_fraction(dropout=dropout)
        self.num_distances = num_distances
        self.num_heads = num_heads
        self.dropout = dropout
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
        names = ("query", "key", "value", "gate")
        self._projections = [self.dense(width, i, name, activation="swish") for i, name in enumerate(names)]
        self._output = self.dense(width, 4, "output")
        for part in (*self._norms, *self._projections, self._output):
            part.build(input_shape[0])
        self._distances = self.add_weight("distances", [self.num_heads, self.num_distances], initializer="zeros")
        super().build(input_shape)

    def _attend(self, asking: tf.Tensor, normed: tf.Tensor, readable: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
        """Return the weights [B, heads, n, length] of the n entries at the positions `at`, [B, n] or [1, n]."""
        query, key = (
            split_heads(project(part), self.num_heads)
            for project, part in zip(self._projections[:2], (asking, normed), strict=True)
        )
        rule = f"Layer {self.name!r} has biases for {self.num_distances} distances; cut longer lists."
        require(normed.shape[1] <= self.num_distances, rule, length=normed.shape[1])
        apart = tf.abs(at[..., tf.newaxis] - tf.range(normed.shape[1]))
        biases = tf.transpose(tf.gather(self._distances, apart, axis=1), [1, 0, 2, 3])
        logits = tf.matmul(query, key, transpose_b=True)
        logits += tf.cast(biases, logits.dtype)
        return tf.where(readable[:, tf.newaxis], tf.nn.silu(logits) / self.num_distances, 0)

    def attention_weights(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Return the weight with which entry i reads entry j, mean over the heads, [B, length, length]."""
        normed, readable = self._norms[0](inputs[0]), inputs[1]
        return tf.reduce_mean(self._attend(normed, normed, readable, _all_of(normed)), axis=1)

    def call(self, inputs: tuple[tf.Tensor, ...], training: bool | None = None) -> tf.Tensor:
        states, readable, *positions = inputs
        normed = asking = self._norms[0](states)
        at = _all_of(normed)
        if positions:
            at = tf.cast(positions[0], tf.int32)[:, tf.newaxis]
            states, asking = (tf.gather(part, at, batch_dims=1) for part in (states, normed))
            readable = readable if readable.shape[1] == 1 else tf.gather(readable, at, batch_dims=1)
        value, gate = self._projections[2](normed), self._projections[3](asking)
        weights = self._attend(asking, normed, readable, at)
        attended = join_heads(tf.matmul(weights, split_heads(value, self.num_heads)))
        states += self._output(self._dropout(self._norms[1](attended) * gate, training=training))
        return states[:, 0] if positions else states

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels, in the protocol of the model-optimization toolkit."""
        return [part.kernel for part in (*self._projections, self._output)]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search dropout."""
        return {"dropout": search_dropout(hp, "gatedattention")}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_distances": self.num_distances,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
        }


def _all_of(states: tf.Tensor) -> tf.Tensor:
    """Return the positions [1, length] of the entries of states [B, length, d]."""
    return tf.range(states.shape[1])[tf.newaxis]
