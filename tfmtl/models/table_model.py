"""A TFRS model with `fit`, `evaluate` and `predict` over tables, and a training step that is traced once."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow_recommenders as tfrs

from tfmtl._checks import require
from tfmtl._keras import keras, tf
from tfmtl.balancing import Balancer, TrainingStep
from tfmtl.data import Batch, Preprocessor, Sequences
from tfmtl.data.frames import Table
from tfmtl.data.sequences import events_of
from tfmtl.data.source import Source, as_source
from tfmtl.models.label_checks import label_errors
from tfmtl.models.strategies import serves_parameters, shared_batches

_STEPS_PER_EXECUTION = 32  # one Python call per step takes a quarter of the time of small batches


class TableModel(tfrs.models.Model, abc.ABC):
    """The training loop of `MultiTaskModel`, independent of the tasks: Keras' loop over tables."""

    preprocessor: Preprocessor
    balancer: Balancer
    seed: int
    step_observer: Callable[[TrainingStep], object] | None = None
    """The observer that `observe_steps` set."""
    _last_observer: Callable[[TrainingStep], object] | None = None
    steps_per_execution: Any  # a property of Keras: set to a number, it returns a variable
    distribute_reduction_method: str  # a property of Keras

    @abc.abstractmethod
    def make_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """Make one training step and return the running means."""

    def train_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """Make one step and return the running means."""
        if self.run_eagerly or tf.distribute.has_strategy():
            return self._train_on(data)
        return self._traced_train_on(data) if self.step_observer is None else self._observed_train_on(data)

    def _train_on(self, data: Batch) -> dict[str, tf.Tensor]:
        arrived = tf.group(*tf.nest.flatten(data))  # one control edge per operation, not one per column
        with tf.control_dependencies([arrived]):  # otherwise counters increase beyond the end of a data set
            return self.make_step(self.as_rows(data))

    def as_rows(self, data: Any) -> Any:
        """Return the events of `Sequences` as rows, or a `Batch` unchanged."""
        return events_of(data, self.preprocessor.schema) if isinstance(data, Sequences) else data

    def compile(
        self, optimizer: Any = "adam", loss: Any = None, *, steps_per_execution: int | None = None, **kwargs: Any
    ) -> None:
        """Set the optimizer.

        Args:
            optimizer: a Keras 2 optimizer.
            loss: must be None, like `metrics` and `loss_weights`: the tasks have losses and metrics, the balancer has
                weights.
            steps_per_execution: training steps per call of the traced function; by default the steps of an epoch, at
                most 32, or 1 if their number is unknown.
            **kwargs: as in `keras.Model.compile`.
        """
        given = {"loss": loss, **kwargs}
        refused = [n for n in ("loss", "metrics", "loss_weights", "weighted_metrics") if given.get(n) is not None]
        require(not refused, f"compile() takes no {refused}: tasks have losses and metrics, the balancer has weights.")
        self._automatic_steps = steps_per_execution is None
        kwargs["weighted_metrics"] = []  # avoids a warning of Keras: the tasks apply the weights of a batch
        self.distribute_reduction_method = "first"  # the replicas log the same values, which Keras would sum
        super().compile(optimizer=optimizer, steps_per_execution=steps_per_execution or 1, **kwargs)
        self.retrace()

    def retrace(self) -> None:
        """Trace the steps again, even during `fit`.

        Call it after changing values that a trace holds as constants, such as `candidates` or `trainable` of a layer.
        """
        # Keras traces its loop around `train_step` up to four times, but a function inside it once.
        self._traced_train_on, self._observed_train_on = tf.function(self._train_on), tf.function(self._train_on)
        self._traced_test_on = tf.function(self.test_step)
        self.test_function = self.predict_function = None
        # `fit` of Keras reads the state that `compile` stored. `__setattr__` would track the layers that are its keys.
        self.__dict__["_compiled_trainable_state"] = self._get_trainable_state()
        self._renew_training_loop()

    def observe_steps(self, observer: Callable[[TrainingStep], object] | None) -> None:
        """Call a function in every training step, or stop calling it, even during `fit`.

        Use it in callbacks that measure gradients while training, such as `tfmtl.training.ConflictMonitor`. A traced
        step calls the function once, while it is traced, so that its TensorFlow operations become part of the step.
        The step without observer and that of the last observer keep their traces: an observer that is set again, as the
        same object, costs no second trace.

        Args:
            observer: receives the `tfmtl.balancing.TrainingStep` before the balancer reads it; None to stop.
        """
        if observer is not None and observer is not self._last_observer:
            self._last_observer, self._observed_train_on = observer, tf.function(self._train_on)
        self.step_observer = observer
        self._renew_training_loop()

    def _renew_training_loop(self) -> None:
        """Make Keras' loop around the step again, which holds the step that it was made of."""
        if self.train_function is not None:
            self.make_train_function(force=True)

    @property
    def compile_options(self) -> dict[str, Any]:
        """The arguments of `compile` except the optimizer; use them to compile another model in the same way."""
        steps = None if self._automatic_steps else int(self.steps_per_execution.numpy())
        return {"steps_per_execution": steps, "run_eagerly": self._run_eagerly, "jit_compile": self._jit_compile}

    def fit(
        self,
        x: Any,
        *,
        batch_size: int = 1024,
        validation_data: Any = None,
        memory_bytes: int = 1 << 30,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train the model on a table, files or a data set.

        Args:
            x: a pandas table, files from `tfmtl.data.open_files`, an encoded table from `tfmtl.data.to_batch` or
                `tfmtl.data.cache`, or `Sequences` from `tfmtl.data.to_sequences`, which are shuffled in each epoch; a
                data set of raw batches or of `Batch`; or files from `tfmtl.data.distribute`.
            batch_size: rows per batch of a table, over all replicas of a distribution strategy.
            validation_data: like `x`, but never shuffled.
            memory_bytes: limit below which encoded files stay in memory. Larger files are encoded again in each epoch;
                `tfmtl.data.cache` keeps them encoded in a file.
            **kwargs: as in `keras.Model.fit`.
        """
        require(memory_bytes >= 0, "`memory_bytes` must be 0 or more.", memory_bytes=memory_bytes)
        source = self.training_source(self._checked(as_source(x).kept(self.preprocessor, memory_bytes)))
        train = self._training_batches(source, batch_size, kwargs)
        validation = None
        if validation_data is not None:
            held_out = self._checked(as_source(validation_data).kept(self.preprocessor, memory_bytes))
            validation = self._batches(held_out, batch_size, "validation_steps", kwargs)
        if hasattr(self.optimizer, "build"):
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)  # slots that a trace creates cost a second trace
        callbacks = [_EndEpoch(), *(kwargs.pop("callbacks", None) or [])]
        with label_errors():
            return super().fit(train, validation_data=validation, callbacks=callbacks, **kwargs)

    def _checked(self, source: Source) -> Source:
        """Return the data, or raise if labels in memory are wrong; a step checks those of streamed batches."""
        if source.encoded is not None:
            self.check_labels(source.encoded)
        return source

    def check_labels(self, table: Table) -> None:
        """Raise if a table in memory holds labels that the model cannot use; by default all are usable."""

    def training_source(self, source: Source) -> Source:
        """Return the data over which `fit` iterates; override it to add columns to the training data."""
        return source

    def _training_batches(self, source: Source, batch_size: int, options: dict[str, Any]) -> Any:
        """Return batches shuffled by the seed and the step of the optimizer, and set the steps per call."""
        clock = self.optimizer.iterations
        shared = source.shared
        if serves_parameters(self.distribute_strategy):
            shared = source.for_servers(self.preprocessor, batch_size, self.seed)
        if shared is not None:
            dataset, options["steps_per_epoch"] = shared_batches(shared, self.distribute_strategy, clock)
            self._choose_steps(1)
            return dataset
        dataset = source.batches(self.preprocessor, batch_size, shuffle_seed=self.seed, clock=clock)
        self._choose_steps(1 if source.distributed else int(dataset.cardinality()))
        return dataset

    def _batches(self, source: Source, batch_size: int, steps: str, options: dict[str, Any]) -> Any:
        """Return batches in the order of the rows; for shared data, set the option named `steps`."""
        if source.shared is None:
            return source.batches(self.preprocessor, batch_size)
        dataset, options[steps] = shared_batches(source.shared, self.distribute_strategy, None)
        return dataset

    def evaluate(self, x: Any, *, batch_size: int = 4096, **kwargs: Any) -> Any:
        """Return the mean losses and metrics of data; see `fit` for the arguments."""
        kwargs.pop("_use_cached_eval_dataset", None)  # an option of `fit` for its own steps per call
        source = self._checked(as_source(x).kept(self.preprocessor, 0))
        if serves_parameters(self.distribute_strategy):
            return self._evaluate_here(source.batches(self.preprocessor, batch_size), kwargs.get("return_dict", False))
        with self._single_steps(), label_errors():
            return super().evaluate(self._batches(source, batch_size, "steps", kwargs), **kwargs)

    def _evaluate_here(self, dataset: tf.data.Dataset, return_dict: bool) -> Any:
        """Evaluate in this process, since independent workers would not visit every batch exactly once."""
        self.reset_metrics()
        logs: dict[str, Any] = {}
        for batch in dataset:
            logs = self._traced_test_on(batch)
        values = {name: float(value) for name, value in logs.items()}
        return values if return_dict else list(values.values())

    def predict(self, x: Any, *, batch_size: int = 4096, **kwargs: Any) -> dict[str, Any]:
        """Return the served values of each task for a table, which needs no labels, or a data set."""
        with self._single_steps():
            return super().predict(as_source(x).batches(self.preprocessor, batch_size, labels=False), **kwargs)

    def _choose_steps(self, batches: int) -> None:
        """Set the steps per call: 1 for data of unknown length, where a call beyond the end would lose its logs."""
        if self._automatic_steps:
            # Replicas name a message by its position in the program, so that all steps of a call need one shape.
            alone = self.distribute_strategy.num_replicas_in_sync == 1
            steps = min(_STEPS_PER_EXECUTION, max(batches, 1)) if alone else 1
            if self.steps_per_execution == 1 and steps > 1:
                self.train_function = None  # Keras traced one for a single step
            self.steps_per_execution = steps

    @contextlib.contextmanager
    def _single_steps(self) -> Iterator[None]:
        """Make Keras take one step per call, since the steps per call of `fit` may not divide the number of batches."""
        steps = 1 if self.steps_per_execution is None else int(self.steps_per_execution.numpy())
        self.steps_per_execution = 1
        try:
            yield
        finally:
            self.steps_per_execution = steps


class _EndEpoch(keras.callbacks.Callback):
    """Ends the epoch of the balancer before other callbacks save the model."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.model.balancer.end_epoch()
