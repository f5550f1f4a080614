"""ScoreFusion: several tasks' values of a candidate to the one score that orders a recommendation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_known
from tfmtl._keras import tf
from tfmtl.data import Statistics
from tfmtl.serving.index import Hits

_LARGEST = 1e6  # of a request's weights; beyond, scores would overflow


@dataclasses.dataclass(frozen=True)
class ScoreFusion:
    """A weighted sum of standardised task values.

    score = sum_t w_t (v_t - m_t) / s_t with the served value v_t of task t. For a ranking task m_t and s_t are mean and
    standard deviation of its training labels, so that a task moves the score as far as it can tell candidates apart;
    for the retrieval task they are those of the query's scores over the whole corpus. The score grows with each task's
    value.

    Attributes:
        weights: w by task name, 0 or more; its order is that of the tasks.
        means, deviations: m and s by name of ranking task.
        retrieval: name of the retrieval task.

    Example:
        >>> fusion = ScoreFusion({"rating": 1.0}, {"rating": 3.0}, {"rating": 0.5}, "seen")
        >>> blank = tf.zeros([1, 1])
        >>> float(fusion({"rating": tf.constant([[4.0]])}, Hits(blank, blank, blank, blank, blank))[0, 0])
        2.0
    """

    weights: Mapping[str, float]
    means: Mapping[str, float]
    deviations: Mapping[str, float]
    retrieval: str

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        statistics: Statistics,
        retrieval: str,
        weights: Mapping[str, float] | None = None,
    ) -> ScoreFusion:
        """Build the fusion of a model's tasks.

        Args:
            names: the tasks with one value a candidate, in the model's order.
            statistics: of the training split.
            retrieval: name of the retrieval task that is served, one of `names`.
            weights: by task name; a task left out weighs 0. By default every task weighs 1.

        Raises:
            ValueError: if a weight is negative, not finite or names no task with one value a candidate, or all are 0.
        """
        given = dict.fromkeys(names, 1.0) if weights is None else weights
        require_known(given, names, "task", "`fusion_weights` (it weighs tasks with one value a candidate)")
        for name, weight in given.items():
            valid = isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0
            require(valid, f"The fusion weight of task {name!r} must be a number of 0 or more.", weight=weight)
        require(any(given.values()), "At least one fusion weight must be above 0.", fusion_weights=dict(given))
        labels = {name: statistics.labels[name] for name in names if name != retrieval and name in statistics.labels}
        return cls(
            {name: float(given.get(name, 0.0)) for name in names},
            {name: label.mean for name, label in labels.items()},
            {name: label.deviation for name, label in labels.items()},
            retrieval,
        )

    def __call__(
        self, values: Mapping[str, tf.Tensor], hits: Hits, weights: Mapping[str, tf.Tensor] | None = None
    ) -> tf.Tensor:
        """Return the fused scores [B, k].

        Args:
            values: served values [B, k] by task name.
            hits: what retrieval said about the same candidates.
            weights: [B] by task name; a NaN or infinity takes the default, a negative weight counts as 0, one
                above a million as a million.
        """
        total = tf.zeros_like(hits.scores)
        for name, default in self.weights.items():
            standard = self._standardize(name, values[name], hits)
            total += (default if weights is None else _given(weights[name], default)[:, tf.newaxis]) * standard
        return total

    def _standardize(self, name: str, value: tf.Tensor, hits: Hits) -> tf.Tensor:
        if name == self.retrieval:
            return tf.math.divide_no_nan(value - hits.mean, hits.deviation)
        return (value - self.means.get(name, 0.0)) / self.deviations.get(name, 1.0)

    def describe(self) -> dict[str, Any]:
        """Return the weights and the standardisation as plain values."""
        return dataclasses.asdict(self)


def _given(weight: tf.Tensor, default: float) -> tf.Tensor:
    return tf.where(tf.math.is_finite(weight), tf.clip_by_value(weight, 0.0, _LARGEST), default)
