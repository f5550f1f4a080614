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

    The output is joined to the encoding of the pair.

    Ids match by their index in the vocabulary. A missing id never matches, and neither does an id outside of the
    vocabulary, because all of these share one index: the items of training that are too rare for it (`min_count`,
    `max_size`) and items that came later count as never bought. The history is cut to its `max_length`, and counts
    with it. It must be free of the row's own event, as `with_histories` makes it.

    Args:
        history: an `IdSequence` of the candidate's ids, most recent first.

    Call arguments:
        inputs: pair (the candidate's index [B], the history's indices [B, length]); 0 is missing or padding, 1 unknown.

    Returns:
        [B, 4].

    Raises:
        ValueError: by `build_network`, if `history` holds no ids of a candidate feature.

    Example:
        >>> match = HistoryMatch("recent")
        >>> match((tf.constant([5, 3]), tf.constant([[7, 5, 5, 0], [7, 5, 5, 0]]))).numpy().round(2).tolist()
        [[1.0, 1.1, 0.67, 0.5], [0.0, 0.0, 0.0, 0.0]]

    Cost: length comparisons.
    """

    def __init__(self, history: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(isinstance(history, str) and bool(history), "`history` must be the name of a feature.", history=history)
        self.history = history

    def connect(self, pair: Any, features: FeatureEncodings) -> Any:
        # Not `join`: no parameter is behind these numbers, so that they are no representation that tasks share.
        return keras.layers.Concatenate(name=f"{self.name}_pair")([pair, self(features.index_target(self.history))])

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        candidate, history = inputs
        real = history > 0
        equal = (history == candidate[:, tf.newaxis]) & (candidate >= FIRST)[:, tf.newaxis]  # [B, length]
        count = _count(equal)
        # The entries before the first equal one: a row without one counts all its entries, and `found` hides that.
        later = _count(real & tf.equal(tf.cumsum(tf.cast(equal, tf.int32), axis=1), 0))
        found = tf.cast(count > 0, tf.float32)
        share = tf.math.divide_no_nan(count, _count(real))
        return tf.cast(tf.stack([found, tf.math.log1p(count), share, found / (1 + later)], axis=1), self.compute_dtype)

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return new columns, one per output column; see `tfmtl.types.HasColumnSources`."""
        return own

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "history": self.history}


def _count(where: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(where, tf.float32), axis=1)
