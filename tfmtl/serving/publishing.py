"""Publishing: a version appears in the folder of its model complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
import tarfile
import uuid
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from tfmtl._checks import require_positive_int
from tfmtl.serving.versions import versions_in

_STAGING = ".tmp-"  # not an integer, so that TensorFlow Serving never takes it for a version
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def publish(directory: pathlib.Path, write: Callable[[pathlib.Path], None], version: int | None = None) -> pathlib.Path:
    """Publish the files that `write` makes as a version of the model in `directory`, all or nothing.

    The files are written to a folder in `directory` that no server reads, which is flushed to the disk and then
    renamed. After an error the folder is removed; the folder of a killed process is removed by the next call.

    Args:
        directory: the folder of the model; made if absent.
        write: writes the files of the version into the folder that it is given.
        version: a positive integer, or None for the next one.

    Returns:
        `directory/<version>`.

    Raises:
        FileExistsError: if the version exists.
        OSError: if the disk is full.
    """
    if version is not None:
        require_positive_int(version=version)
        _require_free(directory, version)
    made = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(directory)
    try:
        return _fill_and_move(directory, write, version)
    except BaseException as error:
        if made:
            with contextlib.suppress(OSError):
                directory.rmdir()  # fails if another process has published there meanwhile
        if _is_full(error):
            message = f"No space is left in {directory}, nothing was published; free some and export again"
            raise OSError(errno.ENOSPC, message) from error
        raise


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
        raise FileExistsError(
            f"Version {version} exists as {versions[version]}; "
            f"give another `version`, or none to publish {max(versions) + 1}."
        )


@contextlib.contextmanager
def _locked(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """Make a staging folder and lock it; the system releases the lock even if this process is killed."""
    while True:
        folder = directory / f"{_STAGING}{uuid.uuid4().hex}"
        folder.mkdir()
        handle = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # on a file system without locks, only the cleaning up is lost
                fcntl.flock(handle, fcntl.LOCK_EX)
            if folder.exists():  # another export may have removed it as abandoned before the lock
                yield folder
                return
        finally:
            os.close(handle)


def _fill_and_move(directory: pathlib.Path, write: Callable[[pathlib.Path], None], version: int | None) -> pathlib.Path:
    with _locked(directory) as folder:
        try:
            write(folder)
            _flush(folder)
            return _move(folder, directory, version)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _remove_abandoned(directory: pathlib.Path) -> None:
    for folder in directory.glob(f"{_STAGING}*"):
        with contextlib.suppress(OSError):  # locked by a running process, or removed meanwhile
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def _flush(folder: pathlib.Path) -> None:
    """Write the folder to the disk, so that the new name never shows half a model after a power cut."""
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _move(folder: pathlib.Path, directory: pathlib.Path, version: int | None) -> pathlib.Path:
    while True:
        number = max(versions_in(directory), default=0) + 1 if version is None else version
        _require_free(directory, number)
        try:
            return folder.rename(directory / str(number))
        except OSError as error:  # another export took the number meanwhile
            if error.errno not in _TAKEN:
                raise


def _is_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) in _FULL or "No space left on device" in str(error)
