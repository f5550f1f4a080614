"""Files of rows of 4-byte words: written completely or not at all, and identified by a key of their source."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import struct
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from tfmtl._checks import require

_MAGIC = b"tfmtl encoded rows 1\n"
_LENGTH = struct.Struct("<q")
_YOUNG = 60  # seconds before an unfinished file may count as left behind: its writer locks it just after making it


class WordFile:
    """Rows of words in a file that is kept open and stays readable while another file replaces it.

    Args:
        path: of the file.
        rows, width: shape of its words.
        start: bytes before the first row.
    """

    def __init__(self, path: pathlib.Path, rows: int, width: int, start: int) -> None:
        self.path = path
        self.rows = rows
        self.width = width
        self.start = start
        self._file = path.open("rb", buffering=0)

    def read_into(self, start: int, rows: np.ndarray) -> None:
        """Fill an array [n, width] with the rows from `start` on.

        Raises:
            ValueError: if the file has become shorter.
        """
        rest = memoryview(rows).cast("B")  # type: ignore[arg-type]
        offset = self.start + 4 * self.width * start
        while len(rest):
            count = os.preadv(self._file.fileno(), [rest], offset)
            require(
                count > 0, f"File '{self.path}' has been cut while it is read; delete it so that it is written again."
            )
            rest, offset = rest[count:], offset + count

    def read(self, start: int, end: int) -> np.ndarray:
        """Return the words [end - start, width] of some rows."""
        rows = np.empty([end - start, self.width], np.int32)
        self.read_into(start, rows)
        return rows

    def __del__(self) -> None:
        """Close the file."""
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()


def read_words(path: pathlib.Path, key: str, width: int) -> WordFile | None:
    """Open a file if there is one with this key; return None if it is damaged or has another key.

    Raises:
        ValueError: if the path holds something that `write_words` did not write.
    """
    if not path.exists():
        return None
    with contextlib.nullcontext() if path.is_dir() else path.open("rb") as file:
        ours = file is not None and file.read(len(_MAGIC)) == _MAGIC
        require(ours, f"'{path}' is there and is no cache of encoded rows; choose another path.")
        found = _footer(file)  # type: ignore[arg-type]
    if found.get("key") != key or found.get("width") != width:
        return None
    return WordFile(path, found["rows"], width, len(_MAGIC))


def write_words(path: pathlib.Path, key: str, width: int, windows: Iterable[np.ndarray]) -> None:
    """Write windows of words [n, width] to a file that appears only when complete; the last of several writers wins.

    Args:
        path: of the file.
        key: hash of everything that the words depend on.
        width: words per row.
        windows: the rows, in order.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.unfinished")
    rows = 0
    try:
        with unfinished.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # held until the writer ends, however it ends
            file.write(_MAGIC)
            for window in windows:
                file.write(np.ascontiguousarray(window, "<i4").data)
                rows += len(window)
            footer = json.dumps({"key": key, "width": width, "rows": rows}).encode()
            file.write(footer + _LENGTH.pack(len(footer)) + _MAGIC)
            file.flush()
            os.fsync(file.fileno())
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _footer(file: BinaryIO) -> dict[str, Any]:
    """Return the metadata at the end of a file, empty if the end is missing."""
    tail = _LENGTH.size + len(_MAGIC)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - tail, 0))
    end = file.read()
    if size < 2 * len(_MAGIC) + _LENGTH.size or end[_LENGTH.size :] != _MAGIC:
        return {}
    (length,) = _LENGTH.unpack(end[: _LENGTH.size])
    if not 0 < length < size - tail:
        return {}
    file.seek(size - tail - length)
    found: dict[str, Any] = json.loads(file.read(length))
    whole = len(_MAGIC) + 4 * found["width"] * found["rows"] + length + tail == size
    return found if whole else {}


def _remove_abandoned(path: pathlib.Path) -> None:
    """Delete the unfinished files of writers that have ended, as released locks show."""
    for file in _unfinished(path):
        with contextlib.suppress(OSError), file.open("rb") as opened:
            if time.time() - file.stat().st_mtime > _YOUNG:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink()


def _unfinished(path: pathlib.Path) -> Iterator[pathlib.Path]:
    start, end = f".{path.name}.", ".unfinished"
    return (file for file in path.parent.iterdir() if file.name.startswith(start) and file.name.endswith(end))
