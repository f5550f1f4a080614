"""Multi-class classification."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_fraction
from tfmtl._keras import keras, register, tf
from tfmtl.tasks.constants import class_frequencies
from tfmtl.tasks.label_metrics import multiclass_metrics
from tfmtl.tasks.pools import MeanDistribution
from tfmtl.tasks.ranking import Ranking, Scope, known
from tfmtl.tasks.stackers import Stacker, multinomial_logistic
from tfmtl.tasks.task import LabelSummary, LossInputs, mean_over_observed


@register
class MultiClassClassification(Ranking):
    """Multi-class classification by softmax cross-entropy: one of several classes, such as an age group.

    Use it for labels without an order; for two classes `BinaryClassification` has half the outputs.

    l = -log softmax(z)_y; the served value is softmax(z). With `label_smoothing` s the training loss is (1 - s) l plus
    s times the mean of -log softmax(z)_k over the K classes: the best softmax(z)_y of a row that is always y is then
    1 - s + s / K. Losses and metrics of validation use l itself.

    Args:
        name: name of the task and of its label, which holds integers from 0 (see `Label.classes` for names).
        num_classes: number of classes, at least 2.
        units: widths of the head's hidden layers.
        scope: `"pair"` or `"query"`.
        label_smoothing: s, in [0, 1). Above 0 the served probabilities are not calibrated: they are drawn towards 1/K.

    Example:
        >>> MultiClassClassification("age", num_classes=4).predict(tf.zeros([1, 4])).numpy().tolist()
        [[0.25, 0.25, 0.25, 0.25]]

    Reference:
        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
        https://arxiv.org/abs/1512.00567, section 7: label smoothing.
    """

    pool = MeanDistribution

    def __init__(
        self,
        name: str,
        num_classes: int,
        units: Sequence[int] = (),
        scope: Scope = "pair",
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, units, scope, **kwargs)
        require(
            isinstance(num_classes, int) and num_classes >= 2,
            f"`num_classes` of task {name!r} must be an integer above 1.",
            num_classes=num_classes,
        )
        require_fraction(label_smoothing=label_smoothing)
        self.num_classes = num_classes
        self.label_smoothing = float(label_smoothing)
        self._metrics_by_name = {
            "accuracy": keras.metrics.SparseCategoricalAccuracy(name=f"{name}_accuracy"),
            "log_loss": keras.metrics.SparseCategoricalCrossentropy(name=f"{name}_log_loss", from_logits=True),
        }

    def check_labels(self, statistics: LabelSummary) -> None:
        """Raise unless the training labels are class numbers and at least two classes occur."""
        labels = sorted(statistics.frequencies) or [statistics.minimum, statistics.maximum]
        require(
            labels[0] >= 0 and labels[-1] < self.num_classes and all(float(label).is_integer() for label in labels),
            f"Task {self.name!r} needs integer labels from 0 to {self.num_classes - 1}; "
            "see `Label.classes` for others.",
            labels=labels[:5],
        )
        require(len(labels) > 1, f"Every training label of task {self.name!r} is the same class.", label=labels[0])

    @property
    def label_rule(self) -> str:  # type: ignore[override]
        """The class numbers."""
        return f"integers from 0 to {self.num_classes - 1} (see `Label.classes` for others)"

    def usable_labels(self, labels: tf.Tensor) -> tf.Tensor:
        """Return whether each label is the number of a class."""
        return tf.equal(labels, tf.floor(labels)) & (labels >= 0) & (labels < self.num_classes)

    @property
    def output_units(self) -> int:
        """One logit per class."""
        return self.num_classes

    def initial_bias(self, labels: Mapping[str, LabelSummary]) -> Sequence[float] | None:
        """Return the log of each class's share of the training labels; a class without labels counts half a label."""
        if self.name not in labels or not labels[self.name].frequencies:
            return None
        own = labels[self.name]
        shares = [own.frequencies.get(float(c), 0.0) for c in range(self.num_classes)]
        return [math.log(max(share, 0.5 / own.count)) for share in shares]

    def keras_loss(self) -> keras.losses.Loss:
        """Return cross-entropy from logits."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=keras.losses.Reduction.SUM)

    def compute_loss(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mean loss over the observed rows and their weight."""
        loss, total = super().compute_loss(labels, outputs, sample_weight, inputs)
        if not (self.label_smoothing and inputs.training):
            return loss, total
        by_class = -tf.nn.log_softmax(tf.cast(outputs, tf.float32))
        uniform, _ = mean_over_observed(tf.reduce_mean(by_class, axis=1), sample_weight)
        return (1 - self.label_smoothing) * loss + self.label_smoothing * uniform, total

    def predict(self, outputs: Any) -> tf.Tensor:
        """Return probabilities [B, num_classes]."""
        return tf.nn.softmax(outputs)

    def calibrated(self, outputs: Any, change: Callable[[Any], Any]) -> Any:
        """Return the changed logits."""
        return change(outputs)

    def update_metrics(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs | None = None
    ) -> None:
        """Update accuracy and log loss."""
        for metric in self._metrics_by_name.values():
            metric.update_state(known(labels)[:, tf.newaxis], outputs, sample_weight=sample_weight)

    def distillation_loss(
        self, outputs: Any, teacher_outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs, temperature: float
    ) -> tf.Tensor:
        """Return T^2 KL(softmax(teacher / T) || softmax(student / T))."""
        teacher = tf.nn.log_softmax(teacher_outputs / temperature)
        student = tf.nn.log_softmax(outputs / temperature)
        divergence = tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=1)
        return temperature**2 * mean_over_observed(divergence, sample_weight)[0]

    def report(self, labels: np.ndarray, predictions: Any, weights: np.ndarray) -> dict[str, float]:
        """Return `multiclass_metrics` of the served probabilities."""
        return multiclass_metrics(labels, predictions, weights)

    def constant_prediction(self, labels: np.ndarray, weights: np.ndarray, rows: int) -> np.ndarray:
        """Return the share of each class [rows, num_classes]."""
        return np.tile(class_frequencies(labels, self.num_classes, weights), (rows, 1))

    def stacker(self, strength: float) -> Stacker | None:
        """Return multinomial logistic regression."""
        return multinomial_logistic(self.name, self.num_classes, strength)

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the label smoothing; tasks share one value unless each has its own name scope of `hp`."""
        return {"label_smoothing": hp.Float("label_smoothing", 0.0, 0.2, step=0.05, default=0.0)}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes, "label_smoothing": self.label_smoothing}
