"""The public names of the package, one per line; `python tests/api/public_names.py` rewrites the golden file.

A name is public when the `__init__` of its package imports it as itself:
`from tfmtl.data.schema import Schema as Schema`.
"""

from __future__ import annotations

import importlib
import pathlib
import types

import tfmtl

GOLDEN = pathlib.Path(__file__).with_suffix(".txt")


def public_names() -> list[str]:
    """Return `tfmtl.Name` and `tfmtl.package.Name` of every public name, sorted."""
    flagships = [f"tfmtl.{name}" for name in tfmtl.__all__]
    return sorted(
        [*flagships, *(f"tfmtl.{package}.{name}" for package in tfmtl._PACKAGES for name in offered(package))]
    )


def offered(package: str) -> list[str]:
    """Return the public names of one package."""
    members = vars(importlib.import_module(f"tfmtl.{package}")).items()
    hidden = (types.ModuleType, type(annotations))
    return [name for name, value in members if not name.startswith("_") and not isinstance(value, hidden)]


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(public_names()) + "\n")
