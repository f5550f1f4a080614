"""CL4SRec: a pooling of histories with a contrastive loss between two changed views of each history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tfmtl._checks import require, require_type
from tfmtl._identity import UNKNOWN
from tfmtl._keras import keras, register, tf
from tfmtl._trusted import deserialize
from tfmtl.layers.noise.randomness import SeededNoise
from tfmtl.layers.noise.sequence_augmentation import SequenceAugmentation
from tfmtl.types import Column


@register
class ContrastivePooling(SeededNoise):
    """CL4SRec: a pooling, and in training a loss by which two views of a history are nearer than those of two rows.

    Use it around a pooling of histories, `poolings={"recent": ContrastivePooling(SelfAttentionHistory())}`, where
    labels are few. The network and its export are those of the pooling alone.

    l = -1 / (2 n) sum_i log( exp(s_i,p(i) / t) / sum_{j != i} exp(s_ij / t) ) over the 2 n views z of the n rows with a
    list that is not empty, with s_ij = cos(z_i, z_j) and p(i) the other view of i's row. Each view is the pooling of
    the list after one of crop, mask and reorder; see `SequenceAugmentation`. Masked entries have a learned vector. Rows
    with equal lists are no negatives of each other. The network's penalties have `weight` l more.

    Args:
        pooling: layer such as `SelfAttentionHistory()`.
        weight: of the loss; 0 for the pooling alone.
        temperature: t; above 0.
        crop, mask, reorder: shares of `SequenceAugmentation`, one of them above 0.
        seed: seed of the draws.

    Call arguments:
        inputs: pair (embeddings [B, length, d], indices [B, length]); index 0 is padding.

    Returns:
        The output of the pooling.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if `pooling` is no layer.

    Example:
        >>> from tfmtl.layers import MaskedMean
        >>> layer = ContrastivePooling(MaskedMean())
        >>> inputs = tf.random.stateless_normal([2, 3, 4], [0, 1]), tf.constant([[5, 1, 0], [2, 3, 4]])
        >>> layer(inputs, training=True).shape, len(layer.losses), float(layer.losses[0]) > 0
        (TensorShape([2, 4]), 1, True)

    Reference:
        Xie et al., "Contrastive Learning for Sequential Recommendation", ICDE 2022, https://arxiv.org/abs/2010.14395,
        equations 3 to 5. Scores are cosines divided by a temperature here, as in SimCLR, instead of dot products. Rows
        of one user with different lists are negatives of each other; large batches make them rare. Over
        `tfmtl.data.Sequences` a row is a whole sequence, as in the paper; batches of some hundred sequences have more
        negatives. On several replicas each one contrasts its own rows.

    Cost: two more poolings and 4 B^2 d multiplications per training step; none otherwise.
    """

    def __init__(
        self,
        pooling: Any,
        weight: float = 0.1,
        temperature: float = 0.5,
        crop: float = 0.4,
        mask: float = 0.3,
        reorder: float = 0.4,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, **kwargs)
        require_type(pooling, keras.layers.Layer, "pooling", "Pass an instance such as SelfAttentionHistory().")
        require(weight >= 0, "`weight` must be 0 or more.", weight=weight)
        require(temperature > 0, "`temperature` must be above 0.", temperature=temperature)
        self.pooling = pooling
        self.weight = weight
        self.temperature = temperature
        self.crop = crop
        self.mask = mask
        self.reorder = reorder
        changes = not self._augmentation(1).idle
        require(changes, "One of `crop`, `mask` and `reorder` must be above 0.", crop=crop, mask=mask, reorder=reorder)

    @property
    def idle(self) -> bool:
        """Whether there is no loss."""
        return self.weight == 0

    def build(self, input_shape: Any) -> None:
        """Create the vector of masked entries [d]."""
        self._masked = self.add_weight("masked", [int(input_shape[0][-1])], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        if training and not self.idle:
            self.add_loss(self.weight * self._contrast(inputs))
        return self.pooling(inputs)

    def disturb(self, inputs: Any, seed: tf.Tensor) -> Any:
        """Return a view of the lists: a pair like the inputs of a call."""
        embeddings, indices = inputs
        length = embeddings.shape[1]
        entries = tf.where(indices > 0, tf.range(1, length + 1), 0)  # 0 for padding, length + 1 for a masked entry
        chosen = self._augmentation(length + 1).disturb(entries, seed)
        masked = tf.cast(tf.broadcast_to(self._masked, tf.shape(embeddings[:, :1])), embeddings.dtype)
        rows = tf.concat([tf.zeros_like(masked), embeddings, masked], axis=1)
        ids = tf.concat([tf.zeros_like(indices[:, :1]), indices, tf.fill(tf.shape(indices[:, :1]), UNKNOWN)], axis=1)
        return tf.gather(rows, chosen, batch_dims=1), tf.gather(ids, chosen, batch_dims=1)

    def _augmentation(self, unknown: int) -> SequenceAugmentation:
        return SequenceAugmentation(self.crop, self.mask, self.reorder, rate=1.0, unknown=unknown)

    def _contrast(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Return l."""
        seeds = tf.unstack(tf.random.experimental.stateless_split(self.next_seed(), 2))
        views = [self.pooling(self.disturb(inputs, seed)) for seed in seeds]
        filled = tf.reduce_any(inputs[1] > 0, axis=1)
        rows = tf.where(filled)[:, 0]
        vectors = [tf.nn.l2_normalize(tf.gather(tf.cast(view, tf.float32), rows), axis=1) for view in views]
        lists, count = tf.gather(inputs[1], rows), tf.shape(rows)[0]
        equal = tf.reduce_all(lists[:, tf.newaxis] == lists, axis=2)
        vector = tf.concat(vectors, axis=0)
        logits = tf.matmul(vector, vector, transpose_b=True) / self.temperature
        other = tf.roll(tf.eye(2 * count), count, axis=1) > 0
        used = other | ~tf.tile(equal, [2, 2])
        of_rows = tf.reduce_logsumexp(tf.where(used, logits, -1e9), axis=1) - tf.boolean_mask(logits, other)
        return tf.math.divide_no_nan(tf.reduce_sum(of_rows), tf.cast(2 * count, tf.float32))

    @property
    def prefixes(self) -> Callable[..., tf.Tensor]:
        """The method of the pooling for all prefixes of a list, with the loss of the lists; see `ReadsPrefixes`."""
        own: Callable[..., tf.Tensor] = self.pooling.prefixes

        def prefixes(inputs: tuple[tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
            if training and not self.idle:
                self.add_loss(self.weight * self._contrast(_newest_first(inputs)))
            return own(inputs, training=training)

        return prefixes

    @property
    def attention_weights(self) -> Callable[..., tf.Tensor]:
        """The method of the pooling for the weights of the entries."""
        found: Callable[..., tf.Tensor] = self.pooling.attention_weights
        return found

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return the columns of the pooling; see `tfmtl.types.HasColumnSources`."""
        found: Sequence[Column] = self.pooling.column_sources(inputs, own)
        return found

    def get_prunable_weights(self) -> list[tf.Variable]:
        """Return the kernels of the pooling, in the protocol of the model-optimization toolkit."""
        kernels = getattr(self.pooling, "get_prunable_weights", list)
        return list(kernels())

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the weight of the loss."""
        return {"weight": hp.Choice("contrastivepooling_weight", [0.0, 0.01, 0.03, 0.1, 0.3], default=0.1)}

    def get_config(self) -> dict[str, Any]:
        shares = {"crop": self.crop, "mask": self.mask, "reorder": self.reorder}
        pooling = keras.saving.serialize_keras_object(self.pooling)
        own = {"pooling": pooling, "weight": self.weight, "temperature": self.temperature}
        return {**super().get_config(), **own, **shares}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ContrastivePooling:
        """Make the pooling first."""
        pooling = deserialize(keras.saving.deserialize_keras_object, config["pooling"], "ContrastivePooling")
        return cls(**{**config, "pooling": pooling})


def _newest_first(inputs: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return lists, oldest first and with padding anywhere, as a call reads them: padding at the end."""
    embeddings, indices = (tf.reverse(part, [1]) for part in inputs)
    order = tf.argsort(tf.cast(indices == 0, tf.int32), axis=1, stable=True)
    return tf.gather(embeddings, order, batch_dims=1), tf.gather(indices, order, batch_dims=1)
