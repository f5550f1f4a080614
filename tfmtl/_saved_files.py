"""Files that the package writes and reads again: JSON and arrays with checksums; damaged ones are refused by name."""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import os
import pathlib
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

_CHECKSUM = "crc32"
_DEPTH = 200  # a network of layers in layers takes about four levels per layer
_END = re.compile(rb'(?:,|(?<=^\{))\s*"crc32":\s*"([0-9a-f]{8})"\s*\}\s*\Z')
_ARCHIVE_END = struct.Struct("<4s6xH8xH")  # signature, number of files (below 65,535), length of a comment
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError,
    OverflowError,
)  # fmt: skip


class DamagedFileError(ValueError):
    """A file is cut, empty, changed, or no file of its kind; the message holds its path and the cure."""

    def __init__(self, path: pathlib.Path, fault: str, cure: str) -> None:
        super().__init__(f"{path} is damaged: {fault}; {cure}.")
        self.path = path


@contextlib.contextmanager
def contents_of(path: pathlib.Path, cure: str) -> Iterator[None]:
    """Turn errors of missing or wrong entries, which a block reads from a file, into `DamagedFileError`."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DamagedFileError(path, f"its contents lack an entry or hold a wrong one ({error!r})", cure) from error


@contextlib.contextmanager
def made_from(path: pathlib.Path, cure: str) -> Iterator[None]:
    """Turn errors of a block, which makes objects of the contents of a file, into one sentence with the file.

    Errors that hold the path already, of the operating system, and of exhausted memory pass unchanged.

    Raises:
        DamagedFileError: for any other error; a changed configuration can raise every error of Keras.
    """
    try:
        yield
    except (DamagedFileError, OSError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise DamagedFileError(path, f"no model can be made of it ({reason})", cure) from error


def to_json(value: Mapping[str, Any], indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """Return a mapping as JSON with a last entry `crc32`, the CRC-32 of the text before it, for `read_json`.

    Example:
        >>> to_json({"rows": 3})
        '{"rows": 3, "crc32": "7369f3fc"}'
    """
    text = json.dumps(value, indent=indent, default=default)[:-1].rstrip()
    separator = "" if not value else ", " if indent is None else ",\n" + " " * indent
    end = "}" if indent is None else "\n}\n"
    return f'{text}{separator}"{_CHECKSUM}": "{zlib.crc32(text.encode()):08x}"{end}'


def read_json(path: pathlib.Path, cure: str, entries: Collection[str] = ()) -> dict[str, Any]:
    """Return the mapping that `to_json` wrote to a file; files of earlier versions have no checksum.

    Args:
        path: of the file.
        cure: the last words of an error, such as "export the model again".
        entries: names that the mapping must have.

    Raises:
        DamagedFileError: a `ValueError`, if the file is no JSON, is nested more than 200 levels deep, has an entry
            twice, lacks one, or does not match its checksum.
        FileNotFoundError: if there is no file.
    """
    return parse_json(path, path.read_bytes(), cure, entries)


def parse_json(path: pathlib.Path, data: bytes, cure: str, entries: Collection[str] = ()) -> dict[str, Any]:
    """Return the mapping of the contents of a file, as `read_json`."""
    end = _END.search(data)
    if end and zlib.crc32(data[: end.start()]) != int(end[1], 16):
        fault = f"it does not match its checksum (remove its entry `{_CHECKSUM}` if you have edited the file)"
        raise DamagedFileError(path, fault, cure)
    try:
        value = json.loads(data, object_pairs_hook=_once)
        _require_shallow(value)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(path, "it is empty" if not data else f"it is no JSON ({error})", cure) from error
    if not isinstance(value, dict) or (not end and _CHECKSUM in value):
        raise DamagedFileError(path, "it is no mapping with a checksum at its end", cure)
    value.pop(_CHECKSUM, None)
    absent = [name for name in entries if name not in value]
    if absent:
        raise DamagedFileError(path, f"it lacks the entries {absent}", cure)
    return value


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; programs that read the first or the last of two entries would see different files."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"an object has the entry {twice[:80]!r} twice")
    return found


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(_DEPTH):
        parts = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [inner for items in parts for inner in items if isinstance(inner, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested more than {_DEPTH} levels deep")


def read_arrays(path: pathlib.Path, cure: str) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` file by name; see `opened_arrays`."""
    with opened_arrays(path, cure) as arrays:
        return dict(arrays)


@contextlib.contextmanager
def opened_arrays(path: pathlib.Path, cure: str) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield the arrays of an `.npz` file by name; each access reads one and compares it with its CRC-32.

    `numpy.load` compares only arrays that it reads to the end, which a changed shape prevents.

    Args:
        path: of the file.
        cure: the last words of an error.

    Raises:
        DamagedFileError: a `ValueError`, also on access, if the file is no whole archive of arrays without Python
            objects, or lacks the array.
        FileNotFoundError: if there is no file.
    """
    with path.open("rb") as file:
        arrays = _Arrays(path, cure)
        with arrays.reading():
            archive = zipfile.ZipFile(file)
        with archive:
            with arrays.reading():
                arrays.open(archive, _count(file))
            yield arrays


class _Arrays(Mapping[str, np.ndarray]):
    def __init__(self, path: pathlib.Path, cure: str) -> None:
        self.path, self.cure = path, cure

    def open(self, archive: zipfile.ZipFile, count: int) -> None:
        self._archive = archive
        self._names = {name.removesuffix(".npy"): name for name in archive.namelist()}
        if len(self._names) != count:
            raise ValueError("its directory does not list all arrays")

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        try:
            yield
        except _UNREADABLE as error:
            fault = f"it is no whole archive of arrays ({error})" if self.path.stat().st_size else "it is empty"
            raise DamagedFileError(self.path, fault, self.cure) from error

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise DamagedFileError(self.path, f"it lacks the array {name!r}", self.cure)
        with self.reading():
            return _array(self._archive.read(self._names[name]))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _count(file: BinaryIO) -> int:
    """Return the number of files of an archive, which its end repeats; `zipfile` does not compare the two."""
    file.seek(-_ARCHIVE_END.size, os.SEEK_END)
    signature, count, comment = _ARCHIVE_END.unpack(file.read())
    if signature != b"PK\5\6" or comment:
        raise ValueError("its end is not that of an archive")
    return int(count)


def _array(data: bytes) -> np.ndarray:
    stream = io.BytesIO(data)
    array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    if stream.read(1):
        raise ValueError("an array is longer than its shape")
    return array


def checksums_of(folder: pathlib.Path, without: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Return size and CRC-32 of every file in a folder, by its path in the folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: _described(path) for name, path in names.items() if name not in without}


def check_file(folder: pathlib.Path, name: str, described: Mapping[str, Mapping[str, Any]], cure: str) -> None:
    """Raise if a file of a folder differs from its description in `checksums_of`; undescribed ones pass.

    Raises:
        DamagedFileError: a `ValueError`, with the path and the cure.
    """
    path = folder / name
    if name not in described:
        return
    if not _is_inside(folder, path):  # a stranger may have written the description
        raise DamagedFileError(folder, f"the file {name!r} lies outside of it or is a link", cure)
    if not path.is_file():
        raise DamagedFileError(path, "it is missing", cure)
    expected = dict(described[name])
    size = path.stat().st_size
    if size != expected["size"]:
        raise DamagedFileError(path, f"it has {size:,} bytes instead of {expected['size']:,}", cure)
    if _described(path) != expected:
        raise DamagedFileError(path, "it does not match its checksum", cure)


def _is_inside(folder: pathlib.Path, path: pathlib.Path) -> bool:
    root = folder.resolve()
    return path.resolve() == root / path.relative_to(folder) if path.is_relative_to(folder) else False


def _described(path: pathlib.Path) -> dict[str, Any]:
    checksum = size = 0
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            checksum, size = zlib.crc32(data, checksum), size + len(data)
    return {"size": size, _CHECKSUM: f"{checksum:08x}"}
