"""Steps on one batch: Keras' `train_on_batch`, `test_on_batch` and `predict_on_batch` for tables."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator
from typing import Any

from tfmtl._keras import tf, without_trace_warning
from tfmtl.data import Preprocessor
from tfmtl.data.frames import encode_dataset
from tfmtl.data.source import as_source
from tfmtl.models.keras_arguments import refuse_others, require_compiled
from tfmtl.models.keras_files import KerasFiles


class OneBatch(KerasFiles, abc.ABC):
    """Keras' methods for one batch, with rows of a table in place of arrays."""

    preprocessor: Preprocessor
    history: Any  # of the last `fit`
    steps_per_execution: Any  # a property of Keras: set to a number, it returns a variable

    @abc.abstractmethod
    def build_optimizer(self) -> None:
        """Create the variables of the optimizer."""

    def make_train_function(self, force: bool = False) -> Any:
        """Return Keras' loop around a training step, without a warning of the traces of several models."""
        made = super().make_train_function(force)
        without_trace_warning(self.train_tf_function)
        return made

    def make_test_function(self, force: bool = False) -> Any:
        """Return Keras' loop around a step of evaluation; see `make_train_function`."""
        return without_trace_warning(super().make_test_function(force))

    def make_predict_function(self, force: bool = False) -> Any:
        """Return Keras' loop around a step of prediction; see `make_train_function`."""
        return without_trace_warning(super().make_predict_function(force))

    def train_on_batch(
        self,
        x: Any,
        y: None = None,
        sample_weight: None = None,
        class_weight: None = None,
        reset_metrics: bool = True,
        return_dict: bool = False,
    ) -> Any:
        """Make one training step on all rows of a table, and return the losses as `fit` logs them.

        Args:
            x: a pandas table, a dict of raw columns, a `Batch` or `Sequences`.
            reset_metrics, return_dict: as in `keras.Model.train_on_batch`.
            y, sample_weight, class_weight: refused, as in `fit`.
        """
        require_compiled(self, "train_on_batch")
        refuse_others("train_on_batch", y=y, sample_weight=sample_weight, class_weight=class_weight)
        self.build_optimizer()
        batch = self._one_batch(x)
        with self.single_steps():
            return super().train_on_batch(batch, reset_metrics=reset_metrics, return_dict=return_dict)

    def test_on_batch(
        self,
        x: Any,
        y: None = None,
        sample_weight: None = None,
        reset_metrics: bool = True,
        return_dict: bool = False,
    ) -> Any:
        """Return the losses and metrics of all rows of a table as one batch; the arguments as in `train_on_batch`."""
        require_compiled(self, "test_on_batch")
        refuse_others("test_on_batch", y=y, sample_weight=sample_weight)
        batch = self._one_batch(x)
        with self.single_steps():
            return super().test_on_batch(batch, reset_metrics=reset_metrics, return_dict=return_dict)

    def predict_on_batch(self, x: Any) -> dict[str, Any]:
        """Return the served values of each task for all rows of a table, a dict of raw columns or a `Batch`."""
        batch = self._one_batch(x, labels=False)
        with self.single_steps():
            return super().predict_on_batch(batch)

    def _one_batch(self, x: Any, labels: bool = True) -> Any:
        """Return all rows as one encoded batch."""
        if isinstance(x, dict):
            columns = {name: tf.convert_to_tensor(values) for name, values in x.items()}
            return next(iter(encode_dataset(tf.data.Dataset.from_tensors(columns), self.preprocessor, labels=labels)))
        source = as_source(x)
        rows = source.rows
        if source.batched or not rows:
            raise ValueError(
                "One batch is a pandas table with rows, a dict of raw columns, a `Batch` or `Sequences`. "
                f"Received: {type(x).__name__} of {rows} rows."
            )
        return next(iter(source.batches(self.preprocessor, rows, labels=labels)))

    @contextlib.contextmanager
    def single_steps(self) -> Iterator[None]:
        """Make Keras take one step per call, since the steps per call of `fit` may not divide the number of batches."""
        steps = 1 if self.steps_per_execution is None else int(self.steps_per_execution.numpy())
        history = self.history
        self.steps_per_execution = 1
        try:
            yield
        finally:
            self.steps_per_execution, self.history = steps, history


def unpacked(data: Any) -> Any:
    """Return the only part of a tuple, in which Keras' methods for one batch put it; other data as they are."""
    return data[0] if type(data) is tuple and len(data) == 1 else data
