"""ScoreFusion: the score by which `recommend` orders candidates, from the values of several tasks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_known
from tfmtl._keras import tf
from tfmtl.data import Statistics
from tfmtl.serving.index import Hits

_LARGEST = 1e6  # bound of the weights in a request; larger ones would let scores overflow


@dataclasses.dataclass(frozen=True)
class ScoreFusion:
    """Weighted sum of standardised task values, which orders the candidates of `recommend`.

    score = sum_t w_t (v_t - m_t) / s_t with the served value v_t of task t. For a ranking task m_t and s_t are mean and
    standard deviation of its training labels, so that units do not matter and a task contributes little if
    its predictions vary little; for the retrieval task they are mean and standard deviation of the query's
    dot products over the whole corpus, with several vectors those of all. The score increases with the value of each
    task of positive weight and falls with that of each task of negative weight.

    Attributes:
        weights: w by task name, in the order of the tasks.
        means, deviations: m and s by name of ranking task.
        retrieval: name of the retrieval task.
        chosen: the tasks with a weight that the user gave; the others have the default weight, 1 or -1.

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
    chosen: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        statistics: Statistics,
        retrieval: str,
        weights: Mapping[str, float] | None = None,
        undesired: Collection[str] = (),
    ) -> ScoreFusion:
        """Build the fusion of a model's tasks.

        Args:
            names: names of the tasks with one value per candidate, in the model's order.
            statistics: statistics of the training split.
            retrieval: name of the retrieval task that is served, one of `names`.
            weights: weights by task name, of any sign. A task without one weighs 1, or -1 if it is undesired, as a task
                without a weight does in `FixedWeights`; give 0 to leave a task out.
            undesired: names of the tasks with larger values for worse candidates, see `Label.desired`.

        Raises:
            ValueError: if a weight is not finite or names no task with one value per candidate, or if all weights
                are 0.
        """
        given = dict(weights or {})
        require_known(given, names, "task", "`fusion_weights` (the weights of tasks with one value per candidate)")
        for name, weight in given.items():
            valid = isinstance(weight, int | float) and math.isfinite(weight)
            require(valid, f"The fusion weight of task {name!r} must be a finite number.", weight=weight)
        default = {name: -1.0 if name in undesired else 1.0 for name in names}
        every = {name: float(given.get(name, default[name])) for name in names}
        require(any(every.values()), "At least one fusion weight must differ from 0.", fusion_weights=every)
        labels = {name: statistics.labels[name] for name in names if name != retrieval and name in statistics.labels}
        return cls(
            every,
            {name: label.mean for name, label in labels.items()},
            {name: label.deviation for name, label in labels.items()},
            retrieval,
            tuple(name for name in names if name in given),
        )

    @property
    def defaults(self) -> dict[str, float]:
        """The weights that the user did not give, by task name; none if only one task has a weight."""
        return {n: w for n, w in self.weights.items() if n not in self.chosen} if len(self.weights) > 1 else {}

    def __call__(
        self, values: Mapping[str, tf.Tensor], hits: Hits, weights: Mapping[str, tf.Tensor] | None = None
    ) -> tf.Tensor:
        """Return the fused scores [B, k].

        Args:
            values: served values [B, k] by task name.
            hits: result of the retrieval of the same candidates.
            weights: float32 [B] by task name, or None for the exported weights; NaN and infinity mean the exported
                one, and other weights are clipped to [-1e6, 1e6].
        """
        standard = self.standardize(values, hits)
        total = tf.zeros_like(hits.scores)
        for name, default in self.weights.items():
            total += (default if weights is None else _given(weights[name], default)[:, tf.newaxis]) * standard[name]
        return total

    def standardize(self, values: Mapping[str, tf.Tensor], hits: Hits) -> dict[str, tf.Tensor]:
        """Return (v_t - m_t) / s_t [B, k] by name of each task with a weight.

        Args:
            values, hits: as of a call.
        """
        return {name: self._standardize(name, values[name], hits) for name in self.weights}

    def _standardize(self, name: str, value: tf.Tensor, hits: Hits) -> tf.Tensor:
        if name == self.retrieval:
            return tf.math.divide_no_nan(value - hits.mean, hits.deviation)
        return (value - self.means.get(name, 0.0)) / self.deviations.get(name, 1.0)

    def describe(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return dataclasses.asdict(self)


def _given(weight: tf.Tensor, default: float) -> tf.Tensor:
    return tf.where(tf.math.is_finite(weight), tf.clip_by_value(weight, -_LARGEST, _LARGEST), default)
