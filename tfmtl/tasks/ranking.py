"""The base of ranking tasks: one prediction per pair of query and candidate, or per query."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import tensorflow_recommenders as tfrs

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, tf
from tfmtl.tasks.extra_losses import ExtraLoss, extra_losses_of
from tfmtl.tasks.float32 import float32_policy
from tfmtl.tasks.group_loss import GroupLoss
from tfmtl.tasks.task import HeadInputs, LabelSummary, LossInputs, Task, head, total_weight

Scope = Literal["pair", "query"]


class Ranking(Task, abc.ABC):
    """The base of tasks that compare one prediction with one label in each row: binary, regression, multi-class.

    Derive from it if a Keras loss and a linear head describe the task: only `output_units` and `keras_loss` are
    abstract. The loss is a `tfrs.tasks.Ranking`, summed over the observed rows and divided by their weight.

    Args:
        name: name of the task and of its label.
        units: widths of the head's hidden layers.
        scope: `"pair"` connects the head to the trunk's output for query and candidate; `"query"` connects it to the
            query tower alone. Choose `"query"` for labels of the user, such as age: the prediction then cannot depend
            on the candidate.
        extra_losses: further losses of the same output, each with a weight beside that of the task, in training and
            validation: a `GroupLoss` ranks the rows of one user or session among each other, if the task has one
            output; a `ValueLoss` is any loss of Keras between the label and the served value. `evaluate` logs each,
            without its weight, as `<task>_<name of the loss>`. Tasks with the same label column, each with its own
            head, are the form of losses that need different outputs.
    """

    def __init__(
        self,
        name: str,
        units: Sequence[int] = (),
        scope: Scope = "pair",
        extra_losses: Sequence[ExtraLoss | Mapping[str, Any]] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(name, **kwargs)
        for width in units:
            require_positive_int(units=width)
        require(scope in ("pair", "query"), f"`scope` of task {name!r} must be 'pair' or 'query'.", scope=scope)
        self.units = tuple(units)
        self.scope = scope
        self.extra_losses = extra_losses_of(extra_losses, name)
        self._means_of_losses = [keras.metrics.Mean(f"{name}_{loss.name}") for loss in self.extra_losses]
        with float32_policy():
            self._objective = tfrs.tasks.Ranking(loss=self.keras_loss())

    @property
    def uses_trunk(self) -> bool:  # type: ignore[override]
        """Whether the head reads the output of the trunk."""
        return self.scope == "pair"

    @property
    def query_only(self) -> bool:  # type: ignore[override]
        """Whether the head reads the query tower alone."""
        return self.scope == "query"

    @property
    @abc.abstractmethod
    def output_units(self) -> int:
        """Width of the network's output."""

    @abc.abstractmethod
    def keras_loss(self) -> keras.losses.Loss:
        """Return the loss of targets [B, 1] and outputs [B, output_units], summed over the batch."""

    def targets(self, labels: tf.Tensor) -> tf.Tensor:
        """Transform labels [B] without NaN to the scale of the loss."""
        return labels

    def connect(self, encodings: HeadInputs) -> Any:
        """Add hidden layers and a linear output [B, output_units] that starts with `initial_bias`."""
        inputs = encodings.pair[self.name] if self.scope == "pair" else encodings.query
        bias = self.initial_bias(encodings.labels)
        require(
            not self.group_losses or self.output_units == 1,
            f"The `GroupLoss` of task {self.name!r} ranks rows by one number; leave it out for several outputs.",
            outputs=self.output_units,
        )
        return head(inputs, self.units, self.output_units, self.name, encodings.seed, bias)

    def initial_bias(self, labels: Mapping[str, LabelSummary]) -> Sequence[float] | None:
        """Return the initial bias of the linear output [output_units], or None (the default) for zeros.

        With the bias of the best constant, the first predictions are those without features.

        Args:
            labels: summaries of the training labels by task; empty if they are unknown.
        """
        return None

    def compute_loss(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mean loss over the observed rows and their weight."""
        targets = self.targets(known(labels))[:, tf.newaxis]
        outputs = tf.cast(outputs, tf.float32)
        summed = self._objective(targets, outputs, sample_weight=sample_weight, compute_metrics=False)
        total = total_weight(sample_weight)
        return tf.math.divide_no_nan(summed, total), total

    @property
    def group_losses(self) -> tuple[GroupLoss, ...]:
        """The `extra_losses` between rows."""
        return tuple(loss for loss in self.extra_losses if isinstance(loss, GroupLoss))

    def further_losses(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> dict[str, tf.Tensor]:
        """Return the `extra_losses` of a batch by name, scalars without their weights; arguments as in `compute_loss`.

        A `ValueLoss` has the rows of the served value; see `served_weight`.
        """
        found: dict[str, tf.Tensor] = {}
        for loss in self.extra_losses:
            if isinstance(loss, GroupLoss):
                found[loss.name] = loss.of_batch(outputs[:, 0], labels, sample_weight, inputs)
            else:
                weight = self.served_weight(sample_weight, inputs.labels)
                found[loss.name] = loss.of_rows(known(labels), self.predict(outputs), weight)
        return found

    def update_extra_metrics(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> None:
        """Update `extra_metrics` and the means of `extra_losses`, in which each batch has the weight of its rows."""
        super().update_extra_metrics(labels, outputs, sample_weight, inputs)
        if self.extra_losses:
            further = self.further_losses(labels, outputs, sample_weight, inputs)
            served = self.served_weight(sample_weight, inputs.labels)
            for loss, mean in zip(self.extra_losses, self._means_of_losses, strict=True):
                weight = sample_weight if isinstance(loss, GroupLoss) else served
                mean.update_state(further[loss.name], sample_weight=total_weight(weight))

    def distillation_weight(self, labels: tf.Tensor, sample_weight: tf.Tensor) -> tf.Tensor:
        """Return 1 for every row: the teacher also has a prediction where the label is missing."""
        return tf.ones_like(sample_weight)

    def get_config(self) -> dict[str, Any]:
        extra = {"extra_losses": [loss.config() for loss in self.extra_losses]} if self.extra_losses else {}
        return {**super().get_config(), "units": list(self.units), "scope": self.scope, **extra}


def known(labels: tf.Tensor) -> tf.Tensor:
    """Replace missing labels by 0, because NaN times a weight of 0 is NaN, in the loss and in its gradient."""
    return tf.where(tf.math.is_nan(labels), 0.0, labels)
