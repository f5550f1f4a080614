"""The base of every task: a head in the network, a loss over the observed labels, metrics and the served value."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from tfmtl._checks import require_known, require_type
from tfmtl._keras import keras, seed_of, spawn, tf
from tfmtl._names import require_task_name
from tfmtl._replicas import mean_over_replicas
from tfmtl._trusted import deserialize
from tfmtl.tasks.constants import weighted_mean
from tfmtl.tasks.extra_metrics import arranged
from tfmtl.tasks.label_metrics import regression_metrics
from tfmtl.tasks.loss_inputs import CandidateIds
from tfmtl.tasks.loss_inputs import LossInputs as LossInputs
from tfmtl.tasks.pools import MeanValue, Pool
from tfmtl.tasks.stackers import Stacker
from tfmtl.types import Features


class LabelSummary(Protocol):
    """The part of `tfmtl.data.LabelStatistics` that tasks read."""

    @property
    def count(self) -> int:
        """Number of observed labels."""

    @property
    def mean(self) -> float:
        """Mean of the labels."""

    @property
    def deviation(self) -> float:
        """Standard deviation of the labels."""

    @property
    def log_mean(self) -> float:
        """Mean of log(1 + label)."""

    @property
    def log_deviation(self) -> float:
        """Standard deviation of log(1 + label)."""

    @property
    def minimum(self) -> float:
        """Smallest label."""

    @property
    def maximum(self) -> float:
        """Largest label."""

    @property
    def frequencies(self) -> Mapping[float, float]:
        """Share of each label value; empty if there are too many values."""


@runtime_checkable
class LabelSummaries(Protocol):
    """The part of `tfmtl.data.Statistics` that tasks read."""

    @property
    def labels(self) -> Mapping[str, LabelSummary]:
        """Summary of the labels by task."""


def summary_of(name: str, statistics: LabelSummaries | LabelSummary) -> LabelSummary:
    """Return the summary of a task's label; raise `ValueError` if the statistics of a table hold none."""
    if not isinstance(statistics, LabelSummaries):
        return statistics
    require_known([name], statistics.labels, "task", "the labels of the statistics")
    return statistics.labels[name]


@dataclasses.dataclass(frozen=True)
class HeadInputs:
    """The inputs of a task's head, as symbolic Keras tensors of a network under construction.

    Attributes:
        query: output of the query tower [B, d].
        candidate: output of the candidate tower [B, d], or None without candidate features.
        pair: output of the trunk by task, [B, units].
        seed: seed of the network's initial values.
        logits: `Task.event_logit` of the tasks that are already connected, by task, [B, 1].
        labels: summaries of the training labels by task, from which heads take their initial biases.
        bins: returns `NumberBins` [B, 1] of a numeric feature: its name, ascending edges in the unit of its column, and
            the name of the layer; None if training mixes rows, which then have no bin.
    """

    query: Any
    candidate: Any
    pair: Mapping[str, Any]
    seed: int = 0
    logits: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, LabelSummary] = dataclasses.field(default_factory=dict)
    bins: Callable[[str, Sequence[float], str], Any] | None = None


class Task(keras.layers.Layer, abc.ABC):
    """The base of all tasks: one label to predict, with its head, loss, metrics and served value.

    Derive from it directly for a new kind of label or loss; `Ranking` needs less code if a Keras loss exists.
    Subclasses implement `connect` and `compute_loss`, and usually `predict` and `get_config`. Every other method is a
    hook with a default, through which evaluation, ensembling, compression and serving treat the task.

    `connect` adds the head to the functional network as plain Keras layers, so that cloning, pruning and slicing the
    network do not depend on tasks. The task object holds the rest: the loss, the metrics and their state.

    Args:
        name: name of the task and of its label in the schema.
        extra_metrics: metrics of served values, computed in evaluation only, such as those of `tfmtl.evaluation` and
            of Keras; their names in the log are `<task>_<metric>`. The model refuses a metric of Keras that does not
            measure the kind of value that the task serves.
    """

    uses_trunk: ClassVar[bool] = True
    """Whether the head reads the output of the trunk for the pair of query and candidate."""

    kendall_factor: ClassVar[float] = 1.0
    """Factor of exp(-s) L in uncertainty weighting: 1 for classification, 1/2 for a Gaussian likelihood."""

    needs_label: ClassVar[bool] = True
    """Whether the schema must have a label for the task. If not, and without a label, every row is a positive."""

    depends_on: tuple[str, ...] = ()
    """Names of the tasks that are connected before this one, because its head reads their logits."""

    num_extra_negatives: int = 0
    """Number of candidates, drawn by `negative_shares` from the corpus, that the loss needs in every training step."""

    query_only: bool = False
    """Whether the served value depends on the query alone; serving then returns one value per query."""

    retrieves: ClassVar[bool] = False
    """Whether the task ranks the corpus, by dot products of its output {"query": [B, K d], "candidate": [B, d]}."""

    pool: ClassVar[type[Pool]] = MeanValue
    """The layer by which an ensemble combines its members' outputs of the task; by default their weighted mean."""

    needs_corpus: bool = False
    """Whether the loss needs the whole corpus as negatives, in training and in evaluation."""

    label_rule: str = "numbers"
    """The labels that the loss can use, as the end of the sentence "labels that are ..."; see `usable_labels`."""

    def __init__(self, name: str, extra_metrics: Sequence[Any] = (), **kwargs: Any) -> None:
        require_task_name("name", name)
        super().__init__(name=name, **kwargs)
        for metric in extra_metrics:
            require_type(
                metric, keras.metrics.Metric, "extra_metrics", "Pass an instance such as GroupedAUC('user_id')."
            )
        self.extra_metrics = list(extra_metrics)

    def check_labels(self, statistics: LabelSummary) -> None:
        """Raise `ValueError` if the training labels are unsuitable; called once by the model, a no-op by default."""

    def usable_labels(self, labels: tf.Tensor) -> tf.Tensor:
        """Return whether the loss can use each label, bool of the shape of `labels`; the model refuses the others."""
        return tf.ones_like(labels, tf.bool)  # all of them

    def limit_counts(self, total: float) -> None:
        """Cap the accumulated counts at `total`; a no-op by default."""

    def prepare(self, num_indices: int) -> None:
        """Create state that depends on the number of encoded ids of candidates; called once by the model."""

    def prepare_output(self, output: Any) -> None:
        """Create state that depends on the shape of the network's output; called by the model after `prepare`."""

    def negative_shares(self, ids: CandidateIds) -> tf.Tensor | None:
        """Return the probabilities [C] with which the candidates of the corpus are drawn; None: uniform (default)."""
        return None

    @abc.abstractmethod
    def connect(self, encodings: HeadInputs) -> Any:
        """Add the task's head to the network under construction and return its symbolic output."""

    @abc.abstractmethod
    def compute_loss(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the mean loss over the observed rows and the weight of those rows.

        Args:
            labels: [B], NaN where missing.
            outputs: the network's output for the task.
            sample_weight: [B], 0 where the label is missing.
            inputs: further inputs, such as the features.

        Returns:
            Two scalars: sum_i w_i l_i / W, or 0 without an observed row, and W = sum_i w_i. Compute both with
            `mean_over_observed`: under a distribution strategy W is the mean of the replicas' weights, so that the mean
            of the replicas' losses is the loss of the whole batch.
        """

    def event_logit(self, outputs: Any) -> Any:
        """Return the logit [B, 1] of P(label = 1), or None (the default) if the label is not an event.

        If it has a logit, other tasks may name this task as their preceding event. `outputs` may be symbolic.
        """
        return None

    def predict(self, outputs: Any) -> tf.Tensor:
        """Return the served value in the unit of the label, [B] or [B, classes]; by default the network's output."""
        return outputs

    def calibrated(self, outputs: Any, change: Callable[[Any], Any]) -> Any:
        """Return outputs with changed logits [B, n] of the served probability; None (the default) if it has none."""
        return None

    def served_value(self, outputs: Any, features: Features, candidate: tf.Tensor | None) -> tf.Tensor:
        """Return the served values of rows; by default `predict` of the outputs.

        Args:
            outputs: the network's output for the task.
            features: encoded features of the rows.
            candidate: encoded ids of the candidates [B], or None without candidates.
        """
        return self.predict(outputs)

    def served_weight(self, sample_weight: tf.Tensor, labels: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Return the weights [B] with which the rows enter the metrics of the served value.

        The default is `sample_weight`; a task that serves a conditional value leaves out rows without the condition.

        Args:
            sample_weight: [B], 0 where the task's label is missing.
            labels: the labels of all tasks [B], NaN where missing.
        """
        return sample_weight

    @tf.autograph.experimental.do_not_convert  # autograph warns of a body without a statement
    def update_metrics(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs | None = None
    ) -> None:
        """Update the task's streaming metrics with the observed rows; arguments as in `compute_loss`."""

    def update_extra_metrics(
        self, labels: tf.Tensor, outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs
    ) -> None:
        """Update `extra_metrics` with labels, served values and weights; arguments as in `compute_loss`.

        A metric with the attribute `group`, the name of a feature, receives the groups of the rows as `groups`: the
        keys of users or candidates if the feature names them; otherwise the encoded feature, without the rows in which
        it is missing or outside the vocabulary, because the groups of these rows are unknown.
        """
        if not self.extra_metrics:
            return
        weight = self.served_weight(sample_weight, inputs.labels)
        served = self.served_value(outputs, inputs.features, inputs.candidate_ids and inputs.candidate_ids.indices)
        for metric in self.extra_metrics:
            group = getattr(metric, "group", None)
            counted, groups = (weight, {}) if group is None else inputs.groups_of(group, weight)
            values, predictions, weights = arranged(metric, tf.where(weight > 0, labels, 0.0), served, counted)
            metric.update_state(values, predictions, sample_weight=weights, **groups)

    def named_metrics(self) -> list[tuple[str, Any]]:
        """Return the task's metrics with their names in the log, those of `extra_metrics` last."""
        extra = {id(metric) for metric in self.extra_metrics}
        own = [(metric.name, metric) for metric in self.metrics if id(metric) not in extra]
        return own + [(f"{self.name}_{metric.name}", metric) for metric in self.extra_metrics]

    def metric_results(self) -> dict[str, tf.Tensor]:
        """Return the values of the task's metrics by name in the log."""
        return {name: metric.result() for name, metric in self.named_metrics()}

    def report(self, labels: np.ndarray, predictions: Any, weights: np.ndarray) -> dict[str, float]:
        """Return the metrics of the served values by name, for `tfmtl.evaluation.evaluate`.

        The default returns `regression_metrics` if `predict` returns one number per row, and no metric otherwise.

        Args:
            labels: observed labels [n].
            predictions: [n] or [n, ...], as `predict` returns them.
            weights: weights [n], above 0.
        """
        values = predictions if isinstance(predictions, np.ndarray) else np.empty(0)
        return regression_metrics(labels, values.reshape(-1), weights) if values.size == len(labels) else {}

    def constant_prediction(self, labels: np.ndarray, weights: np.ndarray, rows: int) -> np.ndarray:
        """Return the best prediction without features [rows] or [rows, ...], for `tfmtl.evaluation.trivial_baseline`.

        The default is the weighted mean of the labels.

        Args:
            labels: training labels [n], NaN where missing.
            weights: weights [n], 0 where the label is missing.
            rows: number of predictions.
        """
        return np.full(rows, weighted_mean(labels, weights))

    def stacker(self, strength: float) -> Stacker | None:
        """Return the linear model with which `tfmtl.ensembling.stack` combines members, or None for a weighted pool.

        The default is None: `pool` combines the members with the shares of least loss.

        Args:
            strength: inverse of the L2 penalty.
        """
        return None

    def output_arguments(self) -> dict[str, Any]:
        """Return the constructor arguments that must be equal for all members of an ensemble.

        They decide the meaning of an output: by default the configuration without `units`, the widths of the hidden
        layers, `extra_losses` and `extra_metrics`.
        """
        aside = ("units", "extra_losses", "extra_metrics")
        return {name: value for name, value in self.get_config().items() if name not in aside}

    def distillation_loss(
        self, outputs: Any, teacher_outputs: Any, sample_weight: tf.Tensor, inputs: LossInputs, temperature: float
    ) -> tf.Tensor:
        """Return the mean distance from a teacher's outputs over the rows, a scalar; 0 if the outputs are equal.

        The default is the mean squared difference of the outputs, which does not use `temperature`.
        """
        pairs = zip(tf.nest.flatten(outputs), tf.nest.flatten(teacher_outputs), strict=True)
        squares = [
            tf.math.squared_difference(tf.cast(own, tf.float32), tf.cast(other, tf.float32)) for own, other in pairs
        ]
        by_row = [tf.reduce_mean(tf.reshape(square, [tf.shape(square)[0], -1]), axis=1) for square in squares]
        return mean_over_observed(tf.add_n(by_row), sample_weight)[0]

    def distillation_weight(self, labels: tf.Tensor, sample_weight: tf.Tensor) -> tf.Tensor:
        """Return the weights [B] of the rows in `distillation_loss`; by default those of the observed rows."""
        return sample_weight

    def get_config(self) -> dict[str, Any]:
        own = {"name": super().get_config()["name"]}
        if self.extra_metrics:
            own["extra_metrics"] = [keras.metrics.serialize(metric) for metric in self.extra_metrics]
        return own

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Task:
        """Return a task from its configuration."""
        metrics = [deserialize(keras.metrics.deserialize, m, cls.__name__) for m in config.get("extra_metrics", ())]
        return cls(**{**config, **({"extra_metrics": metrics} if metrics else {})})


def head(
    inputs: Any, units: Sequence[int], outputs: int, name: str, seed: int, bias: Sequence[float] | None = None
) -> Any:
    """Add a head to a network: dense layers of widths `units` and a linear layer in float32; return its output.

    Args:
        inputs: symbolic tensor [B, d].
        units: widths of the hidden layers.
        outputs: width of the linear layer.
        name: prefix of the names of the layers; unique in the network.
        seed: seed of the initial values.
        bias: initial bias of the linear layer [outputs]; None for zeros.
    """
    hidden = inputs
    for i, width in enumerate(units):
        part = f"{name}_hidden_{i}"
        initializer = spawn("glorot_uniform", 0, seed_of(part, seed))
        hidden = keras.layers.Dense(width, activation="relu", kernel_initializer=initializer, name=part)(hidden)
    initializer = spawn("glorot_uniform", 0, seed_of(name, seed))
    start = "zeros" if bias is None else keras.initializers.Constant([float(value) for value in bias])
    dense = keras.layers.Dense(
        outputs, kernel_initializer=initializer, bias_initializer=start, name=f"{name}_output", dtype="float32"
    )
    return dense(hidden)


def mean_over_observed(losses: tf.Tensor, sample_weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the weighted mean sum(w l) / sum(w), or 0 if no row has a weight, and sum(w).

    Args:
        losses: l [B], finite in every row.
        sample_weight: w [B], 0 where the label is missing.

    Example:
        >>> mean, weight = mean_over_observed(tf.constant([1.0, 9.0]), tf.constant([2.0, 0.0]))
        >>> float(mean), float(weight)
        (1.0, 2.0)
    """
    total = total_weight(sample_weight)
    return tf.math.divide_no_nan(tf.reduce_sum(losses * sample_weight), total), total


def total_weight(sample_weight: tf.Tensor) -> tf.Tensor:
    """Return sum(w); replicas that compute one batch together return the mean of their sums.

    The mean over the replicas of a quotient by this weight is then the quotient of the whole batch, even if some
    replicas have fewer labels than others.

    Example:
        >>> float(total_weight(tf.constant([2.0, 0.0])))
        2.0
    """
    return mean_over_replicas(tf.reduce_sum(sample_weight))
