"""The base of tasks with binary labels, and the functions by which one event follows another."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_known
from tfmtl._keras import keras, tf
from tfmtl.tasks.constants import prior_probability
from tfmtl.tasks.label_metrics import binary_metrics
from tfmtl.tasks.pools import MeanProbability
from tfmtl.tasks.ranking import Ranking, Scope, known
from tfmtl.tasks.task import HeadInputs, LabelSummary, LossInputs, mean_over_observed


class BinaryTask(Ranking, abc.ABC):
    """The base of tasks with a label that is 0 or 1.

    Derive from it if the probability of the event is not simply the sigmoid of the network's output; otherwise use
    `BinaryClassification`.

    l = -y log p - (1 - y) log(1 - p) with p = sigma(z). Subclasses compute z from the network's output in
    `event_logit`.

    Args:
        name: name of the task and of its label.
        units: widths of the head's hidden layers.
        scope: `"pair"` or `"query"`.
    """

    pool = MeanProbability
    label_rule = "0 or 1"

    def __init__(self, name: str, units: Sequence[int] = (), scope: Scope = "pair", **kwargs: Any) -> None:
        super().__init__(name, units, scope, **kwargs)
        self._metrics_by_name = {
            "auc": keras.metrics.AUC(name=f"{name}_auc", from_logits=True),
            "log_loss": keras.metrics.BinaryCrossentropy(name=f"{name}_log_loss", from_logits=True),
        }

    def check_labels(self, statistics: LabelSummary) -> None:
        """Raise unless the training labels are 0 and 1 and both occur."""
        labels = sorted(statistics.frequencies) or [statistics.minimum, statistics.maximum]
        require(
            labels == [0, 1], f"Binary task {self.name!r} needs training labels 0 and 1, and both.", labels=labels[:5]
        )

    def usable_labels(self, labels: tf.Tensor) -> tf.Tensor:
        """Return whether each label is 0 or 1."""
        return tf.equal(labels, 0) | tf.equal(labels, 1)

    @property
    def output_units(self) -> int:
        """One logit."""
        return 1

    def keras_loss(self) -> keras.losses.Loss:
        """Return cross-entropy from logits."""
        return keras.losses.BinaryCrossentropy(from_logits=True, reduction=keras.losses.Reduction.SUM)

    def initial_bias(self, labels: Mapping[str, LabelSummary]) -> Sequence[float] | None:
        """Return the log-odds of the training labels, so that the first probabilities are the observed rate."""
        return log_odds(labels[self.name].mean) if self.name in labels else None

    @abc.abstractmethod
    def event_logit(self, outputs: Any) -> Any:
        """Return z [B, 1]."""

    def served_logit(self, outputs: Any) -> tf.Tensor:
        """Return the logit [B, 1] of the probability that is served."""
        return self.event_logit(outputs)

    def compute_loss(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mean cross-entropy over the observed rows and their weight."""
        return super().compute_loss(labels, self.event_logit(outputs), sample_weight, inputs)

    def predict(self, outputs: Any) -> tf.Tensor:
        """Return probabilities [B]."""
        return tf.sigmoid(self.served_logit(outputs)[:, 0])

    def calibrated(self, outputs: Any, change: Callable[[Any], Any]) -> Any:
        """Return the outputs with another first column, the logit of the served probability."""
        logit = change(self.served_logit(outputs))
        return logit if outputs.shape[-1] == 1 else tf.concat([logit, outputs[:, 1:]], axis=1)

    def update_metrics(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs | None = None
    ) -> None:
        """Update AUC and log loss of p."""
        for metric in self._metrics_by_name.values():
            metric.update_state(known(labels)[:, tf.newaxis], self.event_logit(outputs), sample_weight=sample_weight)

    def report(self, labels: np.ndarray, predictions: Any, weights: np.ndarray) -> dict[str, float]:
        """Return `binary_metrics` of the served probabilities."""
        return binary_metrics(labels, predictions, weights)

    def constant_prediction(self, labels: np.ndarray, weights: np.ndarray, rows: int) -> np.ndarray:
        """Return the share of positives [rows]."""
        return np.full(rows, prior_probability(labels, weights))

    def distillation_loss(
        self, outputs: Any, teacher_outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs, temperature: float
    ) -> tf.Tensor:
        """Return T^2 KL(teacher || student) of the served probabilities, with both logits divided by T."""
        teacher, student = (self.served_logit(x)[:, 0] / temperature for x in (teacher_outputs, outputs))
        soft = tf.sigmoid(teacher)
        cross = tf.nn.sigmoid_cross_entropy_with_logits(labels=soft, logits=student)
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=soft, logits=teacher)
        return temperature**2 * mean_over_observed(cross - entropy, sample_weight)[0]


def beside_parent(outputs: Any, encodings: HeadInputs, task: str, after: str, constant: bool = False) -> Any:
    """Append the logit of the preceding event to a head's output [B, n] as one more column.

    Args:
        outputs: the head's output.
        encodings: the inputs of the head, which hold the logit of the preceding event.
        task: name of the task.
        after: name of the task of the preceding event.
        constant: whether to stop the gradient towards that task.
    """
    known_events = list(encodings.logits)
    require(after in known_events, f"Task {task!r} comes after {after!r}, which is no event.", events=known_events)
    join = keras.layers.Concatenate(name=f"{task}_after_{after}", dtype="float32")
    logit = encodings.logits[after]
    return join([outputs, tf.stop_gradient(logit) if constant else logit])


def log_odds(rate: float) -> list[float] | None:
    """Return [log(rate / (1 - rate))], or None unless the rate lies between 0 and 1.

    Example:
        >>> log_odds(0.5), log_odds(0.0)
        ([0.0], None)
    """
    return [math.log(rate / (1 - rate))] if 0 < rate < 1 else None


def share_with_parent(labels: Mapping[str, LabelSummary], task: str, after: str) -> float | None:
    """Return the share of a task's labels with the preceding event, or None if it is unknown.

    It is 1 if the labels of the other rows are missing.
    """
    if task not in labels or after not in labels:
        return None
    share = labels[after].mean * labels[after].count / labels[task].count
    return min(share, 1.0) if share > 0 else None


def given_parent(weight: tf.Tensor, labels: Mapping[str, tf.Tensor], after: str) -> tf.Tensor:
    """Return weights [B] with 0 where the label of the preceding event is missing or 0.

    Example:
        >>> labels = {"click": tf.constant([1.0, 0.0, float("nan")])}
        >>> given_parent(tf.fill([3], 2.0), labels, "click").numpy().tolist()
        [2.0, 0.0, 0.0]
    """
    require_known([after], labels, "label", "the batch")
    return tf.where(labels[after] > 0, weight, 0.0)


def joint_logit(first: Any, second: Any) -> Any:
    """Return the logit of sigma(a) sigma(b), [B, 1] like a and b.

    It is -log(e^-a + e^-b + e^(-a-b)), since 1 / (sigma(a) sigma(b)) = (1 + e^-a)(1 + e^-b). No term is subtracted
    from 1, so that value and gradient are finite for any finite a and b.

    Example:
        >>> round(float(tf.sigmoid(joint_logit(tf.constant([[0.0]]), tf.constant([[0.0]])))[0, 0]), 4)
        0.25
    """
    exponents = tf.concat([-first, -second, -first - second], axis=1)
    return -tf.reduce_logsumexp(exponents, axis=1, keepdims=True)
