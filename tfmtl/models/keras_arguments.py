"""Arguments of Keras' methods that a model over tables refuses, and checks of those that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, tf
from tfmtl.data.source import Source

BATCH_SIZE = 1024
"""Default number of rows of a training step."""

EVALUATION_BATCH_SIZE = 4096
"""Default number of rows per batch of validation, evaluation and prediction; independent of the size in training."""

_TASKS = "tasks have losses and metrics, the balancer has weights"
_LABELS = "labels are columns of `x` that the schema names; pass one table, such as `x.assign(rating=y)`"
_WEIGHTS = "weights are columns of `x`; add one with a weight per row, named in `Label(task, sample_weight=column)`"
_WORKERS = "it is an argument for Python generators, which are not data of this model; leave it out"

_REFUSED: dict[str, tuple[Any, str]] = {
    "y": (None, _LABELS),
    "sample_weight": (None, _WEIGHTS),
    "class_weight": (None, _WEIGHTS),
    "max_queue_size": (10, _WORKERS),
    "workers": (1, _WORKERS),
    "use_multiprocessing": (False, _WORKERS),
    "loss": (None, _TASKS),
    "metrics": (None, _TASKS + "; give a task `extra_metrics=[...]`"),
    "weighted_metrics": (None, _TASKS + "; give a task `extra_metrics=[...]`"),
    "loss_weights": (None, _TASKS + "; give the model `balancer=FixedWeights({...})`"),
    "pss_evaluation_shards": (0, "evaluation with parameter servers runs in the chief; leave it out"),
}
"""By argument, the value that Keras gives it by default, and the cure."""


def refuse_others(method: str, **given: Any) -> None:
    """Raise unless the arguments that a method does not take have the default of Keras.

    Raises:
        ValueError: with the argument, its value and the cure.

    Example:
        >>> refuse_others("fit", y=None, workers=4)
        Traceback (most recent call last):
        ...
        ValueError: `fit` takes no `workers`: it is an argument for Python generators, which are not data of this \
model; leave it out. Received: workers=4.
    """
    for name, value in given.items():
        default, cure = _REFUSED[name]
        absent = value is None or (isinstance(value, list | tuple | dict) and not value)
        usual = isinstance(value, bool | int) and value == default
        require(absent or usual, f"`{method}` takes no `{name}`: {cure}.", **{name: value})


def require_compiled(model: keras.Model, method: str) -> None:
    """Raise unless the model has an optimizer.

    Raises:
        RuntimeError: if it has none.
    """
    if getattr(model, "optimizer", None) is None:
        raise RuntimeError(f"`{method}` needs a compiled model; call `model.compile(optimizer)` first.")


def batch_size_of(source: Source, name: str, given: int | None, default: int) -> int:
    """Return the rows per batch of a source.

    Args:
        source: the data.
        name: name of the argument.
        given: the argument, or None for the default.
        default: the rows if none are given.

    Raises:
        ValueError: if the number is not positive, or given for data that come in batches already.
    """
    if given is None:
        return default
    require_positive_int(**{name: given})
    require(
        not source.batched,
        f"`{name}` is for tables and files; the data come in batches already, so leave it out.",
        **{name: given},
    )
    return given


def require_batches(dataset: tf.data.Dataset, steps: int, epochs: int) -> None:
    """Raise unless a data set has enough batches for all epochs of a given number of steps.

    Raises:
        ValueError: if it ends before.
    """
    size = int(dataset.cardinality())
    require(
        size < 0 or size >= steps * epochs,
        f"`steps_per_epoch` times the epochs is {steps * epochs}, but the data set ends after {size} batches; "
        "call its `repeat()`.",
        steps_per_epoch=steps,
    )


def check_encoded(features: Any, network: keras.Model, sequences: bool) -> None:
    """Raise unless a model is called with encoded features.

    Args:
        features: the call's argument.
        network: the network that reads them.
        sequences: whether the features are those of several events per row, with other shapes.

    Raises:
        TypeError: if they are no mapping, or their types or shapes are those of raw features.
        ValueError: if one is missing.
    """
    cure = "encode raw columns with `model.preprocessor(columns)`, or call `model.predict(table)`"
    if not isinstance(features, Mapping):
        raise TypeError(f"A model is called with encoded features; {cure}. Received: {type(features).__name__}.")
    missing = [name for name in network.input if name not in features]
    require(not missing, f"The call lacks the features {missing}; {cure}.")
    for name, expected in network.input.items():
        value = tf.convert_to_tensor(features[name])
        kind = value.dtype.is_floating and expected.dtype.is_floating  # of any precision: Keras casts floats
        ranks = (value.shape.rank, expected.shape.rank)
        if not (kind or value.dtype == expected.dtype) or not (sequences or None in ranks or ranks[0] == ranks[1]):
            raise TypeError(
                f"Feature {name!r} of the call is not encoded, which is {expected.dtype.name} of rank {ranks[1]}; "
                f"{cure}. Received: {value.dtype.name} of rank {ranks[0]}."
            )
