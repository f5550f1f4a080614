"""Keras' own files of a model: `.keras` files hold everything, other forms are refused before they are written."""

from __future__ import annotations

import json
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_recommenders as tfrs

from tfmtl._checks import require
from tfmtl._keras import SafeModeScope, keras, writes_keras_folder
from tfmtl._saved_files import DamagedFileError, made_from, parse_json
from tfmtl._trusted import require_trusted
from tfmtl.models.as_arrays import compile_like, from_config, optimizer_of, to_config
from tfmtl.models.optimizer_parts import is_legacy
from tfmtl.models.weight_checksums import check_checksums, write_checksums

CURE = "restore it from a backup, or save the model again"
_OTHERS = (
    "give a path that ends in `.keras`, save to a folder with `tfmtl.models.save_model`, or export for serving with "
    "`tfmtl.export`"
)


class KerasFiles(tfrs.models.Model):
    """A model that `model.save("shop.keras")` writes and `keras.models.load_model` reads."""

    def save(
        self, filepath: str | os.PathLike[str], overwrite: bool = True, save_format: str | None = None, **kwargs: Any
    ) -> None:
        """Save the model to a `.keras` file: network, weights, tasks, balancer, optimizer, vocabularies and corpus.

        Args:
            filepath: path that ends in `.keras`. `tfmtl.models.load_model` reads it and names a damaged file in one
                sentence; `keras.models.load_model` reads it after `import tfmtl`.
            overwrite: whether to replace a file that exists.
            save_format: None or `"keras"`.
            **kwargs: refused; they belong to other formats of Keras.

        Raises:
            ValueError: if the path or the format is another one, the optimizer is a legacy one, or the model cannot be
                saved; see `save_model`.
        """
        require_keras_file(filepath, {"save_format": save_format, **kwargs})
        super().save(os.fspath(filepath), overwrite=overwrite, save_format="keras")

    def save_weights(
        self, filepath: Any, overwrite: bool = True, save_format: str | None = None, options: Any = None
    ) -> None:
        """Save the weights and the state of the balancer and the tasks; the arguments are those of Keras.

        Raises:
            ValueError: for Keras' old HDF5 format, which loses the state.
        """
        path = os.fspath(filepath)
        old = save_format == "h5" or (path.endswith((".h5", ".hdf5")) and not path.endswith(".weights.h5"))
        cure = "give a path that ends in `.weights.h5`, or leave out the suffix"
        require(not old, f"Keras' old HDF5 format loses the state of tasks; {cure}.", filepath=path)
        super().save_weights(path, overwrite=overwrite, save_format=save_format, options=options)

    def save_own_variables(self, store: Any) -> None:
        """Write the checksums of all variables; Keras calls this before it writes those of the layers."""
        optimizer = getattr(self, "optimizer", None)
        own = [] if optimizer is None or is_legacy(optimizer) else optimizer.variables  # Keras writes no legacy state
        write_checksums(store, [*self.weights, *self.state, *own])
        super().save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Compare the variables in the file with their checksums; Keras calls this before it reads any.

        Raises:
            ValueError: if the file is damaged.
        """
        check_checksums(store)
        super().load_own_variables(store)

    def export(self, filepath: Any) -> None:
        """Refuse the export of Keras: its signature takes encoded features.

        Raises:
            ValueError: always, with the cure.
        """
        raise ValueError(f"`export` of Keras takes encoded features; use `tfmtl.export`. Received: {filepath!r}.")

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        # `keras.models.save_model` with a folder does not call `save`; the folder would load without its vocabularies.
        keras_folder = save_type == "savedmodel" and writes_keras_folder()
        require(not keras_folder, f"Keras' SavedModel format loses the preprocessor and the tasks; {_OTHERS}.")
        children: dict[str, Any] = super()._trackable_children(save_type, **kwargs)
        return children

    def get_config(self) -> dict[str, Any]:
        config: Any = to_config(self)
        corpus = {} if self.candidates is None else self.candidates.features
        columns = {name: np.asarray(column) for name, column in corpus.items()}
        described = {name: [str(column.dtype), column.tolist()] for name, column in columns.items()}
        # One string, because Keras would make objects of the configurations inside of a configuration.
        return {"model": json.dumps({**config, "corpus": described})}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Any:
        described = json.loads(config["model"])
        corpus = {name: np.asarray(values, kind) for name, (kind, values) in described.pop("corpus").items()}
        with keras.saving.custom_object_scope(custom_objects or {}):
            return from_config(described, corpus)

    def get_compile_config(self) -> dict[str, Any] | None:
        """Return the optimizer without its state and the other arguments of `compile`; None if not compiled.

        Raises:
            ValueError: for a legacy optimizer, of which Keras' files lose the state.
        """
        name = type(getattr(self, "optimizer", None)).__name__
        rule = f"Keras' files lose the state of `keras.optimizers.legacy.{name}`; compile the model with "
        cure = f"`keras.optimizers.{name}`, or save to a folder with `tfmtl.models.save_model`."
        require(not is_legacy(getattr(self, "optimizer", None)), rule + cure)
        described = optimizer_of(self)
        return described and {"optimizer": json.dumps(described, default=float)}

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compile the model as `get_compile_config` described."""
        described = json.loads(config["optimizer"])
        require_trusted(described, "The configuration of an optimizer")
        compile_like(self, described)
        self.optimizer.build(self.trainable_variables)


def load_keras_file(path: pathlib.Path, safe_mode: bool) -> Any:
    """Return the model of a `.keras` file, as `keras.models.load_model` does; every error holds the path.

    Args:
        path: of the file.
        safe_mode: as in `load_model`.

    Raises:
        DamagedFileError: a `ValueError`, if the file is damaged.
        ValueError: if the file could run code of its author, or holds no model of this package.
    """
    with SafeModeScope(safe_mode), made_from(path, CURE):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
                config = parse_json(path, archive.read("config.json"), CURE, ("config", "class_name"))
        except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
            raise DamagedFileError(path, f"it is no whole archive of Keras ({error})", CURE) from error
        if damaged:
            raise DamagedFileError(path, f"its part {damaged!r} does not match its checksum", CURE)
        inner = (config["config"], config.get("compile_config") or {})
        texts = [text for part in inner for text in part.values() if isinstance(text, str)]
        for part in (config, *(json.loads(text) for text in texts if text.startswith("{"))):
            require_trusted(part, str(path))
        model = keras.models.load_model(path, safe_mode=safe_mode)
        rule = f"{path} holds no `MultiTaskModel`; load it with `keras.models.load_model`."
        require(isinstance(model, KerasFiles), rule, kind=type(model).__name__)
    return model


def require_keras_file(filepath: Any, given: Mapping[str, Any]) -> None:
    """Raise unless Keras' `save` can write the model to a path in a form that can be loaded.

    Raises:
        ValueError: with the cure.
    """
    path, kind = os.fspath(filepath), given.get("save_format")
    others = {name: value for name, value in given.items() if value is not None}
    valid = path.endswith(".keras") and kind in (None, "keras") and set(others) <= {"save_format"}
    require(valid, f"`model.save` writes `.keras` files; {_OTHERS}.", filepath=path, **others)


def check_checkpoints(callbacks: Any) -> None:
    """Raise if a `ModelCheckpoint` would fail at the end of an epoch.

    Raises:
        ValueError: with the cure.
    """
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.ModelCheckpoint) and not callback.save_weights_only:
            rule = (
                "A `ModelCheckpoint` of whole models writes `.keras` files; name one, or pass `save_weights_only=True`."
            )
            require(str(callback.filepath).endswith(".keras"), rule, filepath=callback.filepath)
