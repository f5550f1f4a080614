"""A model as plain values and arrays: network, weights, optimiser, balancer, vocabularies and corpus."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import keras, tf
from tfmtl.adaptation.grown_rows import exceptions_of, set_exceptions
from tfmtl.data import Preprocessor
from tfmtl.models import Candidates, MultiTaskModel

Arrays = dict[str, np.ndarray]


def save_model(model: MultiTaskModel) -> tuple[dict[str, Any], Arrays]:
    """Return a compiled model as values that JSON takes and arrays by name, with all that its training goes on with.

    Raises:
        ValueError: if the model takes other arguments than `MultiTaskModel`, which nobody knows how to save, or is not
            compiled.
    """
    arguments = model.arguments()
    own = sorted(set(arguments) - {"tasks", "balancer", "preprocessor", "candidates", "seed"})
    require(not own, f"{type(model).__name__} has arguments {own} that cannot be saved; save the plain model.")
    require(getattr(model, "optimizer", None) is not None, "The model must be compiled to be saved.")
    config = {
        "class": keras.saving.get_registered_name(type(model)),
        "network": json.loads(model.network.to_json()),
        "tasks": [keras.saving.serialize_keras_object(task) for task in arguments["tasks"]],
        "balancer": keras.saving.serialize_keras_object(arguments["balancer"]),
        "preprocessor": model.preprocessor.get_config(),
        "ids": None if model.candidates is None else model.candidates.ids.tolist(),
        "seed": model.seed,
        "optimizer": keras.optimizers.serialize(model.optimizer),
        "undecayed": exceptions_of(model.optimizer, model.trainable_variables),
        "compile": model.compile_options,
    }
    model.optimizer.build(model.trainable_variables)
    arrays = {
        f"{part}/{i}": v.numpy() for part, variables in _variables(model).items() for i, v in enumerate(variables)
    }
    if model.candidates is not None:
        arrays |= {f"corpus/{name}": np.asarray(column) for name, column in model.candidates.features.items()}
    return config, arrays


def load_model(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> MultiTaskModel:
    """Return the model that `save_model` described; classes of your own must be imported, and registered with Keras."""
    config = copy.deepcopy(config)  # Keras puts objects into the configurations that it reads
    preprocessor = Preprocessor.from_config(config["preprocessor"])
    corpus = None
    if config["ids"] is not None:
        ids = np.asarray(config["ids"])
        features = {key.split("/", 1)[1]: tf.constant(v) for key, v in arrays.items() if key.startswith("corpus/")}
        corpus = Candidates(ids if ids.dtype.kind == "i" else ids.astype(object), features)
    kind = keras.saving.get_registered_object(config["class"])
    require(kind is not None, f"The class {config['class']} is not registered; import the module that defines it.")
    tasks, balancer = map(keras.saving.deserialize_keras_object, (config["tasks"], config["balancer"]))
    network = keras.models.model_from_json(json.dumps(config["network"]))
    model = kind(network, tasks, preprocessor, balancer, corpus, seed=config["seed"])
    optimizer = keras.optimizers.deserialize(config["optimizer"])
    set_exceptions(optimizer, model.trainable_variables, config["undecayed"])
    model.compile(optimizer, **config["compile"])
    model.optimizer.build(model.trainable_variables)
    for part, variables in _variables(model).items():
        for i, variable in enumerate(variables):
            variable.assign(arrays[f"{part}/{i}"])
    return model


def _variables(model: MultiTaskModel) -> dict[str, Sequence[Any]]:
    return {"network": model.network.weights, "state": model.state, "optimizer": model.optimizer.variables}
