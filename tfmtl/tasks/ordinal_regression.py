"""Regression of ordered levels, such as stars, by thresholds of one score."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras, register, tf
from tfmtl.tasks.number_metrics import level_metrics
from tfmtl.tasks.number_task import NumberTask
from tfmtl.tasks.ordered_thresholds import OrderedThresholds
from tfmtl.tasks.pools import MeanProbability
from tfmtl.tasks.ranking import Scope
from tfmtl.tasks.row_loss import RowLoss
from tfmtl.tasks.task import HeadInputs, LabelSummary, LossInputs, head, mean_over_observed


@register
class OrdinalRegression(NumberTask):
    """CORAL, consistent rank logits: ordered levels, such as stars, as events "above level k" of one score.

    Use it for ratings: unlike a regression it learns the distances between levels, and unlike
    `MultiClassClassification` it has their order and a served number.

    z_k = g + b_k is the logit of P(y > level_k), k = 1, ..., K - 1, with one score g and thresholds b_1 >= ... >=
    b_(K-1), which are decreasing by construction, so that the probabilities are consistent. l = mean over k of
    BCE([y > level_k], sigma(z_k)); the served value is the expected level, level_1 + sum_k (level_(k+1) - level_k)
    sigma(z_k).

    Metrics: `rmse` and `mae` of the served value. A report adds `r2`, `xauc`, and `accuracy` and `kappa`, Cohen's kappa
    with quadratic weights, of the level nearest to the served value.

    Args:
        name, units, scope: see `Regression`.
        levels: the labels, ascending, at least two; such as [1, 2, 3, 4, 5], or half-stars. Distances may differ.

    Returns:
        Network output: the logits z [B, K - 1]. An ensemble averages their probabilities.

    Example:
        >>> task = OrdinalRegression("stars", levels=[1, 2, 4])
        >>> [float(x) for x in task.predict(tf.constant([[0.0, -100.0], [0.0, 0.0]]))]
        [1.5, 2.5]

    Reference: Cao, Mirjalili, Raschka, "Rank Consistent Ordinal Regression for Neural Networks with Application to Age
    Estimation", Pattern Recognition Letters 2020, https://arxiv.org/abs/1901.07884. The paper sums over k,
    and its thresholds are free: they are ordered at the minimum.

    Cost: that of `Regression`, with K - 1 further weights.
    """

    pool = MeanProbability

    def __init__(
        self, name: str, levels: Sequence[float], units: Sequence[int] = (), scope: Scope = "pair", **kwargs: Any
    ) -> None:
        super().__init__(name, units, scope, **kwargs)
        require(
            len(levels) >= 2 and all(low < high for low, high in itertools.pairwise(levels)),
            f"`levels` of task {name!r} must be at least two ascending numbers.",
            levels=levels,
        )
        self.levels = tuple(float(level) for level in levels)

    @property
    def label_rule(self) -> str:  # type: ignore[override]
        """The levels."""
        return f"one of {list(self.levels)}"

    def usable_labels(self, labels: tf.Tensor) -> tf.Tensor:
        """Return whether each label is a level."""
        return tf.reduce_any(tf.equal(labels[..., tf.newaxis], tf.constant(self.levels, tf.float32)), axis=-1)

    def check_labels(self, statistics: LabelSummary) -> None:
        """Raise if a training label is no level, or all are equal."""
        labels = sorted(statistics.frequencies) or [statistics.minimum, statistics.maximum]
        known = np.asarray(self.levels, np.float32)
        wrong = [label for label in labels if not np.isin(np.float32(label), known)]
        require(
            not wrong and bool(statistics.frequencies),
            f"Task {self.name!r} needs labels that are {self.label_rule}.",
            labels=wrong[:5] or "more than 1,000 values",
        )
        super().check_labels(statistics)

    def connect(self, encodings: HeadInputs) -> Any:
        """Add hidden layers, the score [B, 1] and its thresholds; return the logits [B, K - 1]."""
        inputs = encodings.pair[self.name] if self.scope == "pair" else encodings.query
        score = head(inputs, self.units, 1, self.name, encodings.seed)
        start = self.initial_bias(encodings.labels)
        return OrderedThresholds(len(self.levels) - 1, start, name=f"{self.name}_thresholds")(score)

    def initial_bias(self, labels: Mapping[str, LabelSummary]) -> Sequence[float] | None:
        """Return the log-odds of the training labels above each level; a rate of 0 or 1 counts half a label."""
        own = labels.get(self.name)
        if own is None or not own.frequencies:
            return None
        shares = [sum(share for label, share in own.frequencies.items() if label > level) for level in self.levels[:-1]]
        return [math.log(p / (1 - p)) for p in np.clip(shares, 0.5 / own.count, 1 - 0.5 / own.count).tolist()]

    def keras_loss(self) -> keras.losses.Loss:
        """Return the mean cross-entropy of the events "above level k"."""
        return RowLoss(self._row_losses)

    def _row_losses(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        above = tf.cast(targets[:, tf.newaxis] > tf.constant(self.levels[:-1], tf.float32), tf.float32)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=above, logits=outputs), axis=1)

    def predict(self, outputs: Any) -> tf.Tensor:
        """Return the expected levels [B]."""
        steps = tf.constant(np.diff(self.levels), tf.float32)
        return self.levels[0] + tf.reduce_sum(steps * tf.sigmoid(outputs), axis=1)

    def report(self, labels: np.ndarray, predictions: Any, weights: np.ndarray) -> dict[str, float]:
        """Return `regression_metrics`, and accuracy and weighted kappa of the nearest level."""
        return {
            **super().report(labels, predictions, weights),
            **level_metrics(labels, predictions, weights, self.levels),
        }

    def distillation_loss(
        self, outputs: Any, teacher_outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs, temperature: float
    ) -> tf.Tensor:
        """Return the mean over k of T^2 KL(teacher || student) of the events, with all logits divided by T."""
        teacher, student = teacher_outputs / temperature, outputs / temperature
        soft = tf.sigmoid(teacher)
        cross = tf.nn.sigmoid_cross_entropy_with_logits(labels=soft, logits=student)
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=soft, logits=teacher)
        return temperature**2 * mean_over_observed(tf.reduce_mean(cross - entropy, axis=1), sample_weight)[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "levels": list(self.levels)}
