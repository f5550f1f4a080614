"""One training step of several tasks: from their losses to the balancer, the gradients and the optimizer."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from tfmtl._keras import keras, tf
from tfmtl._replicas import all_reduce, mean_over_replicas, replicas
from tfmtl.balancing import BalancedTask, Balancer, TrainingStep
from tfmtl.data import Batch
from tfmtl.layers.marks import marking
from tfmtl.layers.noise.adversarial import AdversarialLoss
from tfmtl.layers.noise.adversarial import TaskLosses as TaskLosses
from tfmtl.layers.noise.free_adversarial import FreeAdversarial
from tfmtl.models.adversarial import StepPasses, adversary_of, replayed, with_adversarial_losses
from tfmtl.models.network import shared_variables
from tfmtl.models.table_model import TableModel
from tfmtl.tasks import Task


class StepLosses(NamedTuple):
    """The losses of one step.

    Attributes:
        tasks: by task, its mean loss over its observed rows and the weight of these rows.
        objective: the objective of the balancer, without penalties.
        penalty: the sum of the regularizers.
    """

    tasks: TaskLosses
    objective: tf.Tensor
    penalty: tf.Tensor


class StepModel(TableModel):
    """The training step of `MultiTaskModel` and its log, independent of the way in which a batch becomes losses."""

    network: keras.Model
    _scheduled: frozenset[str] | None = None

    @property
    def trained_tasks(self) -> list[Task]:
        """The tasks of the step under construction: all, unless `make_step` was given some."""
        return [task for task in self.tasks if self._scheduled is None or task.name in self._scheduled]

    def no_losses(self) -> TaskLosses:
        """Return for each task the loss and weight that it has in a step that does not train it: 0."""
        zero = tf.constant(0.0)
        return {task.name: (zero, zero) for task in self.tasks}

    @contextlib.contextmanager
    def _training_only(self, tasks: Collection[str] | None) -> Iterator[None]:
        before, self._scheduled = self._scheduled, None if tasks is None else frozenset(tasks)
        try:
            yield
        finally:
            self._scheduled = before

    @abc.abstractmethod
    def compute_losses(self, data: Batch, training: bool) -> TaskLosses:
        """Return each task's mean loss over its observed rows and the weight of these rows.

        In a step of some tasks, those of `trained_tasks`, the losses of the others are not read.
        """

    def losses_of_step(self, data: Batch) -> TaskLosses:
        """Return the losses in training, 0 for tasks that the step does not train."""
        losses, zeros = self.compute_losses(data, training=True), self.no_losses()
        trained = {task.name for task in self.trained_tasks}
        return {name: losses[name] if name in trained else zeros[name] for name in zeros}

    @abc.abstractmethod
    def part(self, over_sequences: bool) -> keras.Model:
        """Return the part of the network that computes the outputs of `trained_tasks`."""

    def create_means(self) -> None:
        """Create the running means of the log."""
        names = [task.name for task in self.tasks]
        mean = keras.metrics.Mean
        self._objective_mean, self._penalty_mean = mean("loss"), mean("regularization_loss")
        self._loss_means = {name: mean(f"{name}_loss") for name in names}
        self._weight_means = {name: mean(f"{name}_weight") for name in names}

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Return the balanced objective of a batch; TFRS models define this method."""
        return self.objective_of(self.compute_losses(inputs, training))

    def objective_of(self, losses: TaskLosses) -> tf.Tensor:
        """Return the balancer's objective of losses, without a change of its state."""
        values, observed = self._stacked(losses)
        return self.balancer(values, observed=observed)

    def _stacked(self, losses: TaskLosses) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the losses [tasks], and whether each task has a label in the batch of any replica [tasks]."""
        values = tf.stack([losses[task.name][0] for task in self.tasks])
        weights = tf.stack([losses[task.name][1] for task in self.tasks])
        return values, all_reduce(weights) > 0

    def _losses_now(self, data: Batch) -> tf.Tensor:
        """Return the losses [tasks] of a batch in inference mode."""
        return self._stacked(self.compute_losses(data, training=False))[0]

    def _losses_if(self, due: tf.Tensor, data: Batch) -> tf.Tensor:
        """Return the losses [tasks] in inference mode if the balancer reads them in this step."""
        if self.balancer.after_step_every == 1 or replicas() > 1:  # replicas cannot communicate in a branch
            return self._losses_now(data)
        return tf.cond(due, lambda: self._losses_now(data), lambda: tf.zeros([len(self.tasks)]))

    def make_step(self, data: Batch, tasks: Collection[str] | None = None) -> dict[str, tf.Tensor]:
        """Make one training step, from the losses to the optimizer, and return the running means.

        Args:
            data: the rows of the step.
            tasks: names of the tasks that it trains, by default all. The others are not computed: for the balancer
                they are tasks without a label in the batch, and variables that only they reach stay as they are.
        """
        adversary = adversary_of(self.network)
        with self._training_only(tasks):
            if isinstance(adversary, FreeAdversarial):
                losses = replayed(adversary, functools.partial(self._update, data))
            else:
                losses, *_ = self._update(data)
        return self._log(data, losses)

    def _update(
        self, data: Batch, shifts: Sequence[tf.Tensor] | None = None
    ) -> tuple[StepLosses, list[tf.Tensor], list[tf.Tensor]]:
        """Make one update; return its losses and, if the encodings have shifts, encodings and their gradients."""
        balancer = self.balancer
        due = tf.equal(self.optimizer.iterations % balancer.after_step_every, 0)
        before = self._losses_if(due, data) if balancer.needs_losses_after_step else None
        step, gradients, losses = self.balanced_gradients(data, shifts)
        number = len(self.trainable_variables)
        pairs = zip(gradients[:number], step.variables[:number], strict=True)
        self.optimizer.apply_gradients([(grad, variable) for grad, variable in pairs if grad is not None])
        if before is not None:
            balancer.after_step(before, self._losses_if(due, data), step.observed & due)
        encodings = list(step.variables[number:])
        of_encodings = [
            tf.zeros_like(z) if gradient is None else gradient
            for z, gradient in zip(encodings, gradients[number:], strict=True)
        ]
        return losses, encodings, of_encodings

    def balanced_gradients(
        self, data: Batch, shifts: Sequence[tf.Tensor] | None = None
    ) -> tuple[TrainingStep, list[Any], StepLosses]:
        """Return a training step up to the optimizer: losses of the tasks -> balancer -> gradients.

        Args:
            data: the rows of the step.
            shifts: added to the marked encodings, in their order, or empty for none; the encodings then follow the
                variables among the `variables` of the step. By default they do not.

        Returns:
            The step that the balancer reads; the gradient of each of its `variables`, None if no loss reaches it; and
            its losses.
        """
        balancer, optimizer = self.balancer, self.optimizer
        scaled = isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)
        scale = optimizer.get_scaled_loss(tf.constant(1.0)) if scaled else tf.constant(1.0)
        adversary = adversary_of(self.network)
        persistent = balancer.persistent_tape or self.step_observer is not None or adversary is not None
        with marking() as marks, tf.GradientTape(persistent=persistent) as tape:
            marks.watch, marks.shifts = None if adversary is None else tape.watch, shifts or ()
            losses = self.losses_of_step(data)
            penalty = self._penalty()  # before a further pass replaces the losses of the layers
            penalty += sum(loss(data.features) for loss in marks.row_losses.values())
            if isinstance(adversary, AdversarialLoss):
                passes = StepPasses(self, data, tape, marks, losses, scale)
                losses = with_adversarial_losses(adversary, losses, passes)
            values, observed = self._stacked(losses)
            objective = balancer(values, observed=observed, training=True)
            targets = (objective + penalty, penalty, *(losses[task.name][0] for task in self.tasks))
            total, scaled_penalty, *of_tasks = [scale / replicas() * target for target in targets]
        trained = self.trained_tasks
        on_pairs = all(task.uses_trunk for task in trained)
        complete = on_pairs and not self.chained and len(trained) == len(self.tasks)
        alone = complete and len(marks.gated) == 1  # one task reads each of the trunk's outputs
        step = TrainingStep(
            tape, losses=of_tasks, observed=observed, objective=total, penalty=scaled_penalty,
            outputs=[marks.outputs.get(task.name, []) for task in self.tasks],
            representation=marks.trunk if on_pairs else marks.encodings,
            gated=marks.gated[0].of([task.name for task in self.tasks]) if alone else None,
            variables=self.trainable_variables, shared=self.shared_variables, network=self.network, scale=scale,
            losses_now=functools.partial(self._losses_now, data),
        )  # fmt: skip
        if self.step_observer is not None:
            self.step_observer(step)
        if shifts is not None:
            step = dataclasses.replace(step, variables=[*step.variables, *marks.encodings])
        gradients = balancer.gradients(step) if step.trains_shared else Balancer.gradients(balancer, step)
        gradients = optimizer.get_unscaled_gradients(gradients) if scaled else gradients
        return step, gradients, StepLosses(losses, objective, penalty)

    @property
    def chained(self) -> bool:
        """Whether the loss of a task reaches another task's head."""
        return any(task.depends_on for task in self.tasks)

    def _penalty(self) -> tf.Tensor:
        """Return the sum of the regularization losses of the layers of the step."""
        parts = [self] if self._scheduled is None else [self.part(False), *self.trained_tasks, self.balancer]
        losses = [tf.cast(loss, tf.float32) for part in parts for loss in part.losses]  # maybe in half precision
        return tf.add_n(losses) if losses else tf.constant(0.0)

    def _log(self, data: Batch, losses: StepLosses) -> dict[str, tf.Tensor]:
        rows = tf.cast(tf.shape(next(iter(data.features.values())))[0], tf.float32)
        self._objective_mean.update_state(losses.objective, sample_weight=mean_over_replicas(rows))
        self._penalty_mean.update_state(losses.penalty)
        for name, (loss, weight) in losses.tasks.items():
            self._loss_means[name].update_state(loss, sample_weight=weight)
        for name, weight in zip(self._weight_means, tf.unstack(self.balancer.current_weights()), strict=True):
            self._weight_means[name].update_state(weight)
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, tf.Tensor]:
        """Return the running means that `fit` logs."""
        unweighted = tf.add_n([metric.result() for metric in self._loss_means.values()])
        return {**{metric.name: metric.result() for metric in self._means}, "unweighted_loss": unweighted}

    @property
    def _means(self) -> list[keras.metrics.Mean]:
        """The running means of training and validation, in the order of the log."""
        return [self._objective_mean, self._penalty_mean, *self._loss_means.values(), *self._weight_means.values()]

    @property
    def metrics_names(self) -> list[str]:
        """The names of the values of `evaluate`, in their order; those of `train_on_batch` come first."""
        logged = [*(metric.name for metric in self._means), "unweighted_loss"]
        return [*logged, *(name for task in self.tasks for name, _ in task.named_metrics())]

    def _bind_balancer(self) -> None:
        self.balancer.bind([BalancedTask(task.name, task.kendall_factor) for task in self.tasks])
        self.balancer.prepare(self.shared_variables)

    @functools.cached_property
    def shared_variables(self) -> list[tf.Variable]:
        """Trainable variables of the network that more than one task's loss reaches."""
        return shared_variables(self.network, self.chained)

    def share_unfrozen(self) -> None:
        """Add to `shared_variables` the variables that were frozen when the model was made.

        Call it after layers become trainable, as `tfmtl.adaptation.unfreeze` does. A balancer with state for each
        shared variable is replaced by a fresh one.
        """
        known = {id(v) for v in self.shared_variables}
        shared = known | {id(v) for v in shared_variables(self.network, self.chained)}
        if shared == known:
            return
        self.__dict__["shared_variables"] = [v for v in self.network.weights if id(v) in shared]
        if type(self.balancer).prepare is not Balancer.prepare:
            self.balancer = type(self.balancer).from_config(self.balancer.get_config())
            self._bind_balancer()
