"""Crop, mask and reorder: augmentation of histories, as in CL4SRec."""

from __future__ import annotations

from typing import Any

from tfmtl._checks import require, require_fraction
from tfmtl._keras import register, tf
from tfmtl.layers.noise.randomness import SeededNoise

_NEARLY = 1e-4  # a product of share and length that is an integer must not be rounded down


@register
class SequenceAugmentation(SeededNoise):
    """Augmentation of CL4SRec: crop, mask or reorder a padded list of ids in some rows of training.

    Use it when histories are few or short and a sequence model overfits them.

    A row is changed with probability `rate`, by one of the operations with a share above 0, drawn uniformly. Of a list
    of n ids, crop keeps n - floor(crop n) consecutive ids from a random position; mask replaces floor(mask n) random
    ids by "unknown"; reorder shuffles floor(reorder n) consecutive ids from a random position. Padding stays at the
    end, and a list that is not empty keeps at least one id.

    Args:
        crop, mask, reorder: shares, each in [0, 1); 0 turns the operation off.
        rate: probability, in (0, 1].
        seed: seed of the draws.
        unknown: the index that replaces masked ids.

    Call arguments:
        inputs: int32 indices [B, length], 0 in padding.

    Returns:
        [B, length]. Cropped and reordered lists have no gaps.

    Raises:
        ValueError: if a share or the rate is out of range.

    Example:
        >>> SequenceAugmentation(crop=0.5)(tf.constant([[7, 8, 9, 0]])).numpy().tolist()
        [[7, 8, 9, 0]]

    Reference:
        Xie et al., "Contrastive Learning for Sequential Recommendation", ICDE 2022, https://arxiv.org/abs/2010.14395,
        section 3.3; our `crop` is their 1 - eta, so that 0 is off. They compare two augmented views of a list; here the
        tasks' own losses read the augmented list instead of the original one.

    Cost: a sort of each list for crop and reorder, two for mask, in training only.
    """

    def __init__(
        self,
        crop: float = 0.0,
        mask: float = 0.0,
        reorder: float = 0.0,
        rate: float = 0.5,
        seed: int = 0,
        unknown: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, **kwargs)
        require_fraction(crop=crop, mask=mask, reorder=reorder)
        require(isinstance(rate, int | float) and 0 < rate <= 1, "`rate` must be a number in (0, 1].", rate=rate)
        self.crop = crop
        self.mask = mask
        self.reorder = reorder
        self.rate = rate
        self.unknown = unknown

    @property
    def idle(self) -> bool:
        """Whether all shares are 0."""
        return not (self.crop or self.mask or self.reorder)

    def disturb(self, inputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        rows, length = tf.shape(inputs)[0], tf.shape(inputs)[1]
        draws = tf.random.stateless_uniform([rows, length + 2], seed)
        choice, start, entries = draws[:, :1], draws[:, 1:2], draws[:, 2:]
        changed = []
        if self.crop:
            changed.append(self._cropped(inputs, start))
        if self.mask:
            changed.append(self._masked(inputs, entries))
        if self.reorder:
            changed.append(self._reordered(inputs, start, entries))
        found = inputs
        for i, other in enumerate(changed):
            low, high = (self.rate * end / len(changed) for end in (i, i + 1))
            found = tf.where((choice >= low) & (choice < high), other, found)
        return found

    def _cropped(self, inputs: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        position, size = _positions(inputs)
        kept = size - _part(self.crop, size)
        stays = _stretch(position, draw, kept, size) & (inputs > 0)
        return _ordered(tf.where(stays, inputs, 0), tf.where(stays, position, _last(inputs)))

    def _masked(self, inputs: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        _, size = _positions(inputs)
        real = inputs > 0
        rank = tf.argsort(tf.argsort(tf.where(real, draws, 2.0), axis=1), axis=1)
        hidden = tf.cast(rank, tf.float32) < _part(self.mask, size)
        return tf.where(real & hidden, self.unknown, inputs)

    def _reordered(self, inputs: tf.Tensor, draw: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        position, size = _positions(inputs)
        part = _part(self.reorder, size)
        first = _first(draw, part, size)
        # Keys of the stretch lie between those of its neighbours, in random order.
        shuffled = tf.where(_stretch(position, draw, part, size), first - 0.5 + part * draws, position)
        return _ordered(inputs, tf.where(inputs > 0, shuffled, _last(inputs)))

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the three shares."""
        return {
            name: hp.Float(f"sequenceaugmentation_{name}", 0.0, 0.6, step=0.2, default=0.0)
            for name in ("crop", "mask", "reorder")
        }

    def get_config(self) -> dict[str, Any]:
        shares = {"crop": self.crop, "mask": self.mask, "reorder": self.reorder}
        return {**super().get_config(), **shares, "rate": self.rate, "unknown": self.unknown}


def _positions(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the position of each id among the ids of its row [B, length], from 0, and their number [B, 1]."""
    count = tf.cumsum(tf.cast(inputs > 0, tf.float32), axis=1)
    return count - 1, count[:, -1:]


def _part(share: float, size: tf.Tensor) -> tf.Tensor:
    return tf.floor(share * size + _NEARLY)


def _first(draw: tf.Tensor, part: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Return the uniformly drawn first position [B, 1] of a stretch of `part` ids."""
    return tf.floor(draw * (size - part + 1))


def _stretch(position: tf.Tensor, draw: tf.Tensor, part: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    first = _first(draw, part, size)
    return (position >= first) & (position < first + part)


def _last(inputs: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.shape(inputs)[1], tf.float32)


def _ordered(inputs: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    return tf.gather(inputs, tf.argsort(keys, axis=1, stable=True), batch_dims=1)
