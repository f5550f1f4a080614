"""Models saved to a folder, with everything that continued training needs."""

from __future__ import annotations

import os
import pathlib
import warnings

import numpy as np

from tfmtl._checks import require_type
from tfmtl._former import current
from tfmtl._keras import SafeModeScope
from tfmtl._saved_files import made_from, opened_arrays, read_json, to_json
from tfmtl._staging import move, staged
from tfmtl._trusted import untrusted
from tfmtl.models.as_arrays import from_arrays, to_arrays
from tfmtl.models.keras_files import CURE, load_keras_file
from tfmtl.models.multi_task import MultiTaskModel
from tfmtl.models.strategies import local_copy

_MODEL, _ARRAYS = "model.json", "arrays.npz"
_ENTRIES = ("class", "network", "tasks", "balancer", "preprocessor", "ids", "optimizer")


def save_model(model: MultiTaskModel, folder: str | os.PathLike[str]) -> pathlib.Path:
    """Save a model to a folder: network, weights, tasks, balancer, optimizer, vocabularies and corpus.

    Use it to continue training or to start another model from this one. For serving, use `tfmtl.serving.export`.

    Args:
        model: a `MultiTaskModel`, or an instance of a subclass that has no further arguments and is registered with
            Keras. `strip` a pruned network and remove a teacher first. The optimizer is saved if the model is compiled
            and its variables are not on parameter servers. Register your own classes with Keras; a warning names a part
            that `load_model` refuses otherwise.
        folder: a folder that does not exist yet.

    Returns:
        The folder. It is written under another name, flushed to the disk and renamed at the end, so that it is complete
        when it appears. The remains of a killed process are removed by the next call with the same parent folder.

    Raises:
        TypeError: if the model is of another class.
        ValueError: if its class is not registered with Keras.
        FileExistsError: if the folder exists.
        OSError: if the disk is full.

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
    fault = untrusted(config)
    if fault:
        warnings.warn(f"{folder} can be loaded with `safe_mode=False` only: it {fault}", stacklevel=2)
    with staged(folder.parent) as staging:
        (staging / _MODEL).write_text(to_json(config), encoding="utf-8")
        np.savez(staging / _ARRAYS, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes any name for `allow_pickle`
        move(staging, folder)
    return folder


def load_model(folder: str | os.PathLike[str], *, safe_mode: bool = True) -> MultiTaskModel:
    """Return the model that `save_model` wrote, compiled if the original was.

    The folder may come from a stranger: no code of its author runs and no file is written, see SECURITY.md.

    Args:
        folder: from `save_model`, or a `.keras` file that `model.save` wrote.
        safe_mode: whether to refuse everything that could run code of the author of the folder: classes and functions
            that are not registered with Keras, `Lambda` layers, layers that read files, and operations of TensorFlow
            beyond those of numbers and strings. Pass False only for folders that you trust.

    Raises:
        FileNotFoundError: if the folder holds no saved model.
        ValueError: if a class is not registered with Keras (import the module that defines it), or if the folder is
            damaged or could run code; in one sentence with the file, and the position in it for code.
    """
    folder = pathlib.Path(folder)
    if folder.suffix == ".keras" and folder.is_file():
        return load_keras_file(folder, safe_mode)
    path = folder / _MODEL
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {_MODEL}; give a folder that `save_model` wrote.")
    config = current(read_json(path, CURE, _ENTRIES))
    with made_from(path, CURE), SafeModeScope(safe_mode), opened_arrays(folder / _ARRAYS, CURE) as arrays:
        return from_arrays(config, arrays, str(path))
