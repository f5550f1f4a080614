"""Which folders are versions of ours, and where they describe themselves."""

from __future__ import annotations

import pathlib

from tfmtl._checks import require

MANIFEST = pathlib.PurePath("assets.extra", "tfmtl.json")
"""Where a version describes itself; TensorFlow Serving leaves this folder to others."""


def version_of(path: pathlib.Path) -> pathlib.Path:
    """Return a version's folder: the path itself, or the newest version of a model's folder."""
    if (path / MANIFEST).is_file():
        return path
    versions = [child for child in path.glob("*/") if child.name.isdecimal() and (child / MANIFEST).is_file()]
    require(bool(versions), f"{path} holds no version exported by tfmtl; give a folder such as saved_models/NAME/1.")
    return max(versions, key=lambda child: int(child.name))
