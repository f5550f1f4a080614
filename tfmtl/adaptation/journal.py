"""A folder of states with atomic writes, so that a process may be killed at any moment."""

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
    """States by number, and a manifest that lists the valid ones.

    Every file is written under a temporary name, flushed to the disk and renamed in one step, the manifest last. If the
    process is killed before that, the preceding manifest and its states remain valid.

    Args:
        folder: created if absent.
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
            ValueError: if there is none, or another release wrote it.
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
        """Write a state: plain values and arrays."""
        text = np.frombuffer(json.dumps(config, default=_plain).encode(), np.uint8)
        every: dict[str, Any] = {_CONFIG: text, **arrays}
        self._replace(self._state(number), lambda file: np.savez(file, **every))

    def read_state(self, number: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the values and arrays of a state.

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
        """Remove the states outside a range of numbers, and temporary files of killed processes."""
        for path in (*self.folder.glob("state-*.npz"), *self.folder.glob(".tmp-*")):
            if path.name.startswith(".tmp-") or int(path.stem.rsplit("-", 1)[1]) not in kept:
                path.unlink(missing_ok=True)

    def _state(self, number: int) -> pathlib.Path:
        return self.folder / f"state-{number:06d}.npz"

    def _replace(self, path: pathlib.Path, write: Callable[[BinaryIO], Any]) -> None:
        temporary = self.folder / f".tmp-{uuid.uuid4().hex}"
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)  # a power cut must not undo the renaming
        finally:
            os.close(handle)


def _plain(value: Any) -> Any:
    """Convert a number of NumPy or TensorFlow to a Python number."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else float(value)
