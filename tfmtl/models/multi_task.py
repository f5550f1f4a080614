"""The training loop around a network: retrieval and ranking tasks in one objective."""

from __future__ import annotations

import dataclasses
import functools
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_type
from tfmtl._keras import keras, register, tf
from tfmtl._passes import once
from tfmtl.balancing import Balancer, FixedWeights
from tfmtl.data import Batch, Preprocessor, Schema
from tfmtl.data.frames import Table
from tfmtl.data.sequences import PLACES
from tfmtl.layers.marks import mark_outputs
from tfmtl.models.candidates import Candidates, candidate_ids
from tfmtl.models.cut import run
from tfmtl.models.graph import adopt, state_of
from tfmtl.models.inputs import check_log_names, check_tasks, require_candidates
from tfmtl.models.keras_arguments import check_encoded
from tfmtl.models.label_checks import check_groups, check_table, checked
from tfmtl.models.mixup import MIXUP_PAIRS, mixup_loss, with_mixup_pairs
from tfmtl.models.over_sequences import over_sequences as as_sequences
from tfmtl.models.step_model import StepLosses, StepModel, TaskLosses
from tfmtl.models.table_verbs import TableVerbs
from tfmtl.tasks import CandidateIds, LossInputs, Task
from tfmtl.tasks.batch_loss import batch_loss
from tfmtl.types import Features


@register
class MultiTaskModel(TableVerbs, StepModel):
    """Trains a network on several tasks together.

    A step goes from the losses of all tasks over their observed labels to the balancer, the gradients and the
    optimizer; see `make_step`.
    `fit`, `evaluate` and `predict` take a pandas table, a data set of raw batches or a data set of `Batch`.
    `recommend`, `rank`, `embed` and `similar_items` answer with tables.

    Args:
        network: functional network over encoded features, from `build_network`.
        tasks: the tasks; the network has a head for each.
        preprocessor: encodes raw features; exported with the model.
        balancer: combines the losses or gradients of the tasks; the plain sum of the losses by default.
        candidates: the corpus of the retrieval tasks, from `Candidates.from_frame`; by default the distinct candidates
            of the table that `Preprocessor.fit` read. Uniform negatives, evaluation and serving need it.
        seed: seed of shuffling and of negatives.

    `fit` logs means over the epoch: `loss`, `regularization_loss`, `<task>_loss`, `<task>_weight`, and
    `unweighted_loss`, the sum of the tasks' losses, by which models with different weights can be compared; in
    validation also the metrics of the tasks.

    Raises:
        ValueError: if the network lacks a task, retrieval its candidates, a task its label or labels that it can learn.
    """

    def __init__(
        self,
        network: keras.Model,
        tasks: Sequence[Task],
        preprocessor: Preprocessor,
        balancer: Balancer | None = None,
        candidates: Candidates | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_tasks(tasks, network, preprocessor)
        if balancer is not None:
            require_type(balancer, Balancer, "balancer", "Pass an instance such as Uncertainty().")
        if candidates is not None:
            require_type(candidates, Candidates, "candidates", "Pass `Candidates.from_frame(table, preprocessor)`.")
        self.network = network
        self.tasks = list(tasks)
        self.preprocessor = preprocessor
        self.balancer = FixedWeights() if balancer is None else balancer
        self._candidates = candidates
        if any(task.num_extra_negatives or task.needs_corpus for task in tasks):
            require_candidates(self)
        require(isinstance(seed, numbers.Integral), "`seed` must be an integer.", seed=seed)
        self.seed = seed
        self._prepare()
        self.built = True

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments except the network, with fresh copies of the tasks and the balancer."""
        parts: list[keras.layers.Layer] = [self.balancer, *self.tasks]
        balancer, *tasks = [type(part).from_config(part.get_config()) for part in parts]
        shared = {"preprocessor": self.preprocessor, "candidates": self.candidates, "seed": self.seed}
        return {"tasks": tasks, "balancer": balancer, **shared}

    def with_network(self, network: keras.Model) -> MultiTaskModel:
        """Return a model of the same class and state around another network, not compiled."""
        return type(self)(network, **self.arguments()).adopt_state(self)

    def adopt_state(self, other: MultiTaskModel) -> MultiTaskModel:
        """Copy the state of another model's balancer and tasks, except their metrics, and return this model.

        A variable of another shape keeps its initial values, except that the counts of a grown corpus take the first
        entries from the other model.
        """
        adopt(self.state, other.state)
        return self

    @property
    def state(self) -> list[tf.Variable]:
        """The variables of the balancer and the tasks, except those of metrics."""
        return state_of([self.balancer, *self.tasks])

    def _prepare(self) -> None:
        self._bind_balancer()
        if self.schema.candidate:
            size = self.preprocessor.statistics.size(self.schema.candidate_id)
            for task in self.tasks:
                task.prepare(size)
                task.prepare_output(self.network.output[task.name])
        self.create_means()
        check_log_names(self.metrics_names)
        wanted = any(task.num_extra_negatives or task.needs_corpus for task in self.tasks)
        self._candidate_tower: Any = self.tower("candidate") if wanted else None

    @property
    def schema(self) -> Schema:
        """The schema of the model's data."""
        return self.preprocessor.schema

    @property
    def candidates(self) -> Candidates | None:
        """The corpus; None without a retrieval task, or if neither the argument nor the preprocessor holds one."""
        if self._candidates is None and any(isinstance(output, Mapping) for output in self.network.output.values()):
            with tf.init_scope():  # read while a step is traced, the corpus must still be values
                self._candidates = Candidates.fitted(self.preprocessor)
        return self._candidates

    @candidates.setter
    def candidates(self, candidates: Candidates | None) -> None:
        self._candidates = candidates

    def tower(self, side: str) -> keras.Model:
        """Return the part of the network from one side's encoded features to its embeddings.

        Args:
            side: `"query"` or `"candidate"`.

        Returns:
            A functional model: encoded features of the side -> {retrieval task: [B, d]}.
        """
        features = {"query": self.schema.query, "candidate": self.schema.candidate}[side]
        outputs = {name: out[side] for name, out in self.network.output.items() if isinstance(out, Mapping)}
        inputs = {feature.name: self.network.input[feature.name] for feature in features}
        return keras.Model(inputs, outputs, name=f"{side}_tower")

    def call(self, features: Features, training: bool | None = None) -> Any:
        """Return the network's outputs by task for the encoded features of rows or of the events of sequences.

        A training pass of a network with mixup also returns the `MixupPairs` of the rows under `MIXUP_PAIRS`.
        """
        check_encoded(features, self.network, sequences=isinstance(features, Mapping) and PLACES in features)
        outputs = run(self.part(PLACES in features), features, training)
        pairs = {key: outputs.pop(key) for key in [MIXUP_PAIRS] if key in outputs}
        for name, output in outputs.items():
            mark_outputs(name, output)
        return {**outputs, **pairs} if training else outputs

    def part(self, over_sequences: bool) -> keras.Model:
        """Return the network of `trained_tasks` over rows or over sequences, with mixup pairs if it has mixup."""
        key = self._scheduled, over_sequences
        if key not in self._parts:
            outputs = {task.name: self.network.output[task.name] for task in self.trained_tasks}
            network = keras.Model(self.network.input, outputs) if self._scheduled is not None else self.network
            network = with_mixup_pairs(network)
            self._parts[key] = as_sequences(network, self.schema) if over_sequences else network
        return self._parts[key]

    @functools.cached_property
    def _parts(self) -> dict[tuple[frozenset[str] | None, bool], keras.Model]:
        return {}

    def check_labels(self, table: Table) -> None:
        """Raise if a table in memory holds labels that a task cannot use."""
        check_table(self.tasks, self.schema, table)

    def training_source(self, source: Any) -> Any:
        """Return the data; raise if no two rows of a table in memory have the group of a `GroupLoss`."""
        check_groups(self.tasks, source.encoded)
        return source

    def compute_losses(self, data: Batch, training: bool) -> TaskLosses:
        """Return each task's mean loss over its observed rows and the weight of these rows."""
        return self.losses_of(data, self(data.features, training=training), training)

    def losses_of(self, data: Batch, outputs: Any, training: bool) -> TaskLosses:
        """Return the losses of the outputs of a pass; with mixup, on the labels of both rows of each pair."""
        losses, pairs = (
            {task.name: (tf.constant(0.0), tf.constant(0.0)) for task in self.tasks},
            outputs.get(MIXUP_PAIRS),
        )
        for task in self.trained_tasks:
            if pairs is not None and task.uses_trunk:
                loss, weight = mixup_loss(self.loss_arguments, task, data, outputs[task.name], pairs)
            else:
                labels, weights, inputs = self.loss_arguments(task, data, training)
                loss, weight = batch_loss(task, labels, outputs[task.name], weights, inputs)
            losses[task.name] = (tf.cast(loss, tf.float32), weight)
        return losses

    def loss_arguments(self, task: Task, data: Batch, training: bool) -> tuple[tf.Tensor, tf.Tensor, LossInputs]:
        """Return the arguments of a task's loss other than its outputs: labels [B], weights [B] and `LossInputs`."""
        labels, weights, inputs = self.row_arguments(task, data, training)
        if task.needs_corpus or (training and task.num_extra_negatives):
            inputs = self._with_negatives(task, inputs)
        return labels, weights, inputs

    def row_arguments(self, task: Task, data: Batch, training: bool) -> tuple[tf.Tensor, tf.Tensor, LossInputs]:
        """Return `loss_arguments` without further negatives."""
        rows = tf.shape(next(iter(data.features.values())))[0]
        labels = data.labels.get(task.name, tf.ones([rows]))  # without a label column, every row is a positive
        weights = data.weights.get(task.name, tf.ones([rows]))
        if task.name in data.labels:
            labels = checked(task, self.schema, labels, weights)
        keys = {name: data.ids[role] for role, name in self.schema.ids.items() if role in data.ids}
        ids = candidate_ids(data, self.schema, needed=task.retrieves)
        return labels, weights, LossInputs(data.features, ids, None, training, data.labels, keys)

    def _with_negatives(self, task: Task, inputs: LossInputs) -> LossInputs:
        corpus = require_candidates(self)
        keys, features, positions = corpus.keys, corpus.features, None
        if task.needs_corpus:
            positions = None if inputs.candidate_ids is None else corpus.positions(inputs.candidate_ids.keys)
        else:
            seed = tf.stack([tf.cast(self.seed, tf.int64), tf.cast(self.optimizer.iterations, tf.int64)])
            known = CandidateIds(keys, features[self.schema.candidate_id])
            shares = once(f"shares of {task.name}", lambda: task.negative_shares(known))
            if shares is not None:
                inputs = dataclasses.replace(inputs, negative_shares=functools.partial(corpus.values_of, shares))
            keys, features = once(
                f"negatives of {task.name}", lambda: corpus.sample(task.num_extra_negatives, seed, shares)
            )
        embeddings = run(self._candidate_tower, features, inputs.training)[task.name]
        mark_outputs(task.name, embeddings)
        negatives = embeddings, CandidateIds(keys, features[self.schema.candidate_id])
        return dataclasses.replace(inputs, negatives=negatives, positions=positions, num_candidates=len(corpus))

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Evaluate one batch and return the running means and the tasks' metrics."""
        data = self.as_rows(data)
        outputs = self(data.features, training=False)
        losses = self.losses_of(data, outputs, training=False)
        for task in self.tasks:
            if task.name in data.labels:
                labels, weights, inputs = self.loss_arguments(task, data, training=False)
                task.update_metrics(labels, outputs[task.name], weights, inputs)
                task.update_extra_metrics(labels, outputs[task.name], weights, inputs)
        logs = self._log(data, StepLosses(losses, self.objective_of(losses), self._penalty()))
        return logs | {name: value for task in self.tasks for name, value in task.metric_results().items()}

    def predict_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Return the served value of each task for the rows of a batch or the events of sequences."""
        data = self.as_rows(data)
        features = data.features if isinstance(data, Batch) else data
        outputs = self(features, training=False)
        return self.served(outputs, features)

    def served(self, outputs: Any, features: Features) -> dict[str, tf.Tensor]:
        """Return the served value of each task for the network's outputs and the encoded features of rows.

        Raises:
            ValueError: if a retrieval task copies from a history, and the features are those of sequences.
        """
        copying = [task.name for task in self.tasks if getattr(task, "copy", None) is not None]
        rule = f"The scores of {copying} read a history by rows; predict a table with histories instead of sequences."
        require(not copying or PLACES not in features, rule)
        candidate = features.get(self.schema.candidate_id) if copying else None
        return {task.name: task.served_value(outputs[task.name], features, candidate) for task in self.tasks}
