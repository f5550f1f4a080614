"""JSON files with the name of their form, so that another file is refused."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from tfmtl._checks import require
from tfmtl._staging import replace_file


def write_form(path: str | pathlib.Path, form: str, values: Mapping[str, Any]) -> None:
    """Write values to a JSON file; an older file is replaced in one step."""
    text = json.dumps({"form": _name(form), **values}, indent=1)
    replace_file(pathlib.Path(path), lambda file: file.write(text.encode()))


def read_form(path: str | pathlib.Path, form: str) -> dict[str, Any]:
    """Return the values of a file that `write_form` wrote in the same form; raise `ValueError` if it is another one."""
    try:
        values = json.loads(pathlib.Path(path).read_text())
    except ValueError:
        values = None
    found = values.pop("form", None) if isinstance(values, dict) else None
    require(found == _name(form), f"{path} holds no {form} of this version.", form=found)
    return dict(values)


def _name(form: str) -> str:
    return f"tfmtl {form} 1"
