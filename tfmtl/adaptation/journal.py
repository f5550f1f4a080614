"""A folder of states with atomic writes, so that a process may be killed at any moment."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._saved_files import contents_of, parse_json, read_arrays, read_json, to_json
from tfmtl._staging import remove_abandoned, replace_file
from tfmtl.adaptation.folder_lock import FolderLock

_MANIFEST = "manifest.json"
_CONFIG = "config"
_FORMAT = 1
_STATE = re.compile(r"state-([0-9]+)\.npz")
CURE = "restore it from a backup, or give another folder"


class Journal:
    """States by number, and a manifest that lists the valid ones.

    Every file is written under a temporary name, flushed to the disk and renamed in one step, the manifest last. If the
    process is killed before that, the preceding manifest and its states remain valid. Every file has a checksum.

    Args:
        folder: created if absent.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock: FolderLock | None = None

    def lock(self) -> None:
        """Keep all other learners from writing to the folder.

        Raises:
            RuntimeError: if another process has it.
        """
        self._lock = FolderLock(self.folder)

    def check_lock(self) -> None:
        """Raise if another learner has taken over the folder since `lock`.

        Raises:
            RuntimeError: with the cure.
        """
        if self._lock is not None:
            self._lock.check()

    @property
    def manifest(self) -> pathlib.Path:
        """The path of the manifest."""
        return self.folder / _MANIFEST

    @property
    def exists(self) -> bool:
        """Whether the folder has a manifest."""
        return self.manifest.is_file()

    @property
    def states(self) -> list[int]:
        """The numbers of the kept states, in ascending order."""
        return sorted(self._states())

    def read(self) -> dict[str, Any]:
        """Return the manifest.

        Raises:
            DamagedFileError: a `ValueError`, if it is damaged.
            ValueError: if there is none, or another release wrote it.
        """
        require(
            self.exists,
            f"{self.folder} holds no online learner; make one with `OnlineLearner(...)`.",
        )
        manifest = read_json(self.manifest, CURE, ("format", "options", "keep", "increments"))
        require(manifest["format"] == _FORMAT, f"{self.folder} was written in another format.", **manifest)
        return manifest

    def write(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest."""
        self.check_lock()
        text = to_json({"format": _FORMAT, **manifest}, indent=1, default=_plain)
        replace_file(self.manifest, lambda file: file.write(text.encode()))

    def write_state(self, number: int, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Write a state: plain values and arrays."""
        self.check_lock()
        text = np.frombuffer(json.dumps(config, default=_plain).encode(), np.uint8)
        every: dict[str, Any] = {_CONFIG: text, **arrays}
        replace_file(self.state(number), lambda file: np.savez(file, **every))

    def read_state(self, number: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the values and arrays of a state.

        Raises:
            DamagedFileError: a `ValueError`, if it is damaged.
            ValueError: if the state is not kept.
        """
        require(self.has_state(number), f"{self.folder} does not keep state {number}.")
        path = self.state(number)
        arrays = read_arrays(path, CURE)
        with contents_of(path, CURE):
            return parse_json(path, arrays.pop(_CONFIG).tobytes(), CURE), arrays

    def has_state(self, number: int) -> bool:
        """Return whether a state is kept."""
        return self.state(number).is_file()

    def forget(self, kept: range) -> None:
        """Remove the states outside a range of numbers, and temporary files of killed processes."""
        remove_abandoned(self.folder)
        for number, path in self._states().items():
            if number not in kept:
                path.unlink(missing_ok=True)

    def state(self, number: int) -> pathlib.Path:
        """Return the path of a state."""
        return self.folder / f"state-{number:06d}.npz"

    def _states(self) -> dict[int, pathlib.Path]:
        found = ((_STATE.fullmatch(path.name), path) for path in self.folder.iterdir())
        return {int(match[1]): path for match, path in found if match}


def _plain(value: Any) -> Any:
    """Convert a number of NumPy or TensorFlow to a Python number."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else float(value)
