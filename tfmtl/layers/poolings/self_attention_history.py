"""SASRec: a history of ids to one vector by causal self-attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_fraction, require_positive_int
from tfmtl._keras import keras, register, seed_of, spawn, tf
from tfmtl.layers.dense_stack import search_dropout
from tfmtl.layers.kernels import SeededArguments, SeededKernels
from tfmtl.layers.noise.randomness import Dropout
from tfmtl.layers.poolings.gated_attention import GatedAttention
from tfmtl.layers.poolings.prefixes import no_later
from tfmtl.layers.poolings.self_attention import SelfAttention
from tfmtl.types import Column


@register
class SelfAttentionHistory(SeededKernels):
    """SASRec: the state of a causal transformer at the most recent item of a list.

    Use it when the order of a history matters, such as for the next item of a session.

    x_j = e_j + p_j, j = 0 the most recent position; `num_blocks` times x = SelfAttention(x), where an item reads itself
    and older items, positions j and above; y = norm(x at the first position that is not padding). With `relative` a
    bias per distance replaces p_j. The state after an item then does not depend on later items, so that `prefixes`
    computes the states after all items at once, and `tfmtl.data.Sequences` can train the network.

    Args:
        num_blocks: number of blocks, one after the other.
        num_heads: heads of each; must divide the embeddings' width d.
        dropout: rate on the embeddings and inside the blocks, in [0, 1).
        relative: whether the blocks have a learned bias per distance instead of positions.
        gated: whether the blocks are those of HSTU, `GatedAttention`; only with `relative`.
        kernel_initializer: initializer of the kernels.
        seed: seed of the initial values and of dropout.

    Call arguments:
        inputs: pair (embeddings [B, length, d], indices [B, length]), most recent first; index 0 is padding. The first
            call decides the longest length.

    Returns:
        [B, d]; zeros for an empty list.

    Raises:
        ValueError: if lists are longer than in the first call or of no fixed length, or `num_heads` does not divide d;
            from `prefixes` unless the layer is `relative`.

    Example:
        >>> SelfAttentionHistory(num_heads=2)((tf.ones([1, 3, 4]), tf.constant([[5, 1, 0]]))).shape
        TensorShape([1, 4])

    Reference:
        Kang, McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, https://arxiv.org/abs/1808.09781, section
        3. There lists end with the most recent item; here they begin with it, so that positions count backwards from
        the present. A last layer norm follows the blocks, and the network's own tasks replace the loss on the next item
        at every position.

    Cost: that of `num_blocks` blocks, of which the last one computes the most recent entry alone, except in `prefixes`.
    """

    def __init__(
        self,
        num_blocks: int = 2,
        num_heads: int = 1,
        dropout: float = 0.0,
        relative: bool = False,
        gated: bool = False,
        **kwargs: Unpack[SeededArguments],
    ) -> None:
        super().__init__(**kwargs)
        require_positive_int(num_blocks=num_blocks, num_heads=num_heads)
        require_fraction(dropout=dropout)
        self.num_blocks = num_blocks
        self.num_heads = num_heads
        self.dropout = dropout
        require(
            relative or not gated, "`gated` blocks have a bias per distance; set `relative=True`.", relative=relative
        )
        self.relative = relative
        self.gated = gated
        self._dropout = Dropout(dropout, self.seed, dtype=self.dtype_policy)
        self._norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm", dtype=self.dtype_policy)

    def _block(self, index: int, length: int) -> SelfAttention | GatedAttention:
        name = f"block_{index}"
        kind, distances = (GatedAttention, length) if self.gated else (SelfAttention, length if self.relative else 0)
        return kind(
            num_heads=self.num_heads, dropout=self.dropout, num_distances=distances,
            kernel_initializer=self.initializer(index * kind.num_kernels), seed=seed_of(name, self.seed),
            name=name, dtype=self.dtype_policy,
        )  # fmt: skip

    def build(self, input_shape: Any) -> None:
        """Create the blocks and, unless they are relative, the positions [length, d]."""
        _, length, width = input_shape[0]
        require(length is not None, f"Layer {self.name!r} learns a vector per position; give the lists a fixed length.")
        self._longest = length
        self._blocks = [self._block(i, length) for i in range(self.num_blocks)]
        if not self.relative:
            positions = spawn(keras.initializers.RandomUniform(-0.05, 0.05), 0, seed_of("positions", self.seed))
            self._positions = self.add_weight("positions", [length, width], initializer=positions)
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        mask = inputs[1] > 0
        states, readable = self._start(inputs, training)
        for block in self._blocks[:-1]:
            states = block((states, readable), training=training)
        latest = tf.argmax(tf.cast(mask, tf.int32), axis=1)
        own = mask[:, tf.newaxis]  # the latest entry reads all others, which are older
        state = self._norm(self._blocks[-1]((states, own, latest), training=training))
        return tf.where(tf.reduce_any(mask, axis=1, keepdims=True), state, 0)

    def prefixes(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Return the state after each item [B, length, d]; see `ReadsPrefixes`."""
        require(self.relative, f"Layer {self.name!r} gives the state after each item only with relative=True.")
        states, readable = self._start(inputs, training, newest_first=False)
        for block in self._blocks:
            states = block((states, readable), training=training)
        latest = tf.reduce_max(tf.where(readable, tf.range(states.shape[1]), -1), axis=2)
        width = states.shape[-1]
        rows = tf.reshape(states, [-1, width])  # the norm was built for single states
        normed = tf.reshape(self._norm(rows), tf.shape(states))
        return tf.where(latest[..., tf.newaxis] >= 0, tf.gather(normed, tf.maximum(latest, 0), batch_dims=1), 0)

    def attention_weights(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Return the weight with which the most recent item reads each position in the last block, [B, length]."""
        states, readable = self._start(inputs, False)
        for block in self._blocks[:-1]:
            states = block((states, readable))
        return _most_recent(self._blocks[-1].attention_weights((states, readable)), inputs[1] > 0)

    def _start(
        self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool | None, newest_first: bool = True
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the blocks' input [B, length, d], zeros in padding, and the readable entries [B, length, length]."""
        embeddings, indices = inputs
        longest, length = self._longest, embeddings.shape[1]
        require(
            length is not None and length <= longest,
            f"Layer {self.name!r} has positions for {longest} entries; cut longer lists, most recent first.",
            length=length,
        )
        mask = indices > 0
        if not self.relative:
            embeddings += tf.cast(self._positions[:length], embeddings.dtype)  # for calls from `attention_weights`
        states = self._dropout(embeddings, training=training)
        older = tf.transpose(no_later(length)) if newest_first else no_later(length)
        return tf.where(mask[..., tf.newaxis], states, 0), mask[:, tf.newaxis] & older

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return the columns of the embeddings; see `tfmtl.types.HasColumnSources`."""
        return inputs[0]

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels, in the protocol of the model-optimization toolkit."""
        return [kernel for block in self._blocks for kernel in block.get_prunable_weights()]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search depth and dropout."""
        return {
            "num_blocks": hp.Int("selfattentionhistory_blocks", 1, 3, default=2),
            "dropout": search_dropout(hp, "selfattentionhistory"),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_blocks": self.num_blocks,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "relative": self.relative,
            "gated": self.gated,
        }


def _most_recent(states: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return the states [B, d] of [B, length, d] at the first position of each row where the mask is true."""
    return tf.gather(states, tf.argmax(tf.cast(mask, tf.int32), axis=1), batch_dims=1)
