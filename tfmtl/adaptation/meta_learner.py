"""The base of meta-learners: episodes, inner steps on a support, adapted models."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int, require_type
from tfmtl._keras import keras, tf, traced
from tfmtl.adaptation.episodes import Episodes, take
from tfmtl.adaptation.meta_gradient import descend
from tfmtl.adaptation.parts import layers_of, variables_of
from tfmtl.data import Batch, to_batch
from tfmtl.models import MultiTaskModel
from tfmtl.models.optimizer_copies import fresh_copy


class MetaLearner(abc.ABC):
    """Meta-learner: learns initial values from which a few steps on the rows of a user, or of another task, adapt well.

    Use `MAML` or `Reptile`. Subclasses implement `learn`, on one task, and `update`, by the results of several tasks.

    Args:
        model: a compiled model, changed in place by `fit`; any trunk, any balancer.
        inner_rate: learning rate of the steps on a support.
        inner_steps: number of these steps.
        adapt: parts that the steps change, see `layers_of`; `"all"` is all of them except the embeddings, since the
            rows of one user reach few of their rows. The other parts are the same for all tasks.

    Attributes:
        model, inner_rate, inner_steps, parts: the arguments.
        adapted: the variables that the steps change.

    The steps descend on the balancer's objective, without penalties and dropout.

    Raises:
        ValueError: if a number is not positive, or no layer that `adapt` names is trained.
    """

    def __init__(self, model: MultiTaskModel, inner_rate: float, inner_steps: int, adapt: str | Sequence[str]) -> None:
        require_type(model, MultiTaskModel, "model")
        require(inner_rate > 0, "`inner_rate` must be above 0.", inner_rate=inner_rate)
        require_positive_int(inner_steps=inner_steps)
        optimizer = getattr(model, "optimizer", None)
        require(optimizer is not None, "The model has no optimizer; compile it first.")
        scaled = isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)
        require(not scaled, "A meta-learner needs float32; build the model without mixed precision.")
        self.model, self.inner_rate, self.inner_steps, self.parts = model, inner_rate, inner_steps, adapt
        self.adapted = _variables(model, adapt)
        self._descend = traced(self._descend_on, reduce_retracing=True)

    @abc.abstractmethod
    def learn(self, batch: Batch, support: tf.Tensor, query: tf.Tensor) -> tuple[tf.Tensor, list[Any]]:
        """Return the loss after adaptation to a task and the task's result for `update`, and restore all variables.

        Args:
            batch: the rows of all tasks.
            support, query: row numbers of the task, int64 [n].
        """

    @abc.abstractmethod
    def update(self, results: Sequence[list[Any]]) -> None:
        """Make one outer step by the results of several tasks."""

    def fit(
        self,
        tasks: Any,
        group: str = "",
        *,
        support: int = 5,
        query: int = 20,
        epochs: int = 1,
        tasks_per_step: int = 16,
        seed: int = 0,
    ) -> dict[str, list[float]]:
        """Learn to adapt.

        Args:
            tasks: a pandas table with a column `group` of the tasks, such as the users, or a sequence of tables.
            group: name of the column.
            support: number of rows per task for the inner steps, newly drawn in each epoch.
            query: largest number of other rows per task on which the adapted model is evaluated.
            epochs: number of passes over the tasks.
            tasks_per_step: number of tasks that are averaged in one outer step.
            seed: seed of the order of tasks and of the draws.

        Returns:
            `{"loss": mean loss on the query after adaptation, by epoch}`.
        """
        require_positive_int(epochs=epochs, tasks_per_step=tasks_per_step)
        episodes = Episodes(tasks, self.model.preprocessor, group, support=support, query=query)
        rng = np.random.default_rng(seed)
        rows = tf.TensorSpec([None], tf.int64)
        signature = [tf.nest.map_structure(lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype), episodes.batch)]
        learn = traced(self.learn, input_signature=[*signature, rows, rows])
        self.model.build_optimizer()
        history: list[float] = []
        for _ in range(epochs):
            losses: list[tf.Tensor] = []
            results: list[list[Any]] = []
            for number, (first, then) in enumerate(episodes.draw(rng), start=1):
                loss, result = learn(episodes.batch, tf.constant(first), tf.constant(then))
                losses.append(loss)
                results.append(result)
                if len(results) == tasks_per_step or number == len(episodes):
                    self.update(results)
                    results = []
            history.append(float(np.mean(losses)))
        return {"loss": history}

    def adapt(self, support: Any, steps: int | None = None) -> MultiTaskModel:
        """Return a compiled copy of the model, adapted to the rows of a user or another task.

        Args:
            support: pandas table with labels, or `Batch`.
            steps: number of steps; `inner_steps` by default.

        Cost: a copy of the network. For many users use `adapted_to` or `state_of`.
        """
        network = keras.models.clone_model(self.model.network)
        network.set_weights(self.model.network.get_weights())
        copy = self.model.with_network(network)
        copy.compile(fresh_copy(self.model.optimizer))
        batch = self._batch(support)
        descend(lambda: support_loss(copy, batch), _variables(copy, self.parts), self.inner_rate, self._steps(steps))
        return copy

    @contextlib.contextmanager
    def adapted_to(self, support: Any, steps: int | None = None) -> Iterator[MultiTaskModel]:
        """Adapt the model itself inside a `with` block, and restore it afterwards.

        Args:
            support, steps: as in `adapt`.

        Cost: the steps, traced once.
        """
        of_tasks = [v for task in self.model.tasks for v in task.weights]
        before = [(v, v.numpy()) for v in (*self.adapted, *of_tasks)]
        try:
            self._descend(self._batch(support), tf.constant(self._steps(steps)))
            yield self.model
        finally:
            for variable, value in before:
                variable.assign(value)

    def state_of(self, support: Any, steps: int | None = None) -> dict[str, np.ndarray]:
        """Return the adapted weights by name, which are all that has to be stored per user.

        Args:
            support, steps: as in `adapt`.
        """
        with self.adapted_to(support, steps):
            return {v.name.split(":")[0]: v.numpy() for v in self.adapted}

    def _descend_on(self, batch: Batch, steps: tf.Tensor) -> None:
        for _ in tf.range(steps):
            descend(lambda: support_loss(self.model, batch), self.adapted, self.inner_rate, 1)

    def _batch(self, support: Any) -> Batch:
        return support if isinstance(support, Batch) else to_batch(support, self.model.preprocessor)

    def _steps(self, steps: int | None) -> int:
        if steps is not None:
            require_positive_int(steps=steps)
        return self.inner_steps if steps is None else steps

    def _loss_on(self, batch: Batch, rows: tf.Tensor) -> tf.Tensor:
        return support_loss(self.model, take(batch, rows))


def support_loss(model: MultiTaskModel, batch: Batch) -> tf.Tensor:
    """Return the balancer's objective on a support: without dropout, but with the negatives of training."""
    losses = model.losses_of(batch, model(batch.features, training=False), training=True)
    values = tf.stack([losses[task.name][0] for task in model.tasks])
    weights = tf.stack([losses[task.name][1] for task in model.tasks])
    objective: tf.Tensor = model.balancer(values, observed=weights > 0)
    return objective


def _variables(model: MultiTaskModel, parts: str | Sequence[str]) -> list[tf.Variable]:
    layers = layers_of(model.network, parts)
    if parts == "all":
        tables = {layer.name for layer in layers_of(model.network, "embeddings")}
        layers = [layer for layer in layers if layer.name not in tables]
    trained = {id(v) for v in model.trainable_variables}
    found = [v for v in variables_of(layers) if id(v) in trained]
    require(bool(found), f"No layer that `adapt` names is trained: {parts!r}.", layers=[x.name for x in layers])
    return found
