"""A model as plain values and arrays: network, weights, tasks, optimizer, balancer, vocabularies and corpus."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras, tf
from tfmtl._trusted import require_trusted
from tfmtl.data import Preprocessor
from tfmtl.models.candidates import Candidates
from tfmtl.models.optimizer_parts import exceptions_of, is_legacy, set_exceptions, variables_of

if TYPE_CHECKING:
    from tfmtl.models.multi_task import MultiTaskModel

Arrays = dict[str, np.ndarray]
_SOURCE = "The configuration of a model"


def to_arrays(model: MultiTaskModel) -> tuple[dict[str, Any], Arrays]:
    """Return a model as JSON values and arrays by name, with its optimizer if it is compiled.

    Raises:
        ValueError: if the model has arguments beyond those of `MultiTaskModel`, which cannot be saved, or if its class
            is not registered with Keras.
    """
    config = {**to_config(model), "optimizer": optimizer_of(model)}
    arrays = {
        f"{part}/{i}": v.numpy() for part, variables in _variables(model).items() for i, v in enumerate(variables)
    }
    if model.candidates is not None:
        arrays |= {f"corpus/{name}": np.asarray(column) for name, column in model.candidates.features.items()}
    return config, arrays


def to_config(model: MultiTaskModel) -> dict[str, Any]:
    """Return a model without its weights, its corpus and its optimizer as JSON values.

    Raises:
        ValueError: as `to_arrays`.
    """
    config = {
        "class": _class_of(model),
        "network": json.loads(model.network.to_json()),
        "tasks": [keras.saving.serialize_keras_object(task) for task in model.tasks],
        "balancer": keras.saving.serialize_keras_object(model.balancer),
        "preprocessor": model.preprocessor.get_config(),
        "ids": None if model.candidates is None else model.candidates.ids.tolist(),
        "seed": model.seed,
    }
    plain: dict[str, Any] = json.loads(json.dumps(config, default=_plain))
    return plain


def _plain(value: Any) -> Any:
    """Return a NumPy scalar or array as JSON values; arguments may hold them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"A model's arguments must be numbers, strings, lists or mappings. Received: {value!r}.")


def from_arrays(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], source: str = _SOURCE) -> MultiTaskModel:
    """Return the model that `to_arrays` described, compiled if the original was.

    Args:
        config, arrays: from `to_arrays`.
        source: name of the file of the configuration, for messages.

    Raises:
        ValueError: if its class is not registered with Keras, or the configuration could run code of its author.
    """
    columns = [key for key in arrays if key.startswith("corpus/")]  # a file reads an array on each access
    model = from_config(config, {key.split("/", 1)[1]: arrays[key] for key in columns}, source)
    if config["optimizer"]:
        compile_like(model, config["optimizer"])
    for part, variables in _variables(model).items():
        saved = sum(key.startswith(f"{part}/") for key in arrays)
        if saved < len(variables):  # models were saved without these counts
            variables = [v for v in variables if not v.name.split(":")[0].endswith("rare_counts")]
        for i, variable in enumerate(variables):
            variable.assign(arrays[f"{part}/{i}"])
    return model


def from_config(config: Mapping[str, Any], corpus: Mapping[str, np.ndarray], source: str = _SOURCE) -> MultiTaskModel:
    """Return the model that `to_config` described, with initial weights and not compiled.

    Args:
        config: from `to_config`.
        corpus: encoded features of the candidates, by name; empty without candidates.
        source: name of the file of the configuration, for messages.

    Raises:
        ValueError: if its class is not registered with Keras, or the configuration could run code of its author.
    """
    require_trusted(config, source)
    config = copy.deepcopy(config)  # Keras puts objects into the configurations that it reads
    preprocessor = Preprocessor.from_config(config["preprocessor"])
    candidates = None
    if config["ids"] is not None:
        ids = np.asarray(config["ids"])
        features = {name: tf.constant(column) for name, column in corpus.items()}
        candidates = Candidates(ids if ids.dtype.kind == "i" else ids.astype(object), features)
    kind = keras.saving.get_registered_object(config["class"])
    valid = isinstance(kind, type) and issubclass(kind, keras.Model)
    require(valid, f"{source} names the class {config['class']}, which is not registered; import its module.")
    tasks, balancer = map(keras.saving.deserialize_keras_object, (config["tasks"], config["balancer"]))
    network = keras.models.model_from_json(json.dumps(config["network"]))
    model: MultiTaskModel = kind(network, tasks, preprocessor, balancer, candidates, seed=config["seed"])
    return model


def compile_like(model: MultiTaskModel, described: Mapping[str, Any]) -> None:
    """Compile a model with the optimizer that `optimizer_of` described."""
    optimizer = keras.saving.deserialize_keras_object(copy.deepcopy(described["config"]))
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # that of a `LossScaleOptimizer`
    rate = inner._hyper.get("learning_rate") if is_legacy(inner) else None
    if isinstance(rate, Mapping):  # the legacy Adagrad leaves a schedule as its configuration
        inner.learning_rate = keras.optimizers.schedules.deserialize(copy.deepcopy(rate))
    set_exceptions(optimizer, model.trainable_variables, described["undecayed"])
    model.compile(optimizer, **described["compile"])


def _class_of(model: MultiTaskModel) -> str:
    kind = type(model)
    own = sorted(set(model.arguments()) - {"tasks", "balancer", "preprocessor", "candidates", "seed"})
    require(not own, f"{kind.__name__} has arguments {own} that cannot be saved; save the plain `MultiTaskModel`.")
    name = keras.saving.get_registered_name(kind)
    require(
        keras.saving.get_registered_object(name) is kind,
        f"The class {kind.__name__} could not be loaded again; decorate it with "
        "`keras.saving.register_keras_serializable()`.",
    )
    return name


def optimizer_of(model: MultiTaskModel) -> dict[str, Any] | None:
    """Return the optimizer without its state and the other arguments of `compile`; None if not compiled."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return None
    return {
        "config": keras.saving.serialize_keras_object(optimizer),
        "undecayed": exceptions_of(optimizer, model.trainable_variables),
        "compile": model.compile_options,
    }


def _variables(model: MultiTaskModel) -> dict[str, Sequence[Any]]:
    found = {"network": model.network.weights, "state": model.state}
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return found
    return {**found, "optimizer": variables_of(optimizer, model.trainable_variables)}
