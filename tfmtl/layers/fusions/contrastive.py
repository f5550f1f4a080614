"""Contrastive fusion: a fusion with a loss by which the modalities of one row are encoded alike."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_known, require_positive_int, require_type
from tfmtl._keras import keras, register, tf
from tfmtl._trusted import deserialize
from tfmtl.layers.fusions.base import Fusion
from tfmtl.layers.kernels import LayerArguments

_NEVER = -1e9
"""Logit of rows that are no negatives of each other."""


@register
class ContrastiveFusion(Fusion):
    """Contrastive fusion: a fusion, and in training an InfoNCE loss between the encodings of single modalities.

    Use it around the fusion of a role where a modality is missing or uninformative at serving, such as the id of a new
    item: `fusion={"candidate": ContrastiveFusion(DecisionFusion({"id": ["item"], "content": ["text", "image"]}))}`. An
    item with its content alone is then drawn to the encoding of its id. Compare it with weight 0 on your data: an id
    outside the vocabulary counts as present, and on films of MovieLens-1M without a training row a weight of 0.1
    lowered the recall (one epoch, one seed). The network and its export are those of the fusion alone.

    z_m is the fusion of a row of which modality m alone is present. For each pair (a, b) of modalities
    l = -1 / (2 n) sum_i [log softmax_j(cos(z_a,i, z_b,j) / t)_i + log softmax_j(cos(z_b,i, z_a,j) / t)_i], where i runs
    over the n rows that have both modalities, and j over i and those of these rows that differ from i in both. Rows of
    one item are thus no negatives of each other. The network's penalties have `weight` times the mean of l over the
    pairs more. If a `Retrieval` draws negatives from the corpus, or has a full softmax, the rows are these candidates.

    Args:
        fusion: such as `DecisionFusion({"id": ["item"], "content": ["text"]})`.
        pairs: pairs of names of modalities, such as `[("id", "content")]`; all pairs by default.
        weight: of the loss; 0 for the fusion alone.
        temperature: t; above 0. A lower one separates similar items more.
        block: greatest number of rows that are negatives of each other; longer batches are cut into blocks.
        **kwargs: arguments of Keras layers.

    Call arguments and result: those of `fusion`.

    Raises:
        ValueError: if an argument is out of range, or the fusion lacks a modality of a pair or has one modality only.
        TypeError: if `fusion` is no fusion.

    Example:
        >>> from tfmtl.layers import ConcatFusion
        >>> fusion = ContrastiveFusion(ConcatFusion({"image": ["pixels"], "text": ["title"]}, units=4))
        >>> vectors = {"image": tf.random.stateless_normal([3, 5], [0, 1]), "text": tf.eye(3)}
        >>> inputs = vectors, {"image": tf.ones([3]), "text": tf.ones([3])}
        >>> fusion(inputs, training=True).shape, len(fusion.losses), float(fusion.losses[0]) > 0
        (TensorShape([3, 4]), 1, True)

    Reference:
        Wei et al., "Contrastive Learning for Cold-Start Recommendation", MM 2021, https://arxiv.org/abs/2107.05315,
        its loss between the embedding of an item and its content; and the symmetric loss of Radford et al., "Learning
        Transferable Visual Models From Natural Language Supervision", ICML 2021, https://arxiv.org/abs/2103.00020,
        figure 3. There each modality has an encoder; here it is the fusion with the learned vectors of the other
        modalities, so that the loss trains the vectors that are served. The temperature is fixed. Noise on encodings,
        such as `embedding_dropout`, makes rows of one item differ, and thus negatives. On several replicas each one
        contrasts its own rows.

    Cost: a fusion per modality and 4 B `block` units multiplications per pair and training step; none otherwise.
    """

    def __init__(
        self,
        fusion: Fusion,
        pairs: Sequence[Sequence[str]] | None = None,
        weight: float = 0.1,
        temperature: float = 0.2,
        block: int = 1024,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        cure = 'Pass an instance such as DecisionFusion({"content": ["text"]}).'
        require_type(fusion, Fusion, "fusion", cure)
        kernels = {
            "kernel_initializer": fusion.kernel_initializer, "kernel_regularizer": fusion.kernel_regularizer,
            "seed": fusion.seed,
        }  # fmt: skip
        super().__init__(fusion.groups, fusion.units, fusion.modality_dropout, **kernels, **kwargs)
        _check_pairs(pairs)
        require(weight >= 0, "`weight` must be 0 or more.", weight=weight)
        require(temperature > 0, "`temperature` must be above 0.", temperature=temperature)
        require_positive_int(block=block)
        require(block > 1, "`block` must be 2 or more, since a single row has no negatives.", block=block)
        self.fusion = fusion
        self.pairs = None if pairs is None else [list(pair) for pair in pairs]
        self.weight = weight
        self.temperature = temperature
        self.block = block

    def build(self, input_shape: Any) -> None:
        """Find the pairs of modalities; all weights are those of `fusion`."""
        keras.layers.Layer.build(self, input_shape)
        self.modalities = self.modalities_of(input_shape[0])
        pairs = (
            [list(pair) for pair in itertools.combinations(self.modalities, 2)] if self.pairs is None else self.pairs
        )
        require_known([m for pair in pairs for m in pair], self.modalities, "modality", f"the pairs of {self.name!r}")
        require(bool(pairs), f"Fusion {self.name!r} contrasts two or more modalities.", modalities=self.modalities)
        self._contrasted = pairs

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        fused: tf.Tensor = self.fusion(inputs, training=training)
        if training and self.weight:
            self.add_loss(self.weight * self._contrast(inputs))
        return fused

    def fuse(self, vectors: Sequence[tf.Tensor], present: tf.Tensor) -> tf.Tensor:
        """Return the encoding [B, units] of the fusion."""
        return self.fusion.fuse(vectors, present)

    def complete(self, inputs: Any, training: bool | None = None) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return the arguments of `fuse` by the fusion, with its learned vectors."""
        return self.fusion.complete(inputs, training)

    def _contrast(self, inputs: Any) -> tf.Tensor:
        """Return the mean of l over the pairs."""
        vectors, presence = inputs
        names = sorted({modality for pair in self._contrasted for modality in pair})
        present = {name: self._in_blocks(presence[name] > 0) for name in names}
        keys = {name: self._in_blocks(_keys_of_rows(vectors[name])) for name in names}
        alone = {name: self._in_blocks(self._alone(inputs, name)) for name in names}
        equal = {name: key[:, :, tf.newaxis] == key[:, tf.newaxis] for name, key in keys.items()}
        losses = []
        for a, b in self._contrasted:
            cosines = tf.matmul(alone[a], alone[b], transpose_b=True)
            losses.append(info_nce(cosines / self.temperature, present[a] & present[b], equal[a] | equal[b]))
        return tf.add_n(losses) / len(losses)

    def _in_blocks(self, rows: tf.Tensor) -> tf.Tensor:
        """Return rows [B, ...] in k blocks of at most `block` rows [k, s, ...], padded by zeros; row i in i mod k."""
        number = tf.shape(rows)[0]
        blocks = tf.maximum(-(-number // self.block), 1)
        size = -(-number // blocks)
        missing = [[0, blocks * size - number], *[[0, 0]] * (rows.shape.rank - 1)]
        padded = tf.pad(rows, missing, constant_values=tf.zeros([], rows.dtype))
        shaped = tf.reshape(padded, tf.concat([[size, blocks], tf.shape(rows)[1:]], axis=0))
        return tf.transpose(shaped, [1, 0, *range(2, shaped.shape.rank)])

    def _alone(self, inputs: Any, name: str) -> tf.Tensor:
        """Return z of a modality, of length 1, float32 [B, units]."""
        vectors, presence = inputs
        only = {m: x if m == name else tf.zeros_like(x) for m, x in presence.items()}
        encoded = self.fusion.fuse(*self.fusion.complete((vectors, only), training=False))
        return tf.nn.l2_normalize(tf.cast(encoded, tf.float32), axis=1)

    def with_modality_dropout(self, rate: float) -> ContrastiveFusion:
        """Return an unbuilt copy around a fusion with this `modality_dropout`."""
        fusion = self.fusion.with_modality_dropout(rate)
        config = keras.layers.Layer.get_config(self)
        return type(self)(fusion, self.pairs, self.weight, self.temperature, self.block, **config)

    @property
    def modality_weights(self) -> Any:
        """The method of the fusion for the weights of the modalities."""
        return self.fusion.modality_weights

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the weight of the loss and its temperature."""
        return {
            "weight": hp.Choice("contrastivefusion_weight", [0.0, 0.01, 0.03, 0.1, 0.3], default=0.1),
            "temperature": hp.Choice("contrastivefusion_temperature", [0.1, 0.2, 0.5], default=0.2),
        }

    def get_config(self) -> dict[str, Any]:
        fusion = keras.saving.serialize_keras_object(self.fusion)
        own = {"fusion": fusion, "pairs": self.pairs, "weight": self.weight, "temperature": self.temperature}
        return {**keras.layers.Layer.get_config(self), **own, "block": self.block}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ContrastiveFusion:
        """Make the fusion first."""
        fusion = deserialize(keras.saving.deserialize_keras_object, config["fusion"], "ContrastiveFusion")
        return cls(**{**config, "fusion": fusion})


def info_nce(logits: tf.Tensor, used: tf.Tensor, equal: tf.Tensor) -> tf.Tensor:
    """Return the symmetric InfoNCE loss of the pairs (i, i), the mean over the used rows and both directions.

    Args:
        logits: [..., B, B].
        used: bool [..., B], the rows that have both encodings.
        equal: bool [..., B, B], the rows that are no negatives of each other.

    Returns:
        A scalar; 0 if no row has a negative.

    Example:
        >>> logits, every = tf.constant([[2.0, 0.0], [0.0, 2.0]]), tf.constant([True, True])
        >>> round(float(info_nce(logits, every, tf.eye(2) > 0)), 3)  # log(1 + exp(-2))
        0.127
    """
    read = tf.eye(tf.shape(logits)[-1], dtype=tf.bool) | (used[..., tf.newaxis, :] & ~equal)
    positive = tf.linalg.diag_part(logits)
    losses = [
        tf.reduce_logsumexp(tf.where(read, scores, _NEVER), axis=-1) - positive
        for scores in (logits, tf.linalg.matrix_transpose(logits))
    ]
    of_rows = tf.where(used, tf.add_n(losses) / 2, 0)
    return tf.math.divide_no_nan(tf.reduce_sum(of_rows), tf.reduce_sum(tf.cast(used, tf.float32)))


def _keys_of_rows(vectors: tf.Tensor) -> tf.Tensor:
    """Return a 64-bit sum of the bits of each row of [B, d], by which rows are compared in B^2 instead of B^2 d steps.

    Equal rows have the same sum, two others with a probability of at most 2^-32.
    """
    bits = tf.cast(tf.bitcast(tf.cast(vectors, tf.float32) + 0.0, tf.int32), tf.int64)  # + 0 makes -0 the same as 0
    factors = tf.random.stateless_uniform([bits.shape[1]], [17, 41], None, None, tf.int64)
    return tf.reduce_sum(bits * tf.bitwise.bitwise_or(factors, 1), axis=1)


def _check_pairs(pairs: Any) -> None:
    if pairs is None:
        return
    rule = "`pairs` must hold pairs of two modalities, each once, such as [('id', 'content')]."
    valid = isinstance(pairs, Sequence) and all(isinstance(p, Sequence) and not isinstance(p, str) for p in pairs)
    require(valid and bool(pairs), rule, pairs=pairs)
    distinct = {frozenset(pair) for pair in pairs}
    require(all(len(pair) == len({*pair}) == 2 for pair in pairs) and len(distinct) == len(pairs), rule, pairs=pairs)
