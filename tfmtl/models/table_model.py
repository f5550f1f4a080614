"""A TFRS model with `fit`, `evaluate` and `predict` over tables, and a training step that is traced once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, tf, traced
from tfmtl.balancing import Balancer
from tfmtl.data import Sequences
from tfmtl.data.frames import Table, rows_of_pass
from tfmtl.data.sequences import events_of
from tfmtl.data.source import Source, as_source
from tfmtl.models.epoch_table import EpochTable
from tfmtl.models.keras_arguments import (
    BATCH_SIZE,
    EVALUATION_BATCH_SIZE,
    batch_size_of,
    refuse_others,
    require_batches,
    require_compiled,
)
from tfmtl.models.keras_files import check_checkpoints
from tfmtl.models.label_checks import label_errors
from tfmtl.models.one_batch import unpacked
from tfmtl.models.step_hooks import StepHooks
from tfmtl.models.strategies import serves_parameters, shared_batches
from tfmtl.tasks import Task

_STEPS_PER_EXECUTION = 32  # one Python call per step takes a quarter of the time of small batches


class TableModel(StepHooks):
    """The training loop of `MultiTaskModel`, independent of the tasks: Keras' loop over tables."""

    balancer: Balancer
    network: keras.Model
    tasks: list[Task]
    seed: int
    distribute_reduction_method: str  # a property of Keras

    @property
    def evaluation_batch_size(self) -> int:
        """Default rows per batch of validation and prediction: 4096, or fewer for lists of more than 64 ids."""
        return min(EVALUATION_BATCH_SIZE, rows_of_pass(self.network.input))

    def as_rows(self, data: Any) -> Any:
        """Return the events of `Sequences` as rows, or a `Batch` unchanged."""
        data = unpacked(data)
        return events_of(data, self.preprocessor.schema) if isinstance(data, Sequences) else data

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        metrics: Any = None,
        loss_weights: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool | None = None,
        steps_per_execution: int | Literal["auto"] | None = None,
        jit_compile: bool | None = None,
        pss_evaluation_shards: int = 0,
    ) -> None:
        """Set the optimizer.

        Args:
            optimizer: a Keras 2 optimizer.
            loss, metrics, loss_weights, weighted_metrics, pss_evaluation_shards: refused: the tasks have losses and
                metrics, the balancer has weights, and evaluation never runs on parameter servers.
            run_eagerly: whether steps run without being traced, to debug them.
            steps_per_execution: training steps per call of the traced function; by default and with `"auto"` the steps
                of an epoch, at most 32, or 1 if their number is unknown.
            jit_compile: whether XLA compiles the steps; refused with retrieval tasks.
        """
        refuse_others(
            "compile", loss=loss, metrics=metrics, loss_weights=loss_weights, weighted_metrics=weighted_metrics,
            pss_evaluation_shards=pss_evaluation_shards,
        )  # fmt: skip
        retrieving = [task.name for task in self.tasks if task.retrieves]
        cure = "XLA pads the positives of a batch, so that their loss is another one; leave it out"
        require(
            not (jit_compile and retrieving), f"`compile` takes no `jit_compile` with the tasks {retrieving}: {cure}."
        )
        self._automatic_steps = steps_per_execution in (None, "auto")
        steps = 1 if self._automatic_steps else steps_per_execution
        require_positive_int(steps_per_execution=steps)
        self.distribute_reduction_method = "first"  # the replicas log the same values, which Keras would sum
        super().compile(
            optimizer=optimizer,
            weighted_metrics=[],  # avoids a warning of Keras: the tasks apply the weights of a batch
            run_eagerly=run_eagerly,
            steps_per_execution=steps,
            jit_compile=jit_compile,
        )
        self.retrace()

    def retrace(self) -> None:
        """Trace the steps again, even during `fit`.

        Call it after changing values that a trace holds as constants, such as `candidates` or `trainable` of a layer.
        """
        # Keras traces its loop around `train_step` up to four times, but a function inside it once.
        self.trace_steps()
        self._traced_test_on = traced(self.test_step)
        self.test_function = self.predict_function = None
        # `fit` of Keras reads the state that `compile` stored. `__setattr__` would track the layers that are its keys.
        self.__dict__["_compiled_trainable_state"] = self._get_trainable_state()
        self._renew_training_loop()

    @property
    def compile_options(self) -> dict[str, Any]:
        """The arguments of `compile` except the optimizer; use them to compile another model in the same way."""
        steps = None if self._automatic_steps else int(self.steps_per_execution.numpy())
        return {"steps_per_execution": steps, "run_eagerly": self._run_eagerly, "jit_compile": self._jit_compile}

    def fit(
        self, x: Any, y: None = None, batch_size: int | None = None, epochs: int = 1, verbose: Any = "auto",
        callbacks: Any = None, validation_split: float = 0.0, validation_data: Any = None, shuffle: bool = True,
        class_weight: None = None, sample_weight: None = None, initial_epoch: int = 0,
        steps_per_epoch: int | None = None, validation_steps: int | None = None,
        validation_batch_size: int | None = None, validation_freq: Any = 1, max_queue_size: int = 10, workers: int = 1,
        use_multiprocessing: bool = False, *, memory_bytes: int = 1 << 30,
    ) -> keras.callbacks.History:  # fmt: skip
        """Train the model on a table, files or a data set.

        Args:
            x: a pandas table, files from `tfmtl.data.open_files`, an encoded table from `tfmtl.data.to_batch` or
                `tfmtl.data.cache`, or `Sequences` from `tfmtl.data.to_sequences`, which are shuffled in each epoch; a
                data set of raw batches or of `Batch`; or files from `tfmtl.data.distribute`.
            batch_size: rows per batch of a table, over all replicas of a distribution strategy; 1024 by default.
            epochs, callbacks, initial_epoch, validation_freq, verbose: as in Keras; `verbose=1` prints an `EpochTable`.
            validation_split: share of the last rows of a table that validate, without `validation_data`; prefer a split
                by time or by user, such as `tfmtl.data.temporal_split`.
            validation_data: like `x`, but never shuffled.
            shuffle: whether each epoch reads a table or files in another random order. A data set has its own order.
            steps_per_epoch: steps of an epoch, which may read a table or files several times; by default once.
            validation_steps: batches per validation; by default all.
            validation_batch_size: rows per batch of the validation data; `evaluation_batch_size` by default, so that
                the loss of retrieval, which depends on it, can be compared between trainings.
            memory_bytes: limit below which encoded files stay in memory. Larger files are encoded again in each epoch;
                `tfmtl.data.cache` keeps them encoded in a file.
            y, class_weight, sample_weight, max_queue_size, workers, use_multiprocessing: refused.

        Raises:
            RuntimeError: if the model is not compiled.
            ValueError: if an argument is refused, or does not fit the data.
        """
        require_compiled(self, "fit")
        refuse_others(
            "fit", y=y, class_weight=class_weight, sample_weight=sample_weight, max_queue_size=max_queue_size,
            workers=workers, use_multiprocessing=use_multiprocessing,
        )  # fmt: skip
        require(memory_bytes >= 0, "`memory_bytes` must be 0 or more.", memory_bytes=memory_bytes)
        require(isinstance(shuffle, bool), "`shuffle` must be True or False.", shuffle=shuffle)
        require_positive_int(validation_freq=validation_freq if isinstance(validation_freq, int) else 1)
        source, held_out = as_source(x), None
        if validation_data is not None:
            held_out = self._checked(as_source(validation_data).kept(self.preprocessor, memory_bytes))
        elif validation_split:
            source, held_out = source.split(validation_split)
            held_out = self._checked(held_out.kept(self.preprocessor, memory_bytes))
        source = self.training_source(self._checked(source.kept(self.preprocessor, memory_bytes)))
        rows = batch_size_of(source, "batch_size", batch_size, BATCH_SIZE)
        train, steps_per_epoch = self._training_batches(source, rows, shuffle, steps_per_epoch, epochs - initial_epoch)
        validation = None
        if held_out is not None:
            rows = batch_size_of(held_out, "validation_batch_size", validation_batch_size, self.evaluation_batch_size)
            validation, validation_steps = self._batches(held_out, rows, validation_steps)
        self.build_optimizer()
        with label_errors(), self.hooks_kept():
            return super().fit(
                train, epochs=epochs, **self._output(verbose, callbacks),
                validation_data=validation, initial_epoch=initial_epoch, steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps, validation_freq=validation_freq,
            )  # fmt: skip

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

    def build_optimizer(self) -> None:
        """Create the variables of the optimizer, so that no trace of a step creates them."""
        if hasattr(self.optimizer, "build"):
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _with_own(self, callbacks: Any, verbose: Any) -> Any:
        """Return the callbacks with those of the model."""
        check_checkpoints(getattr(callbacks, "callbacks", tf.nest.flatten(callbacks or [])))
        if isinstance(callbacks, keras.callbacks.CallbackList):
            if not any(isinstance(callback, _EndEpoch) for callback in callbacks.callbacks):
                callbacks.append(_EndEpoch())
                callbacks.callbacks.insert(0, callbacks.callbacks.pop())
                callbacks.set_model(self)
            return callbacks
        return [_EndEpoch(), *self._with_bar(callbacks, verbose)]

    def _output(self, verbose: Any, callbacks: Any) -> dict[str, Any]:
        """Return the arguments of `fit`, with a table of epochs for the bar of Keras, unless all values are wanted."""
        given = [] if isinstance(callbacks, keras.callbacks.CallbackList) else tf.nest.flatten(callbacks or [])
        bar = any(isinstance(callback, keras.callbacks.ProgbarLogger) for callback in given)
        plain = verbose in ("auto", 1, True) and not isinstance(callbacks, keras.callbacks.CallbackList)
        if plain and not bar and not serves_parameters(self.distribute_strategy):
            verbose, callbacks = 0, [*given, EpochTable([task.name for task in self.tasks])]
        return {"verbose": verbose, "callbacks": self._with_own(callbacks, verbose)}

    def _with_bar(self, callbacks: Any, verbose: Any) -> Any:
        """Return the callbacks with a progress bar that prints every value as it is, not as a mean over batches."""
        if isinstance(callbacks, keras.callbacks.CallbackList):
            return callbacks
        given = tf.nest.flatten(callbacks or [])
        own = verbose and not any(isinstance(callback, keras.callbacks.ProgbarLogger) for callback in given)
        return [*given, *([keras.callbacks.ProgbarLogger("steps", self.metrics_names)] if own else [])]

    def _training_batches(
        self, source: Source, batch_size: int, shuffle: bool, steps: int | None, epochs: int
    ) -> tuple[Any, int | None]:
        """Return batches shuffled by the seed and the step of the optimizer and the steps of an epoch.

        The steps per call are set, too.
        """
        if steps is not None:
            require_positive_int(steps_per_epoch=steps)
        clock, seed = self.optimizer.iterations, self.seed if shuffle else None
        shared = source.shared
        if serves_parameters(self.distribute_strategy):
            shared = source.for_servers(self.preprocessor, batch_size, seed)
        if shared is not None:
            cure = "pass `shuffle_seed=None` to `distribute`"
            ordered = shuffle or getattr(shared, "shuffle_seed", None) is None
            require(ordered, f"`shuffle` is an argument of shared data; {cure}.", shuffle=shuffle)
            dataset, found = shared_batches(shared, self.distribute_strategy, clock)
            self._choose_steps(1)
            return dataset, steps or found
        if source.batched or steps is None:
            dataset = source.batches(self.preprocessor, batch_size, shuffle_seed=seed, clock=clock)
            if steps is not None and not source.distributed:
                require_batches(dataset, steps, epochs)
        else:  # an epoch may begin in the middle of the table, at a step that read-ahead would make random
            seed = None if seed is None else seed + int(clock)
            dataset = source.batches(self.preprocessor, batch_size, shuffle_seed=seed).repeat()
        self._choose_steps(1 if source.distributed else steps or int(dataset.cardinality()))
        return dataset, steps

    def _batches(
        self, source: Source, batch_size: int, steps: int | None, labels: bool = True
    ) -> tuple[Any, int | None]:
        """Return batches in the order of the rows, and the number to read, None for all."""
        if steps is not None:
            require_positive_int(steps=steps)
        if source.shared is None:
            return source.batches(self.preprocessor, batch_size, labels=labels), steps
        dataset, found = shared_batches(source.shared, self.distribute_strategy, None)
        return dataset, steps or found

    def evaluate(
        self,
        x: Any,
        y: None = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: None = None,
        steps: int | None = None,
        callbacks: Any = None,
        max_queue_size: int = 10,
        workers: int = 1,
        use_multiprocessing: bool = False,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Return the mean losses and metrics of data, in the order of `metrics_names` or by name.

        Args:
            x: as in `fit`, in the order of its rows.
            batch_size: rows per batch of a table or files, `evaluation_batch_size` by default. The loss of retrieval
                depends on it.
            steps: batches to read; by default all.
            verbose, callbacks, return_dict: as in `keras.Model.evaluate`.
            y, sample_weight, max_queue_size, workers, use_multiprocessing, **kwargs: refused, as in `fit`.
        """
        kwargs.pop("_use_cached_eval_dataset", None)  # an option of `fit` for its own steps per call
        require(not kwargs, "`evaluate` has no such argument.", **kwargs)
        require_compiled(self, "evaluate")
        refuse_others(
            "evaluate", y=y, sample_weight=sample_weight, max_queue_size=max_queue_size, workers=workers,
            use_multiprocessing=use_multiprocessing,
        )  # fmt: skip
        source = self._checked(as_source(x).kept(self.preprocessor, 0))
        rows = batch_size_of(source, "batch_size", batch_size, self.evaluation_batch_size)
        if serves_parameters(self.distribute_strategy):
            dataset = source.batches(self.preprocessor, rows)
            return self._evaluate_here(dataset if steps is None else dataset.take(steps), callbacks, return_dict)
        with self.single_steps(), label_errors():
            dataset, steps = self._batches(source, rows, steps)
            callbacks = self._with_bar(callbacks, verbose)
            return super().evaluate(dataset, steps=steps, verbose=verbose, callbacks=callbacks, return_dict=return_dict)

    def _evaluate_here(self, dataset: tf.data.Dataset, callbacks: Any, return_dict: bool) -> Any:
        """Evaluate in this process, since independent workers would not visit every batch exactly once."""
        every = keras.callbacks.CallbackList
        hooks = callbacks if isinstance(callbacks, every) else every(callbacks, model=self)
        self.reset_metrics()
        hooks.on_test_begin()
        logs: dict[str, Any] = {}
        for batch in dataset:
            logs = self._traced_test_on(batch)
        values = {name: float(value) for name, value in logs.items()}
        hooks.on_test_end(values)
        return values if return_dict else list(values.values())

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        max_queue_size: int = 10,
        workers: int = 1,
        use_multiprocessing: bool = False,
    ) -> dict[str, Any]:
        """Return the served values of each task for a table, which needs no labels, or a data set.

        Args:
            x, batch_size, steps: as in `evaluate`.
            verbose, callbacks: as in `keras.Model.predict`.
            max_queue_size, workers, use_multiprocessing: refused, as in `fit`.
        """
        others = {"max_queue_size": max_queue_size, "workers": workers, "use_multiprocessing": use_multiprocessing}
        refuse_others("predict", **others)
        source = as_source(x)
        rows = batch_size_of(source, "batch_size", batch_size, self.evaluation_batch_size)
        dataset = source.batches(self.preprocessor, rows, labels=False)
        with self.single_steps():
            return super().predict(dataset, steps=steps, verbose=verbose, callbacks=callbacks)

    def _choose_steps(self, batches: int) -> None:
        """Set the steps per call: 1 for data of unknown length, where a call beyond the end would lose its logs."""
        if self._automatic_steps:
            # Replicas name a message by its position in the program, so that all steps of a call need one shape.
            alone = self.distribute_strategy.num_replicas_in_sync == 1
            steps = min(_STEPS_PER_EXECUTION, max(batches, 1)) if alone else 1
            if self.steps_per_execution == 1 and steps > 1:
                self.train_function = None  # Keras traced one for a single step
            self.steps_per_execution = steps


class _EndEpoch(keras.callbacks.Callback):
    """Ends the epoch of the balancer before other callbacks save the model."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.model.balancer.end_epoch()
