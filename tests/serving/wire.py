"""Requests and answers as JSON files between processes, with the standard library alone."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

Flat = dict[str, Any]
"""A tensor as `{"dtype", "shape", "values"}`, values in row-major order."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One request to one signature."""

    signature: str
    inputs: dict[str, Flat]


def write_calls(path: pathlib.Path, calls: Sequence[Call]) -> None:
    """Write requests for another process."""
    path.write_text(json.dumps([dataclasses.asdict(call) for call in calls]))


def read_calls(path: pathlib.Path) -> list[Call]:
    """Return the requests of a file of `write_calls`."""
    return [Call(**call) for call in json.loads(path.read_text())]


def flatten(array: Any) -> Flat:
    """Return a NumPy array as plain values."""
    values = [value.decode() if isinstance(value, bytes) else value for value in array.reshape(-1).tolist()]
    dtype = "string" if array.dtype.kind in "OUS" else array.dtype.name
    return {"dtype": dtype, "shape": list(array.shape), "values": values}
