"""A model in a folder: everything that a fresh process needs to go on with it."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import tempfile

import numpy as np

from tfmtl._checks import require, require_type
from tfmtl._keras import keras, tf
from tfmtl.data import Preprocessor
from tfmtl.models.candidates import Candidates
from tfmtl.models.local_copy import checkpoint, local_copy
from tfmtl.models.multi_task import MultiTaskModel

_MODEL, _WEIGHTS, _CORPUS = "model.json", "weights", "candidates.npz"


def save_model(model: MultiTaskModel, folder: str | os.PathLike[str]) -> pathlib.Path:
    """Write network, weights, tasks, balancer, vocabularies and corpus, to train on or to warm-start from later.

    For serving there is `tfmtl.serving.export`; what is saved here has no signatures, and the optimiser is not saved.

    Args:
        model: a `MultiTaskModel`; pruned networks are stripped and teachers taken off before.
        folder: does not exist yet.

    Returns:
        The folder, complete: it is written beside and moved into place.

    Raises:
        TypeError: if the model is of another class.
        FileExistsError: if the folder exists.

    Cost: one copy of the weights on disk.
    """
    require_type(model, MultiTaskModel, "model")
    require(
        type(model) is MultiTaskModel,
        f"A {type(model).__name__} holds more than a saved model does; save the plain `MultiTaskModel` that it makes.",
    )
    folder = pathlib.Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; save the model to a new folder.")
    model = local_copy(model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        parts = {"preprocessor": model.preprocessor, "balancer": model.balancer}
        described = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        described["tasks"] = [keras.saving.serialize_keras_object(task) for task in model.tasks]
        config = {**described, "network": model.network.to_json(), "seed": model.seed}
        (beside / _MODEL).write_text(json.dumps(config))
        checkpoint(model).write(str(beside / _WEIGHTS))
        if model.candidates is not None:
            features = {f"feature_{name}": value.numpy() for name, value in model.candidates.features.items()}
            ids = model.candidates.ids
            np.savez(beside / _CORPUS, ids=ids.astype(str) if ids.dtype == object else ids, **features)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside)
        raise
    return folder


def load_model(folder: str | os.PathLike[str]) -> MultiTaskModel:
    """Return the model that `save_model` wrote, not compiled.

    Raises:
        FileNotFoundError: if the folder holds no saved model.
    """
    folder = pathlib.Path(folder)
    if not (folder / _MODEL).is_file():
        raise FileNotFoundError(f"{folder} holds no {_MODEL}; give a folder that `save_model` wrote.")
    config = json.loads((folder / _MODEL).read_text())
    preprocessor: Preprocessor = keras.saving.deserialize_keras_object(config["preprocessor"])
    network = keras.models.model_from_json(config["network"])
    tasks = [keras.saving.deserialize_keras_object(task) for task in config["tasks"]]
    balancer = keras.saving.deserialize_keras_object(config["balancer"])
    model = MultiTaskModel(network, tasks, preprocessor, balancer, _candidates(folder / _CORPUS), config["seed"])
    checkpoint(model).read(str(folder / _WEIGHTS)).assert_existing_objects_matched().expect_partial()
    return model


def _candidates(path: pathlib.Path) -> Candidates | None:
    if not path.exists():
        return None
    with np.load(path) as stored:
        ids = stored["ids"]
        features = {n.removeprefix("feature_"): tf.constant(stored[n]) for n in stored.files if n != "ids"}
    return Candidates(ids if ids.dtype.kind in "iu" else ids.astype(object), features)
