"""Exports to a folder until it is killed: `exporting.py FOLDER [VERSION]`. A given version is copied instead."""

from __future__ import annotations

import pathlib
import shutil
import sys

from models import MAX_K, build

from tfmtl.serving import export
from tfmtl.serving.publishing import publish


def main(folder: str, version: str | None = None) -> None:
    """Print `ready`, then export again and again."""
    model = None if version else build()[0]
    print("ready", flush=True)
    while True:
        if model is None:
            publish(pathlib.Path(folder), lambda staging: copy(pathlib.Path(str(version)), staging))
        else:
            export(model, folder, max_k=MAX_K)


def copy(version: pathlib.Path, staging: pathlib.Path) -> None:
    """Copy the files of a version."""
    shutil.copytree(version, staging, dirs_exist_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
