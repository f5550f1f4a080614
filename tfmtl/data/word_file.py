"""Files of rows of 4-byte words: complete or absent, identified by a key of their source, and checked by checksums."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import struct
import zlib
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np

from tfmtl._checks import require
from tfmtl._staging import remove_abandoned, replace_file

_MAGIC = b"tfmtl encoded rows 1\n"
_LENGTH = struct.Struct("<q")
_CHECKED_BYTES = 1 << 14  # of a checksum: less would cost more calls, more would read more beyond the ends of a run
_VERIFIED_BYTES = 1 << 20  # read at a time when a file is opened


class WordFile:
    """Rows of words in a file that is kept open and stays readable while another file replaces it.

    Every read compares the rows with their checksums (CRC-32, one per 16 kB), so that a damaged disk cannot change a
    model.

    Args:
        path: of the file.
        rows, width: shape of its words.
        start: bytes before the first row.
        checked_rows: number of rows per checksum.
        checksums: uint32, one per `checked_rows` rows; the last may cover fewer.
    """

    def __init__(
        self, path: pathlib.Path, rows: int, width: int, start: int, checked_rows: int, checksums: np.ndarray
    ) -> None:
        self.path = path
        self.rows = rows
        self.width = width
        self.start = start
        self.checked_rows = checked_rows
        self.checksums = checksums
        self._file = path.open("rb", buffering=0)

    def read_into(self, start: int, rows: np.ndarray) -> None:
        """Fill an array [n, width] with the rows from `start` on.

        Raises:
            ValueError: if the file has become shorter, or its contents do not match their checksums.
        """
        if not len(rows):
            return
        end = start + len(rows)
        first = start // self.checked_rows
        before = start - first * self.checked_rows
        after = min(-(-end // self.checked_rows) * self.checked_rows, self.rows) - end
        # The rows up to the bounds of the checksums are read as well, into arrays of their own.
        edges = [np.empty([count, self.width], np.int32) for count in (before, after)]
        parts = [_bytes(part) for part in (edges[0], rows, edges[1])]
        self._fill(parts, self.start + 4 * self.width * (start - before))
        running = Checksums(self.checked_rows * 4 * self.width)
        for part in parts:
            running.add(part)
        found = running.finish()
        wrong = np.flatnonzero(found != self.checksums[first : first + len(found)])
        require(
            not len(wrong),
            f"File '{self.path}' is damaged from row {(first + int(wrong[0])) * self.checked_rows if len(wrong) else 0}"
            " on; call `cache` again, which writes it again.",
        )

    def read(self, start: int, end: int) -> np.ndarray:
        """Return the words [end - start, width] of some rows."""
        rows = np.empty([end - start, self.width], np.int32)
        self.read_into(start, rows)
        return rows

    def is_whole(self) -> bool:
        """Read the file once and return whether all rows match their checksums."""
        step = self.checked_rows * max(1, _VERIFIED_BYTES // (4 * self.width * self.checked_rows))
        window = np.empty([min(step, self.rows), self.width], np.int32)
        try:
            for start in range(0, self.rows, step):
                self.read_into(start, window[: self.rows - start])
        except ValueError:
            return False
        return True

    def _fill(self, parts: list[memoryview], offset: int) -> None:
        rest = [part for part in parts if len(part)]
        while rest:
            count = os.preadv(self._file.fileno(), rest, offset)
            require(
                count > 0, f"File '{self.path}' has been cut while it is read; delete it so that it is written again."
            )
            offset += count
            while rest and count >= len(rest[0]):
                count -= len(rest.pop(0))
            if count:
                rest[0] = rest[0][count:]

    def __del__(self) -> None:
        """Close the file."""
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()


class Checksums:
    """The CRC-32 of every `size` bytes of data that come in parts; the last one may cover fewer bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._complete: list[int] = []
        self._running, self._left = 0, size

    def add(self, data: memoryview) -> None:
        """Add the next part."""
        start = 0
        while start < len(data):
            count = min(self._left, len(data) - start)
            self._running = zlib.crc32(data[start : start + count], self._running)
            start, self._left = start + count, self._left - count
            if not self._left:
                self._complete.append(self._running)
                self._running, self._left = 0, self.size

    def finish(self) -> np.ndarray:
        """Return the checksums as uint32."""
        rest = [self._running] if self._left < self.size else []
        return np.asarray([*self._complete, *rest], np.uint32)


def read_words(path: pathlib.Path, key: str, width: int) -> WordFile | None:
    """Open a file if there is one with this key; return None if it is empty, damaged, or has another key.

    Raises:
        ValueError: if the path holds something that `write_words` did not write.

    Cost: reads the file once.
    """
    if not path.exists():
        return None
    with contextlib.nullcontext() if path.is_dir() else path.open("rb") as file:
        require(
            file is not None and _is_ours(file),
            f"'{path}' is there and is no cache of encoded rows; choose another path.",
        )
        found = _footer(file, key, width)  # type: ignore[arg-type]
    if found is None:
        return None
    rows, checked_rows, checksums = found
    words = WordFile(path, rows, width, len(_MAGIC), checked_rows, checksums)
    return words if words.is_whole() else None


def write_words(path: pathlib.Path, key: str, width: int, windows: Iterable[np.ndarray]) -> None:
    """Write windows of words [n, width] to a file that appears only when complete; the last of several writers wins.

    Args:
        path: of the file.
        key: hash of everything that the words depend on.
        width: words per row.
        windows: the rows, in order.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)
    checked_rows = max(1, _CHECKED_BYTES // (4 * width))

    def write(file: BinaryIO) -> None:
        rows, checksums = 0, Checksums(4 * width * checked_rows)
        file.write(_MAGIC)
        for window in windows:
            data = _bytes(np.ascontiguousarray(window, "<i4"))
            checksums.add(data)
            file.write(data)
            rows += len(window)
        file.write(checksums.finish().astype("<u4").data)
        footer = json.dumps({"key": key, "width": width, "rows": rows, "checked_rows": checked_rows}).encode()
        file.write(footer + _LENGTH.pack(len(footer)) + _MAGIC)

    replace_file(path, write)


def _bytes(rows: np.ndarray) -> memoryview:
    return memoryview(rows).cast("B") if rows.size else memoryview(b"")  # type: ignore[arg-type]


def _is_ours(file: BinaryIO) -> bool:
    """Return whether a file begins or ends as ours do, or is so short that only its beginning is left."""
    start = file.read(len(_MAGIC))
    file.seek(max(file.seek(0, os.SEEK_END) - len(_MAGIC), 0))
    return _MAGIC.startswith(start) or file.read() == _MAGIC


def _footer(file: BinaryIO, key: str, width: int) -> tuple[int, int, np.ndarray] | None:
    """Return the number of rows, the rows per checksum and the checksums; None if the end is damaged or of other rows.

    The files of earlier versions, which have no checksums, are damaged ones.
    """
    tail = _LENGTH.size + len(_MAGIC)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - tail, 0))
    end = file.read()
    if size < 2 * len(_MAGIC) + _LENGTH.size or end[_LENGTH.size :] != _MAGIC:
        return None
    (length,) = _LENGTH.unpack(end[: _LENGTH.size])
    if not 0 < length < size - tail:
        return None
    file.seek(size - tail - length)
    try:
        found: dict[str, Any] = json.loads(file.read(length))
        if (found["key"], found["width"]) != (key, width):
            return None
        rows, checked_rows = int(found["rows"]), int(found["checked_rows"])
        count = -(-rows // checked_rows)
    except (ValueError, KeyError, TypeError, ZeroDivisionError):
        return None
    if len(_MAGIC) + 4 * width * rows + 4 * count + length + tail != size or checked_rows < 0:
        return None
    file.seek(len(_MAGIC) + 4 * width * rows)
    return rows, checked_rows, np.frombuffer(file.read(4 * count), "<u4")
