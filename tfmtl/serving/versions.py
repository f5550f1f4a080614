"""The folders of versions, and the file in which a version describes itself."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from tfmtl._checks import require
from tfmtl._former import current, whole_schema
from tfmtl._saved_files import DamagedFileError, check_file, checksums_of, contents_of, read_json, to_json
from tfmtl.serving.manifest_form import fault_of

MANIFEST = pathlib.PurePath("assets.extra", "tfmtl.json")
"""The description of a version, for programs, in the folder that TensorFlow Serving leaves to other tools."""


_CURE = "export the model again"

GREATEST = 2**63 - 1
"""The greatest number of a version, which TensorFlow Serving reads into 64 bits with a sign."""


def version_number(name: str) -> int | None:
    """Return the number of a version's folder, None if TensorFlow Serving takes the name for no version.

    Every reader of versions uses this rule: ASCII digits, leading zeros allowed, at most `GREATEST`.

    Example:
        >>> [version_number(name) for name in ("7", "007", "1.tmp", "x", "１２", "9223372036854775808")]
        [7, 7, None, None, None, None]
    """
    if not (name.isascii() and name.isdecimal()) or len(name.lstrip("0")) > len(str(GREATEST)):
        return None  # `int` refuses thousands of digits
    number = int(name)
    return number if number <= GREATEST else None


def require_version(version: int) -> None:
    """Raise `ValueError` unless a server can read the number of a version."""
    valid = isinstance(version, int) and not isinstance(version, bool) and 1 <= version <= GREATEST
    require(valid, "`version` must be an integer from 1 to 2**63 - 1, or None for the next one.", version=version)


def next_version(directory: pathlib.Path) -> int:
    """Return the number after the greatest version of a model's folder.

    Raises:
        ValueError: if there is none.
    """
    newest = max(versions_in(directory), default=0)
    rule = f"{directory} has version {GREATEST}, after which servers read none; remove it, or give a `version`."
    require(newest < GREATEST, rule)
    return newest + 1


def versions_in(directory: pathlib.Path) -> dict[int, pathlib.Path]:
    """Return the children of a model's folder that a server reads as versions; `7` and `007` are the same one."""
    children = sorted(directory.iterdir()) if directory.is_dir() else []
    numbered = ((version_number(path.name), path) for path in children)
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


def write_manifest(version: pathlib.Path, manifest: Mapping[str, Any]) -> None:
    """Write the description of a version, with the checksums of its other files; call it last."""
    files = checksums_of(version, without=[MANIFEST.as_posix()])
    (version / MANIFEST).write_text(to_json({**manifest, "files": files}, indent=1))


def check_files(version: pathlib.Path, *names: str) -> None:
    """Compare files of a version with their checksums, by default all files; the versions of early releases have none.

    Raises:
        DamagedFileError: a `ValueError`, naming the first file that is missing or was changed.
    """
    described = read_manifest(version).get("files", {})
    with contents_of(version / MANIFEST, _CURE):
        for name in names or described:
            check_file(version, name, described, _CURE)
