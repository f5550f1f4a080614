"""Publishing: a version appears in the folder of its model complete or not at all."""

from __future__ import annotations

import os
import pathlib
import tarfile
from collections.abc import Callable
from typing import BinaryIO, cast

from tfmtl._staging import flush_tree, locked, rename, staged
from tfmtl.serving.versions import GREATEST, next_version, require_version, versions_in


def publish(directory: pathlib.Path, write: Callable[[pathlib.Path], None], version: int | None = None) -> pathlib.Path:
    """Publish the files that `write` makes as a version of the model in `directory`, all or nothing.

    The files are written to a folder in `directory` that no server reads, which is flushed to the disk and then
    renamed. After an error the folder is removed; the folder of a killed process is removed by the next call.

    Args:
        directory: the folder of the model; made if absent.
        write: writes the files of the version into the folder that it is given.
        version: an integer from 1 to 2**63 - 1, or None for the next one.

    Returns:
        `directory/<version>`.

    Raises:
        ValueError: if the version is out of range.
        FileExistsError: if the version exists.
        OSError: if the disk is full.
    """
    if version is None:
        next_version(directory)  # refuses a folder without a next version before the work
    else:
        require_version(version)
        _require_free(directory, version)
    with staged(directory) as folder:
        write(folder)
        flush_tree(folder)
        with locked(directory):
            return _move(folder, directory, version)


def compressed_size(path: str | os.PathLike[str]) -> int:
    """Return the size in bytes of a file or folder as a gzipped tar archive; no archive is stored.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (pathlib.Path(folder) / "zeros").write_bytes(bytes(1_000_000))
        ...     compressed_size(folder) < 10_000
        True
    """
    counter = _Counter()
    with tarfile.open(fileobj=cast("BinaryIO", counter), mode="w|gz") as archive:
        archive.add(path, arcname=".")
    return counter.size


class _Counter:
    """A file that only counts the bytes written to it."""

    size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)


def _require_free(directory: pathlib.Path, version: int) -> None:
    versions = versions_in(directory)
    if version in versions:
        cure = f", or none to publish {max(versions) + 1}" if max(versions) < GREATEST else ""
        raise FileExistsError(f"Version {version} exists as {versions[version]}; give another `version`{cure}.")


def _move(folder: pathlib.Path, directory: pathlib.Path, version: int | None) -> pathlib.Path:
    while True:
        if version is not None:
            _require_free(directory, version)
        target = directory / str(next_version(directory) if version is None else version)
        try:
            rename(folder, target)
        except FileExistsError:  # taken meanwhile by another tool, which does not lock the folder
            continue
        return target
