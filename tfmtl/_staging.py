"""Staging: files and folders that appear complete or not at all, even if their writer is killed; without TensorFlow."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import pathlib
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

# No integer, so that TensorFlow Serving never takes the folder for a version.
_NAME = re.compile(r"\.tmp-(?P<machine>[0-9a-f]{12})-(?P<process>[0-9]+)-(?P<start>[0-9]+)-[0-9a-f]{12}")
_FORMER = re.compile(r"\.tmp-[0-9a-f]{32}")  # the names of earlier versions hold no owner
_DAY = 24 * 60 * 60
_TRIES = 100
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP)  # some network file systems cannot flush a folder


@contextlib.contextmanager
def staged(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a new folder beside the final one; the end of the block removes it unless `move` has renamed it.

    The folder's name holds its owner: machine, process id and start of the process. The folders of processes that have
    ended are removed first, see `remove_abandoned`.

    Args:
        parent: the folder that will hold the final one. It is made if absent, and removed again after an error.

    Raises:
        OSError: with one sentence if the disk is full.

    Example:
        >>> import tempfile
        >>> parent = pathlib.Path(tempfile.mkdtemp())
        >>> with staged(parent) as folder:
        ...     _ = (folder / "model.json").write_text("{}")
        ...     move(folder, parent / "shop")
        >>> [path.name for path in parent.iterdir()]
        ['shop']
    """
    remove_abandoned(parent)
    made = [path for path in (parent, *parent.parents) if not path.exists()]
    try:
        folder = _new_folder(parent)
        with _owned(folder):
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)  # absent if it was moved
    except BaseException as error:
        with contextlib.suppress(OSError):  # another process has written there meanwhile
            for path in made:
                path.rmdir()
        _raise_if_full(error, parent)
        raise
    for path in made:
        flush(path.parent)


def move(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Flush a staged folder to the disk and rename it to its final name in one step.

    Raises:
        FileExistsError: if the target exists.
    """
    flush_tree(folder)
    with locked(target.parent):
        rename(folder, target)


def rename(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Rename a flushed folder and flush the new name; hold `locked(target.parent)`.

    Raises:
        FileExistsError: if the target exists.
    """
    taken = f"{target} exists already."
    if os.path.lexists(target):  # an empty folder would be replaced
        raise FileExistsError(taken)
    try:
        folder.rename(target)
    except OSError as error:  # on a file system without locks, another process may take the name meanwhile
        if error.errno in _TAKEN:
            raise FileExistsError(taken) from error
        raise
    flush(target.parent)


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Exclude other processes that lock the same folder; the system releases the lock of a killed process."""
    with _owned(folder):
        yield


def staged_path(path: pathlib.Path) -> pathlib.Path:
    """Return another name in the folder of a file, for a writer that opens the file itself; see `replace_file`.

    Rename the flushed file to `path`, or remove it after an error; `remove_abandoned` removes it after a kill.
    """
    return path.with_name(_name())


def replace_file(path: pathlib.Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file under another name in its folder, flush it and rename it; an older file is replaced in one step.

    Args:
        path: of the file; its folder exists.
        write: writes the contents to the opened file that it is given.
    """
    staging = staged_path(path)
    try:
        with staging.open("xb") as file:
            _lock(file.fileno())
            write(file)
            file.flush()
            os.fsync(file.fileno())
            staging.replace(path)
    except BaseException as error:
        staging.unlink(missing_ok=True)
        _raise_if_full(error, path.parent)
        raise
    flush(path.parent)


def flush(path: pathlib.Path) -> None:
    """Write a file, or the names in a folder, from the memory of the system to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(handle)


def flush_tree(folder: pathlib.Path) -> None:
    """Flush a folder and everything in it, so that a name never shows half of its contents after a power cut."""
    for path in (*folder.rglob("*"), folder):
        flush(path)


def remove_abandoned(parent: pathlib.Path) -> None:
    """Remove the staged files and folders of processes that have ended; an absent parent holds none.

    The files of a process of this machine are removed as soon as it has ended, those of other machines and containers
    and of a time before the last start of this one after a day. Locked ones always stay.
    """
    try:
        paths = [path for path in parent.iterdir() if _is_abandoned(path)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in paths:
        with contextlib.suppress(OSError):  # locked, removed by another process, or of another user
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
            finally:
                os.close(handle)


def is_running(process: int, start: int) -> bool:
    """Return whether a process of this machine runs; a later one with the same id has another start."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it runs, as another user
    state, began = _stat(process)
    return state not in ("Z", "X") and (began == start or 0 in (began, start))  # 0: unknown


def started(process: int) -> int:
    """Return the time of the start of a process in ticks since that of its machine, 0 if it cannot be read."""
    return _stat(process)[1]


def _is_abandoned(path: pathlib.Path) -> bool:
    owner = _NAME.fullmatch(path.name)
    if owner and owner["machine"] == _machine():
        return not is_running(int(owner["process"]), int(owner["start"]))
    if not owner and not _FORMER.fullmatch(path.name):
        return False
    try:
        return time.time() - path.lstat().st_mtime > _DAY
    except FileNotFoundError:
        return False


def _name() -> str:
    process = os.getpid()
    return f".tmp-{_machine()}-{process}-{started(process)}-{uuid.uuid4().hex[:12]}"


@functools.cache
def _machine() -> str:
    """Return a hash of the host, its last start and its name space of process ids; each container has one."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        parts.append(str(pathlib.Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _stat(process: int) -> tuple[str, int]:
    """Return the state of a process and the time of its start, "" and 0 if they cannot be read."""
    try:
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return "", 0


def _new_folder(parent: pathlib.Path) -> pathlib.Path:
    for attempt in range(_TRIES):
        folder = parent / _name()
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            break
        except FileNotFoundError:  # another process removed the empty parent after an error
            if attempt + 1 == _TRIES:
                raise
    return folder


@contextlib.contextmanager
def _owned(folder: pathlib.Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(handle)
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    with contextlib.suppress(OSError):  # some file systems have no locks
        fcntl.flock(handle, fcntl.LOCK_EX)


def _raise_if_full(error: BaseException, parent: pathlib.Path) -> None:
    texts = ("No space left on device", "Disk quota exceeded", "File too large")  # TensorFlow's errors hold no number
    if getattr(error, "errno", None) in _FULL or any(text in str(error) for text in texts):
        message = f"No space is left in {parent}, nothing was written; free some and try again."
        raise OSError(errno.ENOSPC, message) from error
