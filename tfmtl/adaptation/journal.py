"""A folder of states, written so that a process may die at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from tfmtl._checks import require

_MANIFEST = "manifest.json"
_CONFIG = "config"
_FORMAT = 1


class Journal:
    """States by number beside a manifest, which alone says what has happened.

    Every file is written beside its place, flushed to the disk and moved into it in one step, the manifest last:
    whoever is killed before leaves what the manifest of before says.

    Args:
        folder: made if absent.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def exists(self) -> bool:
        """Whether the folder has a manifest."""
        return (self.folder / _MANIFEST).is_file()

    def read(self) -> dict[str, Any]:
        """Return the manifest.

        Raises:
            ValueError: if there is none, or a later release wrote it.
        """
        require(self.exists, f"{self.folder} holds no online learner; make one with `OnlineLearner(model, folder)`.")
        manifest = json.loads((self.folder / _MANIFEST).read_text())
        require(manifest["format"] == _FORMAT, f"{self.folder} was written in another format.", **manifest)
        return manifest

    def write(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest."""
        text = json.dumps({"format": _FORMAT, **manifest}, indent=1, default=_plain)
        self._replace(self.folder / _MANIFEST, lambda file: file.write(text.encode()))

    def write_state(self, number: int, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Write a state of plain values and arrays."""
        text = np.frombuffer(json.dumps(config, default=_plain).encode(), np.uint8)
        every: dict[str, Any] = {_CONFIG: text, **arrays}
        self._replace(self._state(number), lambda file: np.savez(file, **every))

    def read_state(self, number: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return a state as it was written.

        Raises:
            ValueError: if the state is not kept.
        """
        require(self.has_state(number), f"{self.folder} does not keep state {number}.")
        with np.load(self._state(number), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return json.loads(arrays.pop(_CONFIG).tobytes()), arrays

    def has_state(self, number: int) -> bool:
        """Return whether a state is kept."""
        return self._state(number).is_file()

    def forget(self, kept: range) -> None:
        """Remove the states outside a range of numbers, and what killed processes have left."""
        for path in (*self.folder.glob("state-*.npz"), *self.folder.glob(".tmp-*")):
            if path.name.startswith(".tmp-") or int(path.stem.rsplit("-", 1)[1]) not in kept:
                path.unlink(missing_ok=True)

    def _state(self, number: int) -> pathlib.Path:
        return self.folder / f"state-{number:06d}.npz"

    def _replace(self, path: pathlib.Path, write: Callable[[BinaryIO], Any]) -> None:
        beside = self.folder / f".tmp-{uuid.uuid4().hex}"
        try:
            with beside.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)  # the new name, too, must outlive a power cut
        finally:
            os.close(handle)


def _plain(value: Any) -> Any:
    """Return a number of numpy or TensorFlow as one of Python."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else float(value)
