"""HistoryMatch: whether, how often and how recently the candidate is in a history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require
from tfmtl._identity import FIRST
from tfmtl._keras import keras, register, tf
from tfmtl.layers.interactions.base import Interaction
from tfmtl.layers.trunks.base import FeatureEncodings
from tfmtl.types import Column


@register
class HistoryMatch(Interaction):
    """Features of "bought before": whether, how often and how recently the candidate is in the query's history.

    Use it where people buy, play or visit the same items again: a network that pools embeddings cannot tell an item of
    the history from a similar one. It has no weights, so that every trunk and balancer can use it, and `rank` and
    `recommend` compute it from the history in the request.

    With n real entries j = 0, 1, ..., the most recent first, of which c equal the candidate, the first of these m:

        y = (1 if c > 0, log(1 + c), c / n, 1 / (1 + m) if c > 0), and 0 where n or c is 0

    With `ages` follow the encoded age of the candidate's last event, by default log(1 + age), and 1 if it has none.
    The output is joined to the encoding of the pair.

    Ids match by their index in the vocabulary. A missing id never matches, and neither does an id outside of the
    vocabulary, because all of these share one index: the items of training that are too rare for it (`min_count`,
    `max_size`) and items that came later count as never bought. The history is cut to its `max_length`, and counts
    with it. It must be free of the row's own event, as `with_histories` makes it.

    Args:
        history: an `IdSequence` of the candidate's ids, most recent first.
        ages: a `NumericSequence` of this history with the age of each event, or None.

    Call arguments:
        inputs: the candidate's index [B], the history's indices [B, length] and, with `ages`, their encoding
            [B, 2 length + 1]; the index 0 is missing or padding, 1 unknown.

    Returns:
        [B, 4], or [B, 6] with `ages`.

    Raises:
        ValueError: by `build_network`, if `history` holds no ids of a candidate feature, or `ages` has another length.

    Example:
        >>> match = HistoryMatch("recent")
        >>> found = match((tf.constant([5, 3]), tf.constant([[7, 5, 5, 0], [7, 5, 5, 0]])))
        >>> [[round(float(value), 2) for value in row] for row in found]
        [[1.0, 1.1, 0.67, 0.5], [0.0, 0.0, 0.0, 0.0]]

    Cost: length comparisons.
    """

    def __init__(self, history: str, ages: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(isinstance(history, str) and bool(history), "`history` must be the name of a feature.", history=history)
        known = ages is None or (isinstance(ages, str) and bool(ages))
        require(known, "`ages` must be the name of a feature, or None.", ages=ages)
        self.history = history
        self.ages = ages

    def connect(self, pair: Any, features: FeatureEncodings) -> Any:
        # Not `join`: no parameter is behind these numbers, so that they are no representation that tasks share.
        ages = [] if self.ages is None else [features.encode([self.ages])]
        read = (*features.index_target(self.history), *ages)
        return keras.layers.Concatenate(name=f"{self.name}_pair")([pair, self(read)])

    def build(self, input_shape: Any) -> None:
        """Raise `ValueError` if the ages do not belong to the history, position by position."""
        if self.ages is not None:
            length, width = int(input_shape[1][-1]), int(input_shape[2][-1])
            require(
                width == 2 * length + 1,
                f"`ages` must name a `NumericSequence` of {self.history!r}, with its length {length}; feature "
                f"{self.ages!r} is another one.",
                width=width,
            )
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        candidate, history, *ages = inputs
        real = history > 0
        equal = (history == candidate[:, tf.newaxis]) & (candidate >= FIRST)[:, tf.newaxis]  # [B, length]
        count = _count(equal)
        # The entries before the first equal one: a row without one counts all its entries, and `found` hides that.
        seen = tf.cumsum(tf.cast(equal, tf.int32), axis=1)
        later = _count(real & tf.equal(seen, 0))
        found = tf.cast(count > 0, tf.float32)
        share = tf.math.divide_no_nan(count, _count(real))
        columns = [found, tf.math.log1p(count), share, found / (1 + later)]
        if ages:
            pairs = tf.reshape(tf.cast(ages[0][:, :-1], tf.float32), [-1, history.shape[1], 2])
            last = tf.cast(equal & tf.equal(seen, 1), tf.float32)  # [B, length], 1 at the candidate's last event
            age, missing = tf.unstack(tf.reduce_sum(last[..., tf.newaxis] * pairs, axis=1), num=2, axis=1)
            columns += [age, missing + 1 - found]
        return tf.cast(tf.stack(columns, axis=1), self.compute_dtype)

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return new columns, one per output column; see `tfmtl.types.HasColumnSources`."""
        return own

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "history": self.history, "ages": self.ages}


def _count(where: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(where, tf.float32), axis=1)
