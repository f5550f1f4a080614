"""Models saved to a folder, with everything that continued training needs."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import tempfile

import numpy as np

from tfmtl._checks import require_type
from tfmtl._former import current
from tfmtl.models.as_arrays import from_arrays, to_arrays
from tfmtl.models.multi_task import MultiTaskModel
from tfmtl.models.strategies import local_copy

_MODEL, _ARRAYS = "model.json", "arrays.npz"


def save_model(model: MultiTaskModel, folder: str | os.PathLike[str]) -> pathlib.Path:
    """Save a model to a folder: network, weights, tasks, balancer, optimizer, vocabularies and corpus.

    Use it to continue training or to start another model from this one. For serving, use `tfmtl.serving.export`.

    Args:
        model: a `MultiTaskModel`, or an instance of a subclass that has no further arguments and is registered with
            Keras. `strip` a pruned network and remove a teacher first. The optimizer is saved if the model is compiled
            and its variables are not on parameter servers.
        folder: a folder that does not exist yet.

    Returns:
        The folder. It is written under another name and renamed at the end, so that it is complete when it appears.

    Raises:
        TypeError: if the model is of another class.
        ValueError: if its class is not registered with Keras.
        FileExistsError: if the folder exists.

    Example:
        >>> import pathlib, tempfile
        >>> import pandas as pd
        >>> from tfmtl.data import Categorical, Label, Preprocessor, Schema, fit_statistics
        >>> from tfmtl.models import MultiTaskModel, build_network
        >>> from tfmtl.tasks import Regression
        >>> schema = Schema([Categorical("user")], labels=[Label("stars")])
        >>> rows = pd.DataFrame({"user": ["a", "b", "a"], "stars": [1.0, 2.0, 3.0]})
        >>> preprocessor = Preprocessor.fit(schema, rows)
        >>> network = build_network(preprocessor, [Regression("stars")], embedding_dim=2, tower_units=[2])
        >>> model = MultiTaskModel(network, [Regression("stars")], preprocessor)
        >>> model.compile("adam")
        >>> history = model.fit(rows, epochs=2, verbose=0)
        >>> loaded = load_model(save_model(model, pathlib.Path(tempfile.mkdtemp()) / "stars"))
        >>> history = loaded.fit(rows, epochs=3, initial_epoch=2, verbose=0)  # continues where the first model stopped
        >>> int(loaded.optimizer.iterations)
        3

    Cost: one copy of the weights and of the optimizer's state on disk.
    """
    require_type(model, MultiTaskModel, "model")
    folder = pathlib.Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; save the model to a new folder.")
    config, arrays = to_arrays(local_copy(model))
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        (beside / _MODEL).write_text(json.dumps(config))
        np.savez(beside / _ARRAYS, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes any name for `allow_pickle`
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside)
        raise
    return folder


def load_model(folder: str | os.PathLike[str]) -> MultiTaskModel:
    """Return the model that `save_model` wrote, compiled if the original was.

    Raises:
        FileNotFoundError: if the folder holds no saved model.
        ValueError: if its class is not registered with Keras; import the module that defines it.
    """
    folder = pathlib.Path(folder)
    if not (folder / _MODEL).is_file():
        raise FileNotFoundError(f"{folder} holds no {_MODEL}; give a folder that `save_model` wrote.")
    with np.load(folder / _ARRAYS) as arrays:
        return from_arrays(current(json.loads((folder / _MODEL).read_text())), arrays)
