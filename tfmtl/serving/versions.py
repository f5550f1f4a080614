"""The folders of versions, and the file in which a version describes itself."""

from __future__ import annotations

import pathlib
from typing import Any

from tfmtl._checks import require
from tfmtl._former import current, whole_schema
from tfmtl._saved_files import DamagedFileError, contents_of, read_json
from tfmtl.serving.manifest_form import fault_of

_CURE = "export the model again"
MANIFEST = pathlib.PurePath("assets.extra", "tfmtl.json")
"""The description of a version, for programs, in the folder that TensorFlow Serving leaves to other tools."""


def version_number(name: str) -> int | None:
    """Return the number of a version's folder, None if TensorFlow Serving takes the name for no version.

    Example:
        >>> [version_number(name) for name in ("7", "007", "1.tmp", "x", "１２")]
        [7, 7, None, None, None]
    """
    return int(name) if name.isascii() and name.isdecimal() else None


def versions_in(directory: pathlib.Path) -> dict[int, pathlib.Path]:
    """Return the children of a model's folder that a server reads as versions; `7` and `007` are the same one."""
    numbered = ((version_number(path.name), path) for path in sorted(directory.glob("*")))
    return {number: path for number, path in numbered if number is not None}


def version_of(path: pathlib.Path) -> pathlib.Path:
    """Return a version's folder: the path itself, or the newest version of a model's folder.

    Raises:
        ValueError: if neither holds a version that tfmtl exported.
    """
    if (path / MANIFEST).is_file():
        return path
    versions = {number: child for number, child in versions_in(path).items() if (child / MANIFEST).is_file()}
    require(bool(versions), f"{path} holds no version exported by tfmtl; give a folder such as saved_models/NAME/1.")
    return versions[max(versions)]


def read_manifest(version: pathlib.Path) -> dict[str, Any]:
    """Return the description of a version, in the form in which this version of tfmtl writes it.

    Raises:
        DamagedFileError: a `ValueError`, if the file has another form; a stranger may have written it.
    """
    path = version / MANIFEST
    manifest: dict[str, Any] = current(read_json(path, _CURE))
    if "card" in manifest:
        with contents_of(path, _CURE):
            manifest["card"] = {**manifest["card"], "schema": whole_schema(manifest["card"]["schema"])}
    fault = fault_of(manifest)
    if fault:
        raise DamagedFileError(path, fault, _CURE)
    return manifest
