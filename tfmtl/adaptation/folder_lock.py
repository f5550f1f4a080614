"""FolderLock: the exclusive use of a folder by one object of one process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pathlib
import socket
import weakref

from tfmtl._checks import require
from tfmtl._staging import is_running, started

_LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class FolderLock:
    """Exclusive use of a folder, which the system ends together with the process, however it ends.

    A second object of the same process takes the lock over, such as that of a repeated cell of a notebook; the first
    one may then no longer write.

    Args:
        folder: an existing folder; it gets a file `.lock`, which holds the process and stays.

    Raises:
        RuntimeError: if another process has the lock.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._process = os.getpid()
        key, path = os.path.realpath(folder), folder / _LOCK
        other = _HELD.pop(key, None)
        inherited = None if other is None else other._give(path)
        self._handle: int | None = _locked(path) if inherited is None else inherited
        owner = {"process": self._process, "start": started(self._process), "host": socket.gethostname()}
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps(owner).encode(), 0)
        _HELD[key] = self

    def check(self) -> None:
        """Raise unless this object has the lock.

        Raises:
            RuntimeError: if another object of this process has taken it over, or this is a forked process.
        """
        if self._handle is None:
            raise RuntimeError(f"Another learner of this process has continued {self.folder}; use that one.")
        if self._process != os.getpid():
            raise RuntimeError(
                f"The learner of {self.folder} belongs to process {self._process}, which forked this one; use it there."
            )

    def _give(self, path: pathlib.Path) -> int | None:
        """Give up the lock; return its handle if this process has it and the file is still the same."""
        handle, self._handle = self._handle, None
        if handle is None:
            return None
        if self._process == os.getpid() and path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
        os.close(handle)
        return None

    def __del__(self) -> None:
        """Release the lock."""
        if getattr(self, "_handle", None) is not None:
            os.close(self._handle)  # type: ignore[arg-type]


_HELD: weakref.WeakValueDictionary[str, FolderLock] = weakref.WeakValueDictionary()


def _locked(path: pathlib.Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner, lives = _owner(os.pread(handle, 1000, 0))
        if error.errno not in _NO_LOCKS or lives:
            os.close(handle)
            raise RuntimeError(
                f"{path.parent} is in use by the learner of {owner}, and two learners would overwrite each other; "
                "end that process, or give another folder."
            ) from error
    return handle


def _owner(written: bytes) -> tuple[str, bool]:
    """Return the description of the process that wrote a lock, and whether it is known to run on this machine."""
    try:
        owner = json.loads(written)
        process, start, host = int(owner["process"]), int(owner["start"]), str(owner["host"])
        require(host.isprintable(), "The host must be printable.")
    except (ValueError, KeyError, TypeError):
        return "another process", False
    return f"process {process} on {host}", host == socket.gethostname() and is_running(process, start)
