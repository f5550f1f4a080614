"""ContextualWeights: weights of `recommend` that a linear policy chooses from the embedding of the query."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl.serving.slice_weights import with_request
from tfmtl.types import Features


@dataclasses.dataclass(frozen=True)
class ContextualWeights:
    """Fusion weights that a linear policy chooses from the query embedding, for `export(fusion_weights=...)`.

    Use it for weights that depend on more than one feature, such as those of `recipes.contextual_weights`:

        a(x) = argmax_a c_a0 + sum_j c_aj x_j

    with the embedding x [d] of the query, as in `embed_query`, with K vectors [K d]. A query has the weights of choice
    a(x), the first of equal ones. In a request, a finite `weight_<task>` of `recommend_filtered` takes precedence: send
    those of a drawn choice, and log the choice with its probability, to learn the next policy.

    Attributes:
        choices: weights by task name of each of the A choices; a task without one has its default weight. Larger
            weights are clipped to [-1e6, 1e6].
        coefficients: c [A, d + 1].

    Example:
        >>> policy = ContextualWeights([{"rating": 0.0}, {"rating": 2.0}], [[0.0, 1.0], [0.5, -1.0]])
        >>> policy.weights
        {'rating': 0.0}
    """

    choices: Sequence[Mapping[str, float]]
    coefficients: Sequence[Sequence[float]]

    @property
    def weights(self) -> Mapping[str, float]:
        """The weights of the first choice."""
        return self.choices[0] if self.choices else {}


class ContextTable:
    """The choices and the policy over them.

    Args:
        given: the policy.
        width: number d of values in an embedding.
        complete: returns the weights of all tasks, given those of some.

    Raises:
        ValueError: if there are fewer than two choices, or the coefficients have another shape or are not finite.

    Cost: a product of the embeddings [B, d] with a matrix [d, A].
    """

    def __init__(
        self, given: ContextualWeights, width: int, complete: Callable[[Mapping[str, float]], Mapping[str, float]]
    ) -> None:
        several = len(given.choices) > 1
        require(several, "`ContextualWeights.choices` must hold at least two choices.", choices=given.choices)
        shape = (len(given.choices), width + 1)
        found = np.asarray(given.coefficients, np.float32)
        rule = f"`ContextualWeights.coefficients` must have the shape {shape}: a row per choice, 1 + {width} values."
        require(found.shape == shape, rule, shape=found.shape)
        require(bool(np.isfinite(found).all()), "`ContextualWeights.coefficients` must be finite.", found=found)
        self.choices = [dict(complete(weights)) for weights in given.choices]
        self._coefficients = found
        self._rows = np.asarray([list(weights.values()) for weights in self.choices], np.float32)

    def __call__(
        self, encoded: Features, embedding: tf.Tensor, request: Mapping[str, tf.Tensor] | None
    ) -> dict[str, tf.Tensor]:
        """Return the weights [B] of queries by name of task.

        Args:
            encoded: ignored.
            embedding: [B, d] or [B, K, d / K].
            request: weights of the request [B] by name of task, or None; NaN and infinity mean those of the policy.
        """
        flat = tf.reshape(tf.cast(embedding, tf.float32), [tf.shape(embedding)[0], self._coefficients.shape[1] - 1])
        values = tf.matmul(flat, self._coefficients[:, 1:], transpose_b=True) + self._coefficients[:, 0]
        rows = tf.gather(self._rows, tf.argmax(values, axis=1))
        return with_request(dict(zip(self.choices[0], tf.unstack(rows, axis=1), strict=True)), request)

    def describe(self) -> dict[str, Any]:
        """Return the choices and the coefficients as plain values."""
        coefficients = [[float(value) for value in row] for row in self._coefficients]
        return {"fusion_policy": {"choices": self.choices, "coefficients": coefficients}}
