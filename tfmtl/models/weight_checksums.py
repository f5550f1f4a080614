"""Checksums of the weights in Keras' own files: HDF5 has none, and Keras does not compare those of its archive."""

from __future__ import annotations

import collections
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from tfmtl._checks import require
from tfmtl._keras import tf

_ATTRIBUTE = "tfmtl_crc32"
_MOST = 15_000  # an attribute of HDF5 holds 64 kB


def write_checksums(store: Any, variables: Iterable[tf.Variable]) -> None:
    """Add the CRC-32 of each variable, without repetitions, to the first group of a file.

    Args:
        store: a group of `h5py`.
        variables: all variables that Keras will write to the file.
    """
    arrays = [variable.numpy() for variable in {id(v): v for v in variables}.values()]
    checksums = [_checksum(array) for array in arrays if array.dtype != object]
    if len(checksums) <= _MOST:
        store.attrs[_ATTRIBUTE] = np.asarray(checksums, np.uint32)


def check_checksums(store: Any) -> None:
    """Raise unless a file holds an array for each checksum that `write_checksums` added; earlier files have none.

    Links to other files are refused in all files: Keras would read any file of this machine as weights.

    Raises:
        ValueError: with the cure.
    """
    if hasattr(store, "file"):
        _require_own_arrays(store.file)
    expected = getattr(store, "attrs", {}).get(_ATTRIBUTE)
    if expected is None:
        return
    found: collections.Counter[int] = collections.Counter()

    def add(_: str, entry: Any) -> None:
        if hasattr(entry, "dtype") and entry.dtype != object:
            found[_checksum(np.asarray(entry))] += 1

    store.file.visititems(add)
    lost = collections.Counter(int(value) for value in expected) - found
    if lost:
        raise ValueError(
            f"The file of weights is damaged: {lost.total()} of {len(expected)} arrays do not match their checksums; "
            "restore it from a backup, or save the model again."
        )


def _require_own_arrays(file: Any) -> None:
    """Raise if HDF5 would read an array from another file, as CVE-2026-1669 of Keras does."""
    groups, seen = [file], set()
    while groups:
        group = groups.pop()
        for name in group:
            link = type(group.get(name, getlink=True)).__name__
            entry = group[name] if link == "HardLink" else None
            foreign = entry is None or getattr(entry, "external", None) or getattr(entry, "is_virtual", False)
            require(
                not foreign, "The file of weights holds a link to another file or array; do not trust it.", name=name
            )
            if not hasattr(entry, "dtype") and entry not in seen:  # a group, which may contain itself
                seen.add(entry)
                groups.append(entry)


def _checksum(array: np.ndarray) -> int:
    form = f"{array.dtype.str}{array.shape}".encode()
    return zlib.crc32(np.ascontiguousarray(array).tobytes(), zlib.crc32(form))
