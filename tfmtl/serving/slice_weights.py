"""SliceWeights: weights of `recommend` that depend on a feature of the query."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfmtl._checks import require, require_known
from tfmtl._identity import FIRST
from tfmtl._keras import tf
from tfmtl.data import Categorical, Preprocessor
from tfmtl.types import Features


@dataclasses.dataclass(frozen=True)
class SliceWeights:
    """Fusion weights by value of a categorical query feature, for `export(fusion_weights=...)`.

    Use it if groups of queries need other orders, such as `by_slice` of the result of `recipes.fusion_weights`. In a
    request, a finite `weight_<task>` of `recommend_filtered` takes precedence.

    Attributes:
        by: name of a `Categorical` query feature.
        slices: weights by value of the feature and name of task; a task without one has the weight of `weights`. Larger
            weights are clipped to [-1e6, 1e6].
        weights: weights by name of task for all other values; see `ScoreFusion.of`.

    Example:
        >>> SliceWeights("country", {"at": {"rating": 0.5}}, {"seen": 1.0, "rating": 2.0}).slices["at"]
        {'rating': 0.5}
    """

    by: str
    slices: Mapping[Any, Mapping[str, float]]
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)


class SliceTable:
    """The weights of a model's tasks by encoded value of a feature.

    Args:
        given: the weights.
        preprocessor: it encodes the values.
        complete: returns the weights of all tasks, given those of some.

    Raises:
        ValueError: if the feature is no `Categorical` one of the query, there is no slice, or a value is unknown.

    Cost: a binary search per query.
    """

    def __init__(
        self,
        given: SliceWeights,
        preprocessor: Preprocessor,
        complete: Callable[[Mapping[str, float]], Mapping[str, float]],
    ) -> None:
        query = {feature.name: feature for feature in preprocessor.schema.query}
        require_known([given.by], query, "query feature", "`SliceWeights.by`")
        valid = isinstance(query[given.by], Categorical)
        require(valid, "`SliceWeights.by` must name a Categorical query feature.", by=given.by)
        require(bool(given.slices), "`SliceWeights.slices` must hold at least one value.", slices=given.slices)
        self.by = given.by
        self.weights = {value: dict(complete({**given.weights, **weights})) for value, weights in given.slices.items()}
        index = preprocessor({self.by: tf.constant([*self.weights], query[self.by].raw_spec.dtype)})[self.by].numpy()
        unknown = [value for value, number in zip(self.weights, index, strict=True) if number < FIRST]
        require(not unknown, f"The values of `SliceWeights.slices` must be known ones of {self.by!r}.", values=unknown)
        order = np.argsort(index)
        rows = [list(weights.values()) for weights in self.weights.values()]
        other = complete(given.weights)
        self._names = list(other)
        self._index = index[order].astype(np.int32)
        self._rows = np.asarray([*(rows[i] for i in order), list(other.values())], np.float32)

    def __call__(
        self, encoded: Features, embedding: tf.Tensor, request: Mapping[str, tf.Tensor] | None
    ) -> dict[str, tf.Tensor]:
        """Return the weights [B] of queries by name of task.

        Args:
            encoded: encoded features of the query by name.
            embedding: ignored.
            request: weights of the request [B] by name of task, or None; NaN and infinity mean those of the slice.
        """
        values = tf.cast(encoded[self.by], tf.int32)
        number = tf.searchsorted(self._index, values)
        same = tf.equal(tf.gather([*self._index.tolist(), -1], number), values)
        rows = tf.gather(self._rows, tf.where(same, number, len(self._index)))
        return with_request(dict(zip(self._names, tf.unstack(rows, axis=1), strict=True)), request)

    def describe(self) -> dict[str, Any]:
        """Return the feature and the weights as plain values."""
        slices = {str(value): weights for value, weights in self.weights.items()}
        return {"fusion_slices": {"by": self.by, "slices": slices}}


def with_request(own: dict[str, tf.Tensor], request: Mapping[str, tf.Tensor] | None) -> dict[str, tf.Tensor]:
    """Return weights [B] by task: the finite ones of a request, and otherwise `own`."""
    if request is None:
        return own
    return {name: tf.where(tf.math.is_finite(request[name]), request[name], own[name]) for name in own}
